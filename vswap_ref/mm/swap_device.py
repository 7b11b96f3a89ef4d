# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Swap devices: finding and pinning one, the list of devices with room, how many slots are in use.

Kernel home: mm/swapfile.c.  A device that is full leaves the available list; SWAP_USAGE_OFFLIST_BIT in its use
counter says so.
"""

from __future__ import annotations

from .state import SwapClusterInfo, SwapInfo, System
from .types import (
    CLUSTER_SHIFT,
    SWAP_USAGE_COUNTER_MASK,
    SWAP_USAGE_OFFLIST_BIT,
    SWP_WRITEOK,
    SwpSlot,
    swp_slot_offset,
    swp_slot_type,
)


def vm_swap_full(s: System) -> bool:
    """More than half of all swap is used: cached slots are worth reclaiming."""
    return s.swap.nr_swap_pages * 2 < s.swap.total_swap_pages


def swap_type_to_info(s: System, type_: int) -> SwapInfo | None:
    """The device with this number, or None."""
    return s.swap.info[type_] if 0 <= type_ < len(s.swap.info) else None


def __swap_slot_to_info(s: System, slot: SwpSlot) -> SwapInfo:
    """The device of a valid slot."""
    return s.swap.info[swp_slot_type(slot)]


def _swap_info_get(s: System, slot: SwpSlot) -> SwapInfo | None:
    """The device of a slot that is in use, or None for a bad slot (the kernel logs it)."""
    si = swap_slot_to_info(s, slot)
    if not slot or si is None:
        return None
    offset = swp_slot_offset(slot)
    return si if offset < si.max and si.swap_map[offset] else None


def swap_slot_tryget_swap_info(s: System, slot: SwpSlot) -> SwapInfo | None:
    """Pin the device of a slot against swapoff.

    Returns None for slot 0, an unknown device, an offset beyond its end, or while swapoff runs.
    """
    si = swap_slot_to_info(s, slot)
    if not slot or si is None or not si.users.tryget():
        return None
    if swp_slot_offset(slot) >= si.max:
        si.users.put()
        return None
    return si


def swap_slot_put_swap_info(si: SwapInfo) -> None:
    """Undo swap_slot_tryget_swap_info."""
    si.users.put()


def swap_cluster_lock(s: System, si: SwapInfo, offset: int) -> SwapClusterInfo:
    """Lock the cluster of a slot and return it."""
    ci = si.cluster_info[offset >> CLUSTER_SHIFT]
    ci.lock.acquire()
    s.cost.ci_lock += 1
    return ci


def swap_cluster_unlock(ci: SwapClusterInfo) -> None:
    """Unlock a cluster."""
    ci.lock.release()


def swap_usage_in_pages(si: SwapInfo) -> int:
    """Slots in use."""
    return si.inuse_pages & SWAP_USAGE_COUNTER_MASK


def plist_add(devices: list[SwapInfo], si: SwapInfo) -> None:
    """Insert a device behind those of equal priority; higher priorities come first."""
    place = 0
    while place < len(devices) and devices[place].prio >= si.prio:
        place += 1
    devices.insert(place, si)


def plist_requeue(devices: list[SwapInfo], si: SwapInfo) -> None:
    """Move a device behind its equals: that is how equal devices take turns."""
    if len(devices) > 1:
        devices.remove(si)
        plist_add(devices, si)


def del_from_avail_list(s: System, si: SwapInfo, swapoff: bool) -> None:
    """Take a device that is full, or that swapoff is after, off the available list."""
    with s.swap.avail_lock:
        if swapoff:
            si.flags &= ~SWP_WRITEOK
            si.inuse_pages |= SWAP_USAGE_OFFLIST_BIT
        elif si.inuse_pages == si.pages:
            si.inuse_pages |= SWAP_USAGE_OFFLIST_BIT
        else:
            return
        if si in s.swap.avail_head:
            s.swap.avail_head.remove(si)


def add_to_avail_list(s: System, si: SwapInfo, swapon: bool) -> None:
    """Put a device that has room (again) on the available list."""
    with s.swap.avail_lock:
        if swapon:
            si.flags |= SWP_WRITEOK
        elif not si.flags & SWP_WRITEOK:
            return
        if not si.inuse_pages & SWAP_USAGE_OFFLIST_BIT:
            return
        if swap_usage_in_pages(si) == si.pages:
            return
        si.inuse_pages &= ~SWAP_USAGE_OFFLIST_BIT
        plist_add(s.swap.avail_head, si)


def swap_usage_add(s: System, si: SwapInfo, nr: int) -> bool:
    """Count ``nr`` slots as used; True if the device has just become full."""
    si.inuse_pages += nr
    if si.inuse_pages == si.pages:
        del_from_avail_list(s, si, swapoff=False)
        return True
    return False


def swap_usage_sub(s: System, si: SwapInfo, nr: int) -> None:
    """Count ``nr`` slots as free."""
    si.inuse_pages -= nr
    if si.inuse_pages & SWAP_USAGE_OFFLIST_BIT:
        add_to_avail_list(s, si, swapon=False)


def swap_range_alloc(s: System, si: SwapInfo, nr: int) -> bool:
    """Account for ``nr`` new slots.  True if cached slots of full clusters should be reclaimed in the background.

    That is decided before the slots are subtracted from the total.
    """
    s.cost.swap_range_alloc += 1
    wanted = swap_usage_add(s, si, nr) and vm_swap_full(s)
    s.swap.nr_swap_pages -= nr
    return wanted


def swap_slot_to_info(s: System, slot: SwpSlot) -> SwapInfo | None:
    """The device of a slot; None if no device has its number."""
    return swap_type_to_info(s, swp_slot_type(slot))
