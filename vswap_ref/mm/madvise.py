# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""madvise and mincore.

Kernel homes: mm/madvise.c, mm/mincore.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EINVAL

from .address_space import zap_one_batch, zap_pte_range
from .fault import pte_folio
from .folio import folio_put, folio_trylock, folio_unlock
from .huge_memory import split_folio
from .lazyfree import folio_mark_lazyfree
from .lru import lruvec_add_folio, lruvec_del_folio
from .pagetable import PTE_TABLE_MASK, find_vma, folio_pte_batch, ptep_get, table_ranges
from .readahead import read_swap_cache_async
from .reclaim import reclaim_pages
from .rmap import folio_maybe_mapped_shared
from .shmem_swap import shmem_swapin_range
from .state import Folio, Mm, ShmemInode, System, Vma
from .types import PTE_DIRTY, PTE_PRESENT, PTE_YOUNG, Pte, SwpEntry, is_swap_pte, pte_to_swp_entry, radix_to_swp_entry
from .vswap.pin import put_swap_entry, tryget_swap_entry
from .vswap.swap_cache import folio_free_swap, swap_cache_get_folio


def madvise_pageout(s: System, mm: Mm, start: int, end: int) -> int:
    """MADV_PAGEOUT: swap the range out now; pages that others map too stay.  Returns pages freed."""
    folios: dict[Folio, None] = {}
    for table, first, stop in table_ranges(mm, start, end):
        index = first & PTE_TABLE_MASK
        folios.update(dict.fromkeys(pageout_folios(s, mm, table, index, index + stop - first)))
    return reclaim_pages(s, folios)


def madvise_willneed(s: System, mm: Mm, start: int, end: int) -> int:
    """MADV_WILLNEED: read swapped-out pages into the swap cache, without mapping them.  Returns pages in it."""
    vma = find_vma(mm, start)
    if vma is not None and vma.file is not None:
        return shmem_swapin_range(s, vma.file, start - vma.start, end - vma.start, mm.memcg)
    present = 0
    for table, first, stop in table_ranges(mm, start, end):
        index = first & PTE_TABLE_MASK
        for i in range(index, index + stop - first):
            pte = Pte(table[i])
            if is_swap_pte(pte):
                folio = read_swap_cache_async(s, pte_to_swp_entry(pte), mm.memcg)
                if folio is not None:
                    present += 1
                    folio_put(s, folio)
    return present


def mincore_swap(s: System, entry: SwpEntry, shmem: bool) -> bool:
    """A swapped-out page counts as resident if an uptodate folio is in the swap cache.

    An entry of a page table cannot vanish under its lock; one of a shared object is looked up without a lock, so
    swapoff is locked out.
    """
    swapoff_locked, si = tryget_swap_entry(s, entry) if shmem else (False, None)
    if shmem and not swapoff_locked:
        return False
    folio = swap_cache_get_folio(s, entry)
    uptodate = folio is not None and folio.uptodate
    if folio is not None:
        folio_put(s, folio)
    if swapoff_locked:
        put_swap_entry(s, entry, si)
    return uptodate


def mincore_page(s: System, inode: ShmemInode, index: int) -> bool:
    """A shared object's page is resident: in its page cache, or in the swap cache."""
    entry = inode.i_pages.load(index)
    if entry is None or isinstance(entry, Folio):
        return entry is not None
    return mincore_swap(s, radix_to_swp_entry(entry), shmem=True)


def do_mincore(s: System, mm: Mm, start: int, end: int) -> list[bool]:
    """Which pages of [start, end), all of one mapping, are in memory."""
    vma = find_vma(mm, start)
    if vma is not None and vma.file is not None:
        return [mincore_page(s, vma.file, addr - vma.start) for addr in range(start, end)]
    ptes = [ptep_get(mm, addr) for addr in range(start, end)]
    return [mincore_swap(s, pte_to_swp_entry(pte), shmem=False) if is_swap_pte(pte) else pte != 0 for pte in ptes]


