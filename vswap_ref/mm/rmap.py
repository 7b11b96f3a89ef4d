# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""From a folio to the page-table entries that map it.

Kernel home: mm/rmap.c.  A family of forked processes shares one list of VMAs; a folio is mapped at the same address
in each of them, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from .folio import folio_mark_dirty, folio_put
from .pagetable import PTE_TABLE_MASK, PTE_TABLE_SHIFT
from .split_queue import deferred_split_folio
from .state import Folio, Mm, ShmemInode, System, Vma
from .types import (
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_SHIFT,
    PTE_SWP_CARRIED,
    PTE_SWP_EXCLUSIVE,
    PTE_YOUNG,
    swap_nth,
    swp_entry_to_pte,
)
from .vswap.lifecycle import swap_duplicate


def folio_add_anon_rmap(s: System, folio: Folio, vma: Vma, addr: int, exclusive: bool, nr: int = 1) -> None:
    """``nr`` more PTEs map pages of the folio, from the one at ``addr`` on."""
    if folio.order:
        folio_add_large_rmap(s, folio, vma, addr, exclusive, nr)
        return
    if folio.mapcount == 0:
        folio.anon_vma = vma.anon_vma
        folio.index = addr
        count_anon_mapped(s, folio, 1)
    folio.mapcount += 1
    if exclusive:
        folio.exclusive = 1


def folio_remove_rmap(s: System, folio: Folio, page: int = 0, nr: int = 1) -> None:
    """``nr`` PTEs less map the folio, from its page ``page`` on."""
    if folio.order:
        folio_remove_large_rmap(s, folio, page, nr)
        return
    folio.mapcount -= 1
    if folio.mapcount == 0:
        count_anon_mapped(s, folio, -1)


def count_anon_mapped(s: System, folio: Folio, nr: int) -> None:
    """Count anonymous pages that become mapped (nr > 0) or unmapped."""
    s.vmstat.nr_anon_pages += nr
    if folio.memcg is not None:
        folio.memcg.stat.anon += nr


def rmap_walk(folio: Folio) -> Iterator[tuple[Vma, list[int], int, int]]:
    """Every PTE that maps the folio: (vma, page table, index in it, page of the folio)."""
    if folio.mapping is not None:
        yield from rmap_walk_file(folio, folio.mapping)
        return
    if folio.anon_vma is None:
        return
    for vma in folio.anon_vma.vmas:
        page = 0
        while page < folio.nr_pages:
            addr = folio.index + page
            table = vma.mm.pgd.get(addr >> PTE_TABLE_SHIFT)
            if table is not None and vma.start <= addr < vma.end:
                index = addr & PTE_TABLE_MASK
                pte = table[index]
                if pte & PTE_PRESENT and pte >> PTE_SHIFT == folio.pfn + page:
                    yield vma, table, index, page
            page += 1


def folio_referenced(folio: Folio) -> int:
    """In how many mappings it was used since the last look; clears the young bits of its PTEs."""
    if not folio.mapcount:
        return 0
    referenced = 0
    counted: Vma | None = None
    for vma, table, index, _ in rmap_walk(folio):
        if table[index] & PTE_YOUNG:
            table[index] &= ~PTE_YOUNG
            referenced += vma is not counted
            counted = vma
    return referenced


def try_to_unmap(s: System, folio: Folio) -> None:
    """Replace every PTE of a locked, cached folio by a swap PTE.  Check ``mapcount`` for success."""
    for vma, table, index, page in rmap_walk(folio):
        with vma.mm.ptl:
            if not table[index] & PTE_PRESENT or table[index] >> PTE_SHIFT != folio.pfn + page:
                continue
            if not try_to_unmap_one(s, folio, vma.mm, table, index, page):
                return


