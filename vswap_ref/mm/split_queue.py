# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The queue of large folios that should be split, because only some of their pages are mapped.

Kernel home: mm/huge_memory.c (deferred_split_folio).  One queue for each memory cgroup.
"""

from __future__ import annotations

from .state import Folio, System
from .thp import count_mthp_stat
from .types import PMD_ORDER


def deferred_split_folio(s: System, folio: Folio) -> None:
    """Some pages of a large folio are unmapped: split it when memory is short."""
    if folio.partially_mapped:
        return
    folio.partially_mapped = True
    (folio.memcg or s.memcg.root).split_queue[folio] = None
    count_mthp_stat(s, folio.order, "split_deferred")
    if folio.order == PMD_ORDER:
        s.vmstat.thp_deferred_split_page += 1


def folio_unqueue_deferred_split(s: System, folio: Folio) -> None:
    """The folio is split or freed: take it off the queue."""
    if folio.partially_mapped:
        folio.partially_mapped = False
        del (folio.memcg or s.memcg.root).split_queue[folio]
