# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Taking virtual slots.

Kernel home: mm/vswap.c (vswap_alloc and what it is made of).  First the cluster that this CPU caches for the order,
then the clusters with room, then a new one.  A cluster serves one order for its whole life.
"""

from __future__ import annotations

from vswap_ref.machine import Bitmap

from ..state import Folio, System, VswapCluster
from ..types import (
    NO_ENTRY,
    SWAP_NR_ORDERS,
    VSWAP_CLUSTER_ID_MAX,
    VSWAP_CLUSTER_SIZE,
    VSWAP_FOLIO,
    SwpEntry,
    folio_word,
    vswap_entry,
)
from .cluster import (
    add_to_partial_list,
    cluster_is_alloc_candidate,
    vswap_cluster_put,
    vswap_map_lock,
    vswap_map_unlock,
)
from .descriptor import Descriptors
from .lookup import vswap_cluster_lock


def __vswap_alloc_from_cluster(cluster: VswapCluster, start: int, folio: Folio) -> None:
    """Initialise the descriptors of ``1 << order`` slots from index ``start`` on for a folio, and count them."""
    nr, desc = 1 << cluster.order, cluster.desc
    if nr == 1:
        desc.swap_cache[start] = folio_word(folio.pfn)
        desc.swap_count[start] = 0
        desc.memcgid[start] = 0
        desc.in_swapcache[start] = 1
        desc.type[start] = VSWAP_FOLIO
    else:
        desc.array[start : start + nr] = (0, 0, folio_word(folio.pfn), 0, 0, 1, VSWAP_FOLIO)
    cluster.count += nr


def vswap_alloc_from_cluster(s: System, cluster: VswapCluster, folio: Folio) -> SwpEntry:
    """Take the lowest free aligned run of a locked cluster's order for a folio; returns the first slot, or 0."""
    if not cluster_is_alloc_candidate(cluster):
        return NO_ENTRY
    nr = 1 << cluster.order
    s.cost.vswap_bit_scan += 1
    # Value 0 must never exist: cluster 0 does without its first run.
    start = cluster.bitmap.find_zero_run(nr, nr, 0 if cluster.id else nr)
    if start < 0:
        return NO_ENTRY
    cluster.bitmap.set_range(start, nr)
    s.cost.vswap_cluster_ref += 1
    cluster.refcnt += nr
    __vswap_alloc_from_cluster(cluster, start, folio)
    return vswap_entry(cluster.id, start)


def vswap_alloc_cached(s: System, folio: Folio) -> SwpEntry:
    """From the cluster that this CPU caches; a cluster that is used up is cached no more.  Returns 0 if that fails."""
    v, order = s.vswap, folio.order
    with s.rcu.read, v.percpu.local_lock[s.cpu]:
        s.cost.vswap_alloc_local_lock += 1
        clusters = v.percpu[s.cpu].clusters
        cluster = clusters[order]
        if cluster is None:
            return NO_ENTRY
        vswap_cluster_lock(s, cluster)
        entry = vswap_alloc_from_cluster(s, cluster, folio)
        if not entry or not cluster_is_alloc_candidate(cluster):
            clusters[order] = None
            cluster.cached = False
            vswap_cluster_put(s, cluster)
            cluster.full = True
        cluster.lock.release()
    return entry


def vswap_alloc_partial(s: System, folio: Folio) -> tuple[SwpEntry, VswapCluster | None]:
    """From the clusters with room, head first; busy ones are skipped, tried ones leave the list either way.

    Returns (first slot or 0, the cluster if it has room for more).
    """
    clusters = s.vswap.partial_lists[folio.order]
    vswap_map_lock(s)
    for cluster in list(clusters):
        if not cluster.lock.acquire(blocking=False):
            s.cost.vswap_cluster_trylock_fails += 1
            continue
        s.cost.vswap_cluster_lock += 1
        entry = vswap_alloc_from_cluster(s, cluster, folio)
        del clusters[cluster]
        cluster.full = not entry or not cluster_is_alloc_candidate(cluster)
        has_room = not cluster.full
        cluster.lock.release()
        if entry:
            vswap_map_unlock(s)
            return entry, cluster if has_room else None
    vswap_map_unlock(s)
    return NO_ENTRY, None


