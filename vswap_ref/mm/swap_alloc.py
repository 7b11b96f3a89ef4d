# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Finding free slots on a device.

Kernel home: mm/swapfile.c (swap_slot_alloc and everything under it).  First the CPU's current cluster, then the
devices in order of priority, and on a device the cluster lists from the tidiest to the most fragmented.
"""

from __future__ import annotations

from errno import EINVAL, ENOMEM

from .cluster import (
    cluster_end,
    cluster_is_usable,
    cluster_offset,
    isolate_lock_cluster,
    relocate_cluster,
    swap_do_scheduled_discard,
)
from .slot_reclaim import __try_to_reclaim_swap, swap_cache_only
from .state import ClusterList, PercpuSwapCluster, SwapClusterInfo, SwapInfo, System
from .swap_device import (
    plist_requeue,
    swap_cluster_lock,
    swap_cluster_unlock,
    swap_range_alloc,
    swap_usage_in_pages,
    vm_swap_full,
)
from .swap_map import swap_map_fill
from .types import (
    NO_SLOT,
    PMD_ORDER,
    SWAP_MAP_ALLOCATED,
    SWAP_NR_ORDERS,
    SWAP_SLOT_INVALID,
    SWAPFILE_CLUSTER,
    SWP_BLKDEV,
    SWP_PAGE_DISCARD,
    SWP_SOLIDSTATE,
    SWP_WRITEOK,
    TTRS_ANYWAY,
    SwpSlot,
    swp_slot,
)


def cluster_scan_range(s: System, si: SwapInfo, offset: int, nr: int) -> tuple[bool, bool]:
    """May these slots be allocated?  (yes, if those that only the cache uses are reclaimed first)."""
    window = si.swap_map[offset : offset + nr]
    if not any(window):
        return True, False
    if not vm_swap_full(s):
        return False, False
    takeable = all(not byte or swap_cache_only(si, i) for i, byte in enumerate(window, offset))
    return takeable, takeable


def cluster_reclaim_range(s: System, si: SwapInfo, ci: SwapClusterInfo, offset: int, nr: int) -> bool:
    """Free the cache-only slots of a range (drops and retakes the cluster's lock).  True if all are free now."""
    swap_cluster_unlock(ci)
    for i in range(offset, offset + nr):
        byte = si.swap_map[i]
        if byte == 0:
            continue
        if byte != SWAP_MAP_ALLOCATED or __try_to_reclaim_swap(s, si, i, TTRS_ANYWAY) <= 0:
            break
    swap_cluster_lock(s, si, offset)
    return not any(si.swap_map[offset : offset + nr])


def cluster_alloc_range(s: System, si: SwapInfo, ci: SwapClusterInfo, offset: int, usage: int, order: int) -> bool:
    """Take ``2**order`` free slots (cluster locked).  False if the device takes no more allocations."""
    if not si.flags & SWP_WRITEOK:
        return False
    nr = 1 << order
    if ci.count == 0:
        ci.order = order
    swap_map_fill(si, offset, nr, usage)
    ci.count += nr
    if swap_range_alloc(s, si, nr):
        s.swap.reclaim_work[si] = None
    return True


def alloc_swap_scan_cluster(s: System, si: SwapInfo, ci: SwapClusterInfo, offset: int, order: int, usage: int) -> int:
    """Look for free slots in a locked cluster from ``offset`` on; unlocks it.

    Returns the first slot or 0, and remembers where to go on.
    """
    nr, end = 1 << order, cluster_end(si, ci)
    found = following = SWAP_SLOT_INVALID
    if ci.count + nr <= SWAPFILE_CLUSTER:
        found = scan_cluster_slots(s, si, ci, (offset, end), order, usage)
        if found and ci.count < SWAPFILE_CLUSTER and found + nr < end:
            following = found + nr
    relocate_cluster(s, si, ci)
    swap_cluster_unlock(ci)
    remember_next_slot(s, si, order, following)
    return found


def scan_cluster_slots(
    s: System, si: SwapInfo, ci: SwapClusterInfo, window: tuple[int, int], order: int, usage: int
) -> int:
    """The first aligned run of ``2**order`` slots in the window that can be taken, now taken; or 0."""
    offset, end = window
    if order == 0 and not vm_swap_full(s):
        if si.swap_map[offset]:
            offset = si.swap_map.find(0, offset, end)
        taken = offset > 0 and cluster_alloc_range(s, si, ci, offset, usage, order)
        return offset if taken else SWAP_SLOT_INVALID
    nr = 1 << order
    while offset + nr <= end:
        usable, needs_reclaim = cluster_scan_range(s, si, offset, nr)
        if usable and needs_reclaim:
            usable = cluster_reclaim_range(s, si, ci, offset, nr)
            if not cluster_is_usable(ci, order):
                return SWAP_SLOT_INVALID
            if ci.count == 0:
                offset, usable = cluster_offset(ci), True
        if usable:
            taken = cluster_alloc_range(s, si, ci, offset, usage, order)
            return offset if taken else SWAP_SLOT_INVALID
        offset += nr
    return SWAP_SLOT_INVALID


def remember_next_slot(s: System, si: SwapInfo, order: int, offset: int) -> None:
    """Store where the next allocation of this order starts: per CPU, or for the whole rotating device."""
    if si.flags & SWP_SOLIDSTATE:
        hint = s.swap.percpu[s.cpu]
        hint.si[order] = si
        hint.offset[order] = offset
    elif si.global_next is not None:
        si.global_next[order] = offset


def alloc_swap_scan_list(s: System, si: SwapInfo, clusters: ClusterList, order: int, usage: int, scan_all: bool) -> int:
    """Try the clusters of a list, oldest first: all of them, or just one."""
    while True:
        ci = isolate_lock_cluster(s, si, clusters)
        if ci is None:
            return SWAP_SLOT_INVALID
        found = alloc_swap_scan_cluster(s, si, ci, cluster_offset(ci), order, usage)
        if found or not scan_all:
            return found


def swap_reclaim_full_clusters(s: System, si: SwapInfo, force: bool) -> None:
    """Free cache-only slots in full clusters: in one of them, or (forced) in as many as the device's use fills."""
    to_scan = swap_usage_in_pages(si) // SWAPFILE_CLUSTER if force else 1
    for _ in range(to_scan):
        ci = isolate_lock_cluster(s, si, si.full_clusters)
        if ci is None:
            return
        offset = cluster_offset(ci)
        end = min(si.max, offset + SWAPFILE_CLUSTER)
        while offset < end:
            step = 1
            if swap_cache_only(si, offset):
                swap_cluster_unlock(ci)
                step = abs(__try_to_reclaim_swap(s, si, offset, TTRS_ANYWAY)) or 1
                swap_cluster_lock(s, si, offset)
            offset += step
        if ci.on_list is None:
            relocate_cluster(s, si, ci)
        swap_cluster_unlock(ci)


def swap_reclaim_work(s: System) -> None:
    """Run the background work queued when a device became full."""
    while s.swap.reclaim_work:
        si, _ = s.swap.reclaim_work.popitem()
        swap_reclaim_full_clusters(s, si, force=True)


def alloc_from_global_cluster(s: System, si: SwapInfo, order: int, usage: int) -> int:
    """A rotating device goes on where its last allocation of this order ended, so that writes stay sequential."""
    offset = si.global_next[order] if si.global_next is not None else 0
    if not offset:
        return SWAP_SLOT_INVALID
    ci = swap_cluster_lock(s, si, offset)
    if not cluster_is_usable(ci, order):
        swap_cluster_unlock(ci)
        return SWAP_SLOT_INVALID
    start = cluster_offset(ci) if ci.count == 0 else offset
    return alloc_swap_scan_cluster(s, si, ci, start, order, usage)


def cluster_alloc_swap_slot(s: System, si: SwapInfo, order: int, usage: int) -> int:
    """Take ``2**order`` aligned slots of a device and set their bytes to ``usage``.  Returns the first slot or 0."""
    if order > 0 and not si.flags & SWP_BLKDEV:
        return SWAP_SLOT_INVALID
    if si.flags & SWP_SOLIDSTATE:
        return alloc_from_lists(s, si, order, usage)
    with si.global_cluster_lock:
        return alloc_from_global_cluster(s, si, order, usage) or alloc_from_lists(s, si, order, usage)


def alloc_from_lists(s: System, si: SwapInfo, order: int, usage: int) -> int:
    """Walk the device's cluster lists, tidy ones first, until one yields."""
    discards = bool(si.flags & SWP_PAGE_DISCARD)
    found = SWAP_SLOT_INVALID
    if discards:
        found = alloc_swap_scan_list(s, si, si.free_clusters, order, usage, False)
    if not found and order < PMD_ORDER:
        found = alloc_swap_scan_list(s, si, si.nonfull_clusters[order], order, usage, True)
    if not found and not discards:
        found = alloc_swap_scan_list(s, si, si.free_clusters, order, usage, False)
    if found:
        return found
    if vm_swap_full(s):
        swap_reclaim_full_clusters(s, si, force=False)
    if order < PMD_ORDER:
        found = alloc_swap_scan_list(s, si, si.frag_clusters[order], order, usage, False)
    if not found and order == 0:
        found = steal_from_higher_orders(s, si, usage)
    return found


def steal_from_higher_orders(s: System, si: SwapInfo, usage: int) -> int:
    """A single slot from clusters that serve large folios."""
    for order in range(1, SWAP_NR_ORDERS):
        for clusters in (si.frag_clusters[order], si.nonfull_clusters[order]):
            found = alloc_swap_scan_list(s, si, clusters, 0, usage, True)
            if found:
                return found
    return SWAP_SLOT_INVALID


def swap_alloc_fast(s: System, hint: PercpuSwapCluster, order: int) -> SwpSlot:
    """Allocate from this CPU's current cluster; slot 0 if that does not work out."""
    si, offset = hint.si[order], hint.offset[order]
    if si is None or not offset or not si.users.tryget():
        return NO_SLOT
    ci = swap_cluster_lock(s, si, offset)
    if cluster_is_usable(ci, order):
        if ci.count == 0:
            offset = cluster_offset(ci)
        found = alloc_swap_scan_cluster(s, si, ci, offset, order, SWAP_MAP_ALLOCATED)
    else:
        swap_cluster_unlock(ci)
        found = SWAP_SLOT_INVALID
    si.users.put()
    return swp_slot(si.type, found) if found else NO_SLOT


def swap_alloc_slow(s: System, order: int) -> SwpSlot:
    """Try the available devices by priority, equals in turn.  A large folio gets one try only: it can be split."""
    for si in list(s.swap.avail_head):
        with s.swap.avail_lock:
            if si not in s.swap.avail_head:
                continue
            plist_requeue(s.swap.avail_head, si)
        if not si.users.tryget():
            continue
        found = cluster_alloc_swap_slot(s, si, order, SWAP_MAP_ALLOCATED)
        si.users.put()
        if found:
            return swp_slot(si.type, found)
        if order > 0:
            break
    return NO_SLOT


def swap_sync_discard(s: System) -> bool:
    """Run pending discards of the active devices until one freed a cluster."""
    return any(swap_do_scheduled_discard(s, si) for si in list(s.swap.active_head) if si.flags & SWP_PAGE_DISCARD)


def swap_slot_alloc(s: System, order: int) -> tuple[int, SwpSlot]:
    """Take ``2**order`` slots of some device for the swap cache: (0, first slot).

    Charges nobody and touches no cache.  Or (error, slot 0): -EINVAL for more slots than a cluster has, -ENOMEM if no
    device has room.
    """
    if order > PMD_ORDER:
        return -EINVAL, NO_SLOT
    while True:
        with s.swap.percpu.local_lock[s.cpu]:
            hint = s.swap.percpu[s.cpu]
            slot = swap_alloc_fast(s, hint, order) or swap_alloc_slow(s, order)
        if slot:
            return 0, slot
        s.cost.folio_alloc_swap_fails += 1
        if order or not swap_sync_discard(s):
            return -ENOMEM, NO_SLOT
