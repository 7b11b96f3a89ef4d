"""Which functions of a stage a replay replaces by stand-ins: everything that the recorder simulated at that level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import cgroups, older, physical
from .world import World

Standin = Callable[..., Any]

ALWAYS: dict[str, Standin] = {
    "swap_slot_alloc": physical.swap_slot_alloc,
    "swap_slot_tryget_swap_info": physical.swap_slot_tryget_swap_info,
    "mem_cgroup_try_charge_swap": cgroups.mem_cgroup_try_charge_swap,
    "mem_cgroup_uncharge_swap": cgroups.mem_cgroup_uncharge_swap,
    "memcg1_swapout": cgroups.memcg1_swapout,
    "memcg1_swapin": cgroups.memcg1_swapin,
    "zswap_entry_free": older.zswap_entry_free,
    "folio_put": older.folio_put,
}
FROM_13: dict[str, Standin] = {
    "swap_slot_free_nr": physical.swap_slot_free_nr,
    "mem_cgroup_uncharge_swap_by_id": cgroups.mem_cgroup_uncharge_swap_by_id,
}
UNTIL: dict[int, dict[str, Standin]] = {
    12: {
        "swap_duplicate": older.swap_duplicate,
        "swap_shmem_alloc": older.swap_shmem_alloc,
        "swap_free_nr": older.swap_free_nr,
        "free_swap_and_cache_nr": older.free_swap_and_cache_nr,
        "swapcache_prepare": older.swapcache_prepare,
        "swapcache_clear": older.swapcache_clear,
        "put_swap_folio": older.put_swap_folio,
        "folio_free_swap": older.folio_free_swap,
        "swp_swapcount": older.swp_swapcount,
        "__swap_count": older.swp_swapcount,
        "swap_entry_swapped": older.swap_entry_swapped,
        "zswap_invalidate": older.zswap_invalidate,
    },
    11: {
        "lookup_swap_cgroup_id": cgroups.lookup_swap_cgroup_id,
        "swap_cgroup_clear": cgroups.swap_cgroup_clear,
    },
    10: {
        "zswap_entry_store": older.zswap_entry_store,
        "zswap_entry_load": older.zswap_entry_load,
        "zswap_entry_erase": older.zswap_entry_erase,
        "zswap_empty": older.zswap_empty,
    },
    9: {
        "swap_cache_lock": older.swap_cache_lock,
        "swap_cache_unlock": older.swap_cache_lock,
        "swap_cache_lock_irq": older.swap_cache_lock,
        "swap_cache_unlock_irq": older.swap_cache_lock,
        "swap_cache_get_folio": older.swap_cache_get_folio,
        "swap_cache_get_shadow": older.swap_cache_get_shadow,
        "swap_cache_add_folio": older.swap_cache_add_folio,
        "swap_cache_clear_shadow": older.swap_cache_clear_shadow,
        "__swap_cache_del_folio": older.__swap_cache_del_folio,
        "swap_cache_del_folio": older.swap_cache_del_folio,
        "__swap_cache_replace_folio": older.__swap_cache_replace_folio,
    },
}
"""Last level at which a function stands outside the layer -> its stand-in."""


def standins(world: World) -> dict[str, Standin]:
    """Kernel name -> stand-in, called like the function that it replaces: with the kernel's state first."""
    table = dict(ALWAYS)
    if world.level >= 13:
        table |= FROM_13
    for until, functions in UNTIL.items():
        if world.level <= until:
            table |= functions
    bound = {name: bind(world, function) for name, function in table.items()}
    bound["swap_slot_put_swap_info"] = lambda si: physical.swap_slot_put_swap_info(world, si)
    return bound


def bind(world: World, function: Standin) -> Standin:
    """A stand-in that is called with the kernel's state instead of the world."""
    return lambda s, *args: function(world, *args)
