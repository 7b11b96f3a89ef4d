"""Virtual slots: which values come out, which cluster they come from, and what every structure is afterwards."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vswap_layer import ORDERS, STAGES, Layer


@pytest.fixture(params=STAGES)
def layer(request: pytest.FixtureRequest) -> Layer:
    """The layer of each stage that has it, with two CPUs: what is tested here stays true."""
    return Layer(request.param, cpus=2)


def test_first_values(layer: Layer) -> None:
    """The first cluster since boot has id 1, the second one id 0; an order-9 allocation opens a cluster each time."""
    assert [layer.alloc(order) for order in (0, 0, 9, 9, 4)] == [512, 513, 1024, 1536, 16]
    layer = Layer(layer.number)
    assert [layer.alloc(k) for k in ORDERS] == [512, 2, 1024, 1536, 2048, 2560, 3072, 3584, 4096, 4608]
    assert [layer.alloc(k) for k in ORDERS] == [513, 4, 1028, 1544, 2064, 2592, 3136, 3712, 4352, 5120]
    layer.assert_invariants()


def test_id_zero_is_free_once_something_was_stored(layer: Layer) -> None:
    """After the map has been emptied the next cluster gets id 0, but never for order 9."""
    first = layer.alloc(9)
    assert first == 512
    layer.free(*range(first, first + 512))
    assert layer.vswap.cluster_map.empty
    assert [layer.alloc(9), layer.alloc(0)] == [512, 1]


def test_fragmentation(layer: Layer) -> None:
    """By its count a cluster has room, by its alignment none: it goes round between list and full."""
    entries = [layer.alloc(4) for _ in range(32)]
    cluster = layer.cluster(entries[0])
    assert (cluster.count, cluster.full, cluster.cached) == (512, True, False)
    layer.free(*entries[:16])
    assert (cluster.count, cluster.full, layer.partial(4)) == (496, False, [1])
    layer.free(*entries[16:])
    assert layer.alloc(4) == 16
    assert (cluster.count, cluster.full, layer.partial(4)) == (480, True, [])
    layer.free(entries[0] + 1)
    assert (cluster.count, cluster.full, layer.partial(4)) == (479, False, [1])
    layer.assert_invariants()


def test_cluster_zero_is_retired_late(layer: Layer) -> None:
    """511 slots of order 0 are all that cluster 0 has; it stays cached until the 512th request fails there."""
    first = [layer.alloc() for _ in range(512)]
    assert layer.cluster(first[0]).full
    entries = [layer.alloc() for _ in range(511)]
    zero = layer.cluster(entries[0])
    assert (entries, zero.count, zero.cached, zero.full) == ([*range(1, 512)], 511, True, False)
    assert layer.alloc() == 1024
    assert (zero.count, zero.cached, zero.full, zero.refcnt) == (511, False, True, 511)
    layer.assert_invariants()


def test_lists_take_from_the_head_and_give_back_to_the_tail(layer: Layer) -> None:
    """Clusters that get room again queue up; the one that had it first is used first."""
    entries = [layer.alloc(8) for _ in range(6)]
    assert entries == [512, 768, 256, 1024, 1280, 1536]
    layer.free(*range(1024, 1280))
    layer.free(*range(512, 768))
    assert layer.partial(8) == [2, 1]
    layer.alloc(8)
    assert layer.alloc(8) == 1024
    assert layer.partial(8) == [1]
    layer.assert_invariants()


def test_a_busy_cluster_is_skipped(layer: Layer) -> None:
    """Allocation does not wait for a cluster on the list: it takes another one, or a new one."""
    layer.alloc(8), layer.alloc(8)
    layer.free(*range(512, 768))
    busy = layer.cluster(768)
    with busy.lock:
        assert layer.alloc(8) == 256
    assert layer.partial(8) == [1]
    layer.assert_invariants()


def test_cpu_death_strands_a_cluster(layer: Layer) -> None:
    """The dead CPU's cluster is on no list and not full, so its 511 free slots are out of reach until it is empty."""
    entry = layer.alloc(0, cpu=1)
    assert layer.s.cpuhp_dead["CPUHP_MM_VSWAP_DEAD"](layer.s, 1) == 0
    cluster = layer.cluster(entry)
    assert (cluster.cached, cluster.full, cluster.refcnt, layer.partial(0)) == (False, False, 1, [])
    assert layer.alloc(0, cpu=0) == 1
    layer.free(entry)
    assert layer.cluster(entry) is None
    layer.assert_invariants()