def madvise_free(s: System, mm: Mm, start: int, end: int) -> int:
    """MADV_FREE: the content may be dropped when memory is short, without swap.  Returns pages given away.

    What is swapped out is dropped at once.  Pages that others map too stay, and so do large ones.
    """
    given = 0
    for table, first, stop in table_ranges(mm, start, end):
        index = first & PTE_TABLE_MASK
        last = index + stop - first
        while index < last:
            pte, nr = table[index], 1
            if pte and not pte & PTE_PRESENT:
                with mm.ptl:
                    nr = zap_one_batch(s, mm, table, index, last - index)
                given += nr
            elif pte:
                given += madvise_free_present(s, table, index)
            index += nr
    return given


def madvise_free_present(s: System, table: list[int], index: int) -> bool:
    """Give one present page away: clean, old, without a slot.  True if it was possible."""
    folio = pte_folio(s, table[index])
    if folio is None or folio.order:
        return False
    if folio.swapcache or folio.dirty:
        if not folio_trylock(folio):
            return False
        freeable = folio.mapcount == 1 and (not folio.swapcache or folio_free_swap(s, folio))
        folio_unlock(folio)
        if not freeable:
            return False
        folio.dirty = False
    table[index] &= ~(PTE_DIRTY | PTE_YOUNG)
    folio_mark_lazyfree(s, folio)
    return True


def madvise_cold(s: System, mm: Mm, start: int, end: int) -> int:
    """MADV_COLD: these pages go first when memory is short; nothing is lost.  Returns pages made old."""
    old = 0
    for table, first, stop in table_ranges(mm, start, end):
        index = first & PTE_TABLE_MASK
        for i in range(index, index + stop - first):
            folio = pte_folio(s, table[i]) if table[i] & PTE_PRESENT else None
            if folio is not None and folio.mapcount == 1:
                table[i] &= ~PTE_YOUNG
                folio_deactivate(s, folio)
                old += 1
    return old


def folio_deactivate(s: System, folio: Folio) -> None:
    """Forget that a folio was used, and move it to the inactive list if it is active."""
    folio.referenced = False
    if not folio.active or not folio.lru:
        return
    lruvec_del_folio(s, folio)
    folio.active = False
    folio.workingset = True
    lruvec_add_folio(s, folio)
    s.vmstat.pgdeactivate += folio.nr_pages


def do_madvise(s: System, mm: Mm, start: int, end: int, advice: str) -> int:
    """Follow a piece of advice on the pages [start, end).  Returns pages dealt with, or -EINVAL.

    Only anonymous memory can be given away.
    """
    calls = {
        "cold": madvise_cold,
        "dontneed": madvise_dontneed,
        "free": madvise_free,
        "pageout": madvise_pageout,
        "willneed": madvise_willneed,
    }
    vma = find_vma(mm, start)
    if advice not in calls or (advice == "free" and vma is not None and vma.file is not None):
        return -EINVAL
    return calls[advice](s, mm, start, end)


def hugepage_madvise(s: System, vma: Vma, hugepage: bool) -> int:
    """MADV_HUGEPAGE or MADV_NOHUGEPAGE for a mapping.  Returns its pages."""
    vma.hugepage = hugepage
    return vma.end - vma.start


def madvise_dontneed(s: System, mm: Mm, start: int, end: int) -> int:
    """MADV_DONTNEED: unmap the pages of the range; those of its own read as zeros again.  Returns pages dropped."""
    before = mm.anonpages + mm.shmempages + mm.swapents
    zap_pte_range(s, mm, start, end)
    return before - mm.anonpages - mm.shmempages - mm.swapents


def pageout_folios(s: System, mm: Mm, table: list[int], index: int, last: int) -> Iterator[Folio]:
    """The folios that a range of a page table maps and nobody else does; large ones at its edges are split."""
    while index < last:
        pte = table[index]
        folio = pte_folio(s, pte) if pte & PTE_PRESENT else None
        if folio is None:
            index += 1
            continue
        nr = folio_pte_batch(folio, table, index, last - index) if folio.order else 1
        if nr < folio.nr_pages:
            if not folio_maybe_mapped_shared(folio, mm) and not split_folio(s, folio):
                continue
        elif folio.mapcount == nr:
            yield folio
        index += nr
