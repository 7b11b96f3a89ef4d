"""Large folios: who gets one, how it is unmapped, swapped out, split, and swapped in again."""

from __future__ import annotations

from errno import EAGAIN, EBUSY
from typing import Any

import pytest

import vswap_ref as vr
from vswap_ref.kernel import Kernel, Mapping, Process
from vswap_ref.machine import PAGE_SIZE, BlockDevice
from vswap_ref.mm.huge_memory import split_folio
from vswap_ref.mm.state import Folio
from vswap_ref.series.stages import LoadedStage

pytestmark = pytest.mark.stages(0)

BLOCK = 16
K64 = {"64K": "always"}
HUGE = 512


def boot(device: type[BlockDevice] | None = vr.Zram, sizes: dict[int | str, str] | None = None, **more: Any) -> Kernel:
    """A kernel that checks itself, with 64 KiB folios for everybody."""
    swap = [device("4M")] if device else []
    return Kernel(ram="32M", swap=swap, thp=vr.Thp("madvise", K64 if sizes is None else sizes), debug=True, **more)


def filled(kernel: Kernel, pages: int = BLOCK, **where: Any) -> tuple[Process, Mapping]:
    """A process with a mapping in which page n holds n + 1."""
    process = kernel.spawn("app", **where)
    heap = process.mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap[page * PAGE_SIZE] = page % 255 + 1
    return process, heap


def intact(heap: Mapping) -> bool:
    """Every page holds what ``filled`` wrote."""
    return all(heap[page * PAGE_SIZE] == page % 255 + 1 for page in range(heap.pages))


def stats(kernel: Kernel, order: int = 4) -> dict[str, Any]:
    """The counters of one size."""
    return next(row for row in kernel.thp_stats().rows if row["order"] == order)


def folio_of(heap: Mapping, page: int = 0) -> Folio:
    """The folio that a page is mapped to."""
    system, addr = heap.process.kernel.system, heap.vma.start + page
    folio = system.memory.mem_map[heap.process.mm.pgd[addr >> 9][addr & 511] >> 8]
    assert folio is not None
    return folio


def test_one_fault_brings_a_block() -> None:
    kernel = boot()
    app = kernel.spawn("app")
    heap = app.mmap("256K")
    heap[20 * PAGE_SIZE] = 7
    assert heap.orders() == [None] * 16 + [4] * 16 + [None] * 32
    assert (app.rss, kernel.vmstat["pgfault"], stats(kernel)["anon_fault_alloc"]) == (64 << 10, 1, 1)
    assert heap[20 * PAGE_SIZE] == 7
    assert heap[21 * PAGE_SIZE] == 0


def test_a_huge_page_ticks_the_counters_of_proc() -> None:
    kernel = boot()
    app = kernel.spawn("app")
    heap = app.mmap("4M")
    app.madvise(heap, "hugepage")
    heap[5] = 1
    assert heap.orders() == [9] * HUGE + [None] * HUGE
    assert kernel.vmstat["thp_fault_alloc"] == stats(kernel, 9)["anon_fault_alloc"] == 1
    assert "thp_fault_alloc 1\n" in kernel.root.memory_stat()


@pytest.mark.parametrize(
    ("thp", "advice", "order"),
    [
        (vr.Thp("never"), "hugepage", 0),
        (vr.Thp("madvise"), None, 0),
        (vr.Thp("madvise"), "hugepage", 9),
        (vr.Thp("always"), None, 9),
        (vr.Thp("always"), "nohugepage", 0),
        (vr.Thp("never", K64), None, 4),
        (vr.Thp("never", {"64K": "inherit"}), None, 0),
        (vr.Thp("always", {"64K": "inherit", "2M": "never"}), None, 4),
        (vr.Thp("never", {"16K": "madvise"}), None, 0),
        (vr.Thp("never", {16384: "madvise"}), "hugepage", 2),
        (vr.Thp("always", {"1M": "always"}), None, 9),
    ],
    ids=str,
)
def test_settings_and_advice(thp: vr.Thp, advice: str | None, order: int) -> None:
    kernel = Kernel(thp=thp)
    app = kernel.spawn("app")
    heap = app.mmap("2M")
    if advice is not None:
        app.madvise(heap, advice)
    heap[0] = 1
    assert heap.orders()[0] == order


