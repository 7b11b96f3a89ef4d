# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Reclaim: choosing cold anonymous folios, unmapping them, writing them out, freeing them.

Kernel home: mm/vmscan.c.  Only anonymous memory exists here; there are two lists per cgroup and no kswapd thread:
its work is done by whoever finds free memory below the low watermark.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EBUSY

from .cluster import swap_discard_work
from .folio import (
    folio_free,
    folio_lock,
    folio_mark_dirty,
    folio_put,
    folio_ref_freeze,
    folio_ref_unfreeze,
    folio_trylock,
    folio_unlock,
    nr_free_pages,
)
from .huge_memory import deferred_split_scan, split_folio_to_list
from .lazyfree import try_to_discard
from .lru import folio_isolate_lru, lruvec_add_folio
from .memcg import (
    MAX_RECLAIM_RETRIES,
    SWAP_CLUSTER_MAX,
    flush_memcg_stats,
    lruvec_page_state,
    mem_cgroup_get_nr_swap_pages,
    mem_cgroup_swap_full,
    memcg_subtree,
)
from .memcg_life import mem_cgroup_release_dying
from .page_io import swap_writeout
from .rmap import folio_referenced, try_to_unmap
from .shmem_swap import shmem_remove_mapping, shmem_writeout
from .state import Folio, LruvecStats, Memcg, System
from .swap_alloc import swap_reclaim_work
from .swap_io import folio_wait_writeback, swap_io_poll, swap_io_wait_one
from .thp import count_mthp_stat
from .types import AOP_WRITEPAGE_ACTIVATE, PF_MEMALLOC, PF_WQ_WORKER, PMD_ORDER
from .vswap.swap_cache import __vswap_remove_mapping, folio_free_swap, swap_cache_lock_irq, swap_cache_unlock_irq
from .vswap.swap_out import folio_alloc_swap
from .workingset import workingset_eviction
from .zswap_writeback import shrink_worker, zswap_shrinker_count, zswap_shrinker_scan

DEF_PRIORITY = 12

SCAN_NS = 500
"""Virtual time to look at a page on a list: an assumption, so that writes end while reclaim scans."""
DIRECT = "direct"
KSWAPD = "kswapd"
KEEP = "keep"
ACTIVATE = "activate"
FREED = "freed"


@contextmanager
def task_flag(s: System, flag: int) -> Iterator[None]:
    """Give the running task a flag for a while; then it has those of before (memalloc_noreclaim_save)."""
    before = s.task_flags
    s.task_flags |= flag
    try:
        yield
    finally:
        s.task_flags = before


@dataclass(slots=True)
class ScanControl:
    """One reclaim (struct scan_control): from which cgroup, how many pages, for whom, and how it is going."""

    target: Memcg
    nr_to_reclaim: int
    who: str
    priority: int = DEF_PRIORITY
    nr_reclaimed: int = 0
    may_deactivate: bool = False
    force_deactivate: bool = False
    skipped_deactivate: bool = False


def shrink_folio_list(s: System, folios: Iterable[Folio], ignore_references: bool) -> int:
    """Try to free isolated folios; those that stay go back on their lists.  Returns pages freed.

    The list is worked off from its end, so that the pages of a folio that is split come next.
    """
    freed = 0
    folio_list = list(folios)
    folio_list.reverse()
    while folio_list:
        folio = folio_list.pop()
        if not folio_trylock(folio):
            putback_folio(s, folio)
            continue
        verdict = shrink_folio(s, folio, ignore_references, folio_list)
        if verdict == FREED:
            freed += folio.nr_pages
            continue
        if verdict == ACTIVATE:
            activate_locked(s, folio)
        if folio.locked:
            folio_unlock(folio)
        putback_folio(s, folio)
    return freed


def putback_folio(s: System, folio: Folio) -> None:
    """Return an isolated folio to its list and drop the isolation's reference."""
    if folio.refcount > 1:
        lruvec_add_folio(s, folio)
    folio_put(s, folio)


