# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The swap table: one word a slot, all 0.  Nothing uses them now.

Kernel home: mm/swap_table.h.  A table belongs to a cluster in use.
"""

from __future__ import annotations

from .state import SwapInfo
from .types import CLUSTER_MASK, CLUSTER_SHIFT


def swap_table_get(si: SwapInfo, offset: int) -> int:
    """Read a slot's word without lock; 0 if the cluster has no table."""
    table = si.cluster_info[offset >> CLUSTER_SHIFT].table
    return table[offset & CLUSTER_MASK] if table is not None else 0
