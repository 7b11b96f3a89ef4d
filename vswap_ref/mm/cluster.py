# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Physical clusters: 512 slots each, and the lists they are on.

Kernel homes: mm/swapfile.c, mm/swap_table.h.  A cluster's ``flags`` say which list it is on.  A free cluster has no
swap table; one is allocated when the cluster is taken for allocation.
"""

from __future__ import annotations

from array import array

from .state import ClusterList, SwapClusterInfo, SwapInfo, System
from .swap_extent import discard_swap_cluster
from .types import (
    CLUSTER_FLAG_DISCARD,
    CLUSTER_FLAG_FRAG,
    CLUSTER_FLAG_FREE,
    CLUSTER_FLAG_FULL,
    CLUSTER_FLAG_NONE,
    CLUSTER_FLAG_NONFULL,
    CLUSTER_FLAG_USABLE,
    CLUSTER_SHIFT,
    SWAPFILE_CLUSTER,
    SWP_PAGE_DISCARD,
    SWP_WRITEOK,
)

EMPTY_TABLE = bytes(8 * SWAPFILE_CLUSTER)


def cluster_offset(ci: SwapClusterInfo) -> int:
    """First slot of the cluster."""
    return ci.index << CLUSTER_SHIFT


def cluster_end(si: SwapInfo, ci: SwapClusterInfo) -> int:
    """Slot behind the last one of the cluster, which may be cut off by the end of the device."""
    end = ci.index + 1 << CLUSTER_SHIFT
    return end if end < si.max else si.max


def cluster_is_usable(ci: SwapClusterInfo, order: int) -> bool:
    """An allocation of this order may take slots here."""
    if ci.flags > CLUSTER_FLAG_USABLE or ci.table is None:
        return False
    return order == 0 or ci.count == 0 or ci.order == order


def move_cluster(si: SwapInfo, ci: SwapClusterInfo, clusters: ClusterList, flag: int) -> None:
    """Append the (locked) cluster to a list, leaving the one it was on."""
    with si.lock:
        if ci.on_list is not None:
            del ci.on_list[ci]
        clusters[ci] = None
        ci.on_list = clusters
        ci.flags = flag


def swap_cluster_alloc_table(s: System, ci: SwapClusterInfo) -> bool:
    """Give a cluster its swap table: 512 words, one page.  False if memory is short."""
    if s.faults.should_fail("swap_table_alloc"):
        return False
    ci.table = array("Q", EMPTY_TABLE)
    return True


def swap_cluster_free_table(s: System, ci: SwapClusterInfo) -> None:
    """Free the table (all words null).  There is no RCU grace period: a reader keeps the table that it has."""
    ci.table = None


def isolate_lock_cluster(s: System, si: SwapInfo, clusters: ClusterList) -> SwapClusterInfo | None:
    """Take the oldest cluster that is not contended off a list and return it locked, with a table; or None."""
    with si.lock:
        for ci in clusters:
            if ci.lock.acquire(blocking=False):
                break
        else:
            return None
        del clusters[ci]
        ci.on_list = None
        was_free = ci.flags == CLUSTER_FLAG_FREE
        ci.flags = CLUSTER_FLAG_NONE
    s.cost.ci_lock += 1
    if was_free and ci.table is None and not swap_cluster_alloc_table(s, ci):
        move_cluster(si, ci, si.free_clusters, CLUSTER_FLAG_FREE)
        ci.lock.release()
        return None
    return ci


def __free_cluster(s: System, si: SwapInfo, ci: SwapClusterInfo) -> None:
    """An empty cluster goes back to the free list, without its table."""
    swap_cluster_free_table(s, ci)
    move_cluster(si, ci, si.free_clusters, CLUSTER_FLAG_FREE)
    ci.order = 0


def free_cluster(s: System, si: SwapInfo, ci: SwapClusterInfo) -> None:
    """The last slot was freed: the cluster becomes free, by way of a discard if the device wants one."""
    if si.flags & SWP_WRITEOK and si.flags & SWP_PAGE_DISCARD:
        move_cluster(si, ci, si.discard_clusters, CLUSTER_FLAG_DISCARD)
        s.swap.discard_work[si] = None
    else:
        __free_cluster(s, si, ci)


def partial_free_cluster(si: SwapInfo, ci: SwapClusterInfo) -> None:
    """Something was freed here: a good place to allocate the same order again."""
    if ci.flags != CLUSTER_FLAG_NONFULL:
        move_cluster(si, ci, si.nonfull_clusters[ci.order], CLUSTER_FLAG_NONFULL)


def relocate_cluster(s: System, si: SwapInfo, ci: SwapClusterInfo) -> None:
    """File a cluster after an allocation attempt: free, fragmented or full."""
    if ci.flags == CLUSTER_FLAG_DISCARD:
        return
    if ci.count == 0:
        if ci.flags != CLUSTER_FLAG_FREE:
            free_cluster(s, si, ci)
    elif ci.count < SWAPFILE_CLUSTER:
        if ci.flags != CLUSTER_FLAG_FRAG:
            move_cluster(si, ci, si.frag_clusters[ci.order], CLUSTER_FLAG_FRAG)
    elif ci.flags != CLUSTER_FLAG_FULL:
        move_cluster(si, ci, si.full_clusters, CLUSTER_FLAG_FULL)


def swap_do_scheduled_discard(s: System, si: SwapInfo) -> bool:
    """Discard the empty clusters that wait for it and free them.  True if there was one."""
    done = False
    while si.discard_clusters:
        with si.lock:
            ci, _ = si.discard_clusters.popitem(last=False)
            ci.on_list = None
        discard_swap_cluster(si, cluster_offset(ci), SWAPFILE_CLUSTER)
        with ci.lock:
            s.cost.ci_lock += 1
            ci.flags = CLUSTER_FLAG_NONE
            __free_cluster(s, si, ci)
        done = True
    return done


def swap_discard_work(s: System) -> None:
    """Run the background work queued when clusters became empty."""
    while s.swap.discard_work:
        si, _ = s.swap.discard_work.popitem()
        swap_do_scheduled_discard(s, si)
