"""Virtual slots in the kernel: what users see is the same, what it costs is counted, and one defect comes with it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
from vswap_costs import Counted, metadata_of

import vswap_ref as vr
from vswap_ref.lab.defects import IMAGE_SLOTS, STALE_PLACE, has_defect
from vswap_ref.lab.experiments.stale_place import NEVER, stale_place
from vswap_ref.lab.same import VISIBLE, common_sites, compare_runs
from vswap_ref.lab.same_workload import WORLDS, Step, play
from vswap_ref.machine import PAGE_SIZE
from vswap_ref.machine.locks import LockdepError
from vswap_ref.series.stages import LoadedStage

STAGES = range(9, 13)
"""Where a page in swap has both kinds of slots from the beginning to the end."""


def both(world: str, safe: Collection[str] = ()) -> tuple[list[Step], list[Step]]:
    """The steps of one world at stages 8 and 9; the allocations at the sites ``safe`` do not fail."""
    sites = sorted(set(common_sites(8, 9)) - set(safe))
    first, second = (play(vr.at(stage), worlds=[world], sites=sites, image_pages=1) for stage in (8, 9))
    return first, second


def eight_pages_out(k: Any) -> Any:
    """A mapping of eight pages, each of another byte, swapped out and gone from memory."""
    heap = k.spawn("app").mmap("32K")
    for page in range(8):
        heap.write_page(page, bytes([page + 1]) * PAGE_SIZE)
    heap.process.madvise(heap, "pageout")
    k.drain()
    k.reclaim("64K")
    return heap


@pytest.mark.stages(9)
def test_leaving_undoes_nothing(stage: LoadedStage) -> None:
    """vswap_exit, for a boot that fails later, leaves clusters and slots as they are: pages are there afterwards."""
    k: Any = vr.Kernel(ram="2M", swap=[vr.Ssd("4M")])
    heap = eight_pages_out(k)
    stage.module("vswap.init").vswap_exit(k.system)
    k.check()
    assert [heap.read_page(page)[0] for page in range(8)] == list(range(1, 9))


# --- what users see -----------------------------------------------------------------------------------------------


def test_on_one_device_without_large_folios_nothing_differs() -> None:
    """Values, errors, counters and times of 3,600 steps: there is no difference that anybody could see."""
    found = compare_runs(*both("file"), ("stage 8", "stage 9"), only=VISIBLE)
    assert found.same, found.report()


@pytest.mark.parametrize("world", ["large folios", "no room"])
def test_user_data_is_the_same(world: str) -> None:
    """All operations, and what each reads or refuses.  Readahead takes pages that it then gives back: counters tell."""
    first, second = both(world)
    assert [step.operation for step in first] == [step.operation for step in second]
    for a, b in zip(first, second, strict=True):
        if a.operation.split()[0] in ("read", "bytes", "write", "touch", "one", "swapoff", "image"):
            assert a.result == b.result, str(a)
    unlike = {
        name for a, b in zip(first, second, strict=True) for name in a.vmstat if a.vmstat[name] != b.vmstat.get(name)
    }
    assert {"pgalloc_normal", "pgfree"} <= unlike


@pytest.mark.parametrize("world", ["large folios", "no room"])
def test_only_readahead_by_place_and_nodes_make_a_difference(world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large folios, several devices, a disk: without readahead, and if no node of a tree fails, nobody sees a thing."""
    machine = WORLDS[world]
    monkeypatch.setitem(WORLDS, world, replace(machine, options=machine.options | {"page_cluster": 0}))
    found = compare_runs(*both(world, safe={"xa_node", "swap_cache_node"}), ("stage 8", "stage 9"), only=VISIBLE)
    assert found.same, found.report()


@pytest.mark.parametrize("stage", range(9, 12))
def test_a_name_without_a_place_is_uncharged_from_nobody(stage: int) -> None:
    """Device 0 is off, device 1 full: the kernel looks for the cgroup's id in device 0's table, which is gone."""
    first, second = vr.Ssd("64K"), vr.Ssd("64K")
    k = vr.at(stage).Kernel(ram="2M", swap=[first, second], zswap=None, cpus=1)
    k.swapoff(first)
    heap = k.spawn("app", k.cgroup("group")).mmap("64K")
    for page in range(16):
        heap.write_page(page, bytes([page + 1]) * PAGE_SIZE)
    heap.process.madvise(heap, "pageout")
    assert (k.system.vswap.used, k.system.cost["mem_cgroup_uncharge_swap_nobody"]) == (15, 1)
    k.check()


