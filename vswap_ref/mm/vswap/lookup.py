# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""From a virtual slot to its cluster, and to its place.

Kernel home: mm/vswap.c.  Look-ups in the map need an RCU read section; the cluster's lock protects everything else.
"""

from __future__ import annotations

from ..state import System, VswapCluster
from ..types import NO_SLOT, VSWAP_CLUSTER_MASK, VSWAP_CLUSTER_SHIFT, VSWAP_SWAPFILE, SwpEntry, SwpSlot


def vswap_cluster_lock(s: System, cluster: VswapCluster) -> None:
    """Lock a cluster; ``cluster.lock.release()`` unlocks it."""
    cluster.lock.acquire()
    s.cost.vswap_cluster_lock += 1


def vswap_cluster_load(s: System, entry: SwpEntry) -> VswapCluster | None:
    """The cluster of a virtual slot, unlocked, without a reference; None if there is none (RCU read section)."""
    s.cost.vswap_map_load += 1
    return s.vswap.cluster_map.load(entry >> VSWAP_CLUSTER_SHIFT)


def __vswap_iter(cluster: VswapCluster, entry: SwpEntry) -> bool:
    """In a cluster that the caller has locked: is this slot, which must be one of the cluster's, allocated?"""
    assert cluster.id == entry >> VSWAP_CLUSTER_SHIFT
    return cluster.bitmap.test(entry & VSWAP_CLUSTER_MASK)


def vswap_load_and_lock(s: System, entry: SwpEntry) -> VswapCluster:
    """The cluster, locked, of a slot that the caller keeps allocated (RCU read section)."""
    cluster = s.vswap.cluster_map.load(entry >> VSWAP_CLUSTER_SHIFT)
    assert cluster is not None
    s.cost.vswap_load_and_lock += 1
    cluster.lock.acquire()
    return cluster


def vswap_iter(s: System, held: VswapCluster | None, entry: SwpEntry) -> VswapCluster | None:
    """The cursor over virtual slots: the locked cluster of ``entry`` if that is allocated, else None and no lock held.

    ``held`` is the locked cluster of the step before, or None.  If the slot is in it, no lock is taken; if not, it is
    unlocked first.  Who unlocks it himself must go on with None.  Takes no reference.  (RCU read section.)
    """
    cluster, cluster_id = held, entry >> VSWAP_CLUSTER_SHIFT
    if cluster is None or cluster.id != cluster_id:
        if held is not None:
            held.lock.release()
        cluster = s.vswap.cluster_map.load(cluster_id)
        if cluster is None:
            s.cost.vswap_iter_nothing += 1
            return None
        if held is None:
            s.cost.vswap_iter += 1
        else:
            s.cost.vswap_iter_next += 1
        cluster.lock.acquire()
    if cluster.bitmap.bits[entry & VSWAP_CLUSTER_MASK]:
        return cluster
    cluster.lock.release()
    return None


def swp_entry_to_swp_slot(s: System, entry: SwpEntry) -> SwpSlot:
    """The physical slot of a virtual one; 0 for entry 0, a slot that is not allocated, or has another backing.

    A snapshot: it stays true only while the caller has the slot's folio locked in the swap cache, or its pin.
    """
    if not entry:
        return NO_SLOT
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        if cluster is None:
            return NO_SLOT
        desc, index = cluster.desc, entry & VSWAP_CLUSTER_MASK
        slot = SwpSlot(desc.slot[index]) if desc.type[index] == VSWAP_SWAPFILE else NO_SLOT
        cluster.lock.release()
    return slot