def try_to_unmap_one(s: System, folio: Folio, mm: Mm, table: list[int], index: int, page: int) -> bool:
    """One PTE becomes a swap PTE and one more user of its slot.  False if the count cannot grow.

    The PTE of a shared object's page becomes empty: the object knows where its page is.
    """
    pte = table[index]
    if folio.mapping is not None:
        table[index] = 0
        drop_file_pte(s, folio, mm, pte)
        return True
    entry = swap_nth(folio.swap, page) if page else folio.swap
    if swap_duplicate(s, entry):
        return False
    if pte & PTE_DIRTY:
        folio_mark_dirty(folio)
    flags = pte & PTE_SWP_CARRIED
    bit = 1 << page
    if folio.exclusive & bit:
        folio.exclusive &= ~bit
        flags |= PTE_SWP_EXCLUSIVE
    s.swap.mmlist[mm] = None
    mm.anonpages -= 1
    mm.swapents += 1
    table[index] = swp_entry_to_pte(entry, flags)
    folio_remove_rmap(s, folio, page)
    folio.refcount -= 1
    return True


def folio_add_large_rmap(s: System, folio: Folio, vma: Vma, addr: int, exclusive: bool, nr: int) -> None:
    """``nr`` more PTEs map pages of a large folio, from ``addr`` on."""
    assert folio.mapcounts is not None
    if folio.mapcount == 0:
        folio.anon_vma = vma.anon_vma
        folio.index = addr & -folio.nr_pages
    page = addr - folio.index
    counts = folio.mapcounts[page : page + nr]
    folio.mapcounts[page : page + nr] = [count + 1 for count in counts]
    folio.mapcount += nr
    count_anon_mapped(s, folio, counts.count(0))
    if exclusive:
        folio.exclusive |= ((1 << nr) - 1) << page


def folio_remove_large_rmap(s: System, folio: Folio, page: int, nr: int) -> None:
    """``nr`` PTEs less map a large folio, from its page ``page`` on.

    If some page has now lost its last PTE while others are mapped, the folio wastes memory: it waits for a split.
    """
    assert folio.mapcounts is not None
    counts = [count - 1 for count in folio.mapcounts[page : page + nr]]
    folio.mapcounts[page : page + nr] = counts
    folio.mapcount -= nr
    folio.exclusive &= ~(((1 << nr) - 1) << page)
    unmapped = counts.count(0)
    count_anon_mapped(s, folio, -unmapped)
    if unmapped and folio.mapcount and not folio.swapcache:
        deferred_split_folio(s, folio)


def folio_maybe_mapped_shared(folio: Folio, mm: Mm) -> bool:
    """Somebody else than ``mm`` maps a page of the folio."""
    return any(vma.mm is not mm for vma, _, _, _ in rmap_walk(folio))


def rmap_walk_file(folio: Folio, inode: ShmemInode) -> Iterator[tuple[Vma, list[int], int, int]]:
    """Every PTE that maps a shared object's folio: (vma, page table, index in it, 0)."""
    for vma in inode.i_mmap:
        addr = vma.start + folio.index
        table = vma.mm.pgd.get(addr >> PTE_TABLE_SHIFT)
        if table is None or addr >= vma.end:
            continue
        pte = table[addr & PTE_TABLE_MASK]
        if pte & PTE_PRESENT and pte >> PTE_SHIFT == folio.pfn:
            yield vma, table, addr & PTE_TABLE_MASK, 0


def folio_add_file_rmap(s: System, folio: Folio) -> None:
    """One more PTE maps a shared object's folio."""
    if folio.mapcount == 0:
        count_file_mapped(s, folio, 1)
    folio.mapcount += 1


def count_file_mapped(s: System, folio: Folio, nr: int) -> None:
    """Count shared pages that become mapped (nr > 0) or unmapped."""
    s.vmstat.nr_mapped += nr
    if folio.memcg is not None:
        folio.memcg.stat.file_mapped += nr


def drop_file_pte(s: System, folio: Folio, mm: Mm, pte: int) -> None:
    """A PTE that mapped a shared object's folio was cleared: it may have been written through, and counts no more."""
    if pte & PTE_DIRTY:
        folio_mark_dirty(folio)
    folio.mapcount -= 1
    if folio.mapcount == 0:
        count_file_mapped(s, folio, -1)
    mm.shmempages -= 1
    folio_put(s, folio)
