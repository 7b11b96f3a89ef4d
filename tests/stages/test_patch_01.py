"""Patch 1: the swap cache is one tree with one lock; adding to it can fail; everything else is as before."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EEXIST, ENOMEM
from typing import Any

import pytest

import vswap_ref as vr
from vswap_ref.lab.experiments.cost import page_cost
from vswap_ref.lab.experiments.global_cache import (
    cache_memory,
    depth,
    famine,
    lock_waits,
    pin_dropped_first,
    shadow_of_a_range,
)
from vswap_ref.machine import PAGE_SIZE
from vswap_ref.machine.locks import LockdepError

STAGE = vr.at(1)
TEXT = b"some text " * 409 + bytes(6)


def call(module: str, name: str, *args: Any) -> Any:
    """A function of the stage."""
    return getattr(STAGE.module(module), name)(*args)


@pytest.fixture
def kernel() -> Iterator[Any]:
    """A kernel whose locks are validated; the invariants hold at the end."""
    kernel = STAGE.Kernel(ram="8M", swap=[vr.Ssd("8M")], cpus=1, locks="validated")
    yield kernel
    kernel.check()
    kernel.locks.assert_none_held()


def new_folio(kernel: Any, order: int = 0, memcg: Any = None) -> Any:
    """A locked folio on the LRU list, with one reference."""
    folio = call("folio", "folio_alloc", kernel.system, order)
    if memcg is not None:
        assert call("memcg", "mem_cgroup_charge", kernel.system, folio, memcg) == 0
    call("folio", "folio_lock", folio)
    folio.swapbacked = folio.uptodate = True
    call("lru", "folio_add_lru", kernel.system, folio)
    return folio


def drop(kernel: Any, folio: Any) -> None:
    """Out of the cache if it is in it, unlocked, freed."""
    if folio.swapcache:
        call("swap_cache", "swap_cache_del_folio", kernel.system, folio)
    call("folio", "folio_unlock", folio)
    call("folio", "folio_put", kernel.system, folio)


def state(kernel: Any, memcg: Any = None) -> Any:
    """What a failure must leave alone: tree, statistics, slots, charge."""
    s = kernel.system
    si = s.swap.info[0]
    slots = (s.swap.nr_swap_pages, si.inuse_pages, bytes(si.swap_map), [ci.count for ci in si.cluster_info])
    stats = (s.vmstat["nr_swapcached"], s.vmstat["nr_file_pages"])
    return dict(s.swap.cache.xa.items()), stats, slots, memcg and (memcg.swap.usage, memcg.stat["swapcached"])


@pytest.mark.parametrize("order", [0, 4, 9])
def test_a_folio_stands_at_each_of_its_slots(kernel: Any, order: int) -> None:
    """One ordinary entry a page, one reference a page, both statistics; a shadow afterwards; nothing when freed."""
    s, nr = kernel.system, 1 << order
    folio = new_folio(kernel, order)
    assert call("swap_alloc", "folio_alloc_swap", s, folio) == 0
    entry = folio.swap
    assert entry % nr == 0
    assert dict(s.swap.cache.xa.items()) == dict.fromkeys(range(entry, entry + nr), folio)
    assert (folio.refcount, s.vmstat["nr_swapcached"], s.vmstat["nr_file_pages"]) == (1 + nr, nr, nr)
    assert call("swap_cache", "swap_cache_get_folio", s, entry + nr - 1) is folio
    call("folio", "folio_put", s, folio)
    drop(kernel, folio)
    assert len(s.swap.cache.xa) == s.vmstat["nr_swapcached"] == s.vmstat["nr_file_pages"] == 0


def test_a_wild_entry_is_not_cached(kernel: Any) -> None:
    """A look-up does not touch the device: one that never existed has nothing cached."""
    wild = call("types", "swp_entry", 7, 12345)
    assert call("swap_cache", "swap_cache_get_folio", kernel.system, wild) is None
    assert call("swap_cache", "swap_cache_get_shadow", kernel.system, wild) is None


@pytest.mark.parametrize("order", [0, 4, 9])
def test_no_node_no_swap_out(kernel: Any, order: int) -> None:
    """-ENOMEM: tree, statistics, slots, charge and references are as before; the next attempt succeeds."""
    group = kernel.cgroup("group").memcg
    folio = new_folio(kernel, order, group)
    before = state(kernel, group)
    kernel.faults.fail("swap_cache_node", times=2)
    assert call("swap_alloc", "folio_alloc_swap", kernel.system, folio) == -ENOMEM
    assert state(kernel, group) == before
    assert (folio.refcount, folio.swapcache) == (1, False)
    assert folio.swap, "the value stays, without a meaning"
    assert call("swap_alloc", "folio_alloc_swap", kernel.system, folio) == 0
    drop(kernel, folio)


def test_one_failure_is_made_good_outside_the_lock(kernel: Any) -> None:
    """Of nine nodes for 512 slots each may fail once; two failures in a row are one too many."""
    requests = kernel.faults.calls
    for nth in range(1, 10):
        folio = new_folio(kernel, 9)
        kernel.faults.fail("swap_cache_node", nth=nth)
        first = requests["swap_cache_node"]
        assert call("swap_alloc", "folio_alloc_swap", kernel.system, folio) == 0
        assert requests["swap_cache_node"] == first + 10
        drop(kernel, folio)


def test_swap_in_fails_without_a_node(kernel: Any) -> None:
    """The pin is dropped, the charge goes with the folio, no refault is counted; the page is still in swap."""
    s = kernel.system
    app = kernel.spawn("app", cgroup=kernel.cgroup("group"))
    heap = app.mmap("4K")
    heap.write_page(0, TEXT)
    app.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("4K")
    entry = call("types", "pte_to_swp_entry", call("pagetable", "ptep_get", app.mm, heap.vma.start))
    s.swap.cache.xa.erase(entry)
    before = state(kernel, app.mm.memcg), app.mm.memcg.memory.usage, kernel.vmstat["workingset_refault_anon"]
    kernel.faults.fail("swap_cache_node", times=2)
    folio, allocated = call("swap_read", "__read_swap_cache_async", s, entry, app.mm.memcg)
    assert (folio, allocated) == (None, False)
    after = state(kernel, app.mm.memcg), app.mm.memcg.memory.usage, kernel.vmstat["workingset_refault_anon"]
    assert after == before
    kernel.check()
    assert heap.read_page(0) == TEXT


def test_a_folio_in_the_way_ends_the_walk(kernel: Any) -> None:
    """-EEXIST: the entries before it stay overwritten, their shadows are lost; flag and references are taken back."""
    s = kernel.system
    there, late = new_folio(kernel), new_folio(kernel, 2)
    shadow = call("workingset", "pack_shadow", 1, 7, False)
    s.swap.cache.xa.store(1024, shadow)
    s.swap.cache.xa.store(1025, there)
    assert call("swap_cache", "swap_cache_add_folio", s, late, 1024) == (-EEXIST, None)
    assert dict(s.swap.cache.xa.items()) == {1024: late, 1025: there}
    assert (late.refcount, late.swapcache, s.vmstat["nr_swapcached"]) == (1, False, 0)
    s.swap.cache.xa.store_range(1024, 2, None)
    drop(kernel, there)
    drop(kernel, late)


def test_the_first_shadow_wins() -> None:
    """Stage 0 returned the last."""
    assert [shadow_of_a_range(stage) for stage in (0, 1)] == [4, 1]


def test_clearing_nothing_changes_nothing(kernel: Any) -> None:
    """No entry, no node, no request for one."""
    kernel.faults.fail("swap_cache_node", times=1000)
    xa = kernel.system.swap.cache.xa
    xa.store(600, call("workingset", "pack_shadow", 1, 7, False))
    calls = kernel.faults.calls["swap_cache_node"]
    for first, nr in ((1, 1), (64, 512), (601, 3)):
        call("swap_cache_tree", "swap_cache_clear_shadow", kernel.system, first, nr)
    assert (len(xa), xa.nodes, kernel.faults.calls["swap_cache_node"]) == (1, 2, calls)
    xa.erase(600)


def test_a_cluster_is_never_locked_inside_the_cache(kernel: Any) -> None:
    """After a slot was freed the validator knows the order, and refuses the opposite one."""
    s = kernel.system
    folio = new_folio(kernel)
    assert call("swap_alloc", "folio_alloc_swap", s, folio) == 0
    drop(kernel, folio)
    call("swap_cache_tree", "swap_cache_lock_irq", s)
    assert s.locks.lockdep.task.irqs_off == 1
    with pytest.raises(LockdepError, match="circular"):
        call("swap_device", "swap_cluster_lock", s, s.swap.info[0], 1)
    call("swap_cache_tree", "swap_cache_unlock_irq", s)
    assert s.locks.lockdep.task.irqs_off == 0


def test_a_split_keeps_every_page_findable(kernel: Any) -> None:
    """Each slot leads to its own page; pages that nobody uses leave with their slots."""
    s = kernel.system
    folio = new_folio(kernel, 3)
    assert call("swap_alloc", "folio_alloc_swap", s, folio) == 0
    entry = folio.swap
    folio.mapcounts = [0] * 8
    assert call("swap_map", "__swap_duplicate", s, entry, 1, 8) == 0
    assert call("huge_memory", "split_folio_to_list", s, folio) == 0
    found = [s.swap.cache.xa.load(entry + page) for page in range(8)]
    assert [page.pfn for page in found] == list(range(folio.pfn, folio.pfn + 8))
    assert all(page.swap == entry + i and page.order == 0 for i, page in enumerate(found))
    call("swap_map", "swap_free_nr", s, entry, 8)
    drop(kernel, folio)
    for page in found[1:]:
        call("folio", "folio_lock", page)
        page.refcount += 1
        drop(kernel, page)


def test_the_checker_sees_a_tree_that_is_wrong(kernel: Any) -> None:
    """A folio at a wrong slot, a shadow of a free slot, a word in a table, a leaked lock."""
    s = kernel.system
    xa, error = s.swap.cache.xa, STAGE.InvariantError
    folio = new_folio(kernel)
    assert call("swap_alloc", "folio_alloc_swap", s, folio) == 0
    check = STAGE.module("check").check_swap_cache
    check(s)
    xa.store(folio.swap + 1, folio)
    with pytest.raises(error, match="at its slots"):
        check(s)
    xa.store(folio.swap + 1, call("workingset", "pack_shadow", 1, 7, False))
    with pytest.raises(error, match="has a slot"):
        check(s)
    xa.erase(folio.swap + 1)
    s.swap.info[0].cluster_info[0].table[9] = 1
    with pytest.raises(error, match="are 0"):
        check(s)
    s.swap.info[0].cluster_info[0].table[9] = 0
    call("swap_cache_tree", "swap_cache_lock", s)
    with pytest.raises(error, match="leak"):
        check(s)
    call("swap_cache_tree", "swap_cache_unlock", s)
    drop(kernel, folio)
    assert "at its slots: only=[512, 513, 514, 515]" in pin_dropped_first()


def test_nothing_is_left_of_a_device() -> None:
    """After swapoff, and after the last page is freed, the tree has no entry and no node."""
    kernel = STAGE.Kernel(ram="4M", swap=[vr.Ssd("4M"), vr.Ssd("4M")], debug=True)
    app = kernel.spawn("app")
    heap = app.mmap("256K")
    for page in range(heap.pages):
        heap.write_page(page, TEXT)
    app.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("256K")
    xa = kernel.system.swap.cache.xa
    assert {entry >> 58 for entry in xa} <= {0, 1}
    first = {entry >> 58 for entry in xa}
    for device in sorted(first):
        kernel.swapoff(device)
        assert device not in {entry >> 58 for entry in xa}
    assert (len(xa), xa.nodes) == (0, 0)
    assert heap.read_page(63) == TEXT


@pytest.mark.parametrize(("stage", "cluster", "cache"), [(0, (6, 7, 1), (0, 0, 0)), (1, (4, 5, 1), (2, 3, 1))])
def test_locks_of_a_page(stage: int, cluster: tuple[int, ...], cache: tuple[int, ...]) -> None:
    """Locks of a page's way out, of its way in and the free of its slot, of a free while it is in swap."""
    out, fault, free = page_cost("device", stage=stage).steps.values()
    kernel = vr.at(stage).Kernel(ram="4M", swap=[vr.Ssd("8M")], cpus=1)
    app = kernel.spawn("app")
    _, gone = app.mmap_swapped(PAGE_SIZE), app.mmap_swapped(PAGE_SIZE)
    before = kernel.cost.snapshot()
    gone.munmap()
    end = kernel.cost.since(before)
    for name, expected in (("ci_lock", cluster), ("cache_lock", cache)):
        assert (out.get(name, 0), fault.get(name, 0) + free.get(name, 0), end.get(name, 0)) == expected


