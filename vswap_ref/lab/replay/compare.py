"""The state of the model beside the state that the trace describes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from .effects import in_order, show, sums
from .expected import FIGURES, Cluster, Expected, Slot
from .reader import Operation
from .shape import CPUS
from .world import CLUSTER, World, flags_of, place

ZSWAP_LEVELS = range(9, 14)
"""Levels whose traces list compressed copies apart from the slots."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field in which model and trace differ after an operation."""

    field: str
    expected: Any
    got: Any

    def __str__(self) -> str:
        return f"{self.field}: expected {self.expected}, got {self.got}"


def slot_of(world: World, cluster: Any, index: int) -> Slot:
    """A slot of the model in the trace's terms; what the level's descriptor lacks comes from its owner's stand-in."""
    desc, entry = cluster.desc, cluster.id * CLUSTER + index
    has = desc.array.dtype.names
    kind, backing = typed_backing(world, desc, index) if "type" in has else plain_backing(desc, index)
    if "swap_count" in has:
        count, held = desc.swap_count[index], int(desc.in_swapcache[index])
    else:
        count, held = world.swap_map.get(desc.slot[index], (0, 0))
    cache = desc.swap_cache[index] if "swap_cache" in has else world.swap_cache.get(entry)
    memcgid = desc.memcgid[index] if "memcgid" in has else world.swap_cgroup.get(entry, 0)
    return Slot(kind, backing, cache_text(cache), count, held, memcgid)


def plain_backing(desc: Any, index: int) -> tuple[str, str]:
    """(kind, backing) where every slot has a physical one (to 13)."""
    slot = desc.slot[index]
    return ("S", "{}.{}".format(*place(slot))) if slot else ("F", "-")


TYPES = "S0CF"


def typed_backing(world: World, desc: Any, index: int) -> tuple[str, str]:
    """(kind, backing) where the descriptor says what kind of backing it has (14 on)."""
    word = desc.slot[index]
    kind = TYPES[desc.type[index]]
    if kind == "S":
        return kind, "{}.{}".format(*place(word))
    return kind, str(copy_id(world, word)) if kind == "C" else "-"


def copy_id(world: World, handle: int) -> int:
    """Id of a compressed copy in the trace from the model's handle; -1 if the handle is of nothing."""
    try:
        return world.zswap_ids[world.s.zswap.entries[handle]]
    except LookupError:
        return -1


def cache_text(word: Any) -> str:
    """A swap-cache word, or what a stand-in's table has, in the trace's form."""
    if not word:
        return "-"
    if not isinstance(word, int):
        return f"f{word.pfn}"
    return f"s{word >> 1}" if word & 1 else f"f{word >> 1}"


def zswap_copies(world: World, cluster: Any) -> dict[int, int]:
    """Index -> id of the compressed copy, for the slots of a cluster (9 to 13)."""
    indices = (index for index in range(CLUSTER) if cluster.bitmap.bits[index])
    if "zswap_entry" in cluster.desc.array.dtype.names:
        handles = cluster.desc.zswap_entry
        return {index: copy_id(world, handles[index]) for index in indices if handles[index]}
    tree, first = world.zswap_tree, cluster.id * CLUSTER
    return {index: world.zswap_ids[tree[first + index]] for index in indices if first + index in tree}


def cluster_view(world: World, cluster: Any) -> Cluster:
    """A cluster of the model in the trace's terms."""
    slots = {index: slot_of(world, cluster, index) for index in range(CLUSTER) if cluster.bitmap.bits[index]}
    copies = zswap_copies(world, cluster) if world.level in ZSWAP_LEVELS else {}
    figures = cluster.order, cluster.count, cluster.refcnt, int(cluster.cached), int(cluster.full)
    return Cluster(*figures, bitmap_runs(cluster.bitmap.bits), slots, copies)


def bitmap_runs(bits: Any) -> list[list[int]]:
    """The set bits of a bitmap as [start, n]."""
    edges = [
        index for index in range(CLUSTER + 1) if (index < CLUSTER and bits[index]) != (index > 0 and bits[index - 1])
    ]
    return [[start, end - start] for start, end in zip(edges[::2], edges[1::2], strict=True)]


REMEMBERED = -1
"""Cluster that a CPU remembers for look-ups: none, no stage has it yet (patch 22)."""


