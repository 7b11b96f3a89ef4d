# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""What the swap cache's users ask about a folio, and about the slots behind a range of entries.

Kernel homes: mm/swap_state.c, mm/swap.h, mm/memory.c.  The caller keeps the device from being swapped off.
"""

from __future__ import annotations

from .state import Folio, System
from .swap_device import __swap_slot_to_info
from .types import SWAP_HAS_CACHE, SwpEntry, swp_entry_align, swp_slot_offset
from .vswap.lookup import swp_entry_to_swp_slot


def folio_matches_swap_entry(folio: Folio, entry: SwpEntry) -> bool:
    """A locked folio is (still) cached for this entry."""
    return folio.swapcache and folio.swap == swp_entry_align(entry, 1 << folio.order)


def swap_zeromap_batch(s: System, entry: SwpEntry, max_nr: int) -> int:
    """How many slots from the entry's on have the same zero bit as the first (1..max_nr)."""
    slot = swp_entry_to_swp_slot(s, entry)
    zeromap, offset = __swap_slot_to_info(s, slot).zeromap, swp_slot_offset(slot)
    assert zeromap is not None
    other = zeromap.bits.find(1 - zeromap.bits[offset], offset, offset + max_nr)
    return max_nr if other < 0 else other - offset


def non_swapcache_batch(s: System, entry: SwpEntry, max_nr: int) -> int:
    """How many slots from the entry's on have no cache flag (0..max_nr); read without lock."""
    slot = swp_entry_to_swp_slot(s, entry)
    offset = swp_slot_offset(slot)
    window = __swap_slot_to_info(s, slot).swap_map[offset : offset + max_nr]
    return next((nr for nr, byte in enumerate(window) if byte & SWAP_HAS_CACHE), max_nr)


def total_swapcache_pages(s: System) -> int:
    """Pages in the swap cache."""
    return s.vmstat["nr_swapcached"]
