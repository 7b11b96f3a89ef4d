# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Which compressed page belongs to a virtual slot: a word of its descriptor.

Kernel home: mm/vswap.c.  Each helper locks the slot's cluster once, takes no reference and needs no memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..state import System, ZswapEntry
from ..types import VSWAP_CLUSTER_MASK, VSWAP_CLUSTER_SHIFT, SwpEntry, vswap_entry
from .lookup import vswap_cluster_unlock, vswap_iter


def zswap_entry_exchange(s: System, entry: SwpEntry, zentry: ZswapEntry | None) -> ZswapEntry | None:
    """Put a compressed page (or None) in an allocated slot's descriptor, by a handle; returns the one that was there."""
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        if cluster is None:
            return None
        index = entry & VSWAP_CLUSTER_MASK
        old = cluster.desc.zswap_entry[index]
        cluster.desc.zswap_entry[index] = s.zswap.entries.alloc(zentry) if zentry is not None else 0
        vswap_cluster_unlock(cluster)
    return s.zswap.entries.free(old) if old else None


def zswap_entry_store(s: System, entry: SwpEntry, zentry: ZswapEntry) -> ZswapEntry | None:
    """Store a compressed page in a virtual slot's descriptor; returns the one that was there.

    Cannot fail.  Of a slot that is not allocated nothing is stored, and nobody is told: hold the folio's lock.
    """
    return zswap_entry_exchange(s, entry, zentry)


def zswap_entry_erase(s: System, entry: SwpEntry) -> ZswapEntry | None:
    """Take a virtual slot's compressed page out, and return it; None if there is none."""
    return zswap_entry_exchange(s, entry, None)


def zswap_entry_load(s: System, entry: SwpEntry) -> ZswapEntry | None:
    """The compressed page of a virtual slot, or None.  Who wants to keep it holds the lock of the entry's folio."""
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        if cluster is None:
            return None
        handle = cluster.desc.zswap_entry[entry & VSWAP_CLUSTER_MASK]
        vswap_cluster_unlock(cluster)
    return s.zswap.entries[handle] if handle else None


def zswap_empty(s: System, entry: SwpEntry) -> bool:
    """True if there is no virtual cluster at all; ``entry`` means nothing.  A hint that hardly ever is true."""
    return s.vswap.cluster_map.empty


def zswap_items(s: System) -> Iterator[tuple[SwpEntry, ZswapEntry]]:
    """All compressed pages, each with the swap entry that finds it.  For displays and checks."""
    for cluster_id, cluster in s.vswap.cluster_map.items():
        for index in cluster.desc.array["zswap_entry"].nonzero()[0].tolist():
            yield vswap_entry(cluster_id, index), s.zswap.entries[cluster.desc.zswap_entry[index]]


def is_zswapped(s: System, entry: SwpEntry) -> bool:
    """True if zswap has a page.  For displays and checks: looking from outside costs nothing."""
    cluster = s.vswap.cluster_map.load(entry >> VSWAP_CLUSTER_SHIFT)
    return cluster is not None and cluster.desc.zswap_entry[entry & VSWAP_CLUSTER_MASK] != 0
