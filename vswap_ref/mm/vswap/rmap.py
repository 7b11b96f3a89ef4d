# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""From a physical slot back to the virtual one: the reverse map, in the words of the swap table.

Kernel homes: mm/vswap.c, mm/swap_table.h.  0: nothing is mapped; the slot is free, or an image's, or not linked yet.
"""

from __future__ import annotations

from array import array

from ..state import SwapClusterInfo, System
from ..swap_table import swap_table_get
from ..types import (
    CLUSTER_MASK,
    CLUSTER_SHIFT,
    NO_ENTRY,
    SWP_RMAP_CACHE_ONLY,
    SWP_RMAP_ENTRY_MASK,
    SwpEntry,
    SwpSlot,
    swp_slot_offset,
    swp_slot_type,
)


def swp_slot_to_swp_entry(s: System, slot: SwpSlot) -> SwpEntry:
    """The virtual slot of a physical one, or 0.  No lock: it may be out of date when it is returned."""
    if not slot:
        return NO_ENTRY
    return SwpEntry(swap_table_get(s.swap.info[swp_slot_type(slot)], swp_slot_offset(slot)))


def vswap_rmap_set(s: System, ci: SwapClusterInfo, slot: SwpSlot, entry: SwpEntry, nr: int) -> None:
    """Let ``nr`` physical slots of one cluster point to ``entry`` and those behind it; to nothing if it is 0.

    Their marks are wiped.  No lock: each word is written at once, by who owns the slot.
    """
    table = ci.table
    if table is None:
        return
    s.cost.vswap_rmap_set += 1
    first = swp_slot_offset(slot) & CLUSTER_MASK
    if nr == 1:
        table[first] = entry
        return
    s.cost.further_vswap_rmap_set += nr - 1
    table[first : first + nr] = array("Q", range(entry, entry + nr) if entry else bytes(8 * nr))


def swap_rmap_word(s: System, slot: SwpSlot) -> tuple[array[int], int]:
    """The table and the place in it of a word that is about to change; its virtual slot's cluster is locked."""
    offset = swp_slot_offset(slot)
    table = s.swap.info[swp_slot_type(slot)].cluster_info[offset >> CLUSTER_SHIFT].table
    assert table is not None
    s.cost.vswap_rmap_set += 1
    return table, offset & CLUSTER_MASK


def swap_rmap_mark_cache_only(s: System, slot: SwpSlot) -> None:
    """Mark a physical slot: only the swap cache uses it."""
    table, place = swap_rmap_word(s, slot)
    table[place] |= SWP_RMAP_CACHE_ONLY


def swap_rmap_clear_cache_only(s: System, slot: SwpSlot) -> None:
    """Take the mark off: somebody else uses the slot too."""
    table, place = swap_rmap_word(s, slot)
    table[place] &= SWP_RMAP_ENTRY_MASK


def swap_rmap_is_cache_only(ci: SwapClusterInfo, offset: int) -> bool:
    """Is the slot at an offset of the device, in this cluster, marked?  No lock; false if the cluster has no table."""
    return ci.table is not None and ci.table[offset & CLUSTER_MASK] & SWP_RMAP_CACHE_ONLY != 0
