# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Freeing slots that only the swap cache still uses.

Kernel home: mm/swapfile.c (__try_to_reclaim_swap).
"""

from __future__ import annotations

from .folio import folio_mark_dirty, folio_put, folio_trylock, folio_unlock
from .memcg import mem_cgroup_swap_full
from .state import Folio, SwapInfo, System
from .swap_device import swap_cluster_lock, swap_cluster_unlock
from .types import CLUSTER_SHIFT, TTRS_ANYWAY, TTRS_FULL, TTRS_UNMAPPED, SwpEntry, SwpSlot, swp_slot, swp_slot_offset
from .vswap.lookup import swp_entry_to_swp_slot
from .vswap.rmap import swap_rmap_is_cache_only, swp_slot_to_swp_entry
from .vswap.swap_cache import folio_free_swap, folio_matches_swap_entry, swap_cache_del_folio, swap_cache_get_folio


def ttrs_wanted(s: System, folio: Folio, flags: int) -> bool:
    """One of the caller's conditions for taking the folio out of the cache holds."""
    if flags & TTRS_ANYWAY or (flags & TTRS_UNMAPPED and not folio.mapcount):
        return True
    return bool(flags & TTRS_FULL) and mem_cgroup_swap_full(s, folio)


def may_drop_from_cache(s: System, si: SwapInfo, folio: Folio, flags: int) -> bool:
    """The caller wants this locked folio out of the cache, it can leave, and nobody refers to its slots."""
    offset = swp_slot_offset(swp_entry_to_swp_slot(s, folio.swap))
    if not ttrs_wanted(s, folio, flags) or not folio.swapcache or folio.writeback or s.power.suspended_storage:
        return False
    ci = swap_cluster_lock(s, si, offset)
    only = swap_only_has_cache(si, offset, folio.nr_pages)
    swap_cluster_unlock(ci)
    return only


def __try_to_reclaim_swap(s: System, si: SwapInfo, offset: int, flags: int) -> int:
    """Try to free a slot that only the cache uses; no lock of a physical cluster is held.

    Returns n > 0: a folio of n pages left the cache; -n: it is there but stayed; 0: no folio.
    """
    folio, locked = lock_folio_of_slot(s, swp_slot(si.type, offset))
    if folio is None:
        return 0
    result = -folio.nr_pages
    if locked:
        if may_drop_from_cache(s, si, folio, flags):
            swap_cache_del_folio(s, folio)
            folio_mark_dirty(folio)
            result = -result
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


def swap_only_has_cache(si: SwapInfo, offset: int, nr: int) -> bool:
    """All the slots are marked as used by the swap cache alone.  No lock."""
    return all(swap_cache_only(si, i) for i in range(offset, offset + nr))


def swap_cache_only(si: SwapInfo, offset: int) -> bool:
    """The slot is marked as used by the swap cache alone.  No lock."""
    return swap_rmap_is_cache_only(si.cluster_info[offset >> CLUSTER_SHIFT], offset)


def folio_matches_swap_slot(s: System, folio: Folio, entry: SwpEntry, slot: SwpSlot) -> bool:
    """A locked folio is (still) cached for this entry, and the entry (still) has this slot.

    Kernel home: mm/swap.h.
    """
    return folio_matches_swap_entry(folio, entry) and swp_entry_to_swp_slot(s, entry) == slot


def lock_folio_of_slot(s: System, slot: SwpSlot) -> tuple[Folio | None, bool]:
    """The folio cached for a physical slot, with a reference: (folio or None, is it locked now?).

    Between the way back and the lock the slot may have got another entry: then it is looked up again.
    """
    while True:
        entry = swp_slot_to_swp_entry(s, slot)
        folio = swap_cache_get_folio(s, entry)
        if folio is None or not folio_trylock(folio):
            return folio, False
        if folio_matches_swap_slot(s, folio, entry, slot):
            return folio, True
        folio_unlock(folio)
        folio_put(s, folio)
