# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The virtual swap space initialises itself at boot.

Kernel home: mm/vswap.c.
"""

from __future__ import annotations

from errno import ENODEV

from vswap_ref.machine import Faults, Locks, PerCpu, XArray

from ..state import PercpuVswapCluster, System, VswapState
from .cluster import vswap_cpu_dead


def vswap_debug_fs_init(s: System) -> int:
    """Make the directory "vswap" at the root of debugfs, with its files.  Returns 0, or -ENODEV without debugfs."""
    if s.dirs.debugfs is None:
        return -ENODEV
    s.dirs.debugfs["vswap"] = ["alloc_reject", "used"]
    return 0


def vswap_init(s: System) -> int:
    """Initialise the virtual swap space: be told of CPUs that die, and the directory in debugfs.  Returns 0."""
    s.cpuhp_dead["CPUHP_MM_VSWAP_DEAD"] = vswap_cpu_dead
    if vswap_debug_fs_init(s):
        s.log.append("Failed to initialize vswap debugfs")
    return 0


VSWAP_FAULT_SITES = {
    "vswap_cluster_alloc": "the header of a virtual cluster (kmem_cache_zalloc)",
    "vswap_desc_alloc": "the descriptors of a virtual cluster (vzalloc)",
    "vswap_cluster_id": "no allocation: the ids of virtual clusters are exhausted (xa_alloc)",
    "vswap_map_node": "a node of the map of virtual clusters",
}


def vswap_boot(locks: Locks, faults: Faults, online_cpus: list[int]) -> VswapState:
    """The virtual swap space at boot, empty; its allocations that can be made to fail.

    The map of clusters was never told that its id 0 is free: the first cluster since boot gets id 1.
    """
    for site, doc in VSWAP_FAULT_SITES.items():
        faults.declare(site, doc)
    return VswapState(
        locks.spinlock("vswap_cluster_map"),
        XArray(faults, "vswap_map_node", zero_free=False),
        PerCpu(online_cpus, PercpuVswapCluster, lambda: locks.local_lock("percpu_vswap_cluster")),
    )


def vswap_exit(s: System) -> None:
    """Undo vswap_init: nothing is undone."""
