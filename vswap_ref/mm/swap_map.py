# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The swap map: one byte a slot counts its users and says whether the swap cache holds it.

Kernel home: mm/swapfile.c.  All changes happen under the cluster's lock.  A slot is free exactly when its byte is 0;
the function that makes it 0 also gives back everything that hangs on the slot.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT, ENOMEM

from .bridge import swp_entry_to_swp_slot, swp_slot_to_swp_entry
from .cluster import free_cluster, partial_free_cluster
from .memcg import mem_cgroup_uncharge_swap
from .state import Folio, SwapClusterInfo, SwapInfo, System
from .swap_cache_tree import swap_cache_clear_shadow
from .swap_continuation import add_swap_count_continuation, swap_count_continued
from .swap_device import (
    __swap_slot_to_info,
    _swap_info_get,
    swap_cluster_lock,
    swap_cluster_unlock,
    swap_slot_to_info,
    swap_usage_sub,
)
from .types import (
    CLUSTER_MASK,
    COUNT_CONTINUED,
    SWAP_HAS_CACHE,
    SWAP_MAP_BAD,
    SWAP_MAP_MAX,
    SWAP_MAP_SHMEM,
    SWAPFILE_CLUSTER,
    SWP_BLKDEV,
    SwpEntry,
    SwpSlot,
    swap_count,
    swp_entry,
    swp_slot,
    swp_slot_offset,
)
from .zswap_pool import zswap_invalidate


def swap_duplicate_error(byte: int, usage: int) -> int:
    """May ``usage`` be added to a slot with this byte?  0 or a negative errno."""
    count = byte & ~SWAP_HAS_CACHE
    if count == SWAP_MAP_BAD or not byte:
        return -ENOENT
    if usage == SWAP_HAS_CACHE:
        return -EEXIST if byte & SWAP_HAS_CACHE else 0
    return -EINVAL if count & ~COUNT_CONTINUED > SWAP_MAP_MAX else 0


def swap_map_fill(si: SwapInfo, offset: int, nr: int, byte: int) -> None:
    """Set the bytes of ``nr`` slots of one cluster (cluster locked)."""
    if nr == 1:
        si.swap_map[offset] = byte
    else:
        si.swap_map[offset : offset + nr] = bytes((byte,)) * nr


def swap_duplicate_one(si: SwapInfo, offset: int, usage: int) -> int:
    """Add ``usage`` to a slot that allows it: 0, or -ENOMEM if the count needs a continuation page."""
    byte = si.swap_map[offset]
    if usage == SWAP_HAS_CACHE:
        si.swap_map[offset] = byte | SWAP_HAS_CACHE
        return 0
    count = byte & ~SWAP_HAS_CACHE
    if count & ~COUNT_CONTINUED < SWAP_MAP_MAX:
        assert usage == 1 or not count
        si.swap_map[offset] = byte + usage
        return 0
    if not swap_count_continued(si, offset, count):
        return -ENOMEM
    si.swap_map[offset] = COUNT_CONTINUED | byte & SWAP_HAS_CACHE
    return 0


def __swap_duplicate(s: System, entry: SwpEntry, usage: int, nr: int) -> int:
    """Add a user to ``nr`` slots of one cluster: 1 (a PTE), SWAP_HAS_CACHE or SWAP_MAP_SHMEM.

    Returns 0, -EINVAL (bad device; shmem slot), -ENOENT (free or bad slot), -EEXIST (already cached) or -ENOMEM
    (continuation needed).  On an error nothing has changed.
    """
    slot = swp_entry_to_swp_slot(s, entry)
    si = swap_slot_to_info(s, slot)
    if si is None:
        return -EINVAL
    offset = swp_slot_offset(slot)
    ci = swap_cluster_lock(s, si, offset)
    if nr == 1:
        err = swap_duplicate_error(si.swap_map[offset], usage) or swap_duplicate_one(si, offset, usage)
    else:
        slots = range(offset, offset + nr)
        errors = (swap_duplicate_error(byte, usage) for byte in dict.fromkeys(si.swap_map[offset : offset + nr]))
        err = next(filter(None, errors), 0) or next(filter(None, (swap_duplicate_one(si, i, usage) for i in slots)), 0)
    swap_cluster_unlock(ci)
    return err


def swap_duplicate(s: System, entry: SwpEntry) -> int:
    """One more PTE refers to the slot.  Returns 0 or -ENOMEM; a bad entry reads as success, as in the kernel."""
    while __swap_duplicate(s, entry, 1, 1) == -ENOMEM:
        err = add_swap_count_continuation(s, entry)
        if err:
            return err
    return 0


