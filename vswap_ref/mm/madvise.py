# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""madvise and mincore on anonymous memory.

Kernel homes: mm/madvise.c, mm/mincore.c.
"""

from __future__ import annotations

from .fault import pte_folio
from .folio import folio_put
from .pagetable import PTE_TABLE_MASK, table_ranges
from .readahead import read_swap_cache_async
from .reclaim import reclaim_pages
from .state import Folio, Mm, System
from .swap_cache import swap_cache_get_folio
from .types import PTE_PRESENT, Pte, is_swap_pte, pte_to_swp_entry


def madvise_pageout(s: System, mm: Mm, start: int, end: int) -> int:
    """MADV_PAGEOUT: swap the range out now; pages that others map too stay.  Returns pages freed."""
    folios: dict[Folio, None] = {}
    for table, first, stop in table_ranges(mm, start, end):
        index = first & PTE_TABLE_MASK
        for pte in table[index : index + stop - first]:
            folio = pte_folio(s, pte) if pte & PTE_PRESENT else None
            if folio is not None and folio.mapcount == 1:
                folios[folio] = None
    return reclaim_pages(s, folios)


def madvise_willneed(s: System, mm: Mm, start: int, end: int) -> int:
    """MADV_WILLNEED: read swapped-out pages into the swap cache, without mapping them.  Returns pages in it."""
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


def mincore_swap(s: System, pte: Pte) -> bool:
    """A swapped-out page counts as resident if an uptodate folio is in the swap cache."""
    folio = swap_cache_get_folio(s, pte_to_swp_entry(pte))
    if folio is None:
        return False
    uptodate = folio.uptodate
    folio_put(s, folio)
    return uptodate