def activate_locked(s: System, folio: Folio) -> None:
    """The folio stays: make it active, and let go of its slot if swap is scarce."""
    if folio.swapcache and mem_cgroup_swap_full(s, folio):
        folio_free_swap(s, folio)
    if not folio.active:
        folio.active = True
        s.vmstat.pgactivate += folio.nr_pages


def folio_alloc_swap_large(s: System, folio: Folio, folio_list: list[Folio]) -> int:
    """Slots for a large folio, or else, split, for its first page; its other pages go on ``folio_list``.

    Returns 0 or a negative errno: the folio stays in memory, split or not.
    """
    order = folio.order
    if folio.refcount != folio.mapcount + 1:
        return -EBUSY
    if folio.partially_mapped:
        return split_folio_to_list(s, folio, folio_list) or folio_alloc_swap(s, folio)
    if not folio_alloc_swap(s, folio):
        return 0
    err = split_folio_to_list(s, folio, folio_list)
    if err:
        return err
    count_swpout_fallback(s, folio.memcg, order)
    return folio_alloc_swap(s, folio)


def count_swpout_fallback(s: System, memcg: Memcg | None, order: int) -> None:
    """Count a large folio that had to be split to be swapped out."""
    count_mthp_stat(s, order, "swpout_fallback")
    if order == PMD_ORDER:
        s.vmstat.thp_swpout_fallback += 1
        if memcg is not None:
            memcg.stat.thp_swpout_fallback += 1


def shrink_folio(s: System, folio: Folio, ignore_references: bool, folio_list: list[Folio]) -> str:
    """Reclaim one locked folio: references, slot, unmap, write out, free.  Returns KEEP, ACTIVATE or FREED.

    If it has to be split, all pages but the first go on ``folio_list``.
    """
    if folio.writeback and not writeback_has_ended(s, folio):
        return ACTIVATE
    if not ignore_references:
        verdict = folio_check_references(s, folio)
        if verdict:
            return verdict
    if not folio.swapcache and not folio.swapbacked:
        return shrink_lazyfree_folio(s, folio)
    if not folio.swapcache and folio.mapping is None:
        if folio_alloc_swap_large(s, folio, folio_list) if folio.order else folio_alloc_swap(s, folio):
            return ACTIVATE
        folio_mark_dirty(folio)
    if folio.mapcount:
        try_to_unmap(s, folio)
        if folio.mapcount:
            return ACTIVATE
    if folio.dirty:
        verdict = pageout(s, folio)
        if verdict:
            return verdict
    return FREED if __remove_mapping(s, folio) else KEEP


def writeback_has_ended(s: System, folio: Folio) -> bool:
    """Met under writeback: version 1 of cgroups, which cannot slow down the writers, waits for one met again.

    Otherwise the folio goes to the active list until its write ends, out of reclaim's way.
    """
    if s.memcg.memsw and folio.reclaim:
        folio_wait_writeback(s, folio)
        return True
    folio.reclaim = True
    return False


def folio_check_references(s: System, folio: Folio) -> str:
    """Was it used since the last look?  Used twice: activate.  Once: keep it for another round."""
    users = folio_referenced(folio)
    before, folio.referenced = folio.referenced, users > 0
    if not users:
        return ""
    again = before or users > 1
    return ACTIVATE if again and folio.swapbacked else KEEP


def shrink_lazyfree_folio(s: System, folio: Folio) -> str:
    """A folio given away with MADV_FREE: drop it, unless it was written since.  Returns KEEP, ACTIVATE or FREED."""
    if not try_to_discard(s, folio):
        return ACTIVATE
    if not folio_ref_freeze(folio, 1):
        return KEEP
    nr = folio.nr_pages
    s.vmstat.pglazyfreed += nr
    if folio.memcg is not None:
        folio.memcg.stat.pglazyfreed += nr
    folio_unlock(folio)
    folio_free(s, folio)
    return FREED