def vswap_cluster_alloc(s: System) -> VswapCluster | None:
    """Memory for a cluster, all zeros: its header and its descriptors.  May sleep; None if memory is short."""
    if s.faults.should_fail("vswap_cluster_alloc") or s.faults.should_fail("vswap_desc_alloc"):
        return None
    return VswapCluster(s.locks.spinlock("vswap_cluster"), Descriptors(), Bitmap(VSWAP_CLUSTER_SIZE))


def vswap_cluster_map_insert(s: System, cluster: VswapCluster, order: int) -> int:
    """Put a cluster in the map under the lowest free id; -1 if there is none, or no memory (xa_alloc).

    Id 0 is not for the highest order, which would have no slot there.
    """
    if s.faults.should_fail("vswap_cluster_id"):
        return -1
    low = 1 if order == SWAP_NR_ORDERS - 1 else 0
    vswap_map_lock(s)
    try:
        return s.vswap.cluster_map.alloc(cluster, low, VSWAP_CLUSTER_ID_MAX)
    except (MemoryError, OverflowError):
        return -1
    finally:
        vswap_map_unlock(s)


def vswap_alloc_new(s: System, folio: Folio) -> tuple[SwpEntry, VswapCluster | None]:
    """From a new cluster.  Returns (first slot or 0, the cluster if it has room for more).

    It is filled without its lock although it is in the map already: nobody has a slot of it to look up.
    """
    cluster = vswap_cluster_alloc(s)
    if cluster is None:
        return NO_ENTRY, None
    cluster_id = vswap_cluster_map_insert(s, cluster, folio.order)
    if cluster_id < 0:
        return NO_ENTRY, None
    cluster.id, cluster.order = cluster_id, folio.order
    nr = folio.nr_pages
    start = 0 if cluster_id else nr
    s.cost.vswap_cluster_ref += 1
    cluster.refcnt = nr
    __vswap_alloc_from_cluster(cluster, start, folio)
    cluster.bitmap.set_range(start, nr)
    return vswap_entry(cluster_id, start), cluster if cluster_is_alloc_candidate(cluster) else None


def vswap_uncache_used_up(s: System, clusters: list[VswapCluster | None], order: int) -> bool:
    """Is this CPU's place for an order free?  A cluster there that is no candidate any more makes room."""
    cluster = clusters[order]
    if cluster is None:
        return True
    vswap_cluster_lock(s, cluster)
    used_up = not cluster_is_alloc_candidate(cluster)
    if used_up:
        clusters[order] = None
        cluster.cached = False
        vswap_cluster_put(s, cluster)
    cluster.lock.release()
    return used_up


def vswap_cache_cluster(s: System, cluster: VswapCluster) -> None:
    """Let this CPU allocate from a cluster with room; if it has another one by now, list this one at the head."""
    v, order = s.vswap, cluster.order
    with v.percpu.local_lock[s.cpu]:
        s.cost.vswap_alloc_local_lock += 1
        clusters = v.percpu[s.cpu].clusters
        if clusters[order] is cluster:
            return
        free_place = vswap_uncache_used_up(s, clusters, order)
        vswap_cluster_lock(s, cluster)
        if cluster_is_alloc_candidate(cluster):
            if free_place:
                clusters[order] = cluster
                s.cost.vswap_cluster_ref += 1
                cluster.refcnt += 1
                cluster.cached = True
            else:
                add_to_partial_list(s, cluster, at_head=True)
        cluster.lock.release()


def vswap_alloc(s: System, folio: Folio) -> SwpEntry:
    """Take a virtual slot for each page of a folio, aligned, of one cluster; returns the first, or 0.  May sleep."""
    s.cost.vswap_alloc += 1
    nr = folio.nr_pages
    entry = vswap_alloc_cached(s, folio)
    if not entry:
        entry, roomy = vswap_alloc_partial(s, folio)
        if not entry:
            entry, roomy = vswap_alloc_new(s, folio)
        if roomy is not None:
            vswap_cache_cluster(s, roomy)
    if entry:
        s.vswap.used += nr
    else:
        s.vswap.alloc_reject += nr
    return entry
