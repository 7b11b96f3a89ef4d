# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Moving pages of a process from one mapping to another (UFFDIO_MOVE).

Kernel home: mm/userfaultfd.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EAGAIN, EBUSY, EEXIST, EFAULT, ENOENT, ENOMEM

from .fault import pte_folio
from .folio import folio_put, folio_trylock, folio_unlock
from .huge_memory import split_folio
from .pagetable import PTE_TABLE_MASK, PTE_TABLE_SHIFT, pte_alloc
from .state import Folio, System, Vma
from .types import PTE_PRESENT, PTE_SOFT_DIRTY, PTE_SWP_EXCLUSIVE, Pte, SwpEntry, is_swap_pte, pte_pfn, pte_to_swp_entry
from .vswap.cache_pin import is_swap_cached
from .vswap.pin import put_swap_entry, tryget_swap_entry
from .vswap.swap_cache import folio_matches_swap_entry, swap_cache_get_folio


@dataclass(slots=True)
class PageMove:
    """One page on its way: the page tables and indexes, the source's PTE as it was read, the destination."""

    vma: Vma
    addr: int
    src: list[int]
    src_index: int
    dst: list[int]
    dst_index: int
    pte: Pte

    @property
    def changed(self) -> bool:
        """One of the two PTEs is not what it was (page-table locks held)."""
        return self.src[self.src_index] != self.pte or self.dst[self.dst_index] != 0

    def finish(self) -> None:
        """Move the PTE and mark it soft-dirty (page-table locks held)."""
        self.dst[self.dst_index] = self.pte | PTE_SOFT_DIRTY
        self.src[self.src_index] = 0


def move_present_pte(s: System, move: PageMove, folio: Folio) -> int:
    """Move a page that is in memory.  Returns 0, -EBUSY (others may have it too) or -EAGAIN."""
    if not folio.exclusive & 1 << (pte_pfn(move.pte) - folio.pfn):
        return -EBUSY
    if folio.order and split_folio(s, folio):
        return -EBUSY
    folio = s.memory.mem_map[pte_pfn(move.pte)] or folio
    if not folio_trylock(folio):
        return -EAGAIN
    with move.vma.mm.ptl:
        err = -EAGAIN if move.changed else 0
        if not err:
            folio_rehome(folio, move.vma, move.addr)
            move.finish()
    folio_unlock(folio)
    return err


def folio_rehome(folio: Folio, vma: Vma, addr: int) -> None:
    """The folio's one mapping is at another address from now on (folio_move_anon_rmap, and its index)."""
    folio.anon_vma, folio.index = vma.anon_vma, addr


def move_swap_pte(s: System, move: PageMove, folio: Folio | None) -> int:
    """Move a swap PTE; ``folio``: what the cache had for it, locked.  Returns 0, or -EAGAIN if something changed."""
    entry = pte_to_swp_entry(move.pte)
    with move.vma.mm.ptl:
        if move.changed:
            return -EAGAIN
        if folio is not None:
            if not folio_matches_swap_entry(folio, entry):
                return -EAGAIN
            folio_rehome(folio, move.vma, move.addr)
        elif is_swap_cached(s, entry):
            return -EAGAIN
        move.finish()
    return 0


def move_swapped_page(s: System, move: PageMove) -> int:
    """The part of move_pages_ptes for a swap PTE.  Returns 0, -EBUSY (shared, or a large folio) or -EAGAIN."""
    if not move.pte & PTE_SWP_EXCLUSIVE:
        return -EBUSY
    entry = pte_to_swp_entry(move.pte)
    pinned, si = tryget_swap_entry(s, entry)
    if not pinned:
        return -EAGAIN
    err = move_swapped_pinned(s, move, entry)
    put_swap_entry(s, entry, si)
    return err


def move_swapped_pinned(s: System, move: PageMove, entry: SwpEntry) -> int:
    """move_swapped_page with the entry pinned: take a cached folio along."""
    folio = swap_cache_get_folio(s, entry)
    if folio is None:
        return move_swap_pte(s, move, None)
    err = -EBUSY if folio.order else -EAGAIN
    if not folio.order and folio_trylock(folio):
        err = move_swap_pte(s, move, folio)
        folio_unlock(folio)
    folio_put(s, folio)
    return err


def move_pages_ptes(s: System, vma: Vma, addr: int, src_addr: int) -> int:
    """Move one page.

    Returns 0, -EEXIST (the destination is taken), -ENOENT (no page), -EFAULT (a lost page), -ENOMEM, -EBUSY or -EAGAIN.
    """
    mm = vma.mm
    src, dst = mm.pgd.get(src_addr >> PTE_TABLE_SHIFT), pte_alloc(s, mm, addr)
    if dst is None:
        return -ENOMEM
    if dst[addr & PTE_TABLE_MASK]:
        return -EEXIST
    if src is None or not src[src_addr & PTE_TABLE_MASK]:
        return -ENOENT
    pte = Pte(src[src_addr & PTE_TABLE_MASK])
    move = PageMove(vma, addr, src, src_addr & PTE_TABLE_MASK, dst, addr & PTE_TABLE_MASK, pte)
    if is_swap_pte(pte):
        return move_swapped_page(s, move)
    if not pte & PTE_PRESENT:
        return -EFAULT
    folio = pte_folio(s, pte)
    if folio is not None:
        return move_present_pte(s, move, folio)
    with mm.ptl:
        move.finish()
    return 0


def move_pages(s: System, vma: Vma, addr: int, src_addr: int, nr: int) -> int:
    """Move ``nr`` pages into a mapping.  Returns pages moved, or the error if the first one could not be."""
    for done in range(nr):
        err = move_pages_ptes(s, vma, addr + done, src_addr + done)
        if err:
            return done or err
    return nr