def pageout(s: System, folio: Folio) -> str:
    """Write a dirty folio out.  Returns "" if it can be freed at once, else KEEP or ACTIVATE."""
    if folio.refcount != 1 + folio.nr_pages:
        return KEEP
    folio.dirty = False
    folio.reclaim = True
    writeout = swap_writeout if folio.mapping is None else shmem_writeout
    if writeout(s, folio) == AOP_WRITEPAGE_ACTIVATE:
        folio.reclaim = False
        return ACTIVATE
    s.vmstat.nr_vmscan_write += folio.nr_pages
    if folio.writeback:
        return KEEP
    folio.reclaim = False
    if folio.dirty:
        return KEEP
    folio_lock(folio)
    return ""


def __remove_mapping(s: System, folio: Folio) -> bool:
    """Take a clean, unmapped folio out of the swap cache, leaving a shadow, and free it; False if somebody uses it."""
    if folio.mapping is not None:
        return shmem_remove_mapping(s, folio)
    entry = folio.swap
    expected = 1 + folio.nr_pages
    swap_cache_lock_irq(s, entry)
    if not folio_ref_freeze(folio, expected):
        swap_cache_unlock_irq(s, entry)
        return False
    if folio.dirty:
        folio_ref_unfreeze(folio, expected)
        swap_cache_unlock_irq(s, entry)
        return False
    __vswap_remove_mapping(s, folio, entry, workingset_eviction(s, folio))
    folio_unlock(folio)
    folio_free(s, folio)
    return True


def isolate_lru_folios(s: System, lru: OrderedDict[Folio, None], nr_to_scan: int) -> list[Folio]:
    """Take up to ``nr_to_scan`` pages' worth of the coldest folios off a list."""
    taken: list[Folio] = []
    while lru and nr_to_scan > 0:
        folio = next(iter(lru))
        folio_isolate_lru(s, folio)
        taken.append(folio)
        nr_to_scan -= folio.nr_pages
    return taken


def shrink_inactive_list(s: System, memcg: Memcg, nr_to_scan: int, sc: ScanControl) -> int:
    """Reclaim from the cold end of the inactive list.  Returns pages freed.

    If the batch is nothing but folios under writeback, it waits for a write to end (reclaim_throttle): scanning on
    would only find more of them.
    """
    swap_io_poll(s)
    folios = isolate_lru_folios(s, memcg.lruvec.inactive, nr_to_scan)
    s.clock.ns += SCAN_NS * len(folios)
    scanned = sum(folio.nr_pages for folio in folios)
    throttle = bool(folios) and all(folio.writeback for folio in folios)
    freed = shrink_folio_list(s, folios, ignore_references=False)
    count_scan(s, memcg, sc.who, scanned, freed)
    if throttle:
        swap_io_wait_one(s)
    return freed


def shrink_lazyfree_list(s: System, memcg: Memcg, sc: ScanControl) -> None:
    """Scan what programs gave away, like a list of clean file pages: no swap is needed."""
    size = memcg.lruvec.nr_lazyfree
    share = (size >> sc.priority) - scan_share(s, size, sc.priority) if sc.priority else size
    folios = isolate_lru_folios(s, memcg.lruvec.lazyfree, share)
    scanned = sum(folio.nr_pages for folio in folios)
    freed = shrink_folio_list(s, folios, ignore_references=False)
    count_scan(s, memcg, sc.who, scanned, freed)
    sc.nr_reclaimed += freed


def count_scan(s: System, memcg: Memcg, who: str, scanned: int, freed: int) -> None:
    """Count pages looked at and freed."""
    for name, nr in (("pgscan", scanned), ("pgsteal", freed)):
        s.vmstat[f"{name}_anon"] += nr
        s.vmstat[f"{name}_{who}"] += nr
        memcg.stat[name] += nr


