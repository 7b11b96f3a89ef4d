"""Cgroup version 2: limits at every level, deletion, moving, events, files."""

from __future__ import annotations

import random

import pytest

from vswap_ref import Cgroup, Kernel, Mapping, Ssd
from vswap_ref.lab.defects import VERSION_1_RECLAIM, stages_with
from vswap_ref.machine import PAGE_SIZE
from vswap_ref.mm.pagetable import ptep_get
from vswap_ref.mm.types import pte_to_swp_entry
from vswap_ref.mm.vswap.cgroup import lookup_swap_cgroup_id
from vswap_ref.mm.zswap_writeback import next_online_memcg, shrink_worker

pytestmark = pytest.mark.stages(0)


def noise(page: int) -> bytes:
    """A page that does not compress."""
    return random.Random(page).randbytes(PAGE_SIZE)


def filled(kernel: Kernel, group: Cgroup | None, pages: int, name: str = "job") -> Mapping:
    """A process with incompressible pages."""
    heap = kernel.spawn(name, cgroup=group).mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap.write_page(page, noise(page))
    return heap


def pushed_out(heap: Mapping) -> None:
    """Out of memory: written and dropped."""
    kernel = heap.process.kernel
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim(len(heap), heap.process.cgroup)
    kernel.drain()


def small_kernel(**options: object) -> Kernel:
    """A kernel that checks itself."""
    return Kernel(**({"ram": "4M", "swap": [Ssd("8M")], "debug": True} | options))  # type: ignore[arg-type]


def test_high_reclaims_before_anybody_waits() -> None:
    """With swap, usage stays at the limit, the event is counted, and nobody sleeps; max is never hit."""
    kernel = small_kernel(debug=False)
    group = kernel.cgroup("job", memory_high=64 * PAGE_SIZE, memory_max=256 * PAGE_SIZE)
    filled(kernel, group, 200)
    assert group.memory_current <= 66 * PAGE_SIZE
    assert group.events["high"] > 0
    assert "max" not in group.events
    assert kernel.clock.ns < 1e9
    kernel.check()


def test_high_delays_when_reclaim_cannot_help() -> None:
    """Without swap nothing can be reclaimed: each page above the limit costs more time than the one before."""
    kernel = small_kernel(swap=[], debug=False)
    group = kernel.cgroup("job", memory_high=64 * PAGE_SIZE)
    heap = kernel.spawn("job", cgroup=group).mmap(130 * PAGE_SIZE)
    times = []
    for page in range(130):
        before = kernel.clock.ns
        heap.write_page(page, noise(page))
        times.append(kernel.clock.ns - before)
    assert max(times[:65]) < 10_000_000
    assert times[100] > times[90] > 10_000_000
    assert 3 < times[128] / times[96] < 5, "twice the overage, four times the delay"
    assert max(times) <= 2_001_000_000
    assert all(heap.read_page(page) == noise(page) for page in range(130))


def test_a_parents_high_counts_for_its_children() -> None:
    """The limit of an ancestor is enough; the event belongs to it, and to nobody below."""
    kernel = small_kernel(debug=False)
    parent = kernel.cgroup("parent", memory_high=32 * PAGE_SIZE)
    child = kernel.cgroup("child", parent)
    filled(kernel, child, 80)
    assert parent.memory_current <= 34 * PAGE_SIZE
    assert parent.events["high"] > 0
    assert "high" not in child.events
    parent.memory_high = None
    events = parent.events
    filled(kernel, child, 80, "more")
    assert parent.events == events


def test_swap_high_slows_down_and_makes_swap_scarce() -> None:
    """Above swap.high the program sleeps; from half of it on, slots of cached folios are given up."""
    kernel = small_kernel(debug=False)
    group = kernel.cgroup("job", swap_high=32 * PAGE_SIZE)
    heap = filled(kernel, group, 100)
    before = kernel.clock.ns
    pushed_out(heap)
    for page in range(100):
        heap.write_page(page, noise(page))
    assert kernel.clock.ns - before > 100_000_000
    assert group.events["swap.high"] > 0
    other = small_kernel()
    for limit, used in ((None, 8), (PAGE_SIZE, 0)):
        one = other.cgroup(f"limit {limit}", swap_high=limit)
        heap = filled(other, one, 8, "reader")
        pushed_out(heap)
        for page in range(8):
            heap.touch(page)
        assert one.swap_current == used * PAGE_SIZE