def test_the_tree_comes_on_top_of_the_tables() -> None:
    """8.0 becomes 17.1 bytes a slot if all are used, 4,096 becomes 4,762 if each is alone in its cluster."""
    dense, sparse = cache_memory("dense", "1G"), cache_memory("sparse", "130M")
    assert (dense.slots, dense.tables, dense.nodes, dense.node_bytes) == (262_143, 512 * 4096, 4_161, 2_396_736)
    assert (sparse.slots, sparse.tables, sparse.nodes, sparse.node_bytes) == (64, 256 << 10, 74, 42_624)
    assert f"{dense.bytes_per_slot:.1f}" == "17.1"
    assert sparse.bytes_per_slot == 4762
    assert f"{cache_memory('dense', '16M', 0).bytes_per_slot:.1f}" == "8.0"
    assert cache_memory("sparse", "130M", 0).bytes_per_slot == 4096


def test_other_devices_make_the_tree_deep() -> None:
    """3 levels, 10 as soon as there is an entry of device 1 to 3, 11 from device 4 on; and low again."""
    assert [row["levels"] for row in depth("1G", 2).rows] == [3, 10, 3]
    assert [row["levels"] for row in depth("64M", 5).rows] == [3, 10, 10, 10, 10, 10, 10, 10, 3]


@pytest.mark.parametrize("path", ["swap out", "free"])
def test_only_the_one_lock_is_waited_for(path: str) -> None:
    """CPUs with clusters of their own never wait at stage 0; at stage 1 the more the more of them there are."""
    assert lock_waits(8, path, 0).waits == {}
    waits = [lock_waits(cpus, path).waits for cpus in (1, 2, 4, 8)]
    assert all(set(one) <= {"swap_cache"} for one in waits)
    numbers = [one.get("swap_cache", 0) for one in waits]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0


def test_a_famine_of_nodes_loses_swap_outs_and_nothing_else() -> None:
    """Two requests for each page; stage 0 has no such site."""
    assert [famine(failures).lost for failures in (0, 1, 2, 4, 9)] == [0, 0, 1, 2, 4]
    assert famine(100, stage=0).lost == 0
    assert all(famine(n).free_before == famine(n).free_after for n in (0, 9))
