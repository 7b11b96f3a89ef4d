# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""All state of the modelled kernel: one small slotted dataclass per subsystem, collected in ``System``.

Behaviour is plain functions in the other modules; they take the ``System`` first.  The fields of a structure carry the
names of the kernel structure that its docstring names.  Structures are equal only to themselves, and do not print what
is in them: it leads to everything else.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vswap_ref.machine import (
    Arena,
    Bitmap,
    BlockDevice,
    Clock,
    Codec,
    Faults,
    Locks,
    PerCpu,
    PercpuRef,
    Rcu,
    RequestQueue,
    Tally,
    XArray,
)

from .types import NO_ENTRY, PMD_ORDER, SWAP_NR_ORDERS, RadixEntry, SwpEntry
from .vswap.descriptor import Descriptors


@dataclass(slots=True, eq=False, repr=False)
class Vma:
    """A range of virtual memory (struct vm_area_struct); addresses count pages.

    ``file`` is the object that it maps, shared and from its beginning; None: anonymous memory.
    """

    mm: Mm
    start: int
    end: int
    anon_vma: AnonVma
    file: ShmemInode | None = None
    ra_addr: int = 0
    ra_win: int = 0
    ra_hits: int = 4
    locked: bool = False
    hugepage: bool | None = None
    """Advice: MADV_HUGEPAGE, MADV_NOHUGEPAGE or none."""


@dataclass(slots=True, eq=False, repr=False)
class AnonVma:
    """The VMAs in which a family of forked processes may map the same anonymous page (struct anon_vma)."""

    vmas: list[Vma] = field(default_factory=list)


@dataclass(slots=True, eq=False, repr=False)
class Mm:
    """An address space (struct mm_struct): page tables of 512 entries, VMAs, and the counters swap needs."""

    memcg: Memcg
    ptl: Any
    pgd: dict[int, list[int]] = field(default_factory=dict)
    vmas: list[Vma] = field(default_factory=list)
    anonpages: int = 0
    shmempages: int = 0
    swapents: int = 0
    next_addr: int = 0x7F000


@dataclass(slots=True, eq=False, repr=False)
class Folio:
    """A unit of memory of ``nr_pages`` = 2**order pages (struct folio) with its content.

    ``refcount`` counts one reference per page for the swap cache or the page cache, one per mapping, one for the LRU
    isolation or any other user.  ``exclusive`` is a bit set over the pages: mapped by one process only
    (PG_anon_exclusive).  A large folio counts its mappings page by page too (``mapcounts``).  ``mapping`` is the object
    whose page ``index`` it holds, None for anonymous memory and while it is in the swap cache.
    """

    pfn: int
    order: int
    data: bytearray
    nr_pages: int = 1
    refcount: int = 1
    mapcount: int = 0
    locked: bool = False
    uptodate: bool = False
    dirty: bool = False
    swapbacked: bool = False
    swapcache: bool = False
    writeback: bool = False
    reclaim: bool = False
    lru: bool = False
    active: bool = False
    referenced: bool = False
    workingset: bool = False
    readahead: bool = False
    exclusive: int = 0
    mapcounts: list[int] | None = None
    partially_mapped: bool = False
    swap: SwpEntry = NO_ENTRY
    index: int = 0
    anon_vma: AnonVma | None = None
    mapping: ShmemInode | None = None
    memcg: Memcg | None = None


@dataclass(slots=True, eq=False, repr=False)
class LruvecStats:
    """What lruvec_page_state tells: the list lengths (pages) and activations of refaults, as of the last flush."""

    inactive: int = 0
    active: int = 0
    workingset_activate: int = 0


@dataclass(slots=True, eq=False, repr=False)
class Lruvec:
    """The lists of anonymous folios of a memory cgroup (struct lruvec); the first element is the coldest.

    ``lazyfree`` holds what a program gave away with MADV_FREE: it needs no swap to be reclaimed.  ``flushed`` are the
    statistics as readers see them; ``refaults`` the activations that the last reclaim saw.
    """

    inactive: OrderedDict[Folio, None] = field(default_factory=OrderedDict)
    active: OrderedDict[Folio, None] = field(default_factory=OrderedDict)
    lazyfree: OrderedDict[Folio, None] = field(default_factory=OrderedDict)
    nr_inactive: int = 0
    nr_active: int = 0
    nr_lazyfree: int = 0
    nonresident_age: int = 0
    nr_disk_swapins: int = 0
    flushed: LruvecStats = field(default_factory=LruvecStats)
    refaults: int = 0


