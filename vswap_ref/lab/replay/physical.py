"""Stand-ins for the devices: slots come from the trace, who uses them is noted."""

from __future__ import annotations

from errno import ENOMEM
from typing import Any

from .world import CLUSTER, World, next_slot, place, swp_slot


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