def swap_shmem_alloc(s: System, entry: SwpEntry, nr: int) -> None:
    """The slots belong to shmem: one owner, never duplicated."""
    __swap_duplicate(s, entry, SWAP_MAP_SHMEM, nr)


def swapcache_prepare(s: System, entry: SwpEntry, nr: int) -> int:
    """Claim the cache flag of ``nr`` slots: the gate through which exactly one task swaps an entry in.

    Returns 0, -EEXIST (somebody else is at it) or -ENOENT (the entry was freed).
    """
    return __swap_duplicate(s, entry, SWAP_HAS_CACHE, nr)


def swapcache_clear(s: System, si: SwapInfo, entry: SwpEntry, nr: int) -> None:
    """Undo swapcache_prepare."""
    swap_slots_put_cache(s, si, swp_entry_to_swp_slot(s, entry), nr)


def swap_range_free(s: System, si: SwapInfo, offset: int, nr: int) -> None:
    """Give back all that hangs on slots whose bytes are 0 (cluster locked).

    Order as in the kernel: zero bits and zswap, device notification, shadows, then the counters that let others see
    the slots as free.
    """
    zeromap, bdev = si.zeromap, si.bdev
    assert zeromap is not None
    assert bdev is not None
    zeromap.clear_range(offset, nr)
    if s.zswap.stored_pages:
        for i in range(offset, offset + nr):
            zswap_invalidate(s, swp_slot_to_swp_entry(s, swp_slot(si.type, i)))
    if bdev.wants_free_notify and si.flags & SWP_BLKDEV:
        for i in range(offset, offset + nr):
            bdev.slot_free_notify(i)
    swap_cache_clear_shadow(s, swp_entry(si.type, offset), nr)
    s.cost["swap_range_free"] += 1
    if nr > 1:
        s.cost["further_slot_free"] += nr - 1
    s.swap.nr_swap_pages += nr
    swap_usage_sub(s, si, nr)


def swap_slots_free(s: System, si: SwapInfo, ci: SwapClusterInfo, offset: int, nr: int) -> None:
    """Free slots of one cluster and one cgroup that have lost their last user (cluster locked)."""
    ci.count -= nr
    swap_map_fill(si, offset, nr, 0)
    mem_cgroup_uncharge_swap(s, swp_slot_to_swp_entry(s, swp_slot(si.type, offset)), nr)
    swap_range_free(s, si, offset, nr)
    if ci.count == 0:
        free_cluster(s, si, ci)
    else:
        partial_free_cluster(si, ci)


def swap_slot_put_locked(s: System, si: SwapInfo, ci: SwapClusterInfo, offset: int, usage: int) -> int:
    """Take one user (1 or SWAP_HAS_CACHE) off a slot and return the new byte; frees the slot at 0."""
    byte = si.swap_map[offset]
    count = byte & ~SWAP_HAS_CACHE
    if usage == SWAP_HAS_CACHE:
        assert byte != count
        byte = count
    elif count == SWAP_MAP_SHMEM:
        byte -= count
    elif count == COUNT_CONTINUED:
        more = swap_count_continued(si, offset, count)
        byte += SWAP_MAP_MAX if more else SWAP_MAP_MAX - COUNT_CONTINUED
    elif count != SWAP_MAP_BAD:
        assert count
        byte -= 1
    if byte:
        si.swap_map[offset] = byte
    else:
        swap_slots_free(s, si, ci, offset, 1)
    return byte


def swap_slots_put_cache(s: System, si: SwapInfo, slot: SwpSlot, nr: int) -> None:
    """Clear the cache flag of ``nr`` slots; slots without other users are freed, all at once if they can be."""
    offset = swp_slot_offset(slot)
    ci = swap_cluster_lock(s, si, offset)
    byte = si.swap_map[offset]
    if nr == 1:
        swap_slot_put_locked(s, si, ci, offset, SWAP_HAS_CACHE)
    elif not byte & SWAP_HAS_CACHE or si.swap_map.count(byte, offset, offset + nr) < nr:
        for i in range(offset, offset + nr):
            swap_slot_put_locked(s, si, ci, i, SWAP_HAS_CACHE)
    elif byte == SWAP_HAS_CACHE:
        swap_slots_free(s, si, ci, offset, nr)
    else:
        swap_map_fill(si, offset, nr, byte & ~SWAP_HAS_CACHE)
    swap_cluster_unlock(ci)