def shrink_active_list(s: System, memcg: Memcg, nr_to_scan: int) -> None:
    """Move cold active folios to the inactive list (anonymous folios get no second turn there)."""
    for folio in isolate_lru_folios(s, memcg.lruvec.active, nr_to_scan):
        folio_referenced(folio)
        folio.active = False
        folio.workingset = True
        s.vmstat.pgdeactivate += folio.nr_pages
        putback_folio(s, folio)


def inactive_is_low(stats: LruvecStats) -> bool:
    """The inactive list should hold a share that falls with memory: 1:1 below 1 GiB, then sqrt(10 * GiB):1."""
    gib = (stats.inactive + stats.active) >> 18
    ratio = int((10 * gib) ** 0.5) if gib else 1
    return stats.inactive * ratio < stats.active


def prepare_scan_control(s: System, sc: ScanControl) -> None:
    """May active folios be moved down?  If refaults became active since the last reclaim, or few are inactive."""
    stats = lruvec_page_state(s, sc.target)
    activated = stats.workingset_activate != sc.target.lruvec.refaults
    sc.may_deactivate = sc.force_deactivate or activated or inactive_is_low(stats)


def snapshot_refaults(s: System, target: Memcg) -> None:
    """Remember how many refaults had become active when reclaim ended."""
    for memcg in memcg_subtree(target):
        memcg.lruvec.refaults = lruvec_page_state(s, memcg).workingset_activate


def shrink_lruvec(s: System, memcg: Memcg, sc: ScanControl) -> None:
    """Scan this cgroup's lists in proportion to their length at a priority, 32 pages of each at a time.

    Stops when enough is freed; direct reclaim of the whole system goes through its first round to the end.  Without
    room nothing is reclaimed, but as long as there is swap at all the lists age.
    """
    proportional = sc.target.parent is None and sc.who == DIRECT and sc.priority == DEF_PRIORITY
    inactive = scan_share(s, memcg.lruvec.nr_inactive, sc.priority) if can_reclaim_anon_pages(s, memcg) else 0
    active = scan_share(s, memcg.lruvec.nr_active, sc.priority)
    sc.skipped_deactivate |= active > 0 and not sc.may_deactivate
    while inactive > 0:
        sc.nr_reclaimed += shrink_inactive_list(s, memcg, min(inactive, SWAP_CLUSTER_MAX), sc)
        inactive -= SWAP_CLUSTER_MAX
        if active > 0 and sc.may_deactivate:
            shrink_active_list(s, memcg, min(active, SWAP_CLUSTER_MAX))
        active -= SWAP_CLUSTER_MAX
        if sc.nr_reclaimed >= sc.nr_to_reclaim and not proportional:
            break
    if can_age_anon_pages(s) and inactive_is_low(lruvec_page_state(s, memcg)):
        shrink_active_list(s, memcg, SWAP_CLUSTER_MAX)


def scan_share(s: System, size: int, priority: int) -> int:
    """Pages of a list to scan at a priority: its share of the scan pressure; everything at priority 0.

    The share weighs swappiness by what reclaim has cost so far, which here was all for anonymous memory.
    """
    swappiness = s.config.swappiness
    return (size >> priority) * swappiness // (400 - swappiness) if priority else size


def can_reclaim_anon_pages(s: System, memcg: Memcg) -> bool:
    """There is room for this cgroup: in zswap, or on a device."""
    return mem_cgroup_get_nr_swap_pages(s, memcg) > 0


def shrink_node(s: System, sc: ScanControl) -> None:
    """Scan the target cgroup and its descendants once, and the zswap shrinker."""
    prepare_scan_control(s, sc)
    for memcg in memcg_subtree(sc.target):
        if memcg.lruvec.lazyfree:
            shrink_lazyfree_list(s, memcg, sc)
        shrink_lruvec(s, memcg, sc)
        if memcg.split_queue:
            deferred_split_scan(s, memcg, len(memcg.split_queue) >> sc.priority)
        to_scan = zswap_shrinker_count(s, memcg) >> sc.priority
        if to_scan:
            zswap_shrinker_scan(s, memcg, to_scan)