def test_a_block_lies_inside_the_mapping_and_is_empty() -> None:
    kernel = boot(sizes={"16K": "always", "64K": "always"})
    app = kernel.spawn("app")
    heap = app.mmap(22 * PAGE_SIZE)
    heap.touch(9)  # a read: the zero page is in the way of the large block
    heap[0] = 1
    heap[18 * PAGE_SIZE] = 1
    heap[21 * PAGE_SIZE] = 1
    assert heap.orders() == [2] * 4 + [None] * 12 + [2] * 4 + [None, 0]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="enabled='yes': expected one of 'always', 'madvise', 'never'"):
        Kernel(thp="yes")
    with pytest.raises(ValueError, match="thp=5"):
        Kernel(thp=5)  # type: ignore[arg-type]
    for size in ("8K", "24K", "4M", "4K", -1):
        with pytest.raises(ValueError, match="size="):
            vr.Thp("always", {size: "always"})
    with pytest.raises(ValueError, match="'64K'"):
        vr.Thp("always", {"64K": "on"})
    app = boot().spawn("app")
    heap = app.mmap("2M")
    with pytest.raises(ValueError, match="whole mapping"):
        app.madvise(heap, "hugepage", 0, 4096)
    assert heap.vma.hugepage is None


def test_without_leave_to_reclaim_a_full_cgroup_gets_single_pages() -> None:
    kernel = boot()
    group = kernel.cgroup("small", memory_max="80K")
    _, heap = filled(kernel, 32, cgroup=group)
    assert set(heap.orders()) == {0, None}
    assert stats(kernel)["anon_fault_fallback_charge"] == stats(kernel)["anon_fault_fallback"] > 0
    assert intact(heap)


def test_a_charge_that_may_not_wait_leaves_no_event() -> None:
    kernel = boot()
    app = kernel.spawn("app", cgroup=kernel.cgroup("small", memory_max="48K"))
    app.mmap("64K")[0] = 1
    assert (stats(kernel)["anon_fault_fallback_charge"], app.rss, app.cgroup.events) == (1, PAGE_SIZE, {})


def test_with_leave_to_reclaim_the_first_block_goes() -> None:
    kernel = boot()
    app = kernel.spawn("app", cgroup=kernel.cgroup("small", memory_max="80K"))
    heap = app.mmap("128K")
    app.madvise(heap, "hugepage")
    heap[0] = 1
    heap[BLOCK * PAGE_SIZE] = 2
    assert app.cgroup.events["max"] > 0
    assert heap.orders() == [None] * BLOCK + [4] * BLOCK
    assert (stats(kernel)["swpout"], stats(kernel)["anon_fault_fallback"]) == (1, 0)


@pytest.mark.parametrize("memcg", ["v1", "v2"])
def test_a_folio_that_fits_nowhere_falls_back_without_an_oom_event(memcg: str) -> None:
    kernel = boot(memcg=memcg)
    group = kernel.cgroup("tiny", memory_max="48K")
    app = kernel.spawn("app", cgroup=group)
    heap = app.mmap("64K")
    app.madvise(heap, "hugepage")
    heap[0] = 1
    assert heap.orders()[:2] == [0, None]
    assert "oom" not in group.events
    assert stats(kernel)["anon_fault_fallback_charge"] == 1


def test_scarce_memory_gives_single_pages() -> None:
    kernel = Kernel(ram="1M", swap=[vr.Zram("4M")], thp=vr.Thp("never", K64))
    _, heap = filled(kernel, 512)
    kernel.check()
    assert stats(kernel)["anon_fault_fallback"] > 0
    assert stats(kernel)["anon_fault_fallback_charge"] == 0
    assert intact(heap)


@pytest.mark.parametrize("device", [vr.Ssd, vr.Zram, vr.Disk])
def test_a_huge_page_leaves_whole(device: type[BlockDevice]) -> None:
    kernel = Kernel(ram="32M", swap=[device("16M")], thp="always")
    app, heap = filled(kernel, HUGE)
    app.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("4M")
    kernel.check()
    assert (kernel.vmstat["thp_swpout"], kernel.vmstat["pswpout"]) == (1, HUGE)
    assert heap.where().counts() == {"swapfile": HUGE}
    assert [row["count"] for row in kernel.clusters().rows] == [1, HUGE, 0, 0, 0, 0, 0, 0]
    assert intact(heap)
    kernel.check()


