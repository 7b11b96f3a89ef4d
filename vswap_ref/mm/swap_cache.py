# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""What the swap cache's users ask about a folio, and about the slots behind a range of entries.

Kernel homes: mm/swap_state.c, mm/swap.h, mm/memory.c.  The caller keeps the device from being swapped off.
"""

from __future__ import annotations

from .state import System


def total_swapcache_pages(s: System) -> int:
    """Pages in the swap cache."""
    return s.vmstat.nr_swapcached
