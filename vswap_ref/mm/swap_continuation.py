# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Counts above 62: the digits of a slot's count that do not fit in its swap-map byte.

Kernel home: mm/swapfile.c.  The count is a mixed-radix number: the lowest digit (0..62) in the swap map, further
digits (0..127) in continuation pages, one page per level shared by 4,096 neighbouring slots.  COUNT_CONTINUED in a
digit says that a higher one exists.
"""

from __future__ import annotations

from errno import ENOMEM

from vswap_ref.machine import PAGE_SIZE

from .state import SwapInfo, System
from .swap_device import swap_cluster_lock, swap_cluster_unlock, swap_slot_put_swap_info, swap_slot_tryget_swap_info
from .types import COUNT_CONTINUED, SWAP_CONT_MAX, SWAP_MAP_MAX, SWP_CONTINUED, SwpEntry, swap_count, swp_slot_offset
from .vswap.lookup import swp_entry_to_swp_slot


def add_swap_count_continuation(s: System, entry: SwpEntry) -> int:
    """Make room for the next digit of a slot's count.

    Returns 0 (also if somebody else changed the count, or swapoff won) or -ENOMEM.
    """
    page_failed = s.faults.should_fail("swap_continuation_alloc")
    slot = swp_entry_to_swp_slot(s, entry)
    si = swap_slot_tryget_swap_info(s, slot)
    if si is None:
        return 0
    offset = swp_slot_offset(slot)
    ci = swap_cluster_lock(s, si, offset)
    err = 0
    if swap_count(si.swap_map[offset]) & ~COUNT_CONTINUED == SWAP_MAP_MAX:
        err = -ENOMEM if page_failed else add_continuation_level(si, offset)
    swap_cluster_unlock(ci)
    swap_slot_put_swap_info(si)
    return err


def add_continuation_level(si: SwapInfo, offset: int) -> int:
    """Append a page if every level that this slot uses is at its largest digit.  Returns 0."""
    with si.cont_lock:
        si.flags |= SWP_CONTINUED
        levels = si.continuation.setdefault(offset // PAGE_SIZE, [])
        continued = si.swap_map[offset] & COUNT_CONTINUED
        for level in levels:
            if not continued:
                return 0
            digit = level[offset % PAGE_SIZE]
            if digit & ~COUNT_CONTINUED < SWAP_CONT_MAX:
                return 0
            continued = digit & COUNT_CONTINUED
        levels.append(bytearray(PAGE_SIZE))
    return 0


def swap_count_continued(si: SwapInfo, offset: int, count: int) -> bool:
    """Carry into the continuation pages (count at its largest digit), or borrow from them (count COUNT_CONTINUED).

    Returns for a carry whether it was possible, for a borrow whether anything remains above the low digit.
    """
    levels = si.continuation.get(offset // PAGE_SIZE)
    if not levels:
        return False
    place = offset % PAGE_SIZE
    with si.cont_lock:
        if count == SWAP_MAP_MAX:
            levels[0][place] = 1
            return True
        if count == SWAP_MAP_MAX | COUNT_CONTINUED:
            return continuation_carry(levels, place)
        return continuation_borrow(levels, place)


def continuation_carry(levels: list[bytearray], place: int) -> bool:
    """Add 1 to the continued digits; False if the highest is full and no further page exists."""
    top = 0
    while levels[top][place] == SWAP_CONT_MAX | COUNT_CONTINUED:
        top += 1
    if levels[top][place] == SWAP_CONT_MAX:
        if top + 1 == len(levels):
            return False
        top += 1
        levels[top][place] = 0
    levels[top][place] += 1
    for level in levels[:top]:
        level[place] = COUNT_CONTINUED
    return True


def continuation_borrow(levels: list[bytearray], place: int) -> bool:
    """Take 1 from the continued digits; True if anything remains."""
    top = 0
    while levels[top][place] == COUNT_CONTINUED:
        top += 1
    levels[top][place] -= 1
    remains = levels[top][place] != 0
    for level in reversed(levels[:top]):
        level[place] = SWAP_CONT_MAX | (COUNT_CONTINUED if remains else 0)
        remains = True
    return remains


def free_swap_count_continuations(si: SwapInfo) -> None:
    """Free all continuation pages of a device (swapoff)."""
    si.continuation.clear()