@pytest.mark.stages(0, until=13)
def test_a_swap_file_takes_single_pages_only() -> None:
    kernel = Kernel(ram="32M", swap=[vr.SwapFile("16M", on=vr.Ssd("16M"))], thp="always")
    app, heap = filled(kernel, HUGE)
    app.madvise(heap, "pageout")
    kernel.drain()
    counters = kernel.vmstat
    assert (counters["thp_swpout"], counters["thp_swpout_fallback"], counters["thp_split_page"]) == (0, 1, 1)
    assert counters["pswpout"] == HUGE
    kernel.check()
    slots = [pte >> 8 for pte in app.mm.pgd[heap.vma.start >> 9]]
    assert slots == sorted(slots)
    assert intact(heap)


def test_at_swap_max_a_part_leaves() -> None:
    kernel = boot()
    app, heap = filled(kernel, cgroup=kernel.cgroup("limited", swap_max="24K"))
    app.madvise(heap, "pageout")
    assert app.swap == 24 << 10
    assert heap.orders().count(0) == 10
    assert stats(kernel)["swpout_fallback"] == stats(kernel)["split"] == 1
    assert intact(heap)


def test_half_unmapped_waits_for_its_split_and_then_frees_without_writing() -> None:
    kernel = boot(device=None)
    app, heap = filled(kernel)
    app.madvise(heap, "dontneed", 0, 8 * PAGE_SIZE)
    assert (app.rss, kernel.system.memory.used, stats(kernel)["split_deferred"]) == (32 << 10, BLOCK, 1)
    assert kernel.vmstat["nr_anon_pages"] == 8
    kernel.reclaim("64K")
    assert (kernel.system.memory.used, stats(kernel)["split"]) == (8, 1)
    assert heap.orders() == [None] * 8 + [0] * 8
    assert heap[8 * PAGE_SIZE] == 9
    assert heap[0] == 0


def test_reclaim_of_half_unmapped_writes_the_other_half() -> None:
    kernel = boot()
    app, heap = filled(kernel)
    app.madvise(heap, "dontneed", 4 * PAGE_SIZE, 12 * PAGE_SIZE)
    kernel.reclaim("64K")
    assert (kernel.vmstat["pswpout"], kernel.system.memory.used) == (8, 0)
    assert stats(kernel)["swpout_fallback"] == 0
    assert [heap[page * PAGE_SIZE] for page in range(BLOCK)] == [1, 2, 3, 4, *[0] * 8, 13, 14, 15, 16]


def test_unmapped_whole_is_never_partially_mapped() -> None:
    kernel = boot()
    app, heap = filled(kernel, 64)
    app.madvise(heap, "dontneed", 0, 32 * PAGE_SIZE)
    child = app.fork()
    app.exit()
    child.mappings[0].munmap()
    assert stats(kernel)["split_deferred"] == 0
    assert kernel.system.memory.used == 0


def test_a_write_after_fork_copies_one_page() -> None:
    kernel = boot()
    app, heap = filled(kernel)
    child = app.fork()
    twin = child.mappings[0]
    twin[3 * PAGE_SIZE] = 99
    assert kernel.system.memory.used == BLOCK + 1
    assert (heap[3 * PAGE_SIZE], twin[3 * PAGE_SIZE], twin[4 * PAGE_SIZE]) == (4, 99, 5)
    assert twin.orders() == [4] * 3 + [0] + [4] * 12
    heap[3 * PAGE_SIZE] = 98  # the child maps the other pages: a copy again, and now nobody maps this one
    assert kernel.system.memory.used == BLOCK + 2
    assert stats(kernel)["split_deferred"] == 1
    child.exit()
    heap[5 * PAGE_SIZE] = 97
    assert kernel.system.memory.used == BLOCK + 1
    assert heap.orders()[5] == 4


