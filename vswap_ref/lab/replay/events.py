"""Counters that an operation moves: statistics, and what it costs in look-ups, locks and references."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .compare import Difference, named
from .effects import STATS
from .reader import Operation
from .world import World

COSTS = (
    "xa_load",
    "cl_lock",
    "cl_trylock_fail",
    "xa_lock",
    "ci_lock",
    "local_lock",
    "ref",
    "atomic",
    "rmap_atomic",
    "rcu_lock",
    "bit_scans",
)
"""Events that are the layer's own doing; those of its neighbours are the stand-ins'."""


@dataclass(frozen=True, slots=True)
class Before:
    """Counters as they were before an operation, and whether the map's memory was going to fail.

    ``zeros``: pages of zeros swapped out, by cgroup.
    """

    vmstat: dict[str, int]
    zeros: dict[int, int]
    cost: dict[str, int]
    no_nodes: bool


def snapshot(world: World) -> Before:
    """The counters now."""
    no_nodes = world.failing.get("xa_node", (0, 0))[1] > 0
    return Before(world.s.vmstat.snapshot(), zeros_swapped_out(world), world.s.cost.snapshot(), no_nodes)


def zeros_swapped_out(world: World) -> dict[int, int]:
    """Id of a cgroup -> its pages of zeros swapped out."""
    return {id_: memcg.stat["swpout_zero"] for id_, memcg in world.s.memcg.by_id.items()}


def cost_differences(world: World, operation: Operation, before: Before) -> Iterator[Difference]:
    """Events that the operation caused in another number."""
    if operation.cost is None:
        return
    table, counts = world.functions["COST_OF_PATH"], dict.fromkeys(COSTS, 0)
    for path, taken in world.s.cost.snapshot().items():
        if taken != before.cost[path]:
            for primitive in table[path].keys() & counts.keys():
                counts[primitive] += table[path][primitive] * (taken - before.cost[path])
    skipped = not_counted(world, operation, before)
    for primitive in (name for name in COSTS if name not in skipped):
        yield from named(f"events {primitive}", operation.cost.get(primitive, 0), counts[primitive])


def not_counted(world: World, operation: Operation, before: Before) -> set[str]:
    """Events that the model counts otherwise, on two paths of failures (see EXCLUDED)."""
    unlinked = any(effect[0] == "swap_slot_alloc" and effect[2] is None for effect in operation.calls)
    found = {"xa_lock"} if before.no_nodes else set()
    return found | {"rcu_lock"} if world.level == 13 and unlinked else found


def note_counters(world: World, before: Before) -> None:
    """Write down by how much the operation moved the counters that traces have."""
    for name, counter in STATS.items():
        moved = world.s.vmstat[counter] - before.vmstat[counter]
        if moved:
            world.note("stat", name, moved)
    for id_, zeros in zeros_swapped_out(world).items():
        if zeros != before.zeros.get(id_, 0):
            world.note("objcg_stat", id_, "SWPOUT_ZERO", zeros - before.zeros.get(id_, 0))
