# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The pin that the swap cache has on a slot: its folio is in the cache, or somebody is about to bring it in.

Kernel home: mm/vswap.c.  It is there before a folio can be seen, and while a page is read past the cache.
"""

from __future__ import annotations

from errno import EEXIST, ENOENT

from ..state import Folio, System, VswapCluster
from ..types import VSWAP_CLUSTER_MASK, SwpEntry, swap_nth, swp_entry_range
from .batch import BATCH, vswap_alike, vswap_free_batch
from .lifecycle import vswap_free
from .lookup import vswap_iter


def __swapcache_clear(s: System, cluster: VswapCluster, entry: SwpEntry, nr: int) -> None:
    """Unpin ``nr`` slots of a locked cluster (RCU read section); those that nobody refers to are freed."""
    desc = cluster.desc
    if nr >= BATCH:
        index = entry & VSWAP_CLUSTER_MASK
        if desc.array["swap_count"][index : index + nr].all():
            desc.array["in_swapcache"][index : index + nr] = 0
            return
        if vswap_alike(s, entry, nr, pinned=1, users=0):
            vswap_free_batch(s, cluster, entry, nr - 1)
            entry, nr = swap_nth(entry, nr - 1), 1
    for one in swp_entry_range(entry, entry + nr):
        index = one & VSWAP_CLUSTER_MASK
        desc.in_swapcache[index] = 0
        if not desc.swap_count[index]:
            vswap_free(s, cluster, one)


def swapcache_clear(s: System, entry: SwpEntry, nr: int) -> None:
    """Undo swapcache_prepare, for ``nr`` slots of one cluster."""
    if not nr:
        return
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        assert cluster is not None
        __swapcache_clear(s, cluster, entry, nr)
        cluster.lock.release()


def vswap_pin_error(cluster: VswapCluster | None, entry: SwpEntry) -> int:
    """May a slot be pinned, in its locked cluster?  0, -ENOENT (not allocated) or -EEXIST (pinned already)."""
    if cluster is None:
        return -ENOENT
    desc, index = cluster.desc, entry & VSWAP_CLUSTER_MASK
    if desc.in_swapcache[index]:
        return -EEXIST
    return 0 if desc.swap_count[index] else -ENOENT


def swapcache_prepare(s: System, entry: SwpEntry, nr: int) -> int:
    """Pin ``nr`` slots of one cluster: the gate through which exactly one task swaps an entry in.

    Returns 0, -EEXIST (somebody else is at it) or -ENOENT (the entry was freed); then no slot is pinned.
    """
    cluster, done, err = None, 0, 0
    with s.rcu.read:
        for one in swp_entry_range(entry, entry + nr):
            cluster = vswap_iter(s, cluster, one)
            err = vswap_pin_error(cluster, one)
            if cluster is None or err:
                break
            cluster.desc.in_swapcache[one & VSWAP_CLUSTER_MASK] = 1
            done += 1
        if cluster is not None:
            cluster.lock.release()
    if done < nr:
        swapcache_clear(s, entry, done)
    return err


def put_swap_folio(s: System, folio: Folio, entry: SwpEntry) -> None:
    """The locked folio leaves the swap cache, or never got there: unpin its slots, free those that nobody needs."""
    assert folio.locked
    swapcache_clear(s, entry, folio.nr_pages)


def is_swap_cached(s: System, entry: SwpEntry) -> bool:
    """The slot is pinned: it is in the swap cache, or a swap-in is under way."""
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        if cluster is None:
            return False
        pinned = cluster.desc.in_swapcache[entry & VSWAP_CLUSTER_MASK]
        cluster.lock.release()
    return bool(pinned)


def non_swapcache_batch(s: System, entry: SwpEntry, max_nr: int) -> int:
    """How many slots from the entry's on are in use and not pinned (0..max_nr); 0 for entry 0."""
    if not entry:
        return 0
    cluster, nr = None, 0
    with s.rcu.read:
        for one in swp_entry_range(entry, entry + max_nr):
            cluster = vswap_iter(s, cluster, one)
            if cluster is None or vswap_pin_error(cluster, one):
                break
            nr += 1
        if cluster is not None:
            cluster.lock.release()
    return nr