@pytest.mark.slow
def test_runs_over_recorded_accesses_are_the_same() -> None:
    """A program on too little memory: every figure of the record but those of locks."""
    before, after = (vr.run("sort", stage=stage) for stage in (8, 9))
    assert before.vmstat == after.vmstat


@pytest.mark.parametrize("stage", STAGES)
def test_a_batch_is_a_run_of_both_kinds_of_slots(stage: int) -> None:
    """Eight virtual slots in a row; behind the fifth place lies a bad page, so the run ends there."""
    loaded = vr.at(stage)
    k = loaded.Kernel(ram="2M", swap=[vr.Ssd("1M", bad_pages=[6])], zswap=None, cpus=1)
    heap = eight_pages_out(k)
    pagetable, (table,) = loaded.module("pagetable"), heap.process.mm.pgd.values()
    entries = [loaded.module("types").pte_to_swp_entry(pte) for pte in table[:8]]
    assert entries == list(range(512, 520))
    assert [pagetable.swap_move(k.system, entry, 1) for entry in entries] == [513, 514, 515, 516, 0, 518, 519, 0]
    assert [pagetable.swap_move(k.system, entries[5], delta) for delta in (-1, 2)] == [0, 519]
    assert [pagetable.swap_pte_batch(k.system, table, page, 8 - page) for page in (0, 3, 5)] == [5, 2, 3]
    assert [heap.read_page(page)[0] for page in range(8)] == list(range(1, 9))
    heap.munmap()
    k.check()
    assert k.system.vswap.used == 0


# --- what it costs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memcg", ["v2", None])
@pytest.mark.parametrize("stage", STAGES)
def test_locks_of_a_swap_out(stage: int, memcg: str | None) -> None:
    """Allocate, link, and the cgroup's record; a cluster of order 9 is new each time, and filled without its lock."""
    kernel = Counted(stage, memcg)
    for order in (0, 4, 8, 9):
        kernel.call("folio_alloc_swap", kernel.folio(order))
        locks = kernel.locks("folio_alloc_swap", kernel.folio(order))
        assert locks == 1 + (order < 9) + bool(memcg), order


@pytest.mark.parametrize("order", [0, 9])
def test_a_swap_out_locks_the_physical_cluster_once_more(order: int) -> None:
    """For the reverse map."""
    counts = []
    for stage in (8, 9):
        kernel = Counted(stage)
        kernel.call("folio_alloc_swap", kernel.folio(order))
        counts.append(kernel.of("folio_alloc_swap", kernel.folio(order))["ci_lock"])
    assert counts[1] == counts[0] + 1


def test_locks_of_the_map() -> None:
    """None while a CPU has a cluster; without one, a look at the list and an id."""
    kernel = Counted(11)
    assert kernel.of("folio_alloc_swap", kernel.folio())["xa_lock"] == 2
    assert "xa_lock" not in kernel.of("folio_alloc_swap", kernel.folio())


@pytest.mark.parametrize("memcg", ["v2", None])
@pytest.mark.parametrize(("stage", "locks"), [(9, 2), (10, 2), (11, 3), (12, 3)])
def test_locks_of_freeing(stage: int, locks: int, memcg: str | None) -> None:
    """Of each slot: for the charge and for the slot itself, from patch 11 on for zswap; one less without cgroups.

    The first lock of all is the one that finds the physical slots.
    """
    for order in (0, 9):
        kernel = Counted(stage, memcg)
        taken = kernel.locks("swap_free_nr", kernel.evicted(order), 1 << order)
        assert taken - 1 == (1 << order) * (locks - (memcg is None)), order


def test_a_large_folio_is_freed_in_512_steps() -> None:
    """The swap cache's lock and the call that gives the charge back: once before, then once a slot."""
    costs = []
    for stage in (8, 9):
        kernel = Counted(stage)
        costs.append(kernel.of("swap_free_nr", kernel.evicted(9), 512))
    assert [cost["cache_lock"] for cost in costs] == [1, 512]
    assert [cost["memcg_uncharge_calls"] for cost in costs] == [1, 512]
    assert [cost["phys_free_calls"] for cost in costs] == [1, 1]
    assert [cost["phys_free_slots"] for cost in costs] == [512, 512]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("nr", [1, 5, 512])