def test_lowering_a_limit_reclaims_or_holds_on() -> None:
    """memory.max pushes out what is above; swap.max only stops more from coming."""
    kernel = small_kernel()
    group = kernel.cgroup("job")
    heap = filled(kernel, group, 64)
    group.memory_max = 16 * PAGE_SIZE
    kernel.drain()
    assert group.memory_current <= 16 * PAGE_SIZE
    swapped = group.swap_current
    assert swapped >= 48 * PAGE_SIZE
    group.swap_max = 8 * PAGE_SIZE
    assert group.swap_current == swapped
    group.memory_max = None
    assert all(heap.read_page(page) == noise(page) for page in range(64))
    stuck = kernel.cgroup("stuck", swap_max=0)
    other = filled(kernel, stuck, 64, "stuck")
    stuck.memory_max = 8 * PAGE_SIZE
    assert (stuck.memory_current, stuck.memory_max) == (64 * PAGE_SIZE, 8 * PAGE_SIZE)
    assert stuck.events["oom"] == 1
    assert all(other.read_page(page) == noise(page) for page in range(64))


def test_a_deleted_cgroup_pays_until_its_last_page_is_freed() -> None:
    """Memory and slots stay charged, to it and to its parent; its id lives on; then it is gone and its id free."""
    kernel = small_kernel()
    parent = kernel.cgroup("parent")
    group = kernel.cgroup("child", parent)
    heap = filled(kernel, group, 8)
    heap.process.madvise(heap, "pageout", 0, 4 * PAGE_SIZE)
    kernel.drain()
    kernel.reclaim(4 * PAGE_SIZE, group)
    memory, swap = group.memory_current, group.swap_current
    assert memory + swap >= 8 * PAGE_SIZE
    with pytest.raises(OSError, match="EBUSY"):
        group.delete()
    heap.process.move(kernel.root)
    with pytest.raises(OSError, match="has processes or children"):
        parent.delete()
    group.delete()
    assert (parent.memory_current, parent.swap_current) == (memory, swap)
    assert kernel.system.memcg.by_id[group.memcg.id] is group.memcg
    assert not group.gone
    heap.munmap()
    kernel.drain()
    assert group.gone
    assert parent.memory_current == parent.swap_current == 0
    assert kernel.cgroup("next").memcg.id == group.memcg.id


def test_new_records_go_to_the_nearest_online_ancestor() -> None:
    """A page of a deleted cgroup that is swapped out now is charged to its parent; what was out before stays."""
    kernel = small_kernel()
    parent = kernel.cgroup("parent")
    group = kernel.cgroup("child", parent)
    heap = filled(kernel, group, 2)
    heap.process.madvise(heap, "pageout", 0, PAGE_SIZE)
    heap.process.move(parent)
    group.delete()
    heap.process.madvise(heap, "pageout")
    entries = [pte_to_swp_entry(ptep_get(heap.process.mm, heap.vma.start + page)) for page in (0, 1)]
    ids = [lookup_swap_cgroup_id(kernel.system, entry) for entry in entries]
    assert ids == [group.memcg.id, parent.memcg.id]
    assert group.swap_current == PAGE_SIZE
    assert parent.swap_current == 2 * PAGE_SIZE


def test_a_slot_alone_keeps_a_deleted_cgroup() -> None:
    """No memory is left to it, but its id is still recorded."""
    kernel = small_kernel()
    group = kernel.cgroup("job")
    heap = filled(kernel, group, 2)
    pushed_out(heap)
    heap.process.move(kernel.root)
    group.delete()
    kernel.drain()
    assert (group.memory_current, group.swap_current, group.gone) == (0, 2 * PAGE_SIZE, False)
    heap.munmap()
    kernel.drain()
    assert group.gone


