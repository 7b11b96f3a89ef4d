# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Faults that bring in more than one page: large anonymous folios, the huge zero page, large swap-in.

Kernel homes: mm/memory.c (alloc_anon_folio, alloc_swap_folio), mm/huge_memory.c (do_huge_pmd_anonymous_page).
"""

from __future__ import annotations

from errno import ENOMEM

from .folio import folio_alloc, folio_put, folio_zero_user, nr_free_pages
from .lru import folio_add_lru
from .memcg import MAX_RECLAIM_RETRIES, SWAP_CLUSTER_MAX, memcg_event, page_counter_try_charge, page_counter_uncharge
from .pagetable import PTE_TABLE_MASK, swap_pte_batch
from .rmap import folio_add_anon_rmap
from .state import Folio, Memcg, System, Vma
from .swap_read import mem_cgroup_of_entry
from .thp import (
    THP_ORDERS_ALL_ANON,
    count_mthp_stat,
    orders_descending,
    thp_vma_allowable_orders,
    thp_vma_suitable_orders,
    vma_thp_may_reclaim,
)
from .types import (
    PMD_ORDER,
    PTE_DIRTY,
    PTE_SHIFT,
    PTE_WRITE,
    PTE_YOUNG,
    Pte,
    SwpEntry,
    is_swap_pte,
    mk_pte,
    pte_to_swp_entry,
    swp_offset,
)
from .vswap.backing import swap_zeromap_batch
from .vswap.cache_pin import non_swapcache_batch
from .zswap_pool import zswap_never_enabled


def mem_cgroup_charge_large(s: System, folio: Folio, memcg: Memcg, reclaim: bool) -> int:
    """Charge a large folio, after at most 16 rounds of reclaim, or none.  Returns 0 or -ENOMEM."""
    if memcg.parent is not None and not try_charge_large(s, memcg, folio.nr_pages, reclaim):
        return -ENOMEM
    folio.memcg = memcg
    return 0


def try_charge_large(s: System, memcg: Memcg, nr: int, reclaim: bool) -> bool:
    """Charge ``nr`` pages if that works out; no OOM event: there is always the single page to fall back to."""
    if s.memcg.memsw and page_counter_try_charge(memcg.memsw_counters, nr) >= 0:
        return False
    for _ in range(MAX_RECLAIM_RETRIES + 1):
        place = page_counter_try_charge(memcg.memory_counters, nr)
        if place < 0:
            return True
        if not reclaim:
            break
        memcg_event(memcg.lineage[place], "max")
        s.hooks.try_to_free_mem_cgroup_pages(s, memcg.lineage[place], max(nr, SWAP_CLUSTER_MAX))
    if s.memcg.memsw:
        page_counter_uncharge(memcg.memsw_counters, nr)
    return False


def vma_alloc_folio(s: System, vma: Vma, order: int) -> Folio | None:
    """A large folio for a mapping, uncharged.  Without leave to reclaim, only while memory is plentiful."""
    if not vma_thp_may_reclaim(s, vma) and nr_free_pages(s) - (1 << order) < s.memory.low_wmark:
        return None
    return folio_alloc(s, order)


def alloc_anon_folio_order(s: System, vma: Vma, order: int) -> Folio | None:
    """A zeroed, charged, uptodate large folio of this order, or None."""
    folio = vma_alloc_folio(s, vma, order)
    if folio is None:
        count_anon_fault(s, vma.mm.memcg, order, "fallback")
        return None
    if mem_cgroup_charge_large(s, folio, vma.mm.memcg, vma_thp_may_reclaim(s, vma)):
        folio_put(s, folio)
        count_anon_fault(s, vma.mm.memcg, order, "fallback_charge")
        count_anon_fault(s, vma.mm.memcg, order, "fallback")
        return None
    count_anon_fault(s, vma.mm.memcg, order, "alloc")
    folio_zero_user(folio)
    folio.swapbacked = True
    folio.uptodate = True
    return folio


def count_anon_fault(s: System, memcg: Memcg, order: int, what: str) -> None:
    """Count how a fault's large folio was got, or not: for its size, and for 2 MiB also in vmstat and memory.stat."""
    count_mthp_stat(s, order, f"anon_fault_{what}")
    if order == PMD_ORDER:
        s.vmstat[f"thp_fault_{what}"] += 1
        if what == "alloc":
            memcg.stat.thp_fault_alloc += 1


def alloc_anon_folio(s: System, vma: Vma, addr: int, table: list[int]) -> Folio | None:
    """A large folio for the first write to ``addr``: the largest size whose block is empty and that can be had."""
    orders = thp_vma_suitable_orders(vma, addr, thp_vma_allowable_orders(s, vma, THP_ORDERS_ALL_ANON))
    for order in orders_descending(orders):
        if pte_range_none(table, addr & PTE_TABLE_MASK & -(1 << order), 1 << order):
            folio = alloc_anon_folio_order(s, vma, order)
            if folio is not None:
                return folio
    return None


