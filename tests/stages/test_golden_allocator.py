"""The allocator of virtual slots against a trace of the whole series, at every stage that has it.

Its code is the same from patch 9 on.  The traces of single patches never list two clusters of one order; this one lists
up to three, so it tells in which order clusters are listed and tried.  Of each operation only what concerns the
allocator is done: slots are taken and freed, clusters pinned, CPUs die.  What CPUs remember for look-ups (patch 22)
holds clusters as it did when the trace was recorded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vswap_ref.lab.replay.compare import cached_by
from vswap_ref.lab.replay.expected import Cluster, Expected
from vswap_ref.lab.replay.operations import fail
from vswap_ref.lab.replay.reader import Operation, read_trace
from vswap_ref.lab.replay.world import World, new_folio, new_world
from vswap_ref.series.stages import LoadedStage

TRACE = Path(__file__).parent.parent.parent / "data" / "golden" / "22" / "r06.jsonl.gz"


class Allocator:
    """A stage's allocator, driven by a trace; ``orders`` of the trace's folios, ``remembered`` clusters by CPU."""

    def __init__(self, stage: LoadedStage) -> None:
        self.world: World = new_world(stage, 9)
        self.orders: dict[int, int] = {}
        self.remembered: dict[str, int] = {}

    def play(self, operation: Operation, freed: dict[int, set[int]]) -> list[int]:
        """Do what concerns the allocator; returns the entries that it gave, 0 for none."""
        args, s = operation.args, self.world.s
        s.cpu = operation.cpu
        ids = range(args.get("id", 0), args.get("id", 0) + args.get("each", 1))
        entries: list[int] = []
        if operation.op in ("env.folio", "env.folio_set") and "order" in args:
            self.orders.update(dict.fromkeys(ids, args["order"]))
        elif operation.op == "env.fail":
            fail(self.world, **args)
        elif operation.op == "folio_alloc_swap":
            entries = [self.alloc(args["folio"] + i) for i in range(args.get("each", 1))]
        elif operation.op == "tryget_swap_entry" and operation.ret[0]:
            s.vswap.cluster_map.load(args["entry"] >> 9).refcnt += 1
        elif operation.op == "put_swap_entry":
            self.put(args["entry"] >> 9)
        elif operation.op == "vswap_cpu_dead":
            self.world.vswap_cpu_dead(args["cpu"])
        for cluster_id, indices in freed.items():
            self.free(cluster_id, indices)
        self.remember(operation.changes.get("pcpu", {}))
        s.rcu.synchronize()
        return entries

    def alloc(self, folio: int) -> int:
        """Take the slots of a folio."""
        order, alloc = self.orders[folio], self.world.functions["vswap_alloc"]
        wants_folio = "folio" in alloc.__annotations__
        return int(self.world.vswap_alloc(new_folio(self.world, folio, order) if wants_folio else order))

    def free(self, cluster_id: int, indices: set[int]) -> None:
        """Free slots of a cluster, in order."""
        cluster = self.world.s.vswap.cluster_map.load(cluster_id)
        with cluster.lock, self.world.s.rcu.read:
            for index in sorted(indices):
                self.world.release_vswap_slot(cluster, cluster_id << 9 | index)

    def put(self, cluster_id: int) -> None:
        """Drop a reference to a cluster."""
        cluster = self.world.s.vswap.cluster_map.load(cluster_id)
        with cluster.lock:
            self.world.vswap_cluster_put(cluster)

    def remember(self, pcpu: dict[str, Any]) -> None:
        """CPUs remember other clusters for look-ups: a reference each."""
        for cpu, hints in pcpu.items():
            old, new = self.remembered.get(cpu, -1), hints["iter"]
            self.remembered[cpu] = new
            if new >= 0:
                self.world.s.vswap.cluster_map.load(new).refcnt += 1
            if old >= 0:
                self.put(old)

    def state(self, changed: set[int]) -> dict[str, Any]:
        """What the trace tells of the allocator, and which slots of the changed clusters are in use."""
        vswap = self.world.s.vswap
        return {
            "clusters": {id_: figures(cluster, cluster.refcnt) for id_, cluster in vswap.cluster_map.items()},
            "slots": {id_: used(cluster) for id_, cluster in vswap.cluster_map.items() if id_ in changed},
            "partial": [[cluster.id for cluster in listed] for listed in vswap.partial_lists],
            "cached": [cached_by(self.world, cpu) for cpu in range(4)],
            "counters": (vswap.used, vswap.alloc_reject),
        }


def figures(cluster: Any, references: int) -> tuple[int, ...]:
    """A cluster's header."""
    return cluster.order, cluster.count, references, int(cluster.cached), int(cluster.full)


def used(cluster: Any) -> set[int]:
    """Indices of the allocated slots of the model's cluster."""
    return {index for index, bit in enumerate(cluster.bitmap.bits) if bit}


def expected_state(expected: Expected, changed: set[int]) -> dict[str, Any]:
    """The same from the trace."""
    return {
        "clusters": {id_: figures(cluster, cluster.ref) for id_, cluster in expected.clusters.items()},
        "slots": {id_: set(cluster.slots) for id_, cluster in expected.clusters.items() if id_ in changed},
        "partial": [expected.partial.get(order, []) for order in range(10)],
        "cached": [expected.pcpu[cpu] for cpu in range(4)],
        "counters": (expected.used, expected.alloc_reject),
    }


def first_difference(stage: LoadedStage) -> str:
    """Play the trace; what differs first, or "" for nothing."""
    allocator, expected = Allocator(stage), Expected()
    nr_listed = 0
    for operation in read_trace(TRACE).operations:
        changed = {change["id"] for change in operation.changes["clusters"]}
        before = {id_: set(cluster.slots) for id_, cluster in expected.clusters.items() if id_ in changed}
        expected.apply(operation)
        now = {id_: expected.clusters.get(id_, Cluster()).slots.keys() for id_ in before}
        freed = {id_: indices - now[id_] for id_, indices in before.items() if indices - now[id_]}
        entries = [entry for entry in allocator.play(operation, freed) if entry]
        nr_listed = max(nr_listed, *map(len, expected.partial.values()), 0)
        got, wanted = allocator.state(changed), expected_state(expected, changed)
        for what in wanted:
            if got[what] != wanted[what]:
                return f"{operation}: {what}: expected {wanted[what]}, got {got[what]}"
        if operation.op == "folio_alloc_swap":
            folios = operation.changes.get("folios", {}).values()
            assert sorted(entries) == sorted(folio["swap"] for folio in folios if folio["swap"]), str(operation)
    assert nr_listed == 3
    return ""


@pytest.mark.stages(9)
def test_lists_and_places_are_those_of_the_code(stage: LoadedStage) -> None:
    """After each of 7,748 operations: every cluster, every list in its order, what each CPU caches."""
    assert first_difference(stage) == ""


def test_a_list_filled_at_the_other_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head instead of tail."""
    from vswap_ref.series import at

    module = at(9).module("vswap.cluster")
    listed = module.add_to_partial_list
    monkeypatch.setattr(module, "add_to_partial_list", lambda s, cluster, at_head: listed(s, cluster, not at_head))
    assert "partial: expected" in first_difference(at(9))