def test_a_deleted_cgroups_page_is_compressed_for_its_parent() -> None:
    """What goes to zswap after the deletion is charged to the nearest ancestor that is online."""
    kernel = small_kernel(zswap="lz4", ram="16M")
    parent = kernel.cgroup("parent")
    group = kernel.cgroup("child", parent)
    heap = filled(kernel, group, 4)
    heap.process.move(parent)
    group.delete()
    heap.process.madvise(heap, "pageout")
    assert (group.zswap_current, parent.zswap_current) == (0, 4 * PAGE_SIZE)


def test_the_tour_goes_on_after_a_deletion() -> None:
    """The worker stopped at a cgroup that is deleted: the next in the tour is its successor."""
    kernel = small_kernel(zswap="lz4", ram="16M")
    groups = [kernel.cgroup(name) for name in "abc"]
    system = kernel.system
    system.zswap.next_shrink = groups[1].memcg
    groups[1].delete()
    assert next_online_memcg(system, system.zswap.next_shrink) is groups[2].memcg


def test_a_page_of_a_deleted_cgroup_comes_back_to_the_one_who_wants_it() -> None:
    """Swap-in charges the recorded cgroup while it lives, afterwards the cgroup of the process that faults."""
    kernel = small_kernel(page_cluster=0)
    first, second = kernel.cgroup("first"), kernel.cgroup("second")
    heap = filled(kernel, first, 2)
    pushed_out(heap)
    heap.process.move(second)
    heap.touch(0)
    assert (first.memory_current, second.memory_current) == (PAGE_SIZE, 0)
    first.delete()
    heap.touch(1)
    assert (first.memory_current, second.memory_current) == (PAGE_SIZE, PAGE_SIZE)


def test_compressed_pages_pass_to_the_parent() -> None:
    """They are charged to it, stand in its line before its own, and can still be written back."""
    kernel = small_kernel(zswap="lz4", ram="16M")
    parent = kernel.cgroup("parent")
    group = kernel.cgroup("child", parent)
    own = filled(kernel, parent, 2, "parent")
    heap = filled(kernel, group, 4)
    own.process.madvise(own, "pageout")
    heap.process.madvise(heap, "pageout")
    heap.process.move(parent)
    bytes_before = parent.zswap_current
    group.delete()
    assert (group.zswap_current, parent.zswap_current) == (0, bytes_before)
    assert len(parent.memcg.zswap_lru) == 6
    first = min(entry.swpentry for entry in parent.memcg.zswap_lru)
    assert [entry.swpentry - first for entry in parent.memcg.zswap_lru] == [2, 3, 4, 5, 0, 1]
    kernel.set_zswap(max_pool_percent=0)
    for _ in range(20):
        shrink_worker(kernel.system)
    assert kernel.vmstat["zswpwb"] == 6
    assert all(heap.read_page(page) == noise(page) for page in range(4))


def test_the_worker_goes_round() -> None:
    """One entry of each cgroup in turn, and the next run goes on where the last one stopped."""
    kernel = small_kernel(zswap="lz4", ram="16M")
    groups = [kernel.cgroup(name) for name in "abc"]
    for group in groups:
        heap = filled(kernel, group, 8, group.name)
        heap.process.madvise(heap, "pageout")
    kernel.set_zswap(max_pool_percent=0)
    shrink_worker(kernel.system)  # 16 first visits, all failures: 5 or 6 in each
    unmarked = [sum(not entry.referenced for entry in group.memcg.zswap_lru) for group in groups]
    assert unmarked == [6, 5, 5]
    assert kernel.system.zswap.next_shrink is groups[0].memcg
    shrink_worker(kernel.system)
    assert kernel.vmstat["zswpwb"] > 0


