# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The swap map: one byte a slot says whether it is free, allocated or bad.

Kernel home: mm/swapfile.c.  All changes happen under the cluster's lock.
"""

from __future__ import annotations

from .cluster import free_cluster, partial_free_cluster
from .state import SwapClusterInfo, SwapInfo, System
from .swap_device import _swap_info_get, swap_cluster_lock, swap_cluster_unlock, swap_usage_sub
from .types import CLUSTER_MASK, NO_ENTRY, SWAPFILE_CLUSTER, SWP_BLKDEV, SwpSlot, swp_slot, swp_slot_offset
from .vswap.rmap import vswap_rmap_set


def swap_map_fill(si: SwapInfo, offset: int, nr: int, byte: int) -> None:
    """Set the bytes of ``nr`` slots of one cluster (cluster locked)."""
    if nr == 1:
        si.swap_map[offset] = byte
    else:
        si.swap_map[offset : offset + nr] = bytes((byte,)) * nr


def swap_range_free(s: System, si: SwapInfo, offset: int, nr: int) -> None:
    """Give back what belongs to the places of slots whose bytes are 0 (cluster locked).

    Order as in the kernel: device notification, then the counters that let others see the slots as free.
    """
    bdev = si.bdev
    assert bdev is not None
    if bdev.wants_free_notify and si.flags & SWP_BLKDEV:
        for i in range(offset, offset + nr):
            bdev.slot_free_notify(i)
    s.cost.swap_range_free += 1
    if nr > 1:
        s.cost.further_slot_free += nr - 1
    s.swap.nr_swap_pages += nr
    swap_usage_sub(s, si, nr)


def swap_slots_free(s: System, si: SwapInfo, ci: SwapClusterInfo, offset: int, nr: int) -> None:
    """Free allocated slots of one cluster (cluster locked)."""
    ci.count -= nr
    swap_map_fill(si, offset, nr, 0)
    swap_range_free(s, si, offset, nr)
    if ci.count == 0:
        free_cluster(s, si, ci)
    else:
        partial_free_cluster(si, ci)


def swap_slots_put_map(s: System, si: SwapInfo, offset: int, nr: int) -> None:
    """Free ``nr`` slots of one cluster: nothing points back from them any more."""
    ci = swap_cluster_lock(s, si, offset)
    vswap_rmap_set(s, ci, swp_slot(si.type, offset), NO_ENTRY, nr)
    swap_slots_free(s, si, ci, offset, nr)
    swap_cluster_unlock(ci)


def swap_slot_free_nr(s: System, slot: SwpSlot, nr: int) -> None:
    """Free ``nr`` slots, which may span clusters; a bad slot is ignored (the kernel logs it)."""
    si = _swap_info_get(s, slot)
    if si is None:
        return
    offset = swp_slot_offset(slot)
    end = offset + nr
    while offset < end:
        here = min(end - offset, SWAPFILE_CLUSTER - (offset & CLUSTER_MASK))
        swap_slots_put_map(s, si, offset, here)
        offset += here