@dataclass(slots=True, eq=False, repr=False)
class PageCounter:
    """A hierarchical usage counter with its limits (struct page_counter), in pages; None = unlimited.

    ``max`` refuses, ``high`` slows down, ``watermark`` is the highest usage so far.
    """

    usage: int = 0
    max: int | None = None
    high: int | None = None
    watermark: int = 0


@dataclass(slots=True, eq=False, repr=False)
class Memcg:
    """A memory cgroup (struct mem_cgroup): limits, usage, statistics and its LRU lists."""

    id: int
    name: str
    parent: Memcg | None
    stat: Tally
    memory: PageCounter = field(default_factory=PageCounter)
    swap: PageCounter = field(default_factory=PageCounter)
    memsw: PageCounter = field(default_factory=PageCounter)
    zswap_max: int | None = None
    zswap_writeback: bool = True
    zswap_bytes: int = 0
    kmem_bytes: int = 0
    nr_swap: int = 0
    id_refs: int = 1
    online: bool = True
    lruvec: Lruvec = field(default_factory=Lruvec)
    zswap_lru: OrderedDict[ZswapEntry, None] = field(default_factory=OrderedDict)
    split_queue: dict[Folio, None] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    events_local: dict[str, int] = field(default_factory=dict)
    children: list[Memcg] = field(default_factory=list)
    lineage: tuple[Memcg, ...] = ()
    """The cgroup and its ancestors without the root, which is never limited and never charged."""
    memory_counters: tuple[PageCounter, ...] = ()
    swap_counters: tuple[PageCounter, ...] = ()
    memsw_counters: tuple[PageCounter, ...] = ()
    """The counters of the lineage, in its order."""

    def __post_init__(self) -> None:
        """The lineage follows from the parent."""
        if self.parent is not None:
            self.lineage = (self, *self.parent.lineage)
            self.memory_counters = (self.memory, *self.parent.memory_counters)
            self.swap_counters = (self.swap, *self.parent.swap_counters)
            self.memsw_counters = (self.memsw, *self.parent.memsw_counters)


@dataclass(slots=True, eq=False, repr=False)
class MemcgState:
    """All memory cgroups: by id (an id lives as long as it is referenced), and the root (id 1)."""

    root: Memcg
    by_id: dict[int, Memcg]
    enabled: bool = True
    memsw: bool = False
    """Version 1: memory and swap are limited together (do_memsw_account), swap and zswap not by themselves."""
    next_flush_ns: int = 0
    """When the cgroups' statistics are flushed next (virtual time)."""
    dying: dict[Memcg, None] = field(default_factory=dict)
    """Deleted cgroups that memory or slots still refer to."""
    watch_high: bool = False
    """Some cgroup has a high limit, so charges look for them."""
    nr_over_high: int = 0
    """Pages charged above a high limit that nobody has paid for by reclaim and delay yet."""


@dataclass(slots=True, eq=False, repr=False)
class Memory:
    """Physical memory: every page frame's folio, the free frames by order with what is left in them, the watermarks."""

    ram_pages: int
    mem_map: list[Folio | None] = field(default_factory=lambda: [None])
    free_frames: list[list[tuple[int, bytearray]]] = field(default_factory=lambda: [[] for _ in range(10)])
    used: int = 0
    min_wmark: int = 0
    low_wmark: int = 0
    high_wmark: int = 0


@dataclass(slots=True, eq=False, repr=False)
class SwapClusterInfo:
    """512 neighbouring slots of a device (struct swap_cluster_info, 32 bytes).

    ``lock`` protects count, flags, order, the table words and the cluster's part of the swap map.
    """

    index: int
    lock: Any
    count: int = 0
    flags: int = 0
    order: int = 0
    table: array[int] | None = None
    on_list: ClusterList | None = None


ClusterList = OrderedDict[SwapClusterInfo, None]
"""A list of clusters, oldest first."""


@dataclass(slots=True, eq=False, repr=False)
class SwapExtent:
    """A run of slots that lies in one piece on the device (struct swap_extent); the device's blocks are pages."""

    start_page: int
    nr_pages: int
    start_block: int


@dataclass(slots=True, eq=False)
class SwapInfo:
    """A swap device (struct swap_info_struct).  ``max`` counts slot 0, the header; ``pages`` are the usable slots.

    ``swap_file`` is what swapon was given; ``bdev`` is the block device that holds it, the same unless it is a file.
    """

    type: int
    lock: Any
    global_cluster_lock: Any
    users: PercpuRef
    bdev: BlockDevice | None = None
    swap_file: BlockDevice | None = None
    swap_extents: list[SwapExtent] = field(default_factory=list)
    flags: int = 0
    prio: int = -1
    max: int = 0
    pages: int = 0
    inuse_pages: int = 1 << 30
    swap_map: bytearray = field(default_factory=bytearray)
    zeromap: Bitmap | None = None
    cluster_info: list[SwapClusterInfo] = field(default_factory=list)
    free_clusters: ClusterList = field(default_factory=OrderedDict)
    full_clusters: ClusterList = field(default_factory=OrderedDict)
    discard_clusters: ClusterList = field(default_factory=OrderedDict)
    nonfull_clusters: list[ClusterList] = field(default_factory=lambda: [OrderedDict() for _ in range(10)])
    frag_clusters: list[ClusterList] = field(default_factory=lambda: [OrderedDict() for _ in range(10)])
    global_next: list[int] | None = None