def test_an_empty_cached_cluster_dies_with_its_cpu(layer: Layer) -> None:
    """After everything is freed at most nine empty clusters a CPU are left; they go with the CPU."""
    for cpu in (0, 1):
        entries = [layer.alloc(k, cpu) for k in ORDERS]
        for k, entry in enumerate(entries):
            layer.free(*range(entry, entry + (1 << k)))
    assert len(layer.vswap.cluster_map) == 18
    for cpu in (0, 1):
        layer.call("vswap_cpu_dead", cpu)
    assert layer.vswap.cluster_map.empty
    assert layer.s.rcu.pending == 9 + 9


def test_memory_of_a_dead_cluster_is_gone_after_the_grace_period(layer: Layer) -> None:
    """A reader in time finds an empty cluster; one that comes too late finds out."""
    entry = layer.alloc(9)
    cluster = layer.cluster(entry)
    layer.free(*range(entry, entry + 512), wait=False)
    assert cluster.desc.slot[0] == 0
    layer.s.rcu.synchronize()
    with pytest.raises(AttributeError):
        _ = cluster.desc


@pytest.mark.parametrize("site", ["vswap_cluster_alloc", "vswap_desc_alloc", "vswap_cluster_id", "vswap_map_node"])
def test_a_failed_allocation_changes_one_counter(layer: Layer, site: str) -> None:
    """No memory or no id: nothing is used, and the pages that found no slot are counted."""
    layer.kernel.faults.fail(site)
    assert layer.alloc(4) == 0
    assert (layer.vswap.used, layer.vswap.alloc_reject) == (0, 16)
    assert layer.vswap.cluster_map.empty
    assert layer.alloc(4) == 512
    layer.assert_invariants()


def test_iter_hands_the_lock_over(layer: Layer) -> None:
    """A walk takes a cluster's lock once, holds one at a time, and none where a slot is not allocated."""
    first, second = layer.alloc(9), layer.alloc(9)
    assert second == first + 512
    held, before = None, dict(layer.s.cost)
    for entry in range(first, second + 512):
        held = layer.call("vswap_iter", held, entry)
        assert held is layer.cluster(entry)
        assert [layer.cluster(e).lock.locked() for e in (first, second)] == [entry < second, entry >= second]
    paths = {path: n - before[path] for path, n in layer.s.cost.items() if n != before[path]}
    assert paths == {"vswap_iter": 1, "vswap_iter_next": 1}
    assert layer.call("vswap_iter", held, second + 512) is None
    assert not layer.cluster(second).lock.locked()
    layer.free(first)
    assert layer.call("vswap_iter", None, first) is None
    assert not layer.cluster(first + 1).lock.locked()


def test_migration_lists_the_new_cluster_at_the_head(layer: Layer) -> None:
    """If the CPU has got another cluster while the new one was made, the new one waits at the head of the list."""
    layer.alloc(3, cpu=0)
    layer.alloc(3, cpu=1)
    mine = layer.vswap.percpu[0].clusters[3]
    layer.s.cpu = 0
    for waiting in (1, 2):
        entry, roomy = layer.call("vswap_alloc_new", 3 if layer.number == 9 else layer.folio(3))
        layer.vswap.used += 8
        layer.call("vswap_cache_cluster", roomy)
        assert layer.partial(3)[0] == entry >> 9
        assert len(layer.partial(3)) == waiting
    assert layer.vswap.percpu[0].clusters[3] is mine
    layer.assert_invariants()


OPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 2), st.integers(0, 999)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(STAGES), OPS)
def test_random_lives(stage: int, ops: list[tuple[int, int, int, int]]) -> None:
    """Whatever happens: slots are aligned, given once, in a cluster of their order; all invariants hold."""
    layer = Layer(stage, cpus=3)
    live: dict[int, int] = {}
    for what, order, cpu, pick in ops:
        if what < 4:
            order = (order, 0, 8, 4)[what]
            entry = layer.alloc(order, cpu)
            run = range(entry, entry + (1 << order))
            assert entry
            assert entry % len(run) == 0
            assert not live.keys() & set(run)
            assert layer.cluster(entry).order == order
            live |= dict.fromkeys(run, order)
        elif what < 6 and live:
            entries = sorted(live)
            start = pick % len(entries)
            for entry in entries[start : start + (1, 64)[what - 4]]:
                layer.free(entry)
                del live[entry]
                assert layer.call("swp_entry_to_swp_slot", entry) == 0
        elif what == 6:
            layer.call("vswap_cpu_dead", cpu)
        layer.assert_invariants()
        assert layer.vswap.used == len(live)
