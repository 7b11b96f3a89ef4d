# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Splitting large folios.

Kernel home: mm/huge_memory.c.
"""

from __future__ import annotations

from errno import EAGAIN, EBUSY

from vswap_ref.machine import PAGE_SIZE

from .folio import folio_put, folio_ref_freeze, folio_ref_unfreeze, folio_trylock, folio_unlock
from .lru import lruvec_add_folio, lruvec_del_folio
from .rmap import folio_remove_rmap, rmap_walk
from .slot_reclaim import free_folio_and_swap_cache
from .split_queue import folio_unqueue_deferred_split
from .state import Folio, Memcg, System
from .thp import count_mthp_stat
from .types import PMD_ORDER, PTE_YOUNG, ZERO_PFN, mk_pte, swap_nth
from .vswap.swap_cache import __swap_cache_replace_folio, swap_cache_lock, swap_cache_unlock


def split_folio_to_list(s: System, folio: Folio, folio_list: list[Folio] | None = None) -> int:
    """Split a locked large folio into single pages; the caller's reference stays with the first one.

    The others go isolated on ``folio_list``, the next one last, or on the LRU lists if the folio was there.  Pages that
    nobody uses are freed.  Returns 0, -EBUSY (under writeback) or -EAGAIN (somebody holds a reference).
    """
    order, on_lru = folio.order, folio.lru
    if folio.writeback:
        return -EBUSY
    tails = __folio_freeze_and_split_unmapped(s, folio)
    count_split(s, order, failed=tails is None)
    if tails is None:
        return -EAGAIN
    for page in (folio, *tails):
        try_to_map_unused_to_zeropage(s, page)
    if on_lru:
        lruvec_add_folio(s, folio)
    release_tails(s, tails, folio_list, on_lru)
    return 0


def try_to_map_unused_to_zeropage(s: System, folio: Folio) -> None:
    """A page that was split off and is all zeros is not worth its memory: its PTEs map the shared zero page instead."""
    if folio.mapcount == 0 or folio.data != bytes(PAGE_SIZE):
        return
    for vma, table, index, _ in rmap_walk(folio):
        if not vma.locked:
            with vma.mm.ptl:
                table[index] = mk_pte(ZERO_PFN, PTE_YOUNG)
                folio_remove_rmap(s, folio, 0)
                vma.mm.anonpages -= 1
                folio.refcount -= 1


def count_split(s: System, order: int, failed: bool) -> None:
    """Count a split or a failed one: for its size, and for 2 MiB also in vmstat."""
    suffix = "_failed" if failed else ""
    count_mthp_stat(s, order, f"split{suffix}")
    if order == PMD_ORDER:
        s.vmstat[f"thp_split_page{suffix}"] += 1


def __folio_freeze_and_split_unmapped(s: System, folio: Folio) -> list[Folio] | None:
    """Make a folio of each page: the first page stays, the others are returned.  None if somebody has a reference.

    Each of the others has references for its mappings and its place in the cache, and one for the caller.
    """
    nr = folio.nr_pages
    if not folio_ref_freeze(folio, folio.mapcount + nr * folio.swapcache + 1):
        return None
    if folio.lru:
        lruvec_del_folio(s, folio)
    folio_unqueue_deferred_split(s, folio)
    if folio.swapcache:
        swap_cache_lock(s, folio.swap)
    tails = [split_off_page(s, folio, page) for page in range(1, nr)]
    if folio.swapcache:
        for tail in tails:
            __swap_cache_replace_folio(s, folio, tail)
        swap_cache_unlock(s, folio.swap)
    assert folio.mapcounts is not None
    folio.mapcount, folio.mapcounts = folio.mapcounts[0], None
    folio.exclusive &= 1
    folio.data = folio.data[:PAGE_SIZE]
    folio.order, folio.nr_pages = 0, 1
    folio_ref_unfreeze(folio, folio.mapcount + folio.swapcache + 1)
    return tails


def split_off_page(s: System, folio: Folio, page: int) -> Folio:
    """A folio of its own for one page of a frozen large folio."""
    assert folio.mapcounts is not None
    tail = Folio(folio.pfn + page, 0, folio.data[page * PAGE_SIZE : (page + 1) * PAGE_SIZE])
    for name in ("uptodate", "dirty", "swapbacked", "swapcache", "active", "referenced", "workingset"):
        setattr(tail, name, getattr(folio, name))
    tail.anon_vma, tail.memcg, tail.index = folio.anon_vma, folio.memcg, folio.index + page
    tail.mapcount = folio.mapcounts[page]
    tail.exclusive = folio.exclusive >> page & 1
    tail.swap = swap_nth(folio.swap, page) if folio.swapcache else folio.swap
    tail.refcount = tail.mapcount + tail.swapcache + 1
    s.memory.mem_map[tail.pfn] = tail
    return tail


def release_tails(s: System, tails: list[Folio], folio_list: list[Folio] | None, on_lru: bool) -> None:
    """Hand pages that were split off to reclaim or to the LRU lists, and free those that nobody uses."""
    for tail in reversed(tails) if folio_list is not None else tails:
        if folio_list is not None and (tail.mapcount or tail.swapcache):
            tail.refcount += 1
            folio_list.append(tail)
        elif on_lru:
            lruvec_add_folio(s, tail)
        free_folio_and_swap_cache(s, tail)


def split_folio(s: System, folio: Folio) -> int:
    """Split a large folio where it is.  Returns 0, -EBUSY or -EAGAIN."""
    if not folio_trylock(folio):
        return -EAGAIN
    folio.refcount += 1
    err = split_folio_to_list(s, folio)
    folio_unlock(folio)
    folio_put(s, folio)
    return err


def deferred_split_scan(s: System, memcg: Memcg, nr_to_scan: int) -> None:
    """Split up to ``nr_to_scan`` folios that wait for it, oldest first; those that cannot be split stay."""
    for folio in list(memcg.split_queue)[:nr_to_scan]:
        split_folio(s, folio)
