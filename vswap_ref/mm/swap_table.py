# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The swap table: one word a slot, the virtual slot whose page lies there; 0: none.

Kernel home: mm/swap_table.h.  A table belongs to a cluster in use.
"""

from __future__ import annotations

from .state import SwapInfo
from .types import CLUSTER_MASK, CLUSTER_SHIFT, SWP_RMAP_ENTRY_MASK


def swap_table_get(si: SwapInfo, offset: int) -> int:
    """Read a slot's entry, without its mark and without lock; 0 if the cluster has no table."""
    table = si.cluster_info[offset >> CLUSTER_SHIFT].table
    return table[offset & CLUSTER_MASK] & SWP_RMAP_ENTRY_MASK if table is not None else 0
