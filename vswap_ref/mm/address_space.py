# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Whole address spaces: fork, unmap, exit.

Kernel homes: mm/memory.c (copy_page_range, zap_pte_range), kernel/fork.c, mm/mmap.c.
"""

from __future__ import annotations

from errno import ENOMEM

from .folio import folio_put
from .pagetable import PTE_TABLE_MASK, PTE_TABLE_SHIFT, folio_pte_batch, pte_alloc, swap_pte_batch, table_ranges
from .rmap import drop_file_pte, folio_remove_rmap
from .shmem import iput
from .slot_reclaim import free_swap_cache
from .state import Memcg, Mm, System, Vma
from .types import PTE_PRESENT, PTE_SHIFT, PTE_SWP_EXCLUSIVE, PTE_WRITE, Pte, is_swap_pte, pte_to_swp_entry
from .vswap.lifecycle import swap_duplicate
from .vswap.swap_cache import free_swap_and_cache_nr


def mm_alloc(s: System, memcg: Memcg) -> Mm:
    """A new, empty address space whose memory is charged to ``memcg``."""
    mm = Mm(memcg, s.locks.spinlock("ptl"))
    s.mms[mm] = None
    return mm


def dup_mm(s: System, parent: Mm) -> Mm | None:
    """A copy-on-write copy of an address space (fork); None without memory, then nothing has changed."""
    child = mm_alloc(s, parent.memcg)
    child.next_addr = parent.next_addr
    for vma in parent.vmas:
        copy = Vma(child, vma.start, vma.end, vma.anon_vma, vma.file, locked=vma.locked, hugepage=vma.hugepage)
        child.vmas.append(copy)
        vma.anon_vma.vmas.append(copy)
        if vma.file is not None:
            vma.file.i_mmap[copy] = None  # and nothing is copied: the child's faults find the pages
        elif copy_page_range(s, child, parent, vma):
            exit_mmap(s, child)
            return None
    return child


def copy_page_range(s: System, child: Mm, parent: Mm, vma: Vma) -> int:
    """Copy a mapping's page-table entries into the child.  Returns 0 or -ENOMEM."""
    for table, start, end in table_ranges(parent, vma.start, vma.end):
        copy = pte_alloc(s, child, start)
        if copy is None:
            return -ENOMEM
        first = start & PTE_TABLE_MASK
        with parent.ptl:
            err = copy_pte_range(s, child, parent, table, copy, range(first, first + end - start))
        if err:
            return err
    return 0


def copy_pte_range(s: System, child: Mm, parent: Mm, table: list[int], copy: list[int], indexes: range) -> int:
    """Copy some entries of one page table (its lock held).  Returns 0: nothing is allocated for a count."""
    for index in indexes:
        pte = table[index]
        if pte & PTE_PRESENT:
            copy_present_pte(s, child, table, copy, index)
        elif pte:
            copy_nonpresent_pte(s, child, parent, table, copy, index)
    return 0


def copy_present_pte(s: System, child: Mm, table: list[int], copy: list[int], index: int) -> None:
    """Share a present page: write-protected in both, exclusive in neither."""
    pte = table[index] & ~PTE_WRITE
    folio = s.memory.mem_map[pte >> PTE_SHIFT] if pte >> PTE_SHIFT else None
    if folio is not None:
        page = (pte >> PTE_SHIFT) - folio.pfn
        folio.refcount += 1
        folio.mapcount += 1
        if folio.mapcounts is not None:
            folio.mapcounts[page] += 1
        folio.exclusive &= ~(1 << page)
        child.anonpages += 1
    table[index] = copy[index] = pte


def copy_nonpresent_pte(s: System, child: Mm, parent: Mm, table: list[int], copy: list[int], index: int) -> None:
    """One more user of an entry; exclusive in neither.  A marker is copied."""
    if not is_swap_pte(Pte(table[index])):
        copy[index] = table[index]
        return
    err = swap_duplicate(s, pte_to_swp_entry(Pte(table[index])))
    assert not err, "a PTE names an entry that is not allocated"
    s.swap.mmlist[parent] = None
    s.swap.mmlist[child] = None
    table[index] &= ~PTE_SWP_EXCLUSIVE
    copy[index] = table[index]
    child.swapents += 1


def zap_pte_range(s: System, mm: Mm, start: int, end: int) -> None:
    """Drop all pages and swap entries in [start, end)."""
    for table, first, stop in table_ranges(mm, start, end):
        with mm.ptl:
            index = first & PTE_TABLE_MASK
            last = index + stop - first
            while index < last:
                index += zap_one_batch(s, mm, table, index, last - index)


def zap_one_batch(s: System, mm: Mm, table: list[int], index: int, max_nr: int) -> int:
    """Drop one present page, a batch of pages of a large folio, or of swap entries.  Returns PTEs dealt with."""
    pte = table[index]
    if not pte:
        return 1
    if pte & PTE_PRESENT:
        return zap_present_ptes(s, mm, table, index, max_nr)
    if not is_swap_pte(Pte(pte)):
        table[index] = 0
        return 1
    nr = swap_pte_batch(s, table, index, max_nr, free_batch=True)
    mm.swapents -= nr
    free_swap_and_cache_nr(s, pte_to_swp_entry(Pte(pte)), nr)
    table[index : index + nr] = [0] * nr
    return nr


def zap_present_ptes(s: System, mm: Mm, table: list[int], index: int, max_nr: int) -> int:
    """Unmap present pages of one folio; a cached one gives up its slots if nobody else wants it.  Returns pages."""
    pfn, nr = table[index] >> PTE_SHIFT, 1
    folio = s.memory.mem_map[pfn] if pfn else None
    if folio is None:
        table[index] = 0
        return 1
    if folio.mapping is not None:
        pte, table[index] = table[index], 0
        drop_file_pte(s, folio, mm, pte)
        return 1
    if folio.order:
        nr = folio_pte_batch(folio, table, index, max_nr)
    table[index : index + nr] = [0] * nr
    folio_remove_rmap(s, folio, pfn - folio.pfn, nr)
    mm.anonpages -= nr
    free_swap_cache(s, folio)
    folio_put(s, folio, nr)
    return nr


def do_munmap(s: System, mm: Mm, vma: Vma) -> None:
    """Remove a mapping with everything in it."""
    zap_pte_range(s, mm, vma.start, vma.end)
    for key in range(vma.start >> PTE_TABLE_SHIFT, (vma.end - 1 >> PTE_TABLE_SHIFT) + 1):
        mm.pgd.pop(key, None)
    mm.vmas.remove(vma)
    vma.anon_vma.vmas.remove(vma)
    if vma.file is not None:
        del vma.file.i_mmap[vma]
        iput(s, vma.file)


def exit_mmap(s: System, mm: Mm) -> None:
    """The process ends: drop its whole address space."""
    for vma in list(mm.vmas):
        do_munmap(s, mm, vma)
    s.swap.mmlist.pop(mm, None)
    s.mms.pop(mm, None)
