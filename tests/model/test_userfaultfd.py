"""Moving pages between mappings, wherever they are."""

from __future__ import annotations

import errno
import random

import pytest

import vswap_ref as vr
from vswap_ref.kernel import Kernel, Mapping
from vswap_ref.machine import PAGE_SIZE

pytestmark = pytest.mark.stages(0)

TEXT = b"moved page      " * 256


def pair(kernel: Kernel, pages: int = 4) -> tuple[Mapping, Mapping]:
    """Two mappings of one process; the first has content."""
    app = kernel.spawn("app")
    source, target = app.mmap(pages * PAGE_SIZE), app.mmap(pages * PAGE_SIZE)
    for page in range(pages):
        source.write_page(page, bytes((page + 1,)) + TEXT[1:])
    return source, target


def boot(pages: int = 4) -> tuple[Kernel, Mapping, Mapping]:
    """A kernel that checks itself after every call, and the two mappings."""
    kernel = Kernel(ram="512K", swap=[vr.Ssd("512K")], debug=True, page_cluster=0)
    return kernel, *pair(kernel, pages)


@pytest.mark.parametrize("state", ["present", "in flight", "on the device", "read ahead"])
def test_a_page_moves_with_its_content(state: str) -> None:
    """In memory, in the swap cache while it is written, as an entry alone, and in the cache again."""
    kernel, source, target = boot()
    if state != "present":
        source.process.madvise(source, "pageout")
    if state in ("on the device", "read ahead"):
        kernel.drain()
        kernel.reclaim("64K")
    if state == "read ahead":
        source.process.madvise(source, "willneed")
    before = kernel.vmstat.snapshot()
    assert source.process.move_pages(source, target) == 4 * PAGE_SIZE
    assert kernel.vmstat.since(before) == {}
    assert set(source.where()) == {"unmapped"}
    for page in range(4):
        assert target.read_page(page) == bytes((page + 1,)) + TEXT[1:]
    assert source.read_page(0) == bytes(PAGE_SIZE)


def test_a_moved_page_is_found_by_reclaim() -> None:
    """The folio knows its new address: it can be swapped out from there."""
    kernel, source, target = boot()
    source.process.move_pages(source, target)
    target.process.madvise(target, "pageout")
    kernel.drain()
    kernel.reclaim("64K")
    assert set(target.where()) == {"swapfile"}


@pytest.mark.parametrize("swapped", [False, True])
def test_shared_pages_stay(swapped: bool) -> None:
    """A page that a child has too cannot be moved, in memory or in swap; nothing changes."""
    kernel, source, target = boot()
    if swapped:
        source.process.madvise(source, "pageout")
        kernel.drain()
    source.process.fork()
    before = list(source.where())
    with pytest.raises(OSError, match="page 0") as error:
        source.process.move_pages(source, target)
    assert error.value.errno == errno.EBUSY
    assert list(source.where()) == before
    assert source.read_page(0)[:1] == b"\x01"


def test_errors_name_what_is_wrong() -> None:
    """A taken target, an empty source, a short target, shared memory, another process's mapping."""
    kernel, source, target = boot()
    app = source.process
    target.write_page(0, TEXT)
    for start, number, pages in ((0, errno.EEXIST, source), (PAGE_SIZE, errno.ENOENT, target)):
        other = target if pages is source else source
        if number == errno.ENOENT:
            app.madvise(source, "dontneed")
        with pytest.raises(OSError, match="move of page") as error:
            app.move_pages(pages, other, start)
        assert error.value.errno == number
    with pytest.raises(ValueError, match="too short"):
        app.move_pages(source, app.mmap(PAGE_SIZE))
    with pytest.raises(OSError, match="shared memory"):
        app.move_pages(source, app.mmap(kernel.shmem(4 * PAGE_SIZE)))
    with pytest.raises(OSError, match="not a mapping of process"):
        app.move_pages(source, pair(kernel)[1])
    assert target.read_page(0) == TEXT


def test_a_move_stops_where_it_must() -> None:
    """Pages before the one that cannot be moved have been moved."""
    _, source, target = boot()
    target.write_page(2, TEXT)
    assert source.process.move_pages(source, target) == 2 * PAGE_SIZE
    assert target.read_page(1)[:1] == b"\x02"
    assert source.read_page(2)[:1] == b"\x03"


def test_a_page_of_a_large_folio_is_split_off() -> None:
    """A present large folio is split; a cached one stays."""
    kernel = Kernel(ram="1M", swap=[vr.Ssd("4M")], debug=True, thp=vr.Thp("never", {"16K": "always"}))
    source, target = pair(kernel)
    assert source.orders() == [2] * 4
    assert source.process.move_pages(source, target, 0, PAGE_SIZE) == PAGE_SIZE
    assert source.orders()[1:] == [0] * 3
    again, elsewhere = pair(kernel)
    again.process.madvise(again, "pageout")
    with pytest.raises(OSError, match="EBUSY"):
        again.process.move_pages(again, elsewhere)
    assert again.read_page(3)[:1] == b"\x04"


def test_a_lost_page_stays() -> None:
    """Its mark says that touching it is an error; it cannot be moved away from there."""
    device = vr.Ssd("512K")
    kernel = Kernel(ram="512K", swap=[device], page_cluster=0)
    source, target = pair(kernel)
    source.process.madvise(source, "pageout")
    kernel.drain()
    kernel.reclaim("64K")
    device.fail_reads(times=1)
    kernel.swapoff(0)
    assert source.where()[0] == "lost"
    with pytest.raises(OSError, match="EFAULT"):
        source.process.move_pages(source, target)
    assert source.process.move_pages(source, target, PAGE_SIZE) == 3 * PAGE_SIZE
    kernel.check()


def move_error(source: Mapping, target: Mapping, page: int) -> int:
    """Move one page; the error number, or 0."""
    try:
        source.process.move_pages(source, target, page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
    except OSError as error:
        return error.errno or 0
    return 0


@pytest.mark.parametrize("seed", range(4))
def test_random_moves(seed: int) -> None:
    """Two mappings, pages written, pushed out, read ahead, forked and moved at random: a dictionary is right."""
    rng = random.Random(seed)
    kernel, *mappings = boot(pages=8)
    app = mappings[0].process
    oracle = {(0, page): mappings[0].read_page(page) for page in range(8)}
    for step in range(150):
        which, page = rng.randrange(2), rng.randrange(8)
        here, there = mappings[which], mappings[1 - which]
        action = rng.choice(["write", "move", "move", "move", "pageout", "willneed", "drain", "fork"])
        if action == "write":
            oracle[which, page] = bytes((step % 256,)) * PAGE_SIZE
            here.write_page(page, oracle[which, page])
        elif action == "move":
            error = move_error(here, there, page)
            if not error:
                oracle[1 - which, page] = oracle.pop((which, page), bytes(PAGE_SIZE))
            assert error in (0, errno.EEXIST, errno.EBUSY) or (which, page) not in oracle
        elif action == "fork" and step % 5 == 0:
            app.fork().exit()
        elif action == "drain":
            kernel.drain()
        elif action != "fork":
            app.madvise(here, action)
        if step % 7 == 0:
            assert here.read_page(page) == oracle.get((which, page), bytes(PAGE_SIZE))
    for which, page in oracle:
        assert mappings[which].read_page(page) == oracle[which, page]