def test_a_block_used_once_counts_as_used_once() -> None:
    """All its entries are young after the fault; that is one use, so it is kept, but not made active."""
    kernel = boot()
    _, heap = filled(kernel)
    kernel.reclaim(PAGE_SIZE)
    assert kernel.vmstat["pgactivate"] == 0
    assert kernel.vmstat["pswpout"] == BLOCK
    assert intact(heap)


def test_the_last_mapped_page_is_copied_to_free_the_folio() -> None:
    kernel = boot()
    app, heap = filled(kernel)
    app.fork().exit()
    app.madvise(heap, "dontneed", PAGE_SIZE)
    heap[0] = 50
    assert (heap.orders()[0], kernel.system.memory.used) == (0, 1)


def test_a_large_folio_in_the_cache_is_mapped_whole_again() -> None:
    kernel = boot(vr.Ssd)
    app, heap = filled(kernel)
    app.madvise(heap, "pageout")
    assert heap.where().counts() == {"swapcache": BLOCK}
    before, window = kernel.vmstat["pgfault"], heap.vma.ra_addr
    assert intact(heap)
    assert (kernel.vmstat["pgfault"] - before, heap.orders()) == (1, [4] * BLOCK)
    assert heap.vma.ra_addr == window  # a hit on a large folio says nothing to readahead


def test_a_hole_in_the_run_maps_one_page_at_a_time() -> None:
    kernel = boot(vr.Ssd)
    app, heap = filled(kernel)
    app.madvise(heap, "pageout")
    app.madvise(heap, "dontneed", 2 * PAGE_SIZE, 3 * PAGE_SIZE)
    before = kernel.vmstat["pgfault"]
    assert [heap[page * PAGE_SIZE] for page in range(4)] == [1, 2, 0, 4]
    assert kernel.vmstat["pgfault"] - before == 4


def swapped_out(kernel: Kernel, pages: int = BLOCK) -> Mapping:
    """A block that has left memory, written in address order."""
    app, heap = filled(kernel, pages)
    app.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("1M")
    assert app.rss == 0
    return heap


def test_a_synchronous_device_brings_a_block_back() -> None:
    kernel = boot()
    heap = swapped_out(kernel)
    heap.touch(5)
    assert heap.orders() == [4] * BLOCK
    assert (kernel.vmstat["pgmajfault"], kernel.vmstat["pswpin"], stats(kernel)["swpin"]) == (1, BLOCK, 1)
    assert kernel.vmstat["workingset_refault_anon"] == BLOCK
    assert kernel.swaps().rows[0]["Used"] == 0
    assert intact(heap)


