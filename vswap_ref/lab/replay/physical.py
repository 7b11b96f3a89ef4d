"""Stand-ins for the devices: slots come from the trace, who uses them is noted."""

from __future__ import annotations

from errno import ENOMEM
from typing import Any

from .world import CLUSTER, World, next_slot, place, swp_slot, table_of

CACHE_ONLY = 1 << 63
"""The mark in a word of the reverse map: only the swap cache uses the slot."""


def swap_slot_alloc(world: World, order: int) -> tuple[int, int]:
    """The slots that the recorded allocator found, (0, slot), or (-ENOMEM, 0)."""
    slot = next_slot(world, order)
    if not slot:
        world.note("swap_slot_alloc", order, None, -ENOMEM, 0)
        return -ENOMEM, 0
    world.note("swap_slot_alloc", order, place(slot), 0)
    type_, offset = place(slot)
    world.phys[type_].update(range(offset, offset + (1 << order)))
    world.swap_map.update((slot + i, [0, 1]) for i in range(1 << order))
    return 0, slot


def swap_slot_free_nr(world: World, slot: int, nr: int) -> None:
    """The layer frees slots (13 on); one physical cluster after the other, their words of the reverse map first."""
    type_, offset = place(slot)
    world.note("swap_slot_free_nr", (type_, offset), nr)
    end = offset + nr
    while offset < end:
        here = min(end, (offset // CLUSTER + 1) * CLUSTER) - offset
        ci = world.s.swap.info[type_].cluster_info[offset // CLUSTER]
        world.s.cost["ci_lock"] += 1
        with ci.lock:
            world.vswap_rmap_set(ci, swp_slot(type_, offset), 0, here)
        world.phys[type_].difference_update(range(offset, offset + here))
        offset += here


def swap_slot_tryget_swap_info(world: World, slot: int) -> Any:
    """The device of a slot, pinned; None for slot 0, no device, or an offset beyond its end."""
    type_, offset = place(slot)
    info = world.s.swap.info
    si = info[type_] if slot and type_ < len(info) and offset < info[type_].max else None
    world.note("swap_slot_tryget_swap_info", (type_, offset), -1 if si is None else type_)
    return si if si is None or si.users.tryget() else None


def swap_slot_put_swap_info(world: World, si: Any) -> None:
    """Let the device go."""
    world.note("swap_slot_put_swap_info", si.type)
    si.users.put()


def swap_rmap_mark_cache_only(world: World, slot: int) -> None:
    """Mark a slot in the reverse map: only the swap cache uses it."""
    world.note("swap_rmap_mark_cache_only", place(slot), 1)
    mark(world, slot, CACHE_ONLY, CACHE_ONLY)


def swap_rmap_clear_cache_only(world: World, slot: int) -> None:
    """Take the mark off again."""
    world.note("swap_rmap_clear_cache_only", place(slot), 1)
    mark(world, slot, CACHE_ONLY, 0)


def mark(world: World, slot: int, mask: int, value: int) -> None:
    """Replace bits of a word of the reverse map."""
    table, index = table_of(world, slot), place(slot)[1] % CLUSTER
    table.quietly(index, table[index] & ~mask | value)
