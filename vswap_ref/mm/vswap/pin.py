# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Pins: what keeps an entry's cluster alive, but not the entry.

Kernel homes: mm/vswap.c, mm/swap.h (vswap_get_device).
"""

from __future__ import annotations

from ..state import SwapInfo, System
from ..swap_device import swap_slot_put_swap_info, swap_slot_tryget_swap_info
from ..types import SwpEntry
from .cluster import vswap_cluster_put
from .lookup import swp_entry_to_swp_slot, vswap_cluster_load, vswap_load_and_lock


def tryget_swap_entry(s: System, entry: SwpEntry) -> tuple[bool, SwapInfo | None]:
    """Pin an entry's cluster: (success, device, pinned too, if there is one); after success, put_swap_entry once.

    Fails without a cluster.  The slot may be freed meanwhile, even used again, and its backing may change: who pins
    must look again afterwards.  May be held across sleeping, by many at once.
    """
    with s.rcu.read:
        cluster = vswap_cluster_load(s, entry)
        if cluster is None or not cluster.refcnt:
            return False, None
        s.cost.vswap_cluster_ref += 1
        cluster.refcnt += 1
    return True, vswap_get_device(s, entry)


def put_swap_entry(s: System, entry: SwpEntry, si: SwapInfo | None) -> None:
    """Undo a successful tryget_swap_entry.  Any entry of the same cluster will do."""
    if si is not None:
        swap_slot_put_swap_info(si)
    with s.rcu.read:
        cluster = vswap_load_and_lock(s, entry)
        vswap_cluster_put(s, cluster)
        cluster.lock.release()


def vswap_get_device(s: System, entry: SwpEntry) -> SwapInfo | None:
    """The device on which the entry's page is now, pinned; None if it is on none, or the device goes away."""
    slot = swp_entry_to_swp_slot(s, entry)
    return swap_slot_tryget_swap_info(s, slot) if slot else None