def differences(
    world: World, expected: Expected, operation: Operation, result: Any, touched: set[int]
) -> Iterator[Difference]:
    """Everything in which the model now differs from the trace.

    Clusters that are ``touched``, or that the trace names, are compared slot by slot.
    """
    if repr(result) != repr(operation.ret):  # true is not 1
        yield Difference("result", operation.ret, result)
    yield from effect_differences(world, operation)
    vswap = world.s.vswap
    yield from named("used", expected.used, vswap.used)
    yield from named("alloc_reject", expected.alloc_reject, vswap.alloc_reject)
    yield from named("clusters", sorted(expected.clusters), sorted(vswap.cluster_map))
    touched = touched | {change["id"] for change in operation.changes["clusters"]}
    for cluster_id in sorted(touched & expected.clusters.keys()):
        cluster = vswap.cluster_map.load(cluster_id)
        if cluster is not None:
            view = cluster_view(world, cluster)
            yield from cluster_differences(f"cluster {cluster_id}", expected.clusters[cluster_id], view)
    for cpu in range(CPUS):
        yield from named(f"cached by cpu {cpu}", expected.pcpu[cpu], cached_by(world, cpu))
        yield from named(f"remembered for look-ups by cpu {cpu}", expected.iter[cpu], REMEMBERED)
    for order, listed in enumerate(vswap.partial_lists):
        yield from named(f"partial list of order {order}", expected.partial.get(order, []), [c.id for c in listed])
    yield from named("locks held", expected.held["locks"], locks_held(world))
    yield from named("interrupts off", expected.held["irqs_off"], world.s.locks.lockdep.task.irqs_off)
    yield from named("RCU read sections", 0, world.s.rcu.read.depth)
    yield from neighbour_differences(world, expected, complete=operation.op == "state")


def named(field: str, expected: Any, got: Any) -> Iterator[Difference]:
    """A difference of a figure, if there is one."""
    if expected != got:
        yield Difference(field, expected, got)


def effect_differences(world: World, operation: Operation) -> Iterator[Difference]:
    """The first effect that differs, and counters that moved otherwise."""
    for number, (a, b) in enumerate(zip_longest(operation.calls, in_order(world.fx)), 1):
        if a != b:
            yield Difference(f"effect {number}", show(a) if a else "no more", show(b) if b else "no more")
            break
    yield from named("counters", operation.counters, sums(world.fx))


def cluster_differences(name: str, expected: Cluster, got: Cluster) -> Iterator[Difference]:
    """In what a cluster differs: its figures, then its slots."""
    for figure in (*FIGURES, "alloc"):
        yield from named(f"{name}: {figure}", getattr(expected, figure), getattr(got, figure))
    if expected.slots != got.slots:
        for index in sorted(expected.slots.keys() | got.slots.keys()):
            a, b = expected.slots.get(index), got.slots.get(index)
            yield from named(f"{name}: slot {index}", a or "free", b or "free") if a != b else ()
    if expected.zswap != got.zswap:
        for index in sorted(expected.zswap.keys() | got.zswap.keys()):
            name_ = f"{name}: zswap copy of slot {index}"
            yield from named(name_, expected.zswap.get(index), got.zswap.get(index))


def cached_by(world: World, cpu: int) -> dict[int, int]:
    """Order -> id of the cluster from which a CPU allocates."""
    clusters = world.s.vswap.percpu[cpu].clusters
    return {order: cluster.id for order, cluster in enumerate(clusters) if cluster is not None}


def locks_held(world: World) -> int:
    """Locks that are held now."""
    return len(world.s.locks.lockdep.task.held)


def neighbour_differences(world: World, expected: Expected, complete: bool) -> Iterator[Difference]:
    """Folios and cgroups, and used slots of devices (not of one that was never used, unless the state is complete)."""
    folios = {id_: folio_view(folio) for id_, folio in world.folios.items()}
    memcgs = {id_: cgroup_view(memcg) for id_, memcg in world.cgroups.items()}
    phys = {type_: len(used) for type_, used in world.phys.items() if used or complete or type_ in expected.phys}
    parts = ("folio", expected.folios, folios), ("cgroup", expected.memcgs, memcgs)
    for name, a, b in (*parts, ("used slots of device", expected.phys, phys)):
        if a != b:
            for key in sorted(a.keys() | b.keys()):
                yield from named(f"{name} {key}", a.get(key), b.get(key))


def folio_view(folio: Any) -> dict[str, Any]:
    """A folio in the trace's terms."""
    memcg = folio.memcg.id if folio.memcg is not None else 0
    flags = flags_of(folio)
    return {"order": folio.order, "ref": folio.refcount, "flags": flags, "swap": folio.swap, "memcg": memcg}


def cgroup_view(memcg: Any) -> dict[str, int]:
    """A cgroup in the trace's terms."""
    return {
        "ref": memcg.id_refs,
        "swap": memcg.swap.usage,
        "memsw": memcg.memsw.usage,
        "stat": memcg.nr_swap,
    }
