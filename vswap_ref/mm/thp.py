# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Transparent huge pages: which sizes a mapping may have, and counters for each size.

Kernel homes: include/linux/huge_mm.h, mm/huge_memory.c.  A set of orders is a bit mask, as in the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

from .state import System, Vma
from .types import SWAP_NR_ORDERS

THP_ORDERS_ALL_ANON = (1 << SWAP_NR_ORDERS) - 1 & ~0b11
"""Anonymous memory has orders 2 to 9: 16 KiB to 2 MiB."""


def thp_vma_allowable_orders(s: System, vma: Vma, orders: int) -> int:
    """Those of ``orders`` that the settings, and the advice given for the mapping, allow."""
    thp = s.thp
    if not thp.on or vma.hugepage is False:
        return 0
    allowed = thp.huge_anon_orders_always
    if vma.hugepage:
        allowed |= thp.huge_anon_orders_madvise
    if thp.enabled == "always" or (thp.enabled == "madvise" and vma.hugepage):
        allowed |= thp.huge_anon_orders_inherit
    return allowed & orders


def orders_descending(orders: int) -> Iterator[int]:
    """The orders of a set, highest first (highest_order, next_order)."""
    while orders:
        order = orders.bit_length() - 1
        yield order
        orders &= ~(1 << order)


def thp_vma_suitable_orders(vma: Vma, addr: int, orders: int) -> int:
    """Those of ``orders`` whose aligned block around ``addr`` lies in the mapping."""
    for order in orders_descending(orders):
        first = addr & -(1 << order)
        if first < vma.start or first + (1 << order) > vma.end:
            orders &= ~(1 << order)
    return orders


def vma_thp_may_reclaim(s: System, vma: Vma) -> bool:
    """A fault in this mapping may reclaim to get a large folio (vma_thp_gfp_mask)."""
    return s.thp.defrag == "always" or (s.thp.defrag == "madvise" and vma.hugepage is True)


def count_mthp_stat(s: System, order: int, name: str) -> None:
    """Count a folio in the statistics of its size."""
    s.thp.stats[order][name] += 1


def set_thp(s: System, enabled: str, defrag: str, sizes: dict[int, str]) -> None:
    """Write the settings in sysfs: the switch, ``defrag``, and per order "always", "madvise", "inherit" or "never"."""
    thp = s.thp
    thp.enabled, thp.defrag = enabled, defrag
    for order, setting in sizes.items():
        bit = 1 << order
        for name in ("always", "madvise", "inherit"):
            orders = getattr(thp, f"huge_anon_orders_{name}") & ~bit
            setattr(thp, f"huge_anon_orders_{name}", orders | bit if name == setting else orders)
    own = thp.huge_anon_orders_always | thp.huge_anon_orders_madvise
    thp.on = bool(own or (enabled != "never" and thp.huge_anon_orders_inherit))
