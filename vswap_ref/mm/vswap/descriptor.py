# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""What the kernel knows of each virtual slot.

Kernel home: mm/vswap.c (struct swp_desc).  The descriptors of a cluster are one array; its cluster's lock protects it.
"""

from __future__ import annotations

import numpy as np

from ..types import VSWAP_CLUSTER_SIZE

swp_desc: np.dtype[np.void] = np.dtype(
    {
        "names": ["slot", "zswap_entry", "swap_cache", "swap_count", "memcgid", "in_swapcache", "type"],
        "formats": ["u8", "u8", "u8", "u4", "u2", "u1", "u1"],
        "offsets": [0, 0, 8, 16, 20, 22, 23],
        "itemsize": 24,
    }
)
"""A descriptor (struct swp_desc).  ``type`` is the kind of backing (VSWAP_SWAPFILE and so on), and the first word is
what it says: ``slot``, the physical slot, or ``zswap_entry``, the compressed copy as a handle; otherwise 0.
``swap_cache`` is a folio, a shadow, or 0; ``swap_count`` is the number of page-table entries (or shmem's) that have
the slot; ``memcgid`` the cgroup that is charged, or 0; ``in_swapcache`` is 1 while the slot is pinned for the cache."""


class Descriptors:
    """The descriptors of a cluster: ``array`` for ranges, and a view of each column for single ones (``slot[index]``).

    ``slot`` and ``zswap_entry`` are the same words, a union.
    """

    __slots__ = ("array", "in_swapcache", "memcgid", "slot", "swap_cache", "swap_count", "type", "zswap_entry")

    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array = np.zeros(VSWAP_CLUSTER_SIZE, swp_desc) if array is None else array
        self.slot = self.array["slot"].data
        self.zswap_entry = self.array["zswap_entry"].data
        self.swap_cache = self.array["swap_cache"].data
        self.swap_count = self.array["swap_count"].data
        self.memcgid = self.array["memcgid"].data
        self.in_swapcache = self.array["in_swapcache"].data
        self.type = self.array["type"].data

    def __reduce__(self) -> tuple[type[Descriptors], tuple[np.ndarray]]:
        """Views cannot be copied; the array can, and they follow from it."""
        return Descriptors, (self.array,)
