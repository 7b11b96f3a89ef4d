"""Cgroup ids in the descriptors: the same for users, nothing paid at swapon, and version 1 goes on."""

from __future__ import annotations

import pytest
from vswap_costs import Counted, metadata_of

import vswap_ref as vr
from vswap_ref.lab.same import VISIBLE, assert_same, common_sites, compare_runs
from vswap_ref.lab.same_workload import play
from vswap_ref.machine import PAGE_SIZE

V1 = "one cluster, version 1"
V2 = ("large folios", "file", "no room")


@pytest.mark.slow
def test_everything_is_the_same() -> None:
    """Values, errors, counters and times of 11,000 steps."""
    assert_same(11, 12, worlds=V2, only=VISIBLE, unreachable=["__swap_cgroup_record"])


def test_version_1_is_as_before_patch_10() -> None:
    """The world that stands still in between: all of its steps are those of stage 9."""
    steps = [play(vr.at(stage), worlds=[V1], sites=common_sites(9, 12), image_pages=1) for stage in (9, 12)]
    found = compare_runs(steps[0], steps[1], ("stage 9", "stage 12"), only=VISIBLE)
    assert found.same, found.report()


def test_swapon_pays_nothing_for_cgroups() -> None:
    """Two bytes a slot before."""
    static = [
        sum(row[3] for row in vr.at(stage).Kernel(swap=[vr.Ssd("128M")]).memory().rows if row[1] == "at swapon")
        for stage in (11, 12)
    ]
    assert static[0] - static[1] == 2 * (128 << 20) // PAGE_SIZE
    assert metadata_of(12)["vswap descriptors"][1] - metadata_of(11)["vswap descriptors"][1] == 8 * 512


def test_swapon_has_one_allocation_less() -> None:
    """The second array a slot was the one of ids."""
    for stage, fails in ((11, True), (12, False)):
        k = vr.at(stage).Kernel(ram="1M")
        k.faults.fail("vzalloc", nth=2)
        if fails:
            with pytest.raises(OSError, match="swapon"):
                k.swapon(vr.Ssd("1M"))
        else:
            assert k.swapon(vr.Ssd("1M")) == 0


@pytest.mark.parametrize("entry", [0, 512, 700, 1 << 30])
def test_an_unknown_slot_has_no_owner(entry: int) -> None:
    """Nothing is locked afterwards either."""
    kernel = Counted(12, locks="validated")
    first = kernel.swapped().swap
    assert first == 512
    kernel.call("swap_free_nr", first, 1)
    folio = kernel.call("swap_cache_get_folio", first)
    kernel.call("swap_cache_del_folio", folio)
    assert kernel.call("lookup_swap_cgroup_id", entry) == 0
    kernel.kernel.locks.assert_none_held()


@pytest.mark.parametrize("stage", [11, 12])
def test_whose_a_slot_is_costs_one_lock(stage: int) -> None:
    """Before, to find the place whose id was then read; now, to read the id."""
    kernel = Counted(stage)
    entry = kernel.evicted()
    assert kernel.locks("lookup_swap_cgroup_id", entry) == 1
    assert kernel.call("lookup_swap_cgroup_id", entry) == kernel.owner.id


def test_a_record_is_cleared_once() -> None:
    """The id that was there, then none; each slot had a reference on it."""
    kernel = Counted(12)
    entry = kernel.evicted(2)
    assert kernel.owner.id_refs == 1 + 4
    assert [kernel.call("swap_cgroup_clear", entry, 4) for _ in range(2)] == [kernel.owner.id, 0]


@pytest.mark.parametrize(
    ("ids", "last"),
    [((0, 7, 7, 7), 7), ((7, 7, 7, 7), 7), ((0, 0, 0, 0), 0), ((7, 7, 7, 0), None), ((7, 9, 7, 7), None)],
)
def test_a_batch_belongs_to_one_cgroup(ids: tuple[int, ...], last: int | None) -> None:
    """Zeros in front are let pass; after the first id all must be equal, or the kernel warns."""
    kernel = Counted(12)
    entry = kernel.evicted(2)
    cluster = kernel.s.vswap.cluster_map.load(entry >> 9)
    for index, memcgid in enumerate(ids, entry & 511):
        cluster.desc.memcgid[index] = memcgid
    if last is None:
        with pytest.raises(AssertionError, match="several cgroups"):
            kernel.call("swap_cgroup_clear", entry, 4)
    else:
        assert kernel.call("swap_cgroup_clear", entry, 4) == last


def test_the_checker_finds_a_record_of_a_free_slot() -> None:
    """And one of a cgroup that nobody knows."""
    stage = vr.at(12)
    for index, memcgid, message in ((100, 1, "records no cgroup"), (0, 999, "is a cgroup's")):
        k = stage.Kernel(ram="2M", swap=[vr.Ssd("1M")], cpus=1)
        heap = k.spawn("app").mmap("4K")
        heap.write_page(0, b"text" * 1024)
        heap.process.madvise(heap, "pageout")
        (cluster,) = (cluster for _, cluster in k.system.vswap.cluster_map.items())
        k.check()
        cluster.desc.memcgid[index] = memcgid
        with pytest.raises(stage.InvariantError, match=message):
            k.check()
