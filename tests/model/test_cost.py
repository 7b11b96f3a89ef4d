"""The cost ledger counts known sequences exactly: those of stage 0."""

from __future__ import annotations

import re

import pytest

import vswap_ref as vr
from vswap_ref.lab.experiments.cost import page_cost
from vswap_ref.series.stages import stages

BASE = vr.at(0)
Kernel = BASE.Kernel

OUT = {"ci_lock": 6, "local_lock": 1, "atomic": 2, "memcg_ref": 1}
"""Slot, cache, one more user for the PTE, "does anybody use it?", out of the cache, cache flag."""
DEVICE = {"xa_lock": 1}
"""A page that goes to the device locks zswap's tree, to drop an older copy."""
IN = {"ci_lock": 4, "rcu_lock": 3, "memcg_lookup": 1}
"""In use?, cache flag, cache, one user less; look-ups in the cache by the fault and by the read, and the owner."""
FREE = {"ci_lock": 3, "rcu_lock": 1, "atomic": 2, "memcg_ref": 1, "memcg_lookup": 1}
FREE |= {"memcg_uncharge_calls": 1, "phys_free_calls": 1, "phys_free_slots": 1}
"""Does anybody use it?, out of the cache, cache flag; then all that hangs on the slot."""


@pytest.mark.parametrize(
    ("store", "out", "back", "free"),
    [
        ("device", DEVICE, {}, {}),
        ("zero", {}, {}, {}),
        ("zswap", {"xa_lock": 1}, {"xa_load": 1, "xa_lock": 1, "rcu_lock": 4, "zswap_free": 1}, {"xa_lock": 1}),
    ],
)
def test_the_life_of_a_page(store: str, out: dict[str, int], back: dict[str, int], free: dict[str, int]) -> None:
    """Counted by hand from the functions on the way.

    A compressed page costs its tree in addition, even when it is no longer in it: the neighbour is.
    """
    record = page_cost(store)
    assert record.steps == {"swap out": OUT | out, "fault in": IN | back, "free": FREE | free}


def test_without_cgroups_none_is_looked_up() -> None:
    """No reference, no look-up, no uncharge; the rest is the same."""
    record = page_cost("device", memcg=None)
    for step, with_cgroups in zip(record.steps.values(), (OUT | DEVICE, IN, FREE), strict=True):
        rest = {name: nr for name, nr in with_cgroups.items() if not name.startswith("memcg")}
        rest["rcu_lock"] = rest.get("rcu_lock", 0) - with_cgroups.get("memcg_lookup", 0)
        assert step == {name: nr for name, nr in rest.items() if nr}


def test_a_large_folio_is_freed_in_one_call() -> None:
    """512 slots: one call, one uncharge; the id is referenced once, and then 511 times at once."""
    kernel = Kernel(ram="8M", swap=[vr.Ssd("8M")])
    s = kernel.system
    folio = BASE.module("folio").folio_alloc(s, 9)
    assert BASE.module("memcg").mem_cgroup_charge(s, folio, kernel.cgroup("group").memcg) == 0
    BASE.module("folio").folio_lock(folio)
    folio.uptodate = folio.swapbacked = True
    before = kernel.cost.snapshot()
    assert BASE.module("swap_alloc").folio_alloc_swap(s, folio) == 0
    assert kernel.cost.since(before) == {"ci_lock": 2, "local_lock": 1, "atomic": 2, "memcg_ref": 2}
    before = kernel.cost.snapshot()
    assert BASE.module("slot_reclaim").folio_free_swap(s, folio)
    freed = {"phys_free_slots": 512, "rcu_lock": 1}
    assert kernel.cost.since(before) == {name: nr for name, nr in (FREE | freed).items() if nr}


@pytest.mark.parametrize("stage", [0, 12, 14])
def test_a_full_cluster_is_combed_under_its_lock(stage: int) -> None:
    """The lock is given up for each attempt only: one acquisition at the beginning, and one after each."""
    kernel = vr.at(stage).Kernel(ram="8M", cpus=1, page_cluster=0)
    kernel.swapon(vr.Ssd("2M"), priority=1)
    kernel.swapon(vr.Ssd("8M"), priority=0)
    heap = kernel.spawn("app").mmap_swapped("2044K")
    cached = range(0, heap.pages, 7)
    for page in cached:
        heap.touch(page)
    for folio in kernel.system.memory.mem_map:
        if folio is not None:
            folio.locked = True
    before = kernel.cost.snapshot()
    vr.at(stage).module("swap_alloc").swap_reclaim_full_clusters(kernel.system, kernel.system.swap.info[0], False)
    assert kernel.cost.since(before)["ci_lock"] == 1 + len(cached)


def test_an_allocation_that_fails_costs_too() -> None:
    """The local lock; the reference that is taken and given back at the limit."""
    kernel = Kernel(ram="4M", swap=[vr.Ssd("1M")])
    heap = kernel.spawn("app", cgroup=kernel.cgroup("group", swap_max=0)).mmap("4K")
    heap.write_page(0, b"data" * 1024)
    before = kernel.cost.snapshot()
    heap.process.madvise(heap, "pageout")
    limit = kernel.cost.since(before)
    assert (limit["local_lock"], limit["memcg_ref"], limit["phys_free_slots"]) == (1, 2, 1)
    empty = Kernel(ram="4M")
    heap = empty.spawn("app").mmap("4K")
    heap.write_page(0, b"data" * 1024)
    empty.reclaim("4K")
    heap.process.madvise(heap, "pageout")
    assert set(empty.cost.since(Kernel(ram="4M").cost)) <= {"local_lock"}


def test_looking_costs_nothing() -> None:
    """Views and checks are not part of the kernel's work."""
    kernel = Kernel(ram="4M", swap=[vr.Ssd("8M")], zswap="lz4")
    heap = kernel.spawn("app").mmap("16K")
    heap[0] = 1
    heap.process.madvise(heap, "pageout")
    before = kernel.cost.snapshot()
    print(heap.where(), kernel.meminfo(), kernel.memory(), kernel.swaps(), kernel)
    kernel.check()
    assert kernel.cost.since(before) == {}


@pytest.mark.parametrize("stage", sorted(stages(), key=int))
def test_the_table_is_complete(stage: str) -> None:
    """Every path that the model counts has a price, in primitives that have a meaning; every primitive has a path."""
    loaded = vr.at(stage)
    counted = {name for text in loaded.sources().values() for name in re.findall(r"s\.cost\.(\w+) \+= ", text)}
    paths = loaded.find("COST_OF_PATH")
    assert counted == set(paths)
    assert {primitive for costs in paths.values() for primitive in costs} == set(loaded.find("PRIMITIVES"))


def test_a_counter_that_does_not_exist_cannot_be_counted_in() -> None:
    """A typing error is found where it stands."""
    s = Kernel(ram="4M").system
    for tally in (s.vmstat, s.cost, s.zswap.debugfs, s.memcg.root.stat, s.thp.stats[4]):
        with pytest.raises(AttributeError, match="swapcachd"):
            tally.swapcachd = 1
