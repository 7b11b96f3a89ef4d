# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""A folio gets virtual slots, and, if it comes to that, physical ones behind them.

Kernel home: mm/vswap.c.
"""

from __future__ import annotations

from errno import ENOMEM

import numpy as np

from ..memcg import mem_cgroup_try_charge_swap
from ..state import Folio, System, VswapCluster
from ..swap_alloc import swap_slot_alloc
from ..swap_device import __swap_slot_to_info
from ..types import (
    CLUSTER_SHIFT,
    NO_SLOT,
    VSWAP_CLUSTER_MASK,
    VSWAP_FOLIO,
    VSWAP_SWAPFILE,
    VSWAP_ZSWAP,
    SwpEntry,
    SwpSlot,
    folio_word,
    swp_entry_range,
    swp_slot_add,
    swp_slot_offset,
)
from .allocation import vswap_alloc
from .backing import vswap_set_type
from .lifecycle import vswap_free
from .lookup import vswap_cluster_lock, vswap_iter
from .rmap import vswap_rmap_set
from .swap_cache import account_swap_cache


def folio_alloc_swap(s: System, folio: Folio) -> int:
    """Give a locked, uptodate folio virtual slots, backed by itself, and put it in the swap cache.

    Returns 0, or -ENOMEM if there is no virtual slot or the cgroup is at swap.max; then the pages that found no slot
    are counted.
    """
    assert folio.locked
    assert folio.uptodate
    assert not folio.swapcache
    nr = folio.nr_pages
    entry = vswap_alloc(s, folio)
    if not entry:
        return -ENOMEM
    if mem_cgroup_try_charge_swap(s, folio, entry):
        vswap_free_unused(s, entry, nr)
        s.cost.vswap_used += 1
        s.vswap.alloc_reject += nr
        return -ENOMEM
    folio.refcount += nr
    folio.swapcache = True
    folio.swap = entry
    account_swap_cache(s, folio, nr)
    return 0


def vswap_free_unused(s: System, entry: SwpEntry, nr: int) -> None:
    """Give virtual slots back that have just been taken, and that nobody knows."""
    cluster = None
    with s.rcu.read:
        for one in swp_entry_range(entry, entry + nr):
            cluster = vswap_iter(s, cluster, one)
            assert cluster is not None
            vswap_free(s, cluster, one)
        if cluster is not None:
            cluster.lock.release()


def vswap_assign_slots(s: System, cluster: VswapCluster, folio: Folio, slot: SwpSlot) -> None:
    """Physical slots in a row are what is behind a folio's slots from now on (cluster locked).

    Before, it was the folio itself or, when zswap writes a page back, a compressed copy, which stays with the caller:
    only its handle goes.
    """
    nr, index, desc = folio.nr_pages, folio.swap & VSWAP_CLUSTER_MASK, cluster.desc
    if nr > 1:
        range_ = desc.array[index : index + nr]
        assert (range_["type"] == VSWAP_FOLIO).all()
        assert (range_["swap_cache"] == folio_word(folio.pfn)).all()
        range_["slot"] = np.arange(slot, swp_slot_add(slot, nr), dtype="u8")
    else:
        if desc.type[index] == VSWAP_ZSWAP:
            s.zswap.entries.free(desc.zswap_entry[index])
        else:
            assert (desc.type[index], desc.swap_cache[index]) == (VSWAP_FOLIO, folio_word(folio.pfn))
        desc.slot[index] = slot
    vswap_set_type(cluster, folio.swap, nr, VSWAP_SWAPFILE)


def vswap_alloc_swap_slot(s: System, folio: Folio) -> SwpSlot:
    """Give a locked, cached folio a place on a device: its first physical slot, the one that it has already if it has.

    0 if no device has room; then nothing has changed.  What was behind its slots is not given up.
    """
    assert folio.locked
    assert folio.swapcache
    entry, nr = folio.swap, folio.nr_pages
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        assert cluster is not None
        desc, index = cluster.desc, entry & VSWAP_CLUSTER_MASK
        slot = SwpSlot(desc.slot[index]) if desc.type[index] == VSWAP_SWAPFILE else NO_SLOT
        cluster.lock.release()
    if slot:
        return slot
    err, slot = swap_slot_alloc(s, folio.order)
    if err:
        return NO_SLOT
    ci = __swap_slot_to_info(s, slot).cluster_info[swp_slot_offset(slot) >> CLUSTER_SHIFT]
    vswap_rmap_set(s, ci, slot, entry, nr)
    vswap_cluster_lock(s, cluster)
    vswap_assign_slots(s, cluster, folio, slot)
    cluster.lock.release()
    return slot