def test_the_block_is_looked_up_under_the_page_table_lock(stage: LoadedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for all sizes, and the lock is dropped before memory is asked for."""
    heap = swapped_out(boot())
    ptl, module, held = heap.process.mm.ptl, stage.module("large_fault"), []
    for name in ("can_swapin_thp", "alloc_swap_folio_order"):
        function = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, f=function, n=name: (held.append((n, ptl.locked())), f(*args))[1]
        )
    heap.touch(5)
    assert held == [("can_swapin_thp", True), ("alloc_swap_folio_order", False)]


def test_an_ordinary_device_brings_single_pages() -> None:
    heap = swapped_out(boot(vr.Ssd))
    heap.touch(5)
    assert set(heap.orders()) <= {0, None}


def test_zswap_once_enabled_forbids_large_swap_in() -> None:
    kernel = boot(zswap="lz4")
    heap = swapped_out(kernel)
    assert stats(kernel)["zswpout"] == 1
    heap.touch(5)
    assert heap.orders().count(0) == 1
    assert intact(heap)


def single_pages_in_a_row(zeros: tuple[int, ...] = (), **more: Any) -> tuple[Kernel, Mapping]:
    """A block of single pages, swapped out to entries that are aligned as its addresses are; then 16K to 64K go on.

    Somebody else's pages fill up what is before the next aligned entry.
    """
    kernel = boot(sizes={}, **more)
    probe = filled(kernel, 1)[1]
    probe.process.madvise(probe, "pageout")
    entry = probe.process.mm.pgd[probe.vma.start >> 9][probe.vma.start & 511] >> 8
    filler, _ = filled(kernel, BLOCK - 1 - entry % BLOCK)
    app, heap = filled(kernel, cgroup=kernel.cgroup("app"))
    for page in zeros:
        heap.write_page(page, bytes(PAGE_SIZE))
    for process in (filler, app):
        process.madvise(process.mappings[0], "pageout")
    thp = kernel.system.thp
    thp.on, thp.huge_anon_orders_always = True, 0b11100
    return kernel, heap


def test_single_pages_come_back_as_a_block_if_they_lie_like_one() -> None:
    kernel, heap = single_pages_in_a_row()
    assert kernel.vmstat["pswpout"] in (2 * BLOCK - 1, 2 * BLOCK)
    heap.touch(15)
    assert heap.orders() == [4] * BLOCK
    assert intact(heap)


def test_a_mix_of_zero_and_other_pages_is_no_block() -> None:
    _, heap = single_pages_in_a_row(zeros=(3,))
    for page in (0, 4, 8):
        heap.touch(page)
    assert heap.orders() == [0, None, None, None, 2, 2, 2, 2, *[3] * 8]
    assert (heap[2 * PAGE_SIZE], heap[3 * PAGE_SIZE]) == (3, 0)


@pytest.mark.stages(0, until=13)
def test_zero_pages_alone_are_a_block() -> None:
    kernel, heap = single_pages_in_a_row(zeros=tuple(range(BLOCK)))
    heap.touch(7)
    assert heap.orders() == [4] * BLOCK
    assert (kernel.vmstat["swpin_zero"], kernel.vmstat["pswpin"]) == (BLOCK, 0)


def test_a_cached_slot_breaks_the_block() -> None:
    _, heap = single_pages_in_a_row()
    heap.process.madvise(heap, "willneed", 12 * PAGE_SIZE, 13 * PAGE_SIZE)
    heap.touch(9)
    heap.touch(2)
    heap.touch(13)
    assert heap.orders() == [3] * 8 + [2] * 4 + [None, 0, None, None]


def test_a_page_that_came_back_breaks_the_block() -> None:
    kernel, heap = single_pages_in_a_row()
    kernel.system.thp.huge_anon_orders_always = 0
    heap.touch(0)
    kernel.system.thp.huge_anon_orders_always = 0b11100
    heap.touch(3)
    heap.touch(4)
    assert heap.orders() == [0, None, None, 0, *[2] * 4, *[None] * 8]


def test_slots_must_be_aligned_as_the_addresses_are() -> None:
    kernel = boot(sizes={})
    swapped_out(kernel, 1)
    heap = swapped_out(kernel)  # slots 2 to 17, or virtual ones from 513 on
    kernel.system.thp.on, kernel.system.thp.huge_anon_orders_always = True, 0b11100
    heap.touch(0)
    assert heap.orders()[:2] == [0, None]


def test_a_cgroup_without_room_takes_a_smaller_block_back() -> None:
    kernel, heap = single_pages_in_a_row()
    heap.process.cgroup.memory_max = "40K"
    heap.touch(0)
    assert heap.orders()[:9] == [3] * 8 + [None]
    row = stats(kernel)
    assert (row["swpin_fallback"], row["swpin_fallback_charge"]) == (1, 1)


def test_a_shared_block_comes_back_page_by_page() -> None:
    kernel = boot()
    heap = swapped_out(kernel)
    child = heap.process.fork()
    heap.touch(0)
    assert set(heap.orders()) <= {0, None}
    assert intact(heap)
    assert intact(child.mappings[0])


def test_an_unreadable_page_fails_the_block_and_loses_nothing() -> None:
    kernel = boot()
    heap = swapped_out(kernel)
    kernel.devices[0].fail_reads(times=1)
    with pytest.raises(OSError, match="cannot be read back"):
        heap.touch(0)
    assert intact(heap)


def test_a_cached_folio_is_split_and_keeps_its_slots() -> None:
    kernel = boot(vr.Ssd)
    app, heap = filled(kernel)
    app.madvise(heap, "pageout")
    kernel.drain()
    assert intact(heap)
    folio = folio_of(heap)
    assert (folio.order, folio.swapcache, folio.dirty) == (4, True, False)
    first = folio.swap
    assert split_folio(kernel.system, folio) == 0
    kernel.check()
    assert [folio_of(heap, page).swap for page in range(BLOCK)] == [first + page for page in range(BLOCK)]
    assert all(folio_of(heap, page).exclusive for page in range(BLOCK))
    written = kernel.vmstat["pswpout"]
    app.madvise(heap, "pageout")
    assert kernel.vmstat["pswpout"] == written
    assert intact(heap)


def test_a_split_folio_that_was_not_written_is_still_dirty() -> None:
    kernel = boot(vr.Ssd)
    app, heap = filled(kernel)
    kernel.devices[0].fail_writes(times=1)
    app.madvise(heap, "pageout")
    kernel.drain()
    heap.touch(0)
    assert heap.orders() == [4] * BLOCK
    app.madvise(heap, "pageout", 0, 8 * PAGE_SIZE)
    kernel.drain()
    kernel.reclaim("1M")
    kernel.reclaim("1M")
    assert "resident" not in heap.where().counts()
    assert intact(heap)


def test_a_split_fails_while_somebody_looks_or_writes() -> None:
    kernel = boot(vr.Ssd)
    app, heap = filled(kernel)
    folio = folio_of(heap)
    folio.refcount += 1
    assert split_folio(kernel.system, folio) == -EAGAIN
    folio.refcount -= 1
    folio.locked = True
    assert split_folio(kernel.system, folio) == -EAGAIN
    folio.locked = False
    assert stats(kernel)["split_failed"] == 1
    app.madvise(heap, "pageout")
    assert folio.writeback
    assert split_folio(kernel.system, folio) == -EBUSY
    kernel.check()
    assert intact(heap)


def test_pageout_of_a_part_splits_unless_shared() -> None:
    kernel = boot()
    app, heap = filled(kernel)
    child = app.fork()
    assert app.madvise(heap, "pageout", 0, 4 * PAGE_SIZE) == 0
    assert heap.orders() == [4] * BLOCK
    child.exit()
    assert app.madvise(heap, "pageout", 0, 4 * PAGE_SIZE) == 4
    assert heap.orders() == [None] * 4 + [0] * 12
    assert intact(heap)


def test_reading_maps_the_huge_zero_page_and_writing_replaces_it() -> None:
    kernel = Kernel(ram="32M", thp="always", debug=True)
    app = kernel.spawn("app")
    heap = app.mmap("4M")
    assert heap[9] == 0
    assert heap.where().counts() == {"zeropage": HUGE, "unmapped": HUGE}
    heap[3 * PAGE_SIZE] = 1
    assert heap.orders() == [9] * HUGE + [None] * HUGE
    assert heap[HUGE * PAGE_SIZE] == 0
    kernel.faults.fail("folio_alloc", nth=1)
    heap[HUGE * PAGE_SIZE] = 1
    assert heap.orders()[HUGE:] == [0] + [None] * (HUGE - 1)
    assert kernel.vmstat["thp_fault_fallback"] == 1


def test_swapoff_brings_back_a_cached_block() -> None:
    kernel = boot(vr.Ssd)
    app, heap = filled(kernel)
    app.madvise(heap, "pageout")
    kernel.swapoff(0)
    assert heap.where().counts() == {"resident": BLOCK}
    assert intact(heap)


def test_a_failed_write_keeps_the_block() -> None:
    kernel = boot(vr.Ssd)
    app, heap = filled(kernel)
    kernel.devices[0].fail_writes(times=1)
    app.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("1M")
    kernel.drain()
    kernel.reclaim("1M")
    assert intact(heap)


@pytest.mark.stages(0, until=13)
def test_small_frames_are_given_up_for_a_block() -> None:
    """Frames that were broken up never make the model's memory grow beyond the machine's."""
    kernel = Kernel(ram="8M", swap=[vr.SwapFile("64M", on=vr.Pmem("64M"))], thp="always")
    app = kernel.spawn("app")
    for _ in range(6):
        heap = app.mmap("4M")
        heap[0] = heap[HUGE * PAGE_SIZE] = 1
        app.madvise(heap, "pageout")
        heap.munmap()
    frames = sum(len(free) << order for order, free in enumerate(kernel.system.memory.free_frames))
    assert kernel.vmstat["thp_swpout_fallback"] == 12
    assert frames <= kernel.system.memory.ram_pages
