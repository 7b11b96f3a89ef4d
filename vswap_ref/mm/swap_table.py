# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The swap table: one word a slot says which folio is cached for it, or what shadow an evicted folio left.

Kernel home: mm/swap_table.h.  A table belongs to a cluster in use.  Writing needs the cluster's lock, reading only
RCU.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from .state import SwapInfo, System
from .types import CLUSTER_MASK, CLUSTER_SHIFT, SWP_OFFSET_MASK, SWP_TYPE_SHIFT, SwpEntry


def swap_table_get(si: SwapInfo, offset: int) -> int:
    """Read a slot's word without lock; 0 if the cluster has no table."""
    table = si.cluster_info[offset >> CLUSTER_SHIFT].table
    return table[offset & CLUSTER_MASK] if table is not None else 0


def __swap_table_xchg(si: SwapInfo, offset: int, word: int) -> int:
    """Exchange a slot's word (cluster locked, table present)."""
    table = si.cluster_info[offset >> CLUSTER_SHIFT].table
    assert table is not None
    index = offset & CLUSTER_MASK
    old = table[index]
    table[index] = word
    return old


def __swap_table_fill(si: SwapInfo, offset: int, nr: int, word: int) -> Sequence[int]:
    """Set the words of ``nr`` slots of one cluster and return the old ones (cluster locked)."""
    table = si.cluster_info[offset >> CLUSTER_SHIFT].table
    assert table is not None
    index = offset & CLUSTER_MASK
    if nr == 1:
        old: Sequence[int] = (table[index],)
        table[index] = word
    else:
        old = table[index : index + nr]
        table[index : index + nr] = array("Q", (word,)) * nr
    return old


def __swap_cache_clear_shadow(s: System, entry: SwpEntry, nr: int) -> None:
    """Forget the shadows of slots that are being freed (cluster locked); none may hold a folio."""
    offset = entry & SWP_OFFSET_MASK
    table = s.swap.info[entry >> SWP_TYPE_SHIFT].cluster_info[offset >> CLUSTER_SHIFT].table
    assert table is not None
    index = offset & CLUSTER_MASK
    for i in range(index, index + nr):
        assert table[i] == 0 or table[i] & 1
        table[i] = 0
