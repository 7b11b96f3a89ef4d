# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Everything that the face of the kernel calls: one list, the same names at every stage."""

from __future__ import annotations

from .access import OutOfMemory, access_page, page_location
from .address_space import do_munmap, dup_mm, exit_mmap, mm_alloc
from .boot import boot, mem_cgroup_alloc
from .bulk import swap_out_mapping
from .check import InvariantError, check
from .cost import primitive_counts
from .hibernate import find_first_swap, swsusp_free, swsusp_read, swsusp_write
from .ledger import memory_ledger
from .madvise import madvise_pageout, madvise_willneed
from .pagetable import mmap_region
from .reclaim import do_try_to_free_pages, run_deferred_work
from .state import Config, Memcg, Mm, System, Vma
from .swap_io import swap_io_wait_one
from .swapoff import swapoff
from .swapon import swap_flags, swapon
from .views import cluster_map, meminfo, memory_stat, proc_swaps, refresh_vmstat
from .zswap_pool import zswap_enable

__all__ = [
    "Config",
    "InvariantError",
    "Memcg",
    "Mm",
    "OutOfMemory",
    "System",
    "Vma",
    "access_page",
    "boot",
    "check",
    "cluster_map",
    "do_munmap",
    "do_try_to_free_pages",
    "dup_mm",
    "exit_mmap",
    "find_first_swap",
    "madvise_pageout",
    "madvise_willneed",
    "mem_cgroup_alloc",
    "meminfo",
    "memory_ledger",
    "memory_stat",
    "mm_alloc",
    "mmap_region",
    "page_location",
    "primitive_counts",
    "proc_swaps",
    "refresh_vmstat",
    "run_deferred_work",
    "swap_flags",
    "swap_io_wait_one",
    "swap_out_mapping",
    "swapoff",
    "swapon",
    "swsusp_free",
    "swsusp_read",
    "swsusp_write",
    "zswap_enable",
]
