# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Page tables and address spaces.

Kernel homes: mm/memory.c, mm/mmap.c, arch page tables.  One flat level of 512-entry tables per process; addresses are
page numbers.  Batches and the swapoff walk are bounded by these tables as in the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

from .state import AnonVma, Folio, Mm, System, Vma
from .types import (
    PTE_PRESENT,
    PTE_SHIFT,
    PTE_SWP_CARRIED,
    PTE_SWP_EXCLUSIVE,
    PTRS_PER_PTE,
    Pte,
    pte_to_swp_entry,
    swap_nth,
    swp_entry_to_pte,
)
from .vswap.backing import vswap_can_swapin_thp
from .vswap.cgroup import vswap_cgroup_batch

PTE_TABLE_SHIFT = 9
PTE_TABLE_MASK = PTRS_PER_PTE - 1


def pte_alloc(s: System, mm: Mm, addr: int) -> list[int] | None:
    """The page table that covers an address, made if missing; None without memory."""
    table = mm.pgd.get(addr >> PTE_TABLE_SHIFT)
    if table is None:
        if s.faults.should_fail("pte_alloc"):
            return None
        table = [0] * PTRS_PER_PTE
        mm.pgd[addr >> PTE_TABLE_SHIFT] = table
    return table


def ptep_get(mm: Mm, addr: int) -> Pte:
    """The page-table entry of an address; 0 if there is no table."""
    table = mm.pgd.get(addr >> PTE_TABLE_SHIFT)
    return Pte(table[addr & PTE_TABLE_MASK]) if table is not None else Pte(0)


def table_ranges(mm: Mm, start: int, end: int) -> Iterator[tuple[list[int], int, int]]:
    """The page tables that exist in [start, end): (table, first address, end address) of each part."""
    while start < end:
        stop = min(end, (start | PTE_TABLE_MASK) + 1)
        table = mm.pgd.get(start >> PTE_TABLE_SHIFT)
        if table is not None:
            yield table, start, stop
        start = stop


def swap_pte_batch(s: System, table: list[int], index: int, max_nr: int, free_batch: bool) -> int:
    """How many PTEs from ``index`` on are one run of swap PTEs: next entry, same flags (1..max_nr).

    Unless they are to be freed (``free_batch``) they must be of one cgroup, too, and can be read at once: all of
    them, or only the first.
    """
    pte = Pte(table[index])
    expected, nr = pte_move_swp_offset(pte, 1), 1
    while nr < max_nr and table[index + nr] == expected:
        expected = pte_move_swp_offset(expected, 1)
        nr += 1
    if free_batch:
        return nr
    entry = pte_to_swp_entry(pte)
    nr = vswap_cgroup_batch(s, entry, nr)
    return nr if vswap_can_swapin_thp(s, entry, nr) else 1


def mmap_region(mm: Mm, nr_pages: int) -> Vma:
    """Map anonymous memory of ``nr_pages`` pages at the next free address, aligned to a page table."""
    start = mm.next_addr
    mm.next_addr = (start + nr_pages + PTE_TABLE_MASK) & ~PTE_TABLE_MASK
    vma = Vma(mm, start, start + nr_pages, AnonVma())
    vma.anon_vma.vmas.append(vma)
    mm.vmas.append(vma)
    return vma


def find_vma(mm: Mm, addr: int) -> Vma | None:
    """The mapping that contains an address."""
    for vma in mm.vmas:
        if vma.start <= addr < vma.end:
            return vma
    return None


def folio_pte_batch(folio: Folio, table: list[int], index: int, max_nr: int) -> int:
    """How many PTEs from ``index`` on map consecutive pages of the large folio (1..max_nr)."""
    pfn = table[index] >> PTE_SHIFT
    limit = min(max_nr, folio.pfn + folio.nr_pages - pfn)
    nr = 1
    while nr < limit and table[index + nr] & PTE_PRESENT and table[index + nr] >> PTE_SHIFT == pfn + nr:
        nr += 1
    return nr


def pte_move_swp_offset(pte: Pte, delta: int) -> Pte:
    """The swap PTE of the entry ``delta`` further on, with the same flags."""
    moved = swap_nth(pte_to_swp_entry(pte), delta)
    return swp_entry_to_pte(moved, pte & (PTE_SWP_EXCLUSIVE | PTE_SWP_CARRIED))
