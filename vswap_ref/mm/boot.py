# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Booting a kernel: every subsystem's state, and the calls that go up, in one place."""

from __future__ import annotations

from vswap_ref.machine import MEMCG_STAT, MTHP_STAT, PAGE_SIZE, VMSTAT, Clock, Faults, Locks, PerCpu, Rcu, Tally

from .cost import COST_OF_PATH
from .folio import setup_per_zone_wmarks
from .reclaim import try_to_free_mem_cgroup_pages, try_to_free_pages
from .state import (
    Config,
    Folio,
    Hooks,
    IoState,
    Memcg,
    MemcgState,
    Memory,
    PercpuSwapCluster,
    ShmemState,
    SwapState,
    System,
    ThpState,
)
from .swap_init import swap_init
from .thp import THP_ORDERS_ALL_ANON, orders_descending
from .vswap.init import vswap_boot
from .zswap_pool import zswap_boot

FAULT_SITES = {
    "folio_alloc": "a page frame (alloc_pages)",
    "pte_alloc": "a page table",
    "vzalloc": "a per-slot array at swapon",
    "kvzalloc_zeromap": "the zero bitmap at swapon",
    "kvcalloc_cluster_info": "the cluster headers at swapon",
    "swap_table_alloc": "the swap table of a cluster",
    "shmem_xa_node": "a node of a shared object's page cache",
    "signal": "no allocation: a signal interrupts swapoff",
}


def start_kernel(config: Config, ram_bytes: int, locks: str, online_cpus: list[int]) -> System:
    """The state of every subsystem, before any of them is initialised."""
    lock_kinds = Locks(locks)
    root = Memcg(1, "", None, Tally(MEMCG_STAT))
    faults = Faults()
    for site, doc in FAULT_SITES.items():
        faults.declare(site, doc)
    memory = Memory(ram_bytes // PAGE_SIZE)
    memory.mem_map[0] = zero_page()
    setup_per_zone_wmarks(memory)
    return System(
        config=config,
        clock=Clock(),
        locks=lock_kinds,
        rcu=Rcu(locks),
        faults=faults,
        vmstat=Tally(VMSTAT),
        cost=Tally(COST_OF_PATH),
        memory=memory,
        memcg=MemcgState(root, {1: root}, config.memcg is not None, config.memcg == "v1"),
        swap=swap_state(lock_kinds, online_cpus),
        vswap=vswap_boot(lock_kinds, faults, online_cpus),
        zswap=zswap_boot(faults),
        thp=ThpState({order: Tally(MTHP_STAT) for order in orders_descending(THP_ORDERS_ALL_ANON)}),
        io=IoState(),
        hooks=Hooks(try_to_free_mem_cgroup_pages, try_to_free_pages),
        shmem=ShmemState(lock_kinds.spinlock("shmem_swaplist_mutex")),
    )


def swap_state(locks: Locks, online_cpus: list[int]) -> SwapState:
    """The swap subsystem without a device."""
    return SwapState(
        locks.spinlock("swap_lock"),
        locks.spinlock("swap_avail_lock"),
        PerCpu(online_cpus, PercpuSwapCluster, lambda: locks.local_lock("percpu_swap_cluster")),
    )


def boot(config: Config, ram_bytes: int, locks: str, online_cpus: list[int]) -> System:
    """A running kernel without swap devices; ``online_cpus`` stays the caller's, who keeps it up to date."""
    s = start_kernel(config, ram_bytes, locks, online_cpus)
    swap_init(s)
    return s


def cpu_down(s: System, cpu: int) -> None:
    """A CPU has gone offline: call back whoever keeps something for it."""
    for callback in s.cpuhp_dead.values():
        callback(s, cpu)


def zero_page() -> Folio:
    """The shared page of zeros, page frame 0."""
    return Folio(0, 0, bytearray(PAGE_SIZE), uptodate=True)