def test_events_climb_and_stay_local() -> None:
    """An event of a child is counted in its ancestors too; the local file has it only where it happened."""
    kernel = small_kernel()
    parent = kernel.cgroup("parent")
    group = kernel.cgroup("child", parent, swap_max=0)
    heap = filled(kernel, group, 4)
    heap.process.madvise(heap, "pageout")
    assert group.files["memory.swap.events"] == "high 0\nmax 4\nfail 4\n"
    assert parent.files["memory.swap.events"] == "high 0\nmax 4\nfail 4\n"
    group.memory_max = PAGE_SIZE
    assert parent.files["memory.events"] == "low 0\nhigh 0\nmax 0\noom 1\noom_kill 0\noom_group_kill 0\n"
    assert parent.files["memory.events.local"] == "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"


def test_files_read_as_in_the_kernel() -> None:
    """Bytes, "max", 0 or 1; the root has no limits; version 1 has its own names."""
    kernel = small_kernel(zswap="lz4")
    group = kernel.cgroup("job", memory_max="1M", zswap_writeback=False)
    heap = kernel.spawn("job", cgroup=group).mmap("64K")
    heap[:] = b"x" * len(heap)
    heap.process.madvise(heap, "pageout", 0, 8 * PAGE_SIZE)
    files = group.files
    assert files["memory.max"] == "1048576\n"
    assert files["memory.high"] == files["memory.swap.max"] == "max\n"
    assert files["memory.swap.current"] == f"{8 * PAGE_SIZE}\n"
    assert files["memory.peak"] == f"{16 * PAGE_SIZE + PAGE_SIZE}\n"
    assert files["memory.zswap.writeback"] == "0\n"
    assert "zswapped 32768\n" in files["memory.stat"]
    assert sorted(kernel.root.files) == ["memory.stat", "memory.zswap.writeback"]
    old = Kernel(memcg="v1").cgroup("job", memory_max="1M")
    assert old.files["memory.limit_in_bytes"] == "1048576\n"
    assert old.files["memory.memsw.limit_in_bytes"] == "9223372036854771712\n"


def test_statistics_include_descendants_and_survive_them() -> None:
    """memory.stat of a parent sums its subtree, also after a child is gone."""
    kernel = small_kernel()
    parent = kernel.cgroup("parent")
    group = kernel.cgroup("child", parent)
    heap = filled(kernel, group, 4)
    assert "anon 16384\n" in parent.memory_stat()
    pushed_out(heap)
    assert "pswpout 4\n" in parent.memory_stat()
    heap.process.exit()
    assert (group.memory_current, group.memory_peak, group.swap_peak) == (0, 4 * PAGE_SIZE, 4 * PAGE_SIZE)
    group.delete()
    assert group.gone
    assert "pswpout 4\n" in parent.memory_stat()
    assert "anon 0\n" in parent.memory_stat()


@pytest.mark.stages(0, without=stages_with(VERSION_1_RECLAIM))
def test_version_1_hands_its_slots_to_an_ancestor() -> None:
    """A page of a deleted cgroup that goes out moves its memory + swap charge to the parent."""
    kernel = small_kernel(memcg="v1")
    parent = kernel.cgroup("parent")
    group = kernel.cgroup("child", parent)
    heap = filled(kernel, group, 4)
    heap.process.move(parent)
    group.delete()
    pushed_out(heap)
    assert group.gone
    assert (parent.memory_current, parent.memsw_current) == (0, 4 * PAGE_SIZE)
    heap.munmap()
    assert parent.memsw_current == 0


def test_a_deleted_cgroup_refuses_everything() -> None:
    """Nothing can be set, spawned or created in it."""
    kernel = small_kernel()
    group = kernel.cgroup("job")
    process = kernel.spawn("other")
    group.delete()
    attempts = [
        lambda: setattr(group, "memory_max", "1M"),
        lambda: setattr(group, "memory_high", "1M"),
        lambda: setattr(group, "zswap_writeback", False),
        lambda: kernel.spawn("x", cgroup=group),
        lambda: kernel.cgroup("x", group),
        lambda: process.move(group),
        group.delete,
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match="was deleted"):
            attempt()
    with pytest.raises(OSError, match="EBUSY"):
        kernel.root.delete()
    assert kernel.cgroup("job").online
    with pytest.raises(ValueError, match="a cgroup of this kernel"):
        process.move(small_kernel().root)