def do_try_to_free_pages(s: System, target: Memcg, nr_to_reclaim: int, who: str) -> int:
    """Scan harder and harder until enough pages are free.  Returns pages freed.

    If nothing at all was freed, but active folios were passed over, it starts again and takes these, too.  The
    statistics are brought up to date for that: the kernel leaves it to chance, and can run out of memory here.
    """
    sc = ScanControl(target, nr_to_reclaim, who)
    with task_flag(s, PF_MEMALLOC):
        shrink_zones(s, sc)
        if not sc.nr_reclaimed and sc.skipped_deactivate:
            flush_memcg_stats(s)
            sc.force_deactivate = True
            shrink_zones(s, sc)
    run_deferred_work(s)
    return sc.nr_reclaimed


def shrink_zones(s: System, sc: ScanControl) -> None:
    """Go through the priorities until enough pages are free.

    If a round frees nothing while writes are in flight it waits for one (reclaim_throttle).
    """
    for sc.priority in range(DEF_PRIORITY, -1, -1):
        before = sc.nr_reclaimed
        shrink_node(s, sc)
        if sc.nr_reclaimed >= sc.nr_to_reclaim:
            break
        if sc.nr_reclaimed == before and sc.priority < DEF_PRIORITY - 2:
            swap_io_wait_one(s)
    snapshot_refaults(s, sc.target)


def run_deferred_work(s: System) -> None:
    """What work queues and interrupts do beside the program: write completions, slots, discards, zswap's shrinker.

    Work that is queued while a worker runs (which may itself reclaim) is left for the next time.
    """
    swap_io_poll(s)
    if s.task_flags & PF_WQ_WORKER:
        return
    with task_flag(s, PF_WQ_WORKER):
        if s.memcg.dying:
            mem_cgroup_release_dying(s)
        if s.swap.reclaim_work:
            swap_reclaim_work(s)
        if s.swap.discard_work:
            swap_discard_work(s)
        if s.zswap.shrink_queued:
            shrink_worker(s)


def try_to_free_mem_cgroup_pages(s: System, memcg: Memcg, nr_pages: int) -> int:
    """Reclaim from a cgroup that is at its limit.  Returns pages freed."""
    return do_try_to_free_pages(s, memcg, nr_pages, DIRECT)


def try_to_free_pages(s: System, nr_pages: int) -> int:
    """Free memory is below the low watermark: reclaim up to the high one.  Returns the free pages after that.

    Pages that zswap takes free less than a page each, so this may take several rounds; it gives up after 16.
    """
    memory = s.memory
    who = KSWAPD if nr_free_pages(s) > memory.min_wmark else DIRECT
    if who == DIRECT:
        s.vmstat.allocstall_normal += 1
    for _ in range(MAX_RECLAIM_RETRIES):
        want = memory.high_wmark + nr_pages - nr_free_pages(s)
        if want <= 0:
            break
        do_try_to_free_pages(s, s.memcg.root, max(want, SWAP_CLUSTER_MAX), who)
    return nr_free_pages(s)


def reclaim_pages(s: System, folios: Iterable[Folio]) -> int:
    """Swap these folios out whatever their age (MADV_PAGEOUT).  Returns pages freed."""
    taken = [folio for folio in folios if folio_isolate_lru(s, folio)]
    with task_flag(s, PF_MEMALLOC):
        freed = shrink_folio_list(s, taken, ignore_references=True)
    run_deferred_work(s)
    return freed


def can_age_anon_pages(s: System) -> bool:
    """Anonymous memory may be reclaimed some time: there is zswap, or a device, be it full."""
    return s.zswap.enabled or s.swap.total_swap_pages > 0
