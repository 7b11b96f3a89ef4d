# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""How many bytes of metadata swap costs, measured on the live structures.

Two columns: ``letter`` counts what the series' cover letter counts (payload per slot), ``exact`` whole tables, tree
nodes and headers as a 64-bit kernel allocates them.
"""

from __future__ import annotations

from .state import SwapInfo, System
from .types import SWAPFILE_CLUSTER

SIZEOF_SWAP_CLUSTER_INFO = 32
SIZEOF_ZSWAP_ENTRY = 56
SIZEOF_XARRAY = 16
SIZEOF_XA_NODE = 576
SIZEOF_WORD = 8


def used_slots(si: SwapInfo) -> int:
    """Slots in use: entries whose swap-table word counts as payload."""
    return si.max - si.swap_map.count(0) - 1


def memory_ledger(s: System) -> list[tuple[str, int, int]]:
    """(structure, letter bytes, exact bytes) for every kind of swap metadata."""
    devices = [si for si in s.swap.info if si.bdev is not None]
    trees = [tree for type_trees in s.zswap.trees.values() for tree in type_trees]
    zswapped = sum(len(tree) for tree in trees)
    tables = sum(ci.table is not None for si in devices for ci in si.cluster_info)
    clusters = sum(len(si.cluster_info) for si in devices)
    pages = sum(len(level) for si in devices for levels in si.continuation.values() for level in levels)
    cgroup = sum(2 * len(ids) for ids in s.swap.cgroup.values())
    return [
        ("swap_map", sum(si.max for si in devices), sum(si.max for si in devices)),
        ("swap_cgroup", 2 * sum(si.max for si in devices), cgroup),
        ("zeromap", sum(si.max for si in devices) // 8, sum(si.zeromap.nbytes for si in devices if si.zeromap)),
        ("swap table", SIZEOF_WORD * sum(map(used_slots, devices)), tables * SWAPFILE_CLUSTER * SIZEOF_WORD),
        ("zswap tree", SIZEOF_WORD * zswapped, sum(tree.nodes for tree in trees) * SIZEOF_XA_NODE),
        ("zswap tree heads", 0, SIZEOF_XARRAY * len(trees)),
        ("cluster headers", 0, SIZEOF_SWAP_CLUSTER_INFO * clusters),
        ("count continuation", 0, pages),
        ("zswap entries", 0, SIZEOF_ZSWAP_ENTRY * s.zswap.stored_pages),
    ]
