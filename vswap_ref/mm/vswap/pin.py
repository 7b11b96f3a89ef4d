# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Pins: what keeps an entry's device and its cluster alive, but not the entry.

Kernel home: mm/vswap.c.
"""

from __future__ import annotations

from ..state import SwapInfo, System
from ..swap_device import swap_slot_put_swap_info, swap_slot_tryget_swap_info
from ..types import SwpEntry
from .cluster import vswap_cluster_put
from .lookup import swp_entry_to_swp_slot, vswap_cluster_load, vswap_cluster_lock, vswap_cluster_unlock


def tryget_swap_entry(s: System, entry: SwpEntry) -> tuple[bool, SwapInfo | None]:
    """Pin an entry's device and its cluster: (success, device); after success, put_swap_entry exactly once.

    Fails without a physical slot, while swapoff runs, or without a cluster.  The slot may be freed meanwhile, even used
    again: who pins must look again afterwards.  May be held across sleeping, by many at once.
    """
    si = swap_slot_tryget_swap_info(s, swp_entry_to_swp_slot(s, entry))
    if si is None:
        return False, None
    with s.rcu.read:
        cluster = vswap_cluster_load(s, entry)
        if cluster is not None and cluster.refcnt:
            s.cost["vswap_cluster_ref"] += 1
            cluster.refcnt += 1
            return True, si
    swap_slot_put_swap_info(si)
    return False, None


def put_swap_entry(s: System, entry: SwpEntry, si: SwapInfo | None) -> None:
    """Undo a successful tryget_swap_entry.  Any entry of the same cluster will do."""
    if si is not None:
        swap_slot_put_swap_info(si)
    with s.rcu.read:
        cluster = vswap_cluster_load(s, entry)
        assert cluster is not None
        vswap_cluster_lock(s, cluster)
        vswap_cluster_put(s, cluster)
        vswap_cluster_unlock(cluster)
