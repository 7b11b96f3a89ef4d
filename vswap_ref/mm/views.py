# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""What /proc and the cgroup files show: plain tables, computed when somebody looks.

Kernel homes: fs/proc/meminfo.c, mm/vmstat.c, mm/swapfile.c (/proc/swaps), mm/memcontrol.c (memory.stat).
"""

from __future__ import annotations

from collections import Counter

from vswap_ref.machine import PAGE_SIZE

from .cluster import cluster_is_usable
from .folio import folio_put, nr_free_pages
from .memcg import memcg_subtree
from .pagetable import ptep_get
from .state import Folio, Memcg, Mm, ShmemInode, SwapClusterInfo, SwapInfo, System
from .swap_device import swap_usage_in_pages
from .types import (
    CLUSTER_FLAG_FREE,
    PTE_PRESENT,
    PTE_SHIFT,
    SWAP_MAP_BAD,
    SWAP_NR_ORDERS,
    SWAPFILE_CLUSTER,
    SWP_BLKDEV,
    RadixEntry,
    is_poisoned_swp_entry,
    radix_to_swp_entry,
    swp_slot,
)
from .vswap.cgroup import lookup_swap_cgroup_id
from .vswap.rmap import swp_slot_to_swp_entry
from .vswap.swap_cache import swap_cache_get_folio, swap_cache_peek
from .zswap_pool import zswap_total_pages


def refresh_vmstat(s: System) -> None:
    """Bring the gauges among the counters up to date; the others tick where things happen."""
    lruvecs = [memcg.lruvec for memcg in memcg_subtree(s.memcg.root)]
    s.vmstat.nr_inactive_anon = sum(lruvec.nr_inactive for lruvec in lruvecs)
    s.vmstat.nr_active_anon = sum(lruvec.nr_active for lruvec in lruvecs)
    s.vmstat.nr_inactive_file = sum(lruvec.nr_lazyfree for lruvec in lruvecs)
    s.vmstat.nr_zswapped = s.zswap.stored_pages


def meminfo(s: System) -> dict[str, int]:
    """The swap-related lines of /proc/meminfo, in bytes."""
    pages = {
        "MemTotal": s.memory.ram_pages,
        "MemFree": nr_free_pages(s),
        "SwapCached": s.vmstat.nr_swapcached,
        "AnonPages": s.vmstat.nr_anon_pages,
        "Mapped": s.vmstat.nr_mapped,
        "Shmem": s.vmstat.nr_shmem,
        "SwapTotal": s.swap.total_swap_pages,
        "SwapFree": s.swap.nr_swap_pages,
        "Zswap": zswap_total_pages(s),
        "Zswapped": s.zswap.stored_pages,
    }
    return {name: nr * PAGE_SIZE for name, nr in pages.items()}


def proc_swaps(s: System) -> list[dict[str, object]]:
    """One row a device in use, as in /proc/swaps (sizes in bytes)."""
    return [
        {
            "Filename": si.swap_file.name,
            "Type": "partition" if si.flags & SWP_BLKDEV else "file",
            "Size": si.pages * PAGE_SIZE,
            "Used": swap_usage_in_pages(si) * PAGE_SIZE,
            "Priority": si.prio,
            "number": si.type,
        }
        for si in s.swap.active_head
        if si.swap_file is not None
    ]


def memory_stat(s: System, memcg: Memcg) -> dict[str, int]:
    """memory.stat of a cgroup with its descendants (bytes for the first lines; events count pages)."""
    subtree = list(memcg_subtree(memcg))
    stat = {name: sum(one.stat[name] for one in subtree) for name in memcg.stat}
    for name in ("anon", "file", "shmem", "file_mapped", "swapcached", "zswapped"):
        stat[name] *= PAGE_SIZE
    if not s.memcg.memsw:
        stat["zswap"] = sum(entry.length for one in subtree for entry in one.zswap_lru)
    stat["inactive_anon"] = sum(one.lruvec.nr_inactive for one in subtree) * PAGE_SIZE
    stat["active_anon"] = sum(one.lruvec.nr_active for one in subtree) * PAGE_SIZE
    stat["inactive_file"] = sum(one.lruvec.nr_lazyfree for one in subtree) * PAGE_SIZE
    return stat


def slot_kind(byte: int, cached: bool) -> str:
    """What a slot is used for, for display."""
    if byte == 0:
        return "free"
    if byte == SWAP_MAP_BAD:
        return "bad"
    return "cached" if cached else "disk"


def cluster_map(s: System, type_: int) -> list[dict[str, object]]:
    """One row a cluster of a device: list, order, use, and what each slot holds."""
    si = s.swap.info[type_]
    return [cluster_row(s, si, index) for index in range(len(si.cluster_info))]


def cluster_row(s: System, si: SwapInfo, index: int) -> dict[str, object]:
    """One cluster of a device, for display."""
    ci = si.cluster_info[index]
    first = index * SWAPFILE_CLUSTER
    slots = range(first, min(first + SWAPFILE_CLUSTER, si.max))
    kinds: list[str] = []
    image = s.power.swsusp_extents if s.power.root_swap == si.type else []
    for offset in slots:
        saved = any(start <= offset < end for start, end in image)
        cached = isinstance(swap_cache_peek(s, swp_slot_to_swp_entry(s, swp_slot(si.type, offset))), Folio)
        kinds.append("image" if saved else slot_kind(si.swap_map[offset], cached))
    names = ("none", "free", "nonfull", "frag", "full", "discard")
    row = {"cluster": index, "list": names[ci.flags], "order": ci.order, "count": ci.count, "slots": kinds}
    return row | cluster_room(si, ci)


def cluster_room(si: SwapInfo, ci: SwapClusterInfo) -> dict[str, object]:
    """By order: aligned free runs of ``2**order`` slots ("runs"), and whether such a folio may be put here ("usable").

    A swap file takes single pages only.
    """
    first = ci.index * SWAPFILE_CLUSTER
    end = min(first + SWAPFILE_CLUSTER, si.max)
    highest = SWAP_NR_ORDERS if si.flags & SWP_BLKDEV else 1
    runs, usable = [], []
    for order in range(SWAP_NR_ORDERS):
        nr = 1 << order
        runs.append(sum(not any(si.swap_map[at : at + nr]) for at in range(first, end - nr + 1, nr)))
        usable.append(order < highest and (ci.flags == CLUSTER_FLAG_FREE or cluster_is_usable(ci, order)))
    return {"runs": runs, "usable": usable}


def mthp_stats(s: System) -> list[dict[str, object]]:
    """One row a size: its setting, folios of it that exist, and its counters (hugepages-<size>/ in sysfs)."""
    thp = s.thp
    masks = {
        "always": thp.huge_anon_orders_always,
        "inherit": thp.huge_anon_orders_inherit,
        "madvise": thp.huge_anon_orders_madvise,
    }
    existing = Counter(folio.order for folio in set(s.memory.mem_map) if folio is not None)
    return [
        {
            "order": order,
            "size": PAGE_SIZE << order,
            "enabled": next((name for name, orders in masks.items() if orders >> order & 1), "never"),
            "nr_anon": existing[order],
            **thp.stats[order],
        }
        for order in sorted(thp.stats)
    ]


def folio_orders(s: System, mm: Mm, start: int, end: int) -> list[int | None]:
    """The order of the folio that each page of a range is mapped to; None where none is."""
    orders: list[int | None] = []
    for addr in range(start, end):
        pte = ptep_get(mm, addr)
        folio = s.memory.mem_map[pte >> PTE_SHIFT] if pte & PTE_PRESENT and pte >> PTE_SHIFT else None
        orders.append(folio.order if folio is not None else None)
    return orders


def shmem_charges(s: System, inode: ShmemInode) -> dict[str, tuple[int, int]]:
    """Cgroup -> (bytes of memory, bytes of swap) that it pays for an object; a page in the swap cache costs both."""
    memory: Counter[str] = Counter()
    swap: Counter[str] = Counter()
    for _, entry in inode.i_pages.items():
        folio, owner = shmem_entry_owners(s, entry)
        if folio is not None:
            memory[folio.memcg.name if folio.memcg else ""] += PAGE_SIZE
        if owner is not None:
            swap[owner.name] += PAGE_SIZE
    return {name or "/": (memory[name], swap[name]) for name in sorted({*memory, *swap})}


def shmem_entry_owners(s: System, entry: Folio | RadixEntry) -> tuple[Folio | None, Memcg | None]:
    """The folio in memory, and the cgroup recorded for the slot, of an entry of a page cache."""
    if isinstance(entry, Folio):
        return entry, None
    swap = radix_to_swp_entry(entry)
    if is_poisoned_swp_entry(swap):
        return None, None
    folio = swap_cache_get_folio(s, swap)
    if folio is not None:
        folio_put(s, folio)
    return folio, s.memcg.by_id.get(lookup_swap_cgroup_id(s, swap))
