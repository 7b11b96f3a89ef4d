# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Which compressed page is behind a virtual slot.

Kernel home: mm/vswap.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..state import System, ZswapEntry
from ..types import VSWAP_CLUSTER_MASK, VSWAP_CLUSTER_SHIFT, VSWAP_ZSWAP, SwpEntry, vswap_entry
from .lookup import vswap_iter


def zswap_entry_load(s: System, entry: SwpEntry) -> ZswapEntry | None:
    """The compressed page behind a virtual slot, or None.  Who wants to keep it holds the lock of the slot's folio."""
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        if cluster is None:
            return None
        desc, index = cluster.desc, entry & VSWAP_CLUSTER_MASK
        handle = desc.zswap_entry[index] if desc.type[index] == VSWAP_ZSWAP else 0
        cluster.lock.release()
    return s.zswap.entries[handle] if handle else None


def zswap_empty(s: System, entry: SwpEntry) -> bool:
    """True if there is no virtual cluster at all; ``entry`` means nothing.  A hint that hardly ever is true."""
    return s.vswap.cluster_map.empty


def zswap_items(s: System) -> Iterator[tuple[SwpEntry, ZswapEntry]]:
    """All compressed pages, each with the swap entry that finds it.  For displays and checks."""
    for cluster_id, cluster in s.vswap.cluster_map.items():
        array = cluster.desc.array
        for index in ((array["type"] == VSWAP_ZSWAP) & (array["zswap_entry"] != 0)).nonzero()[0].tolist():
            yield vswap_entry(cluster_id, index), s.zswap.entries[cluster.desc.zswap_entry[index]]


def is_zswapped(s: System, entry: SwpEntry) -> bool:
    """True if zswap has a page.  For displays and checks: looking from outside costs nothing."""
    cluster, index = s.vswap.cluster_map.load(entry >> VSWAP_CLUSTER_SHIFT), entry & VSWAP_CLUSTER_MASK
    if cluster is None or cluster.desc.type[index] != VSWAP_ZSWAP:
        return False
    return cluster.desc.zswap_entry[index] != 0
