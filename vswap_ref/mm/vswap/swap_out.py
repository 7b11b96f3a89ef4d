# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""A folio gets virtual slots, with physical ones behind them.

Kernel home: mm/vswap.c.
"""

from __future__ import annotations

from errno import ENOMEM

import numpy as np

from ..memcg import mem_cgroup_try_charge_swap
from ..state import Folio, System
from ..swap_alloc import swap_slot_alloc
from ..swap_device import __swap_slot_to_info, swap_cluster_lock, swap_cluster_unlock
from ..types import NO_ENTRY, VSWAP_CLUSTER_MASK, SwpEntry, SwpSlot, swp_entry_range, swp_slot_offset
from .allocation import vswap_alloc
from .cache_pin import put_swap_folio
from .lifecycle import vswap_free
from .lookup import vswap_cluster_unlock, vswap_iter
from .rmap import vswap_rmap_set
from .swap_cache import account_swap_cache


def vswap_link(s: System, entry: SwpEntry, slot: SwpSlot, nr: int) -> None:
    """Let ``nr`` virtual and physical slots point to each other; first the way back."""
    ci = swap_cluster_lock(s, __swap_slot_to_info(s, slot), swp_slot_offset(slot))
    vswap_rmap_set(s, ci, slot, entry, nr)
    swap_cluster_unlock(ci)
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        assert cluster is not None
        index = entry & VSWAP_CLUSTER_MASK
        if nr == 1:
            cluster.desc.slot[index] = slot
        else:
            cluster.desc.array["slot"][index : index + nr] = np.arange(slot, slot + nr, dtype="u8")
        vswap_cluster_unlock(cluster)


def folio_alloc_swap(s: System, folio: Folio) -> int:
    """Give a locked, uptodate folio virtual slots with physical ones behind them, and put it in the swap cache.

    Returns 0; -ENOMEM if there is no virtual slot, if no device has room (a large folio should be split and tried
    again) or the cgroup is at swap.max; what swap_slot_alloc returns.
    """
    assert folio.locked
    assert folio.uptodate
    assert not folio.swapcache
    nr = folio.nr_pages
    entry = vswap_alloc(s, folio)
    if not entry:
        return -ENOMEM
    err, slot = swap_slot_alloc(s, folio.order)
    if err:
        mem_cgroup_try_charge_swap(s, folio, NO_ENTRY)
        vswap_free_unlinked(s, entry, nr)
        return err
    vswap_link(s, entry, slot, nr)
    if mem_cgroup_try_charge_swap(s, folio, entry):
        put_swap_folio(s, folio, entry)
        return -ENOMEM
    folio.refcount += nr
    folio.swapcache = True
    folio.swap = entry
    account_swap_cache(s, folio, nr)
    return 0


def vswap_free_unlinked(s: System, entry: SwpEntry, nr: int) -> None:
    """Give virtual slots back that have just been taken, and that nobody knows."""
    cluster = None
    for one in swp_entry_range(entry, nr):
        cluster = vswap_iter(s, cluster, one)
        assert cluster is not None
        vswap_free(s, cluster, one)
    if cluster is not None:
        vswap_cluster_unlock(cluster)