def pte_range_none(table: list[int], index: int, nr: int) -> bool:
    """``nr`` PTEs are empty."""
    return not any(table[index : index + nr])


def map_anon_folio(s: System, vma: Vma, addr: int, table: list[int], folio: Folio) -> None:
    """Map a new large folio whole: exclusive, writable, dirty, young.  Its reference becomes one for each page."""
    nr = folio.nr_pages
    first = addr & -nr
    index = first & PTE_TABLE_MASK
    with vma.mm.ptl:
        folio_add_anon_rmap(s, folio, vma, first, True, nr)
        vma.mm.anonpages += nr
        flags = PTE_WRITE | PTE_DIRTY | PTE_YOUNG
        table[index : index + nr] = [mk_pte(pfn, flags) for pfn in range(folio.pfn, folio.pfn + nr)]
    folio.refcount += nr - 1
    folio_add_lru(s, folio)


def pmd_allowed(s: System, vma: Vma, addr: int) -> bool:
    """The mapping may have a folio of a whole page table's size here."""
    return bool(thp_vma_suitable_orders(vma, addr, thp_vma_allowable_orders(s, vma, 1 << PMD_ORDER)))


def do_large_anonymous_page(s: System, vma: Vma, addr: int, table: list[int], write: bool) -> bool:
    """First touch where large folios are on.  False: deal with the single page."""
    if write:
        folio = alloc_anon_folio(s, vma, addr, table)
        if folio is not None:
            map_anon_folio(s, vma, addr, table, folio)
        return folio is not None
    if any(table) or not pmd_allowed(s, vma, addr):
        return False
    table[:] = [mk_pte(0, PTE_YOUNG)] * len(table)
    return True


def do_huge_zero_wp_pmd(s: System, vma: Vma, addr: int, table: list[int]) -> bool:
    """First write to a huge zero page that is still whole.  False: copy the single page."""
    if not pmd_allowed(s, vma, addr) or any(not pte or pte >> PTE_SHIFT for pte in table):
        return False
    folio = alloc_anon_folio_order(s, vma, PMD_ORDER)
    if folio is None:
        return False
    map_anon_folio(s, vma, addr, table, folio)
    return True


def thp_swap_suitable_orders(offset: int, addr: int, orders: int) -> int:
    """Those of ``orders`` at which the slot is aligned as the address is."""
    for order in orders_descending(orders):
        if (offset ^ addr) & ((1 << order) - 1):
            orders &= ~(1 << order)
    return orders


def can_swapin_thp(s: System, addr: int, table: list[int], order: int) -> bool:
    """The block around ``addr`` can be swapped in as one folio: one batch, all zero or none, nothing cached."""
    nr = 1 << order
    index = addr & PTE_TABLE_MASK & -nr
    pte = Pte(table[index])
    if not is_swap_pte(pte) or swap_pte_batch(s, table, index, nr, free_batch=False) != nr:
        return False
    entry = pte_to_swp_entry(pte)
    return swap_zeromap_batch(s, entry, nr)[0] == nr == non_swapcache_batch(s, entry, nr)


def alloc_large_swap_folio(s: System, vma: Vma, addr: int, table: list[int]) -> Folio | None:
    """A charged large folio for the swapped-out block around ``addr``, or None: swap in the one page."""
    if not zswap_never_enabled(s):
        return None
    orders = thp_vma_allowable_orders(s, vma, THP_ORDERS_ALL_ANON & ~(1 << PMD_ORDER))
    entry = pte_to_swp_entry(Pte(table[addr & PTE_TABLE_MASK]))
    orders = thp_swap_suitable_orders(swp_offset(entry), addr, thp_vma_suitable_orders(vma, addr, orders))
    if not orders:
        return None
    with vma.mm.ptl:
        highest = next((order for order in orders_descending(orders) if can_swapin_thp(s, addr, table, order)), 0)
    for order in orders_descending(orders & (2 << highest) - 1):
        folio = alloc_swap_folio_order(s, vma, order, entry)
        if folio is not None:
            return folio
    return None


def alloc_swap_folio_order(s: System, vma: Vma, order: int, entry: SwpEntry) -> Folio | None:
    """A charged folio of this order to swap in, or None."""
    folio = vma_alloc_folio(s, vma, order)
    if folio is not None:
        owner = mem_cgroup_of_entry(s, vma.mm.memcg, entry)
        if not mem_cgroup_charge_large(s, folio, owner, vma_thp_may_reclaim(s, vma)):
            return folio
        folio_put(s, folio)
        count_mthp_stat(s, order, "swpin_fallback_charge")
    count_mthp_stat(s, order, "swpin_fallback")
    return None