def test_locks_of_a_batch_of_page_table_entries(stage: int, nr: int) -> None:
    """Three for each: whose is it, what comes next, and where is that.  Behind the last one of all is no cluster."""
    kernel = Counted(stage)
    entry = kernel.evicted(9)
    pte = kernel.find("swp_entry_to_pte")
    table = [pte(entry + page, 0) for page in range(512)]
    assert kernel.locks("swap_pte_batch", table, 0, nr) == 3 * nr - (nr == 512)
    assert kernel.call("swap_pte_batch", table, 0, nr) == nr


DESCRIPTOR = {9: 8, 10: 16, 11: 24, 12: 32}


@pytest.mark.parametrize("stage", STAGES)
def test_bytes_of_dense_and_of_sparse_use(stage: int) -> None:
    """512 pages in one cluster: a descriptor each, and 112 bytes; one page: all of that for itself."""
    size = DESCRIPTOR[stage]
    assert vr.at(stage).module("vswap.descriptor").swp_desc.itemsize == size
    for nr in (512, 1):
        rows = metadata_of(stage, nr)
        assert rows["vswap descriptors"] == (size * nr, size * 512)
        assert rows["vswap clusters"] == (64, 112)
        assert rows["swap table"][0] == 8 * nr
    assert (size * 512 + 112) / 512 == pytest.approx(size + 0.22, abs=0.002)


# --- what is wrong ------------------------------------------------------------------------------------------------


def two_clusters(stage: int) -> tuple[vr.Kernel, vr.Mapping]:
    """Two CPUs have swapped out; the second one's cluster has id 0, and its first virtual slots are 1, 2, 3."""
    k = vr.at(stage).Kernel(ram="2M", swap=[vr.Ssd("1M")], zswap=None, cpus=2)
    heaps = [k.spawn(f"app{cpu}", cpu=cpu).mmap("16K") for cpu in (0, 1)]
    for heap in heaps:
        for page in range(4):
            heap.write_page(page, b"page" * 1024)
        heap.process.madvise(heap, "pageout")
        k.drain()
        k.reclaim("64K")
    return k, heaps[1]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("pages", [1, 3])
def test_an_image_frees_slots_of_others(stage: int, pages: int) -> None:
    """Three slots of an image have no virtual slot, so freeing begins at 0: slots 1 and 2 of somebody else are gone.

    One slot alone does no harm.
    """
    k, heap = two_clusters(stage)
    keeper = k.spawn("keeper").mmap("64K")
    for page in range(16):
        keeper.touch(page, write=True)
    where = vr.at(stage).module("vswap.lookup").swp_entry_to_swp_slot
    assert all(where(k.system, entry) for entry in (1, 2, 3))
    k.hibernate(pages).release()
    assert [bool(where(k.system, entry)) for entry in (1, 2, 3)] == [pages == 1, pages == 1, True]
    if pages == 1:
        k.check()
    else:
        with pytest.raises(vr.at(stage).InvariantError):
            k.check()
        with pytest.raises(vr.at(stage).OutOfMemory):
            heap.read_page(0)


