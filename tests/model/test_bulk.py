"""Filling a device in large folios leaves what filling it page by page leaves."""

from __future__ import annotations

from typing import Any

import pytest

import vswap_ref as vr
from vswap_ref.kernel import TEXT, InvariantError, Kernel, Process
from vswap_ref.machine import PAGE_SIZE, BlockDevice, get_codec

pytestmark = pytest.mark.stages(0)

SLOTS = 2048


def boot(zswap: str | None, device: type[BlockDevice] = vr.Pmem) -> Process:
    """A process on a kernel with a device of 2048 slots, which writes at once unless told otherwise."""
    return Kernel(ram="64M", swap=[device(SLOTS * PAGE_SIZE)], zswap=zswap, cpus=1).spawn("app")


CACHED = ("vswap cluster map", "vswap clusters", "vswap descriptors")


def without_cached_clusters(kernel: Kernel) -> list[Any]:
    """The ledger, but for the empty clusters of virtual slots that a CPU keeps for its next swap-out."""
    rows = kernel.memory().rows
    assert all(row[2] == 0 for row in rows if row[0] == "vswap descriptors")
    return [row for row in rows if row[0] not in CACHED]


def one_by_one(app: Process, pages: int, page: bytes = TEXT) -> None:
    """Write and push out pages through faults and reclaim."""
    heap = app.mmap(pages * PAGE_SIZE)
    for number in range(pages):
        heap.write_page(number, page)
    app.madvise(heap, "pageout")


@pytest.mark.parametrize("zswap", [None, "lz4"])
@pytest.mark.parametrize("pages", [1, 512, 700, 1024, SLOTS - 512])
def test_the_ledger_is_that_of_single_pages(pages: int, zswap: str | None) -> None:
    """Every row of both columns is equal, whether slots were taken by 512 or one at a time; so is the pool.

    The header's cluster is full beforehand, so that both take the same slots.
    """
    bulk, single = boot(zswap), boot(zswap)
    for app in (bulk, single):
        one_by_one(app, 511)
    bulk.mmap_swapped(pages * PAGE_SIZE)
    one_by_one(single, pages)
    devices = [app.kernel.system.swap.info[0] for app in (bulk, single)]
    assert devices[0].swap_map == devices[1].swap_map
    assert bulk.kernel.memory() == single.kernel.memory()
    for name in ("stored_pages", "pool_bytes"):
        assert getattr(bulk.kernel.system.zswap, name) == getattr(single.kernel.system.zswap, name)
    for name in ("pswpout", "zswpout", "nr_swapcached", "nr_anon_pages"):
        assert bulk.kernel.vmstat[name] == single.kernel.vmstat[name]
    assert bulk.swap == single.swap == (511 + pages) * PAGE_SIZE


def test_a_full_device_is_full_either_way() -> None:
    """Whatever the order of slots, all of them in use make one ledger."""
    ledgers = []
    for fill in (one_by_one, lambda app, pages: app.mmap_swapped(pages * PAGE_SIZE)):
        app = boot(None)
        fill(app, SLOTS - 1)
        ledgers.append(app.kernel.memory())
    assert ledgers[0] == ledgers[1]
    assert ledgers[0]["swap table"][1] == 8 * SLOTS


@pytest.mark.parametrize("zswap", [None, "lz4"])
def test_content_reads_back_and_nothing_is_left(zswap: str | None) -> None:
    """All pages read as what they were made of; when the process ends only the static part is left."""
    page = bytes(range(256)) * 16
    app = boot(zswap, vr.Ssd)
    empty = without_cached_clusters(app.kernel)
    heap = app.mmap_swapped(1300 * PAGE_SIZE, page)
    assert set(heap.where()) == {"zswap" if zswap else "swapfile"}
    assert all(heap.read_page(number) == page for number in range(0, 1300, 7))
    app.exit()
    app.kernel.drain()
    app.kernel.check()
    assert without_cached_clusters(app.kernel) == empty
    assert app.kernel.system.zswap.pool_bytes == 0


def test_invariants_hold_and_say_what_is_short() -> None:
    """Without zswap the kernel is as any other; shared compressed copies are named by the checker."""
    app = boot(None)
    app.mmap_swapped("6M")
    app.mmap_swapped("12K", bytes(PAGE_SIZE))
    app.kernel.check()
    compressed = boot("lz4")
    compressed.mmap_swapped("4M")
    with pytest.raises(InvariantError, match="zswap lists = "):
        compressed.kernel.check()


def test_zero_pages_take_bits() -> None:
    """A large folio of zeros is neither compressed nor written."""
    app = boot("lz4")
    heap = app.mmap_swapped("4M", bytes(PAGE_SIZE))
    assert set(heap.where()) == {"zero"}
    app.kernel.check()


def test_what_does_not_fit_is_not_mapped() -> None:
    """One page too many: ENOMEM, nothing stays mapped; so do bad pages."""
    app = boot(None)
    before = without_cached_clusters(app.kernel)
    with pytest.raises(OSError, match="ENOMEM"):
        app.mmap_swapped(SLOTS * PAGE_SIZE)
    with pytest.raises(ValueError, match="expected 4096 bytes, got 3"):
        app.mmap_swapped("8K", b"abc")
    assert not app.mappings
    app.kernel.drain()
    app.kernel.reclaim("1M")
    app.kernel.check()
    assert without_cached_clusters(app.kernel) == before


def test_a_cgroup_pays() -> None:
    """Slots and compressed bytes are charged; a swap limit is a limit here, too."""
    kernel = Kernel(ram="64M", swap=[vr.Ssd("16M")], zswap="lz4", cpus=1)
    group = kernel.cgroup("g", swap_max="4M")
    app = kernel.spawn("app", cgroup=group)
    app.mmap_swapped("4M")
    assert group.swap_current == 4 << 20
    assert group.zswap_current == 1024 * len(get_codec("lz4").compress(TEXT))
    with pytest.raises(OSError, match="ENOMEM"):
        app.mmap_swapped("4K")
    app.exit()
    kernel.check()
    assert (group.swap_current, group.zswap_current, group.memory_current) == (0, 0, 0)


def test_failed_writes_keep_the_pages() -> None:
    """A device that fails leaves the folio in memory, dirty and reachable."""
    app = boot(None, vr.Ssd)
    app.kernel.devices[0].fail_writes(times=3)
    heap = app.mmap_swapped("2M")
    app.kernel.check()
    assert heap.read_page(5) == TEXT
