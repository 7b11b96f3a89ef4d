# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The lists of anonymous folios, for each memory cgroup: active, inactive, and what the program gave away.

Kernel homes: mm/swap.c, include/linux/mm_inline.h.  The first element of a list is the coldest: reclaim takes it first.
"""

from __future__ import annotations

from .state import Folio, System


def lruvec_add_folio(s: System, folio: Folio) -> None:
    """Put a folio at the hot end of the list that its active flag names."""
    lruvec = (folio.memcg or s.memcg.root).lruvec
    folio.lru = True
    if folio.active:
        lruvec.active[folio] = None
        lruvec.nr_active += folio.nr_pages
    elif folio.swapbacked:
        lruvec.inactive[folio] = None
        lruvec.nr_inactive += folio.nr_pages
    else:
        lruvec.lazyfree[folio] = None
        lruvec.nr_lazyfree += folio.nr_pages


def lruvec_del_folio(s: System, folio: Folio) -> None:
    """Take a folio off its list."""
    lruvec = (folio.memcg or s.memcg.root).lruvec
    folio.lru = False
    if folio.active:
        del lruvec.active[folio]
        lruvec.nr_active -= folio.nr_pages
    elif folio.swapbacked:
        del lruvec.inactive[folio]
        lruvec.nr_inactive -= folio.nr_pages
    else:
        del lruvec.lazyfree[folio]
        lruvec.nr_lazyfree -= folio.nr_pages


def folio_isolate_lru(s: System, folio: Folio) -> bool:
    """Take a folio off its list for the caller, who gets a reference; False if it is on none."""
    if not folio.lru:
        return False
    lruvec_del_folio(s, folio)
    folio.refcount += 1
    return True


def folio_add_lru(s: System, folio: Folio) -> None:
    """Put a new folio on the lists (at once: the kernel's per-CPU batches are left out)."""
    lruvec_add_folio(s, folio)


def folio_rotate_reclaimable(s: System, folio: Folio) -> None:
    """A write for reclaim has ended: move the folio to the cold end, it is next to go."""
    if folio.lru and not folio.locked and not folio.dirty:
        lruvec_del_folio(s, folio)
        folio.active = False
        lruvec_add_folio(s, folio)
        (folio.memcg or s.memcg.root).lruvec.inactive.move_to_end(folio, last=False)
        s.vmstat.pgrotated += folio.nr_pages