@dataclass(slots=True, eq=False, repr=False)
class PercpuSwapCluster:
    """A CPU's allocation hint: device and next slot to try, per order (struct percpu_swap_cluster).

    Its ``lock`` is the container's local lock of that CPU.
    """

    si: list[SwapInfo | None] = field(default_factory=lambda: [None] * 10)
    offset: list[int] = field(default_factory=lambda: [0] * 10)


@dataclass(slots=True, eq=False)
class SwapState:
    """The swap subsystem's globals: devices, the two priority lists, the totals (slots), readahead hits."""

    swap_lock: Any
    avail_lock: Any
    percpu: PerCpu[PercpuSwapCluster]
    info: list[SwapInfo] = field(default_factory=list)
    active_head: list[SwapInfo] = field(default_factory=list)
    avail_head: list[SwapInfo] = field(default_factory=list)
    nr_swap_pages: int = 0
    total_swap_pages: int = 0
    nr_rotate_swap: int = 0
    mmlist: dict[Mm, None] = field(default_factory=dict)
    readahead_hits: int = 0
    readahead_prev_offset: int = 0
    readahead_last_pages: int = 0
    ptes_visited: int = 0
    signal_pending: bool = False
    reclaim_work: dict[SwapInfo, None] = field(default_factory=dict)
    discard_work: dict[SwapInfo, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class VswapCluster:
    """512 virtual slots (struct vswap_cluster, 112 bytes), all handed out in runs of ``1 << order``.

    ``refcnt`` counts the allocated slots (``count``), the CPU that caches the cluster for allocation (``cached``), and
    pins.  ``full``: allocation has given up here, so the next free slot brings it back to the partial list.
    """

    lock: Any
    desc: Descriptors
    bitmap: Bitmap
    id: int = 0
    order: int = 0
    count: int = 0
    refcnt: int = 0
    cached: bool = False
    full: bool = False


@dataclass(slots=True, eq=False)
class PercpuVswapCluster:
    """The cluster of each order from which a CPU allocates (struct percpu_vswap_cluster)."""

    clusters: list[VswapCluster | None] = field(default_factory=lambda: [None] * SWAP_NR_ORDERS)


@dataclass(slots=True, eq=False)
class VswapState:
    """The virtual swap space: clusters by id, clusters with room by order, what CPUs cache, two counters in slots.

    ``map_lock`` protects the map and the lists; look-ups need only RCU.
    """

    map_lock: Any
    cluster_map: XArray[VswapCluster]
    percpu: PerCpu[PercpuVswapCluster]
    partial_lists: list[OrderedDict[VswapCluster, None]] = field(
        default_factory=lambda: [OrderedDict() for _ in range(SWAP_NR_ORDERS)]
    )
    used: int = 0
    alloc_reject: int = 0


@dataclass(slots=True, eq=False, repr=False)
class PowerState:
    """Hibernation (kernel/power): the image's device, its slots as runs [first, end), its pages' blocks in order."""

    root_swap: int = -1
    swsusp_extents: list[list[int]] = field(default_factory=list)
    image_blocks: list[int] = field(default_factory=list)
    suspended_storage: bool = False


@dataclass(slots=True, eq=False, repr=False)
class ZswapPool:
    """One compressor and its memory pool (struct zswap_pool on zsmalloc); ``bytes`` are the stored objects' sizes."""

    codec: Codec
    bytes: int = 0


@dataclass(slots=True, eq=False, repr=False)
class ZswapEntry:
    """One page in zswap (struct zswap_entry, 56 bytes); ``length`` 4096 = stored as it is."""

    swpentry: SwpEntry
    length: int
    pool: ZswapPool
    object: bytes
    memcg: Memcg | None
    referenced: bool = True


@dataclass(slots=True, eq=False)
class ZswapState:
    """zswap's parameters, pools, the stored entries by handle, which descriptors hold, and debugfs counters."""

    debugfs: Tally
    entries: Arena[ZswapEntry] = field(default_factory=Arena)
    enabled: bool = False
    ever_enabled: bool = False
    max_pool_percent: int = 20
    accept_threshold_percent: int = 90
    shrinker_enabled: bool = False
    pool: ZswapPool | None = None
    pools: list[ZswapPool] = field(default_factory=list)
    """All pools: the current one, to which new pages go, first; the others only hold old entries."""
    next_shrink: Memcg | None = None
    """Where the shrink worker goes on (zswap_next_shrink)."""
    reached_full: bool = False
    shrink_queued: bool = False
    stored_pages: int = 0
    stored_incompressible: int = 0
    pool_bytes: int = 0


@dataclass(slots=True, eq=False, repr=False)
class ThpState:
    """Transparent huge pages: the switch for all sizes, three sets of orders as bit masks, and counters per order.

    ``on`` is false if no mapping can have a large folio.  ``defrag``: who may reclaim for one ("always", "madvise"
    or "never").
    """

    stats: dict[int, Tally]
    enabled: str = "never"
    defrag: str = "madvise"
    huge_anon_orders_always: int = 0
    huge_anon_orders_madvise: int = 0
    huge_anon_orders_inherit: int = 1 << PMD_ORDER
    on: bool = False


@dataclass(slots=True, eq=False, repr=False)
class IoState:
    """Writes in flight as (completion time, sequence number, folio, error), earliest first; each device's queue."""

    inflight: list[tuple[int, int, Folio, bool]] = field(default_factory=list)
    sequence: int = 0
    queues: dict[int, RequestQueue] = field(default_factory=dict)


@dataclass(slots=True, eq=False, repr=False)
class KernelDirs:
    """Directories that subsystems make for users, name -> names of the files in it.

    ``sysfs_mm`` are those in /sys/kernel/mm, ``debugfs`` those at the root of debugfs; None: it is switched off.
    """

    sysfs_mm: dict[str, list[str]] = field(default_factory=dict)
    debugfs: dict[str, list[str]] | None = field(default_factory=dict)


@dataclass(slots=True)
class Config:
    """What is chosen at boot."""

    cpus: int = 2
    swappiness: int = 60
    page_cluster: int = 3
    memcg: str | None = "v2"
    debug: bool = False


@dataclass(slots=True, eq=False, repr=False)
class Hooks:
    """Calls to a higher floor, registered at boot; one field per kernel call site.

    try_to_free_mem_cgroup_pages: try_charge_memcg (mm/memcontrol.c) reclaims when a cgroup is at its limit.
    try_to_free_pages: __alloc_pages_slowpath (mm/page_alloc.c) reclaims when free memory is short.
    """

    try_to_free_mem_cgroup_pages: Callable[[System, Memcg, int], int]
    try_to_free_pages: Callable[[System, int], int]


@dataclass(slots=True, eq=False)
class System:
    """One running kernel: the first argument of every function in this package."""

    config: Config
    clock: Clock
    locks: Locks
    rcu: Rcu
    faults: Faults
    vmstat: Tally
    cost: Tally
    memory: Memory
    memcg: MemcgState
    swap: SwapState
    vswap: VswapState
    zswap: ZswapState
    thp: ThpState
    io: IoState
    hooks: Hooks
    shmem: ShmemState
    power: PowerState = field(default_factory=PowerState)
    mms: dict[Mm, None] = field(default_factory=dict)
    cpu: int = 0
    task_flags: int = 0
    """Flags of the running task (current->flags): PF_WQ_WORKER, PF_MEMALLOC."""
    dirs: KernelDirs = field(default_factory=KernelDirs)
    cpuhp_dead: dict[str, Callable[[System, int], int]] = field(default_factory=dict)
    """What is called after a CPU has died, by the name of its hotplug state."""
    log: list[str] = field(default_factory=list)
    """What printk has written."""


@dataclass(slots=True, eq=False, repr=False)
class ShmemInode:
    """A shared memory object (struct shmem_inode_info, its inode and its address_space); sizes count pages.

    ``i_pages`` holds the folio of a page in memory or the swap entry of a page in swap; a hole has neither.
    ``alloced`` may lag: reclaim drops pages that were never written without telling (see shmem_recalc_inode).
    """

    name: str
    i_size: int
    i_pages: XArray[Folio | RadixEntry]
    xa_lock: Any
    i_mmap: dict[Vma, None] = field(default_factory=dict)
    nlink: int = 1
    nrpages: int = 0
    alloced: int = 0
    swapped: int = 0
    stop_eviction: int = 0


@dataclass(slots=True, eq=False, repr=False)
class ShmemState:
    """All shared objects, and those that swapoff has to look through (shmem_swaplist)."""

    swaplist_mutex: Any
    swaplist: dict[ShmemInode, None] = field(default_factory=dict)
    inodes: dict[ShmemInode, None] = field(default_factory=dict)
