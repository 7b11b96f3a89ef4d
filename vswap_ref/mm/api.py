# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Everything that the face of the kernel calls: one list, the same names at every stage."""

from __future__ import annotations

from .access import OutOfMemory, access_page, page_location, shmem_page_location
from .address_space import do_munmap, dup_mm, exit_mmap, mm_alloc
from .boot import boot, cpu_down
from .bulk import swap_out_mapping
from .check import InvariantError, check
from .cost import primitive_counts
from .files import cgroup_files, debugfs, zswap_debugfs, zswap_parameters
from .hibernate import find_first_swap, swsusp_free, swsusp_read, swsusp_write
from .ledger import memory_ledger
from .madvise import do_madvise, do_mincore, hugepage_madvise
from .memcg_life import cgroup_attach_task, mem_cgroup_css_alloc, mem_cgroup_css_offline
from .memcg_limits import cgroup_file_write
from .pagetable import mmap_region
from .reclaim import do_try_to_free_pages, run_deferred_work
from .shmem import shmem_get_inode, shmem_mmap
from .shmem_file import shmem_setattr, shmem_truncate_range, shmem_unlink
from .state import Config, Memcg, Mm, ShmemInode, System, Vma
from .swap_io import swap_io_wait_one
from .swapoff import swapoff
from .swapon import swap_flags, swapon
from .thp import set_thp
from .userfaultfd import move_pages
from .views import cluster_map, folio_orders, meminfo, mthp_stats, proc_swaps, refresh_vmstat, shmem_charges
from .zswap_pool import zswap_enable
from .zswap_pools import zswap_compressor_param_set

__all__ = [
    "Config",
    "InvariantError",
    "Memcg",
    "Mm",
    "OutOfMemory",
    "ShmemInode",
    "System",
    "Vma",
    "access_page",
    "boot",
    "cgroup_attach_task",
    "cgroup_file_write",
    "cgroup_files",
    "check",
    "cluster_map",
    "cpu_down",
    "debugfs",
    "do_madvise",
    "do_mincore",
    "do_munmap",
    "do_try_to_free_pages",
    "dup_mm",
    "exit_mmap",
    "find_first_swap",
    "folio_orders",
    "hugepage_madvise",
    "mem_cgroup_css_alloc",
    "mem_cgroup_css_offline",
    "meminfo",
    "memory_ledger",
    "mm_alloc",
    "mmap_region",
    "move_pages",
    "mthp_stats",
    "page_location",
    "primitive_counts",
    "proc_swaps",
    "refresh_vmstat",
    "run_deferred_work",
    "set_thp",
    "shmem_charges",
    "shmem_get_inode",
    "shmem_mmap",
    "shmem_page_location",
    "shmem_setattr",
    "shmem_truncate_range",
    "shmem_unlink",
    "swap_flags",
    "swap_io_wait_one",
    "swap_out_mapping",
    "swapoff",
    "swapon",
    "swsusp_free",
    "swsusp_read",
    "swsusp_write",
    "zswap_compressor_param_set",
    "zswap_debugfs",
    "zswap_enable",
    "zswap_parameters",
]
