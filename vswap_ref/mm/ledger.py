# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""How many bytes of metadata swap costs, measured on the live structures.

Two columns: ``letter`` counts what the series' cover letter counts (payload per slot), ``exact`` whole pages, tables,
tree nodes and headers as a 64-bit kernel allocates them.
"""

from __future__ import annotations

from typing import NamedTuple

from vswap_ref.machine import PAGE_SIZE

from .state import SwapInfo, System
from .types import SWAPFILE_CLUSTER, VSWAP_CLUSTER_SIZE
from .vswap.descriptor import swp_desc

SIZEOF_SWAP_CLUSTER_INFO = 32
SIZEOF_ZSWAP_ENTRY = 56
SIZEOF_XARRAY = 16

SIZEOF_WORD = 8
AT_SWAPON = "at swapon"
WITH_USE = "with use"


class LedgerRow(NamedTuple):
    """One kind of structure: when it is paid for (at swapon for the whole device, or with use), and its bytes."""

    structure: str
    paid: str
    letter: int
    exact: int


def memory_ledger(s: System) -> list[LedgerRow]:
    """Every kind of swap metadata with its bytes."""
    devices = [si for si in s.swap.info if si.bdev is not None]
    return [*slot_array_rows(s, devices), *cluster_rows(devices), *vswap_rows(s), *zswap_rows(s)]


def vmalloc_bytes(size: int) -> int:
    """Bytes that vmalloc takes for ``size``: whole pages."""
    return -(-size // PAGE_SIZE) * PAGE_SIZE


def slot_array_rows(s: System, devices: list[SwapInfo]) -> list[LedgerRow]:
    """The arrays with one element a slot."""
    maps = [len(si.swap_map) for si in devices]
    bitmaps = [si.zeromap for si in devices if si.zeromap is not None]
    return [
        LedgerRow("swap_map", AT_SWAPON, sum(maps), sum(map(vmalloc_bytes, maps))),
        LedgerRow("zeromap", AT_SWAPON, sum(map(len, bitmaps)) // 8, sum(bitmap.nbytes for bitmap in bitmaps)),
    ]


def cluster_rows(devices: list[SwapInfo]) -> list[LedgerRow]:
    """Cluster headers, and the swap tables of the clusters in use: the reverse map."""
    clusters = [ci for si in devices for ci in si.cluster_info]
    tables = [ci.table for ci in clusters if ci.table is not None]
    words = sum(SWAPFILE_CLUSTER - table.count(0) for table in tables)
    return [
        LedgerRow("cluster headers", AT_SWAPON, 0, SIZEOF_SWAP_CLUSTER_INFO * len(clusters)),
        LedgerRow("swap table", WITH_USE, SIZEOF_WORD * words, SIZEOF_WORD * SWAPFILE_CLUSTER * len(tables)),
    ]


def zswap_rows(s: System) -> list[LedgerRow]:
    """The entries of compressed pages; what finds them is in the descriptors, and the compressed bytes are not here."""
    return [LedgerRow("zswap entries", WITH_USE, 0, SIZEOF_ZSWAP_ENTRY * s.zswap.stored_pages)]


AT_BOOT = "at boot"

SIZEOF_VSWAP_CLUSTER = 112
SIZEOF_PERCPU_VSWAP_CLUSTER = 80
SIZEOF_LIST_HEAD = 16


def vswap_rows(s: System) -> list[LedgerRow]:
    """The virtual slots: what boot makes, the clusters, their descriptors."""
    v, clusters = s.vswap, len(s.vswap.cluster_map)
    fixed = SIZEOF_XARRAY + SIZEOF_LIST_HEAD * len(v.partial_lists) + SIZEOF_PERCPU_VSWAP_CLUSTER * len(v.percpu)
    bitmaps = VSWAP_CLUSTER_SIZE // 8
    array = vmalloc_bytes(swp_desc.itemsize * VSWAP_CLUSTER_SIZE)
    return [
        LedgerRow("vswap fixed part", AT_BOOT, 0, fixed),
        LedgerRow("vswap cluster map", WITH_USE, 0, v.cluster_map.nbytes),
        LedgerRow("vswap clusters", WITH_USE, bitmaps * clusters, SIZEOF_VSWAP_CLUSTER * clusters),
        LedgerRow("vswap descriptors", WITH_USE, swp_desc.itemsize * v.used, array * clusters),
    ]
