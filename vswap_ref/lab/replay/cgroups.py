"""Stand-ins for memory cgroups: id references, the counters of version 1 and 2, and what each call is told.

A cgroup that was deleted keeps its id while slots refer to it, and is charged as long as it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import ENOMEM
from typing import Any

from .world import World


def id_owner(memcg: Any) -> Any:
    """The cgroup, or its nearest ancestor whose id still lives; else the root (mem_cgroup_id_get_online)."""
    while not memcg.id_refs and memcg.parent is not None:
        memcg = memcg.parent
    return memcg


def lineage(memcg: Any) -> Iterator[Any]:
    """The cgroup and its ancestors without the root."""
    while memcg.parent is not None:
        yield memcg
        memcg = memcg.parent


def charge(memcg: Any, counter: str, nr: int) -> None:
    """Add pages (nr < 0: take them off) to a counter of the cgroup and its ancestors."""
    for ancestor in lineage(memcg):
        getattr(ancestor, counter).usage += nr


def over_limit(memcg: Any, nr: int) -> bool:
    """Some swap.max forbids ``nr`` more pages."""
    limits = ((ancestor.swap.max, ancestor.swap.usage) for ancestor in lineage(memcg))
    return any(limit is not None and usage + nr > limit for limit, usage in limits)


def mem_cgroup_try_charge_swap(world: World, folio: Any, entry: int) -> int:
    """Version 2: charge a folio's slots and record the cgroup's id for them; 0 or -ENOMEM."""
    groups, nr = world.s.memcg, 1 << folio.order
    if not groups.enabled or groups.memsw or folio.memcg is None or not entry:
        world.note("mem_cgroup_try_charge_swap", folio.pfn, entry, nr, 0, 0)
        return 0
    owner = id_owner(folio.memcg)
    err = -ENOMEM if over_limit(owner, nr) else 0
    world.note("mem_cgroup_try_charge_swap", folio.pfn, entry, nr, owner.id, err)
    if not err:
        charge(owner, "swap", nr)
        own_slots(owner, nr)
        record(world, folio, owner.id, entry, locked=False)
    return err


def own_slots(owner: Any, nr: int) -> None:
    """``nr`` slots more (or less) hold the cgroup's id."""
    owner.id_refs += nr
    owner.nr_swap += nr


def record(world: World, folio: Any, memcg_id: int, entry: int, locked: bool) -> None:
    """Write the id into the slots: in swap_cgroup's table, from 12 on in the layer's descriptors."""
    nr = 1 << folio.order
    if world.level < 12:
        world.note("swap_cgroup_record", entry, nr, memcg_id)
        world.swap_cgroup.update((entry + i, memcg_id) for i in range(nr))
    elif locked:
        world.__swap_cgroup_record(folio, memcg_id, entry)
    else:
        world.swap_cgroup_record(folio, memcg_id, entry)


def lookup_swap_cgroup_id(world: World, entry: int) -> int:
    """Before 12: the id recorded for an entry, or 0."""
    return world.swap_cgroup.get(entry, 0)


def swap_cgroup_clear(world: World, entry: int, nr: int) -> int:
    """Before 12: clear the record of ``nr`` entries; the id of the last."""
    return [world.swap_cgroup.pop(entry + i, 0) for i in range(nr)][-1]


def mem_cgroup_uncharge_swap(world: World, entry: int, nr: int) -> None:
    """Uncharge slots from the cgroup recorded for them, and clear the record."""
    memcg_id = world.swap_cgroup_clear(entry, nr)
    world.note("mem_cgroup_uncharge_swap", entry, nr, memcg_id)
    uncharge(world, memcg_id, nr)


def mem_cgroup_uncharge_swap_by_id(world: World, memcg_id: int, nr: int) -> None:
    """Uncharge slots from a cgroup (13 on)."""
    world.note("mem_cgroup_uncharge_swap_by_id", memcg_id, nr)
    uncharge(world, memcg_id, nr)


def uncharge(world: World, memcg_id: int, nr: int) -> None:
    """Give back the charge of ``nr`` slots; id 0 has none."""
    if memcg_id:
        owner = world.s.memcg.by_id[memcg_id]
        charge(owner, "memsw" if world.s.memcg.memsw else "swap", -nr)
        own_slots(owner, -nr)


def memcg1_swapout(world: World, folio: Any, entry: int) -> None:
    """Version 1: the charge of a folio that leaves passes to its slots."""
    memcg, nr = folio.memcg, 1 << folio.order
    if memcg is None or not world.s.memcg.memsw:
        return
    owner = id_owner(memcg)
    world.note("memcg1_swapout", folio.pfn, nr, owner.id)
    own_slots(owner, nr)
    record(world, folio, owner.id, entry, locked=True)
    charge(memcg, "memsw", -nr)
    charge(owner, "memsw", nr)
    folio.memcg = None


def memcg1_swapin(world: World, entry: int, nr: int) -> None:
    """Version 1: the slots' content is in a charged folio again."""
    mem_cgroup_uncharge_swap(world, entry, nr)
