# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""zswap gives its coldest pages to the disk.

Kernel home: mm/zswap.c (writeback, shrinker, shrink worker).  Every cgroup has a list of its entries, coldest first;
an entry is written at the earliest on its second visit.
"""

from __future__ import annotations

from errno import EAGAIN, EEXIST, EIO, ENOENT, ENOMEM

from vswap_ref.machine import PAGE_SIZE

from .folio import folio_put, folio_unlock
from .memcg import MAX_RECLAIM_RETRIES, mem_cgroup_zswap_writeback_enabled, memcg_subtree
from .state import Folio, Memcg, System, ZswapEntry
from .swap_io import __swap_writepage
from .swap_read import __read_swap_cache_async
from .types import NO_SLOT, SwpEntry
from .vswap.backing import zswap_entry_store
from .vswap.pin import put_swap_entry, tryget_swap_entry
from .vswap.swap_cache import swap_cache_del_folio
from .vswap.swap_out import vswap_alloc_swap_slot
from .vswap.zswap_index import zswap_entry_load
from .zswap_pool import zswap_accept_thr_pages, zswap_decompress, zswap_entry_free, zswap_total_pages


def zswap_writeback_entry(s: System, entry: ZswapEntry, swpentry: SwpEntry) -> int:
    """Decompress an entry into the swap cache and write it to a slot that is taken for it now.

    Returns 0, -EEXIST (a folio is in the cache for it, or its cluster is gone), -ENOMEM (no memory, no slot, somebody
    else has its pin, or the entry is gone) or -EIO.
    """
    pinned, si = tryget_swap_entry(s, swpentry)
    if not pinned:
        return -EEXIST
    folio, allocated = __read_swap_cache_async(s, swpentry, s.memcg.root, skip_if_exists=True)
    put_swap_entry(s, swpentry, si)
    if folio is None:
        return -ENOMEM
    if not allocated:
        folio_put(s, folio)
        return -EEXIST
    err = zswap_writeback_folio(s, entry, swpentry, folio)
    if err:
        swap_cache_del_folio(s, folio)
        folio_unlock(folio)
    folio_put(s, folio)
    return err


def zswap_writeback_folio(s: System, entry: ZswapEntry, swpentry: SwpEntry, folio: Folio) -> int:
    """The part of zswap_writeback_entry that owns the locked, cached, empty folio.

    From the moment that the slot has a place on a device only this function knows the compressed page.
    """
    slot = vswap_alloc_swap_slot(s, folio) if zswap_entry_load(s, swpentry) is entry else NO_SLOT
    if not slot:
        return -ENOMEM
    data = zswap_decompress(s, entry)
    if data is None:
        zswap_entry_store(s, swpentry, entry)
        return -EIO
    folio.data[:] = data
    s.vmstat.zswpwb += 1
    if entry.memcg is not None:
        entry.memcg.stat.zswpwb += 1
    zswap_entry_free(s, entry)
    folio.uptodate = True
    folio.reclaim = True
    __swap_writepage(s, folio, slot)
    return 0


def shrink_memcg_cb(s: System, entry: ZswapEntry, lru: dict[ZswapEntry, None]) -> int:
    """Visit the coldest entry of a list: second chance, or write it back.  Returns 0, -EAGAIN or -EEXIST.

    It is moved to the tail first: from then on it may vanish at any time.
    """
    del lru[entry]
    lru[entry] = None
    if entry.referenced:
        entry.referenced = False
        return -EAGAIN
    err = zswap_writeback_entry(s, entry, entry.swpentry)
    if err:
        s.zswap.debugfs.reject_reclaim_fail += 1
        return -EEXIST if err == -EEXIST else -EAGAIN
    s.zswap.debugfs.written_back_pages += 1
    return 0


def shrink_memcg(s: System, memcg: Memcg) -> int:
    """Visit one entry of the cgroup.  Returns 0 if it was written back, -ENOENT without candidates, else -EAGAIN."""
    if not mem_cgroup_zswap_writeback_enabled(s, memcg) or not memcg.online or not memcg.zswap_lru:
        return -ENOENT
    coldest = next(iter(memcg.zswap_lru))
    return 0 if shrink_memcg_cb(s, coldest, memcg.zswap_lru) == 0 else -EAGAIN


def shrink_worker(s: System) -> None:
    """Write back, one entry of each online cgroup in turn, until the pool is at the accept threshold.

    Goes on where the last run stopped.  Gives up after 16 failures: a full tour without candidates, or a candidate
    that was not written.
    """
    s.zswap.shrink_queued = False
    failures = attempts = 0
    while failures < MAX_RECLAIM_RETRIES and zswap_total_pages(s) > zswap_accept_thr_pages(s):
        memcg = s.zswap.next_shrink = next_online_memcg(s, s.zswap.next_shrink)
        if memcg is None:
            failures += not attempts
            attempts = 0
            continue
        err = shrink_memcg(s, memcg)
        if err != -ENOENT:
            attempts += 1
            failures += err != 0


def next_online_memcg(s: System, after: Memcg | None) -> Memcg | None:
    """The online cgroup that follows in the tour; None at its end.  From None it begins with the root."""
    tour = [memcg for memcg in memcg_subtree(s.memcg.root) if memcg.online]
    place = tour.index(after) + 1 if after is not None else 0
    return tour[place] if place < len(tour) else None


def zswap_shrinker_count(s: System, memcg: Memcg) -> int:
    """How many entries the shrinker may take: list length less recent disk swap-ins, times the compression ratio."""
    if not s.zswap.shrinker_enabled or not mem_cgroup_zswap_writeback_enabled(s, memcg):
        return 0
    length = len(memcg.zswap_lru)
    if not length:
        return 0
    disk_swapins = memcg.lruvec.nr_disk_swapins
    consumed = min(length, disk_swapins)
    memcg.lruvec.nr_disk_swapins -= consumed
    backing = sum(entry.length for entry in memcg.zswap_lru) // PAGE_SIZE
    return (length - consumed) * backing // length


def zswap_shrinker_scan(s: System, memcg: Memcg, nr_to_scan: int) -> int:
    """Visit up to ``nr_to_scan`` entries; stops at a folio that is being swapped in.  Returns entries written."""
    written = 0
    for _ in range(min(nr_to_scan, len(memcg.zswap_lru))):
        if not memcg.zswap_lru:
            break
        err = shrink_memcg_cb(s, next(iter(memcg.zswap_lru)), memcg.zswap_lru)
        written += err == 0
        if err == -EEXIST:
            break
    return written


def zswap_folio_swapin(s: System, folio: Folio) -> None:
    """A page had to come from disk: the shrinker will hold back."""
    (folio.memcg or s.memcg.root).lruvec.nr_disk_swapins += 1
