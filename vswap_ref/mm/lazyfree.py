# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Memory that a program gave away with MADV_FREE: it may keep it, or find zeros, until it writes again.

Kernel homes: mm/swap.c (folio_mark_lazyfree), mm/rmap.c (the part of try_to_unmap for such folios).
"""

from __future__ import annotations

from .lru import lruvec_add_folio, lruvec_del_folio
from .rmap import folio_remove_rmap, rmap_walk
from .state import Folio, System
from .types import PTE_DIRTY


def folio_mark_lazyfree(s: System, folio: Folio) -> None:
    """Move a folio to the list of what can be dropped without swap; swap no longer backs it."""
    if not folio.lru or not folio.swapbacked or folio.swapcache:
        return
    nr = folio.nr_pages
    lruvec_del_folio(s, folio)
    folio.active = folio.referenced = folio.swapbacked = False
    lruvec_add_folio(s, folio)
    s.vmstat.pglazyfree += nr
    if folio.memcg is not None:
        folio.memcg.stat.pglazyfree += nr


def try_to_discard(s: System, folio: Folio) -> bool:
    """Unmap a lazily freed folio without a trace: the next access finds zeros.

    False if it was written since it was given away; then it is an ordinary folio again.
    """
    for vma, table, index, _ in rmap_walk(folio):
        with vma.mm.ptl:
            folio.dirty |= bool(table[index] & PTE_DIRTY)
            if folio.dirty:
                folio.swapbacked = True
                return False
            table[index] = 0
            vma.mm.anonpages -= 1
            folio_remove_rmap(s, folio)
            folio.refcount -= 1
    return True
