# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Swap-in with readahead: around the slot on a rotating disk, around the address otherwise.

Kernel home: mm/swap_state.c.  The window grows with the hits on pages read ahead before.
"""

from __future__ import annotations

from .folio import folio_put
from .page_io import swap_read_folio
from .pagetable import PTE_TABLE_MASK, PTE_TABLE_SHIFT
from .state import Folio, Memcg, System, Vma
from .swap_device import swap_slot_put_swap_info, swap_slot_tryget_swap_info
from .swap_read import __read_swap_cache_async
from .types import Pte, SwpEntry, is_swap_pte, pte_to_swp_entry, swp_slot, swp_slot_offset
from .vswap.lookup import swp_entry_to_swp_slot
from .vswap.pin import put_swap_entry, tryget_swap_entry
from .vswap.rmap import swp_slot_to_swp_entry

SWAP_RA_ORDER_CEILING = 5
SWAP_RA_HITS_MAX = 63


def __swapin_nr_pages(prev: int, cur: int, hits: int, max_pages: int, prev_win: int) -> int:
    """Size of the next window in pages, from the hits since the last one.

    Without hits: two pages if ``cur`` is next to ``prev``, else one.  Never less than half the window before.
    """
    pages = hits + 2
    if pages == 2:
        if abs(cur - prev) != 1:
            pages = 1
    else:
        pages = max(4, 1 << (pages - 1).bit_length())
    return max(min(pages, max_pages), prev_win // 2)


def swapin_nr_pages(s: System, offset: int) -> int:
    """The window of cluster readahead; its state is global."""
    swap = s.swap
    max_pages = 1 << s.config.page_cluster
    if max_pages <= 1:
        return 1
    hits, swap.readahead_hits = swap.readahead_hits, 0
    pages = __swapin_nr_pages(swap.readahead_prev_offset, offset, hits, max_pages, swap.readahead_last_pages)
    if not hits:
        swap.readahead_prev_offset = offset
    swap.readahead_last_pages = pages
    return pages


def read_ahead_one(s: System, entry: SwpEntry, memcg: Memcg, target: bool) -> None:
    """Bring one entry of the window, whose device is pinned, into the cache and start its read."""
    folio, allocated = __read_swap_cache_async(s, entry, memcg)
    start_read_ahead(s, folio, allocated, target)


def read_target(s: System, entry: SwpEntry, memcg: Memcg) -> Folio | None:
    """read_swap_cache_async for an entry whose device is pinned."""
    folio, allocated = __read_swap_cache_async(s, entry, memcg)
    if folio is not None and allocated:
        swap_read_folio(s, folio)
    return folio


def read_swap_cache_async(s: System, entry: SwpEntry, memcg: Memcg) -> Folio | None:
    """A folio for the entry with its read started, with a reference; None if that is impossible."""
    swapoff_locked, si = tryget_swap_entry(s, entry)
    if not swapoff_locked:
        return None
    folio = read_target(s, entry, memcg)
    put_swap_entry(s, entry, si)
    return folio


def swap_cluster_readahead(s: System, entry: SwpEntry, memcg: Memcg) -> Folio | None:
    """Read the aligned block of slots around the entry's: neighbours on the device, whoever they belong to.

    An entry that is on no device has no neighbours there, and comes alone.
    """
    slot = swp_entry_to_swp_slot(s, entry)
    si, offset = swap_slot_tryget_swap_info(s, slot), swp_slot_offset(slot)
    if si is not None:
        mask = swapin_nr_pages(s, offset) - 1
        if mask:
            for i in range(max(1, offset & ~mask), min(offset | mask, si.max - 1) + 1):
                neighbour = swp_slot_to_swp_entry(s, swp_slot(si.type, i))
                read_ahead_one(s, neighbour, memcg, target=i == offset)
        swap_slot_put_swap_info(si)
    return read_target(s, entry, memcg)


def swap_vma_ra_win(s: System, vma: Vma, addr: int) -> tuple[int, int]:
    """The window [start, end) of addresses around a fault: onward, backward or centred, by the fault before."""
    max_win = 1 << min(s.config.page_cluster, SWAP_RA_ORDER_CEILING)
    if max_win == 1:
        return addr, addr + 1
    prev, hits, prev_win = vma.ra_addr, vma.ra_hits, vma.ra_win
    win = __swapin_nr_pages(prev, addr, hits, max_win, prev_win)
    vma.ra_addr, vma.ra_win, vma.ra_hits = addr, win, 0
    if addr == prev + 1:
        start = addr
    elif prev == addr + 1:
        start = addr - win + 1
    else:
        start = addr - (win - 1) // 2
    table_start = addr & ~PTE_TABLE_MASK
    return max(start, vma.start, table_start), min(start + win, vma.end, table_start + PTE_TABLE_MASK + 1)


def swap_vma_readahead(s: System, entry: SwpEntry, vma: Vma, addr: int) -> Folio | None:
    """Read the swapped-out pages around the faulting address, wherever their slots are."""
    start, end = swap_vma_ra_win(s, vma, addr)
    if end - start > 1:
        table = vma.mm.pgd[addr >> PTE_TABLE_SHIFT]
        for i in range(start, end):
            pte = Pte(table[i & PTE_TABLE_MASK])
            if is_swap_pte(pte):
                vma_read_ahead_one(s, pte_to_swp_entry(pte), entry, vma)
    return read_target(s, entry, vma.mm.memcg)


def vma_read_ahead_one(s: System, entry: SwpEntry, target: SwpEntry, vma: Vma) -> None:
    """One PTE of the window: pinned until it is in the cache, wherever its page lies; left out if that fails."""
    swapoff_locked, si = tryget_swap_entry(s, entry)
    if not swapoff_locked:
        return
    folio, allocated = __read_swap_cache_async(s, entry, vma.mm.memcg)
    put_swap_entry(s, entry, si)
    start_read_ahead(s, folio, allocated, target=entry == target)


def swapin_readahead(s: System, entry: SwpEntry, vma: Vma, addr: int) -> Folio | None:
    """Swap an entry in together with what will probably be wanted next; the folio has a reference."""
    if s.swap.nr_rotate_swap:
        return swap_cluster_readahead(s, entry, vma.mm.memcg)
    return swap_vma_readahead(s, entry, vma, addr)


def swap_update_readahead(s: System, folio: Folio, vma: Vma | None, addr: int) -> None:
    """A fault found the folio in the cache: if it was read ahead, the guess was right.

    The mapping remembers the address too, so that the next window knows the direction.  Without one (None: shmem) the
    hit counts for cluster readahead.  A large folio says nothing.
    """
    if folio.order:
        return
    hit = folio.readahead
    folio.readahead = False
    s.vmstat.swap_ra_hit += hit
    if s.swap.nr_rotate_swap or vma is None:
        s.swap.readahead_hits += hit
    else:
        vma.ra_addr = addr
        vma.ra_hits = min(vma.ra_hits + hit, SWAP_RA_HITS_MAX)


def start_read_ahead(s: System, folio: Folio | None, allocated: bool, target: bool) -> None:
    """Read a folio that is new in the cache, marked unless it is the target; drop the reference."""
    if folio is None:
        return
    if allocated:
        if not target:
            folio.readahead = True
            s.vmstat.swap_ra += 1
        swap_read_folio(s, folio)
    folio_put(s, folio)
