# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""madvise and mincore.

Kernel homes: mm/madvise.c, mm/mincore.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from .address_space import zap_pte_range
from .fault import pte_folio
from .folio import folio_put
from .huge_memory import split_folio
from .pagetable import PTE_TABLE_MASK, find_vma, folio_pte_batch, ptep_get, table_ranges
from .readahead import read_swap_cache_async
from .reclaim import reclaim_pages
from .rmap import folio_maybe_mapped_shared
from .shmem_swap import shmem_swapin_range
from .state import Folio, Mm, ShmemInode, System, Vma
from .swap_cache import swap_cache_get_folio
from .swap_device import get_swap_device, put_swap_device
from .types import PTE_PRESENT, Pte, SwpEntry, is_swap_pte, pte_to_swp_entry, radix_to_swp_entry


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

    An entry of a page table cannot vanish under its lock; one of a shared object is looked up without a lock, so its
    device is pinned.
    """
    si = get_swap_device(s, entry) if shmem else None
    if shmem and si is None:
        return False
    folio = swap_cache_get_folio(s, entry)
    uptodate = folio is not None and folio.uptodate
    if folio is not None:
        folio_put(s, folio)
    if si is not None:
        put_swap_device(si)
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


def hugepage_madvise(s: System, vma: Vma, hugepage: bool) -> int:
    """MADV_HUGEPAGE or MADV_NOHUGEPAGE for a mapping.  Returns its pages."""
    vma.hugepage = hugepage
    return vma.end - vma.start


def madvise_dontneed(s: System, mm: Mm, start: int, end: int) -> int:
    """MADV_DONTNEED: drop the pages of the range; they read as zeros again.  Returns pages dropped."""
    before = mm.anonpages + mm.swapents
    zap_pte_range(s, mm, start, end)
    return before - mm.anonpages - mm.swapents


def pageout_folios(s: System, mm: Mm, table: list[int], index: int, last: int) -> Iterator[Folio]:
    """The folios that a range of a page table maps and nobody else does; large ones at its edges are split."""
    while index < last:
        folio = pte_folio(s, table[index]) if table[index] & PTE_PRESENT else None
        nr = folio_pte_batch(folio, table, index, last - index) if folio is not None and folio.order else 1
        if folio is not None and nr < 1 << folio.order:
            if not folio_maybe_mapped_shared(folio, mm) and not split_folio(s, folio):
                continue
        elif folio is not None and folio.mapcount == nr:
            yield folio
        index += nr