def test_the_defect_of_images_is_listed() -> None:
    """From patch 9 to 12; freeing several slots of an image is harmless before and after."""
    assert [stage for stage in range(20) if has_defect(IMAGE_SLOTS, stage)] == list(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_an_image_beside_no_other_slots(stage: int) -> None:
    """If nobody has slots 1 and 2 nothing happens, until patch 12: there the kernel crashes."""
    k = vr.at(stage).Kernel(ram="2M", swap=[vr.Ssd("1M")], cpus=1)
    k.spawn("app").mmap("64K").touch(0, write=True)
    for page in range(4):
        k.processes[0].mappings[0].touch(page, write=True)
    image = k.hibernate(3)
    if stage < 12:
        image.release()
        k.check()
    else:
        with pytest.raises(AssertionError):
            image.release()


# --- freeing, reading ahead, CPUs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_reading_ahead_a_free_neighbour_takes_a_page_in_vain(stage: int) -> None:
    """A neighbour on the disk without a virtual slot is entry 0, which looks like slot 0 of device 0."""
    k = vr.at(stage).Kernel(ram="2M", swap=[vr.Disk("1M")], zswap=None, cpus=1)
    heap = eight_pages_out(k)
    k.check()
    entry_0 = vr.at(stage).module("swap_read").__dict__["__read_swap_cache_async"]
    before = k.vmstat.snapshot()
    assert entry_0(k.system, 0, k.system.memcg.root) == (None, False)
    assert k.vmstat.since(before) == {"pgalloc_normal": 1, "pgfree": 1}
    assert [heap.read_page(page)[0] for page in range(8)] == list(range(1, 9))
    k.check()


@pytest.mark.parametrize("stage", STAGES)
def test_entry_zero_without_device_zero(stage: int) -> None:
    """The kernel would look at memory that was freed; the model reads nothing ahead."""
    k = vr.at(stage).Kernel(ram="2M", swap=[vr.Disk("1M"), vr.Disk("1M")], zswap=None, cpus=1)
    k.swapoff(0)
    heap = eight_pages_out(k)
    assert [heap.read_page(page)[0] for page in range(0, 8, 3)] == [1, 4, 7]
    k.check()


@pytest.mark.parametrize("stage", STAGES)
def test_a_cpu_that_goes_takes_its_cluster_along(stage: int) -> None:
    """What it cached is off every list; its free slots are not offered again.  Nothing that was written is lost."""
    k = vr.at(stage).Kernel(ram="2M", swap=[vr.Ssd("1M")], zswap="lz4", cpus=2)
    app = k.spawn("app", cpu=1)
    heap = app.mmap("16K")
    for page in range(4):
        heap.write_page(page, b"text" * 1024)
    app.madvise(heap, "pageout")
    (cluster,) = (cluster for _, cluster in k.system.vswap.cluster_map.items())
    assert (cluster.cached, cluster.count, cluster.refcnt) == (True, 4, 5)
    k.cpu_offline(1)
    k.check()
    assert (cluster.cached, cluster.full, cluster.refcnt) == (False, False, 4)
    assert not any(map(len, k.system.vswap.partial_lists))
    other = k.spawn("other").mmap("4K")
    other.write_page(0, b"more" * 1024)
    other.process.madvise(other, "pageout")
    assert len(k.system.vswap.cluster_map) == 2
    assert all(heap.read_page(page) == b"text" * 1024 for page in range(4))
    app.exit()
    k.check()
    assert len(k.system.vswap.cluster_map) == 1


@pytest.mark.parametrize("stage", STAGES)
def test_after_all_is_freed_only_cached_clusters_are_left(stage: int) -> None:
    """At most nine a CPU, and none of a CPU that has died; the counters of debugfs agree."""
    k = vr.at(stage).Kernel(ram="16M", swap=[vr.Ssd("16M")], cpus=2, thp=vr.Thp("always", {"64K": "always"}))
    for cpu in (0, 1):
        heap = k.spawn("app", cpu=cpu).mmap("2M")
        for page in range(heap.pages):
            heap.touch(page, write=True)
        heap.process.madvise(heap, "pageout")
    assert k.debugfs()["vswap"]["used"] == k.system.vswap.used > 0
    for process in list(k.processes):
        process.exit()
    k.drain()
    k.reclaim("16M")
    k.drain()
    clusters = [cluster for _, cluster in k.system.vswap.cluster_map.items()]
    assert all(cluster.cached and not cluster.count for cluster in clusters)
    assert len(clusters) <= 9 * 2
    assert k.debugfs()["vswap"] == {"alloc_reject": 0, "used": 0}
    k.check()
    k.cpu_offline(1)
    k.check()
    assert len(k.system.vswap.cluster_map) == len([c for c in k.system.vswap.percpu[0].clusters if c])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("site", ["vswap_cluster_alloc", "vswap_desc_alloc", "vswap_cluster_id"])
def test_without_memory_for_a_cluster_a_page_stays(stage: int, site: str) -> None:
    """Nobody counts an event for it; the page is pushed out the next time."""
    k = vr.at(stage).Kernel(ram="2M", swap=[vr.Ssd("1M")], cpus=1, debug=True)
    group = k.cgroup("group")
    heap = k.spawn("app", group).mmap("4K")
    heap.write_page(0, b"text" * 1024)
    k.faults.fail(site)
    heap.process.madvise(heap, "pageout")
    assert heap.where()[0] == "resident"
    assert k.debugfs()["vswap"] == {"alloc_reject": 1, "used": 0}
    assert group.events.get("swap.fail", 0) == 0
    heap.process.madvise(heap, "pageout")
    assert heap.where()[0] != "resident"
    assert heap.read_page(0) == b"text" * 1024


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_device_refuses_and_counts(stage: int) -> None:
    """No physical slot: the virtual ones go back, and the cgroup counts a failure."""
    kernel = Counted(stage, size="64K")
    while kernel.call("folio_alloc_swap", kernel.folio()) == 0:
        pass
    used = kernel.s.vswap.used
    assert kernel.owner.events["swap.fail"] == 1
    assert kernel.call("folio_alloc_swap", kernel.folio()) < 0
    assert (kernel.s.vswap.used, kernel.s.vswap.alloc_reject) == (used, 0)
    assert kernel.owner.events["swap.fail"] == 2


# --- the checker can fail ---------------------------------------------------------------------------------------------


def swapped_out(stage: LoadedStage) -> vr.Kernel:
    """A kernel with four pages in swap, of them one in the swap cache."""
    k: vr.Kernel = stage.Kernel(ram="2M", swap=[vr.Ssd("1M")], zswap="lz4", cpus=1)
    heap = k.spawn("app").mmap("16K")
    for page in range(4):
        heap.write_page(page, bytes([page + 1]) * PAGE_SIZE)
    heap.process.madvise(heap, "pageout")
    return k


BREAKS = {
    "bit": ("count of a virtual cluster", lambda k, c: c.bitmap.set(100)),
    "count": ("count of a virtual cluster", lambda k, c: setattr(c, "count", 5)),
    "refcnt": ("refcnt = allocated", lambda k, c: setattr(c, "refcnt", 4)),
    "used": ("vswap used", lambda k, c: setattr(k.system.vswap, "used", 3)),
    "id": ("in the map under its id", lambda k, c: setattr(c, "id", 7)),
    "full": ("cached virtual cluster is not full", lambda k, c: setattr(c, "full", True)),
    "cpu": ("cached flag", lambda k, c: k.system.vswap.percpu[0].clusters.__setitem__(0, None)),
    "listed": ("neither cached nor full", lambda k, c: k.system.vswap.partial_lists[0].__setitem__(c, None)),
    "order": ("cached once, for its order", lambda k, c: setattr(c, "order", 1)),
    "slot": ("has a physical one", lambda k, c: c.desc.slot.__setitem__(0, 0)),
    "swapped": ("reverse map leads back", lambda k, c: c.desc.slot.__setitem__(0, c.desc.slot[1])),
    "reverse": (
        "reverse map leads back",
        lambda k, c: k.system.swap.info[0].cluster_info[0].table.__setitem__(c.desc.slot[0] & 511, 1000),
    ),
    "lock": ("lock of a virtual cluster leaked", lambda k, c: c.lock.acquire()),
    "map": ("map did not leak", lambda k, c: k.system.vswap.map_lock.acquire()),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("what", sorted(BREAKS))
def test_the_checker_finds(what: str, stage: int) -> None:
    """One field is wrong, and the invariant is named."""
    loaded = vr.at(stage)
    k = swapped_out(loaded)
    k.check()
    (cluster,) = (cluster for _, cluster in k.system.vswap.cluster_map.items())
    message, spoil = BREAKS[what]
    spoil(k, cluster)
    with pytest.raises(loaded.InvariantError, match=message):
        k.check()


# --- version 1 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "works"), [(8, True), (9, True), (10, False), (11, False), (12, True)])
def test_version_1_stands_still_from_patch_10_to_11(stage: int, works: bool) -> None:
    """Reclaim records the slot's cgroup with the entry's part of the cache locked, and asks where the slot is."""
    k = vr.at(stage).Kernel(ram="2M", swap=[vr.Ssd("1M")], cpus=1, memcg="v1", locks="validated")
    heap = k.spawn("app", k.cgroup("group")).mmap("16K")
    for page in range(4):
        heap.write_page(page, b"text" * 1024)
    heap.process.madvise(heap, "pageout")
    k.drain()
    if works:
        k.reclaim("64K")
        assert all(heap.read_page(page) == b"text" * 1024 for page in range(4))
        k.check()
    else:
        with pytest.raises(LockdepError, match="recursive locking: vswap_cluster taken while vswap_cluster is held"):
            k.reclaim("64K")


@pytest.mark.parametrize("stage", [10, 11])
def test_where_version_1_stands_still_locks_are_validated_anyway(stage: int) -> None:
    """Plain locks would wait for ever."""
    boot = vr.at(stage).Kernel
    assert boot(ram="1M", memcg="v1").locks.kind == "validated"
    assert boot(ram="1M", memcg="v2").locks.kind == "plain"


@pytest.mark.slow
@pytest.mark.stages(8, every=True)
def test_a_place_looked_up_too_early(stage: LoadedStage) -> None:
    """Between look-up and lock the place is given away: the stranger's page is claimed for ever, until patch 13."""
    record = stale_place(stage.id)
    assert record.orders > 100
    if has_defect(STALE_PLACE, stage.id):
        assert (record.wrong, record.reads) == (3, NEVER)
        assert "cache flag = folio in the cache" in str(record.failure)
    else:
        assert (record.wrong, record.reads) == (0, "else")
