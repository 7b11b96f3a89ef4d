# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The life of a cluster of virtual slots: its references, the lists of clusters with room, its end.

Kernel home: mm/vswap.c.  A cluster dies exactly when its last reference goes.
"""

from __future__ import annotations

from ..state import System, VswapCluster
from ..types import VSWAP_CLUSTER_MASK, VSWAP_CLUSTER_SIZE, SwpEntry
from .lookup import vswap_cluster_lock


def vswap_map_lock(s: System) -> None:
    """Lock the map of clusters and the partial lists."""
    s.vswap.map_lock.acquire()
    s.cost.vswap_map_lock += 1


def vswap_map_unlock(s: System) -> None:
    """Unlock them."""
    s.vswap.map_lock.release()


def cluster_is_alloc_candidate(cluster: VswapCluster) -> bool:
    """By its count there is room for one more allocation; whether it can be aligned is not asked."""
    return cluster.count + (1 << cluster.order) <= VSWAP_CLUSTER_SIZE


def vswap_cluster_free_rcu(cluster: VswapCluster) -> None:
    """Nobody can look at the cluster any more: give its memory back."""
    del cluster.desc


def vswap_cluster_free(s: System, cluster: VswapCluster) -> None:
    """The last reference is gone: off the list, out of the map, freed after a grace period.  The caller unlocks it."""
    assert not cluster.count
    assert not cluster.cached
    vswap_map_lock(s)
    s.vswap.partial_lists[cluster.order].pop(cluster, None)
    s.vswap.cluster_map.erase(cluster.id)
    vswap_map_unlock(s)
    s.rcu.call(vswap_cluster_free_rcu, cluster)


def vswap_cluster_put(s: System, cluster: VswapCluster) -> None:
    """Drop a reference to a locked cluster (refcount_dec_and_test), and free it if that was the last."""
    s.cost.vswap_cluster_ref += 1
    cluster.refcnt -= 1
    if not cluster.refcnt:
        vswap_cluster_free(s, cluster)


def add_to_partial_list(s: System, cluster: VswapCluster, at_head: bool) -> None:
    """List a locked cluster as one with room: allocation tries the head first."""
    clusters = s.vswap.partial_lists[cluster.order]
    vswap_map_lock(s)
    assert cluster not in clusters
    clusters[cluster] = None
    if at_head:
        clusters.move_to_end(cluster, last=False)
    vswap_map_unlock(s)


def release_vswap_slot(s: System, cluster: VswapCluster, entry: SwpEntry) -> None:
    """Make an allocated slot free (cluster locked, RCU read section).  The descriptor keeps what it has."""
    cluster.count -= 1
    cluster.bitmap.bits[entry & VSWAP_CLUSTER_MASK] = 0
    vswap_cluster_put(s, cluster)
    if cluster.refcnt and cluster.full and cluster_is_alloc_candidate(cluster):
        cluster.full = False
        if not cluster.cached:
            add_to_partial_list(s, cluster, at_head=False)
    s.cost.vswap_used += 1
    s.vswap.used -= 1


def vswap_cpu_dead(s: System, cpu: int) -> int:
    """A CPU has died: nothing is allocated from its clusters any more, not even by others.  Returns 0."""
    clusters = s.vswap.percpu[cpu].clusters
    s.cost.vswap_cpu_dead += 1
    with s.rcu.read:
        for order, cluster in enumerate(clusters):
            if cluster is None:
                continue
            clusters[order] = None
            vswap_cluster_lock(s, cluster)
            cluster.cached = False
            vswap_cluster_put(s, cluster)
            cluster.lock.release()
    return 0
