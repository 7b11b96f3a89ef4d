# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Freeing a virtual slot.

Kernel home: mm/vswap.c (vswap_free).  The physical side calls this for each slot that it frees.
"""

from __future__ import annotations

from ..memcg import mem_cgroup_uncharge_swap
from ..state import SwapClusterInfo, System
from ..types import NO_ENTRY, VSWAP_CLUSTER_MASK, SwpEntry, SwpSlot
from ..zswap_pool import zswap_invalidate
from .cluster import release_vswap_slot
from .lookup import vswap_cluster_unlock, vswap_iter
from .rmap import vswap_rmap_set


def vswap_free(s: System, entry: SwpEntry, ci: SwapClusterInfo | None) -> None:
    """Free one virtual slot: compressed page and charge first, then the shadow, its bit last.  Nothing for entry 0.

    ``ci`` is the locked physical cluster, None if the slot was never linked.  As long as the bit is set nobody gets
    the same slot again.
    """
    if not entry:
        return
    zswap_invalidate(s, entry)
    mem_cgroup_uncharge_swap(s, entry, 1)
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        if cluster is None:
            return
        desc, index = cluster.desc, entry & VSWAP_CLUSTER_MASK
        if desc.swap_cache[index] & 1:
            desc.swap_cache[index] = 0
        slot = SwpSlot(desc.slot[index])
        if slot:
            assert ci is not None
            vswap_rmap_set(s, ci, slot, NO_ENTRY, 1)
        release_vswap_slot(s, cluster, entry)
        vswap_cluster_unlock(cluster)
