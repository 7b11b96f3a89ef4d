"""Advice: memory given away, made cold, asked for; and who is resident."""

from __future__ import annotations

import pytest

from vswap_ref import Kernel, Mapping, Pmem, Ssd
from vswap_ref.machine import PAGE_SIZE

pytestmark = pytest.mark.stages(0)

TEXT = b"some text " * 409 + bytes(6)
PAGES = 16


def written(kernel: Kernel, pages: int = PAGES) -> Mapping:
    """A process with pages of text."""
    heap = kernel.spawn("app").mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap.write_page(page, TEXT)
    return heap


def test_given_away_pages_need_no_swap() -> None:
    """Without any swap device they are dropped under pressure and read as zeros; others are not touched."""
    kernel = Kernel(ram="1M", debug=True)
    heap = written(kernel)
    assert heap.process.madvise(heap, "free", 0, 8 * PAGE_SIZE) == 8
    assert heap.read_page(0) == TEXT
    kernel.reclaim("64K")
    kernel.reclaim("64K")
    assert heap.where().counts() == {"resident": 8, "unmapped": 8}
    assert [heap.read_page(page) for page in (0, 8)] == [bytes(PAGE_SIZE), TEXT]
    assert kernel.vmstat["pglazyfree"] == kernel.vmstat["pglazyfreed"] == 8


def test_reading_delays_the_drop_and_does_not_prevent_it() -> None:
    """A page that is read between rounds of reclaim stays; when the reading ends it goes, still without swap."""
    kernel = Kernel(ram="1M", debug=True)
    heap = written(kernel)
    heap.process.madvise(heap, "free")
    for _ in range(3):
        heap.touch(0)
        kernel.reclaim(PAGE_SIZE)
    assert heap.process.mincore(heap)[0]
    for _ in range(3):
        kernel.reclaim("64K")
    assert heap.process.rss == 0


def test_a_write_takes_the_gift_back() -> None:
    """A page written after MADV_FREE is ordinary memory again: reclaim swaps it out instead of dropping it."""
    kernel = Kernel(ram="1M", swap=[Ssd("1M")], debug=True)
    heap = written(kernel)
    heap.process.madvise(heap, "free")
    faults = kernel.vmstat["pgfault"]
    heap.write_page(3, b"\1" * PAGE_SIZE)
    assert kernel.vmstat["pgfault"] == faults
    for _ in range(4):
        kernel.reclaim("64K")
        kernel.drain()
    assert heap.read_page(3) == b"\1" * PAGE_SIZE
    assert heap.read_page(4) == bytes(PAGE_SIZE)
    heap.process.madvise(heap, "pageout")
    assert kernel.vmstat["pswpout"] == 1


def test_giving_away_drops_slots_and_leaves_shared_pages() -> None:
    """What is swapped out is dropped at once; a page that a child maps too stays as it is."""
    kernel = Kernel(ram="1M", swap=[Ssd("1M")], page_cluster=0, debug=True)
    heap = written(kernel)
    heap.process.madvise(heap, "pageout", 0, 4 * PAGE_SIZE)
    kernel.drain()
    kernel.reclaim("16K")
    assert heap.process.swap > 0
    heap.process.madvise(heap, "free", 0, 4 * PAGE_SIZE)
    assert heap.process.swap == kernel.swaps().rows[0]["Used"] == 0
    heap.touch(4)
    child = heap.process.fork()
    kernel.system.memory.mem_map[1 + 5].dirty = True  # type: ignore[union-attr]
    heap.process.madvise(heap, "free", 5 * PAGE_SIZE, 6 * PAGE_SIZE)
    assert kernel.vmstat["pglazyfree"] == 0
    assert child.mappings[0].read_page(5) == TEXT


@pytest.mark.parametrize("owner", ["parent", "child"])
def test_a_child_keeps_what_the_parent_gave_away(owner: str) -> None:
    """The child's entry is still dirty: the page is swapped out for it, not dropped."""
    kernel = Kernel(ram="1M", swap=[Ssd("1M")], debug=True)
    heap = written(kernel)
    child = heap.process.fork()
    giver = heap.process if owner == "parent" else child
    other = child if owner == "parent" else heap.process
    giver.madvise(giver.mappings[0], "free")
    for _ in range(4):
        kernel.reclaim("64K")
        kernel.drain()
    assert all(other.mappings[0].read_page(page) == TEXT for page in range(PAGES))


def test_cold_pages_go_first() -> None:
    """Of two halves that were used alike, the one called cold is swapped out, and nothing is lost."""
    kernel = Kernel(ram="8M", swap=[Pmem("8M")])
    heap = written(kernel, 512)
    assert heap.process.madvise(heap, "cold", 256 * PAGE_SIZE) == 256
    kernel.reclaim("64K")
    gone = [page for page, here in enumerate(heap.process.mincore(heap)) if not here]
    assert len(gone) >= 16
    assert min(gone) >= 256
    assert all(heap.read_page(page) == TEXT for page in range(512))
    kernel.check()


def test_cold_pages_are_active_no_more() -> None:
    """Pages that were used again and again go back to the inactive list, and remember that they were in use."""
    kernel = Kernel(ram="8M", swap=[Pmem("8M")])
    heap = written(kernel, 512)
    for _ in range(3):
        for page in range(512):
            heap.touch(page)
        kernel.reclaim(PAGE_SIZE)
    active = kernel.vmstat["nr_active_anon"]
    assert active > 0
    deactivated = kernel.vmstat["pgdeactivate"]
    heap.process.madvise(heap, "cold")
    assert kernel.vmstat["nr_active_anon"] == 0
    assert kernel.vmstat["pgdeactivate"] - deactivated == active
    kernel.check()


def test_dontneed_is_immediate() -> None:
    """Zeros at once, slots and memory free."""
    kernel = Kernel(ram="1M", swap=[Ssd("1M")], zswap="lz4", debug=True)
    heap = written(kernel)
    heap.process.madvise(heap, "pageout", 0, 8 * PAGE_SIZE)
    heap.process.madvise(heap, "dontneed")
    assert (heap.process.rss, heap.process.swap) == (0, 0)
    assert kernel.zswap_debugfs()["stored_pages"] == 0
    assert heap.read_page(0) == heap.read_page(12) == bytes(PAGE_SIZE)


def test_mincore_counts_the_swap_cache() -> None:
    """Never touched and swapped out: no.  Mapped, the page of zeros, and read ahead: yes.  Looking changes nothing."""
    kernel = Kernel(ram="1M", swap=[Ssd("1M")], debug=True)
    heap = kernel.spawn("app").mmap(8 * PAGE_SIZE)
    for page in range(4):
        heap.write_page(page, TEXT)
    heap.touch(4)
    heap.process.madvise(heap, "pageout", 0, 3 * PAGE_SIZE)
    kernel.drain()
    kernel.reclaim("16K")
    heap.process.madvise(heap, "willneed", 0, 2 * PAGE_SIZE)
    events = kernel.vmstat.snapshot()
    residency = heap.process.mincore(heap)
    assert repr(residency) == "##.##..."
    assert residency.resident == 4
    assert "4 of 8 pages are in memory" in residency._repr_html_()
    assert heap.process.mincore(heap, PAGE_SIZE, 3 * PAGE_SIZE) == [True, False]
    assert heap.process.mincore(heap, 2 * PAGE_SIZE, PAGE_SIZE) == []
    assert kernel.vmstat.snapshot() == events
    with pytest.raises(OSError, match="mincore: not a mapping"):
        kernel.spawn("other").mincore(heap)
