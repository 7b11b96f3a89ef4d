# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Freeing slots that only the swap cache still uses.

Kernel home: mm/swapfile.c (__try_to_reclaim_swap, folio_free_swap, free_swap_and_cache_nr).
"""

from __future__ import annotations

from .folio import folio_mark_dirty, folio_put, folio_trylock, folio_unlock
from .memcg import mem_cgroup_swap_full
from .state import Folio, SwapInfo, System
from .swap_device import swap_cluster_lock, swap_cluster_unlock
from .types import SWAP_HAS_CACHE, TTRS_ANYWAY, TTRS_FULL, TTRS_UNMAPPED, swp_slot, swp_slot_offset
from .vswap.lookup import swp_entry_to_swp_slot
from .vswap.rmap import swp_slot_to_swp_entry
from .vswap.swap_cache import folio_free_swap, folio_matches_swap_entry, swap_cache_del_folio, swap_cache_get_folio


def folio_swapcache_freeable(s: System, folio: Folio) -> bool:
    """The (locked) folio may leave the swap cache: it is in it, not being written, and no hibernation is on its way.

    In the image a clean cached folio may stand as "in swap": its slot must keep the content until the machine is back.
    """
    return folio.swapcache and not folio.writeback and not s.power.suspended_storage


def ttrs_wanted(s: System, folio: Folio, flags: int) -> bool:
    """One of the caller's conditions for taking the folio out of the cache holds."""
    if flags & TTRS_ANYWAY or (flags & TTRS_UNMAPPED and not folio.mapcount):
        return True
    return bool(flags & TTRS_FULL) and mem_cgroup_swap_full(s, folio)


def slots_cache_only(s: System, si: SwapInfo, offset: int, nr: int) -> bool:
    """All the slots are used by the swap cache and by nobody else."""
    ci = swap_cluster_lock(s, si, offset)
    only = si.swap_map.count(SWAP_HAS_CACHE, offset, offset + nr) == nr
    swap_cluster_unlock(ci)
    return only


def may_drop_from_cache(s: System, si: SwapInfo, folio: Folio, flags: int) -> bool:
    """The caller wants this locked folio out of the cache, it can leave, and nobody refers to its slots."""
    if not ttrs_wanted(s, folio, flags) or not folio_swapcache_freeable(s, folio):
        return False
    return slots_cache_only(s, si, swp_slot_offset(swp_entry_to_swp_slot(s, folio.swap)), 1 << folio.order)


def __try_to_reclaim_swap(s: System, si: SwapInfo, offset: int, flags: int) -> int:
    """Try to free a slot that only the cache uses.

    Returns n > 0: a folio of n pages left the cache; -n: it is there but stayed; 0: no folio.
    """
    entry = swp_slot_to_swp_entry(s, swp_slot(si.type, offset))
    folio = swap_cache_get_folio(s, entry)
    if folio is None:
        return 0
    nr = 1 << folio.order
    if not folio_trylock(folio):
        folio_put(s, folio)
        return -nr
    result = -nr
    if folio_matches_swap_entry(folio, entry) and may_drop_from_cache(s, si, folio, flags):
        swap_cache_del_folio(s, folio)
        folio_mark_dirty(folio)
        result = nr
    folio_unlock(folio)
    folio_put(s, folio)
    return result


def free_swap_cache(s: System, folio: Folio) -> None:
    """A process unmaps a page: free its slot if nothing else maps it and it can be locked.

    Kernel home: mm/swap_state.c.
    """
    if folio.swapcache and not folio.mapcount and folio_trylock(folio):
        folio_free_swap(s, folio)
        folio_unlock(folio)


def free_folio_and_swap_cache(s: System, folio: Folio) -> None:
    """free_swap_cache, then drop a reference.

    Kernel home: mm/swap_state.c.
    """
    free_swap_cache(s, folio)
    folio_put(s, folio)