def swap_is_last_map(si: SwapInfo, offset: int, nr: int) -> bool:
    """All ``nr`` slots have the same byte and one user left (or shmem)."""
    byte = si.swap_map[offset]
    if swap_count(byte) not in (1, SWAP_MAP_SHMEM):
        return False
    return si.swap_map.count(byte, offset, offset + nr) == nr


def swap_slots_put_map(s: System, si: SwapInfo, offset: int, nr: int) -> bool:
    """Take one PTE off ``nr`` slots of one cluster.  True if some slot is now used by the swap cache only."""
    ci = swap_cluster_lock(s, si, offset)
    cache_only = False
    if nr == 1:
        cache_only = swap_slot_put_locked(s, si, ci, offset, 1) == SWAP_HAS_CACHE
    elif swap_is_last_map(si, offset, nr):
        cache_only = bool(si.swap_map[offset] & SWAP_HAS_CACHE)
        if cache_only:
            swap_map_fill(si, offset, nr, SWAP_HAS_CACHE)
        else:
            swap_slots_free(s, si, ci, offset, nr)
    else:
        for i in range(offset, offset + nr):
            if swap_slot_put_locked(s, si, ci, i, 1) == SWAP_HAS_CACHE:
                cache_only = True
    swap_cluster_unlock(ci)
    return cache_only


def swap_slots_put_map_nr(s: System, si: SwapInfo, offset: int, nr: int) -> bool:
    """swap_slots_put_map for a range that may span clusters."""
    cache_only = False
    while (here := SWAPFILE_CLUSTER - (offset & CLUSTER_MASK)) < nr:
        cache_only |= swap_slots_put_map(s, si, offset, here)
        offset += here
        nr -= here
    return swap_slots_put_map(s, si, offset, nr) or cache_only


def swap_free_nr(s: System, entry: SwpEntry, nr: int) -> None:
    """Take one PTE off each of ``nr`` entries."""
    swap_slot_free_nr(s, swp_entry_to_swp_slot(s, entry), nr)


def swap_free(s: System, entry: SwpEntry) -> None:
    """Take one PTE off a slot."""
    swap_free_nr(s, entry, 1)


def put_swap_folio(s: System, folio: Folio, entry: SwpEntry) -> None:
    """The folio leaves the swap cache, or never got there: clear the cache flags, free what nobody uses."""
    slot = swp_entry_to_swp_slot(s, entry)
    si = _swap_info_get(s, slot)
    if si is not None:
        swap_slots_put_cache(s, si, slot, folio.nr_pages)


def __swap_count(s: System, entry: SwpEntry) -> int:
    """The count in the slot's byte without the cache flag, read without lock; inexact if continued."""
    slot = swp_entry_to_swp_slot(s, entry)
    return __swap_slot_to_info(s, slot).swap_map[swp_slot_offset(slot)] & ~SWAP_HAS_CACHE


def swap_entry_swapped(s: System, si: SwapInfo, entry: SwpEntry) -> bool:
    """Some PTE refers to the entry (true for a bad slot as well)."""
    offset = swp_slot_offset(swp_entry_to_swp_slot(s, entry))
    ci = swap_cluster_lock(s, si, offset)
    count = swap_count(si.swap_map[offset])
    swap_cluster_unlock(ci)
    return count != 0


def folio_swapped(s: System, folio: Folio) -> bool:
    """Some PTE refers to one of the cached folio's entries."""
    slot = swp_entry_to_swp_slot(s, folio.swap)
    si, offset = __swap_slot_to_info(s, slot), swp_slot_offset(slot)
    ci = swap_cluster_lock(s, si, offset)
    if folio.order:
        swapped = any(map(swap_count, si.swap_map[offset : offset + folio.nr_pages]))
    else:
        swapped = si.swap_map[offset] & ~SWAP_HAS_CACHE != 0
    swap_cluster_unlock(ci)
    return swapped


def is_swap_cached(s: System, entry: SwpEntry) -> bool:
    """The slot is held by the swap cache, or by a swap-in that is under way.  Reads one byte, without a lock.

    The entry must be valid and its device pinned: nothing is checked.  No reference is taken, nothing looked up.
    """
    slot = swp_entry_to_swp_slot(s, entry)
    si = swap_slot_to_info(s, slot)
    assert si is not None
    return bool(si.swap_map[swp_slot_offset(slot)] & SWAP_HAS_CACHE)


def swap_slot_free_nr(s: System, slot: SwpSlot, nr: int) -> None:
    """Take one user off each of ``nr`` slots; a bad slot is ignored (the kernel logs it)."""
    si = _swap_info_get(s, slot)
    if si is not None:
        swap_slots_put_map_nr(s, si, swp_slot_offset(slot), nr)
