# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""What the swap cache's users ask about a folio, and about the slots behind a range of entries.

Kernel homes: mm/swap_state.c, mm/swap.h, mm/memory.c.  The caller keeps the device from being swapped off.
"""

from __future__ import annotations

from .state import System
from .swap_device import __swap_slot_to_info
from .types import SwpEntry, swp_slot_offset
from .vswap.lookup import swp_entry_to_swp_slot


def swap_zeromap_batch(s: System, entry: SwpEntry, max_nr: int) -> int:
    """How many slots from the entry's on have the same zero bit as the first (1..max_nr)."""
    slot = swp_entry_to_swp_slot(s, entry)
    zeromap, offset = __swap_slot_to_info(s, slot).zeromap, swp_slot_offset(slot)
    assert zeromap is not None
    other = zeromap.bits.find(1 - zeromap.bits[offset], offset, offset + max_nr)
    return max_nr if other < 0 else other - offset


def total_swapcache_pages(s: System) -> int:
    """Pages in the swap cache."""
    return s.vmstat["nr_swapcached"]
