# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Swapping whole mappings out in large folios: a ramp for devices that are larger than memory.

No kernel home.  The allocator, the swap map, the swap cache, reclaim and the devices are used as they are, 512 pages
at a time.  Two steps are short: the pages are never mapped, their swap PTEs are entered at once; and the pages of a
large folio, being alike, share one compressed object, which is on no list.
"""

from __future__ import annotations

from errno import ENOMEM

from vswap_ref.machine import PAGE_SIZE

from .address_space import zap_pte_range
from .folio import folio_alloc, folio_lock, folio_put, folio_unlock
from .lru import folio_add_lru
from .memcg import charge_zswap_bytes, mem_cgroup_charge
from .page_io import is_folio_zero_filled
from .pagetable import PTE_TABLE_MASK, pte_alloc
from .reclaim import reclaim_pages
from .state import Folio, Memcg, Mm, System, Vma, ZswapEntry
from .swap_io import swap_io_wait_one
from .types import PMD_ORDER, PTE_SWP_EXCLUSIVE, PTRS_PER_PTE, swap_nth, swp_entry_range, swp_entry_to_pte
from .vswap.backing import vswap_folio_backed, zswap_entry_store
from .vswap.lifecycle import swap_duplicate_nr
from .vswap.swap_cache import folio_free_swap
from .vswap.swap_out import folio_alloc_swap
from .zswap import zswap_may_store
from .zswap_pool import zs_object_size, zswap_compress


def swap_out_mapping(s: System, vma: Vma, page: bytes) -> int:
    """Swap an untouched mapping out, as if ``page`` had been written to each of its pages.

    In folios of order 9 where the mapping and a device have room for one, else page by page.  Returns 0 or -ENOMEM;
    then the beginning of the mapping is swapped out.
    """
    addr, content = vma.start, page * PTRS_PER_PTE
    while addr < vma.end:
        large = not addr & PTE_TABLE_MASK and addr + PTRS_PER_PTE <= vma.end
        order = PMD_ORDER if large else 0
        err = swap_out_folio(s, vma.mm, addr, order, content)
        if err and order:
            order, err = 0, swap_out_folio(s, vma.mm, addr, 0, content)
        if err:
            return err
        addr += 1 << order
    return 0


def new_dirty_folio(s: System, memcg: Memcg, order: int, content: bytes) -> Folio | None:
    """A charged, locked, dirty folio with the beginning of ``content``; or None."""
    folio = folio_alloc(s, order)
    if folio is None:
        return None
    if mem_cgroup_charge(s, folio, memcg):
        folio_put(s, folio)
        return None
    memoryview(folio.data)[:] = memoryview(content)[: len(folio.data)]
    folio.swapbacked = folio.uptodate = folio.dirty = True
    folio_lock(folio)
    return folio


def swap_out_folio(s: System, mm: Mm, addr: int, order: int, content: bytes) -> int:
    """Swap out the ``2**order`` pages at ``addr``, never touched before.  Returns 0 or -ENOMEM."""
    folio = new_dirty_folio(s, mm.memcg, order, content)
    if folio is None:
        return -ENOMEM
    err = folio_alloc_swap(s, folio) or enter_swap_ptes(s, mm, addr, folio)
    if not err and order and zswap_store_alike(s, folio, content[:PAGE_SIZE]):
        folio.dirty = False
    folio_unlock(folio)
    if not err:
        folio_add_lru(s, folio)
    folio_put(s, folio)
    while not err and folio.refcount:
        reclaim_pages(s, [folio])
        err = zap_unwritten(s, mm, addr, folio)
        if not swap_io_wait_one(s):
            break
    return err


def enter_swap_ptes(s: System, mm: Mm, addr: int, folio: Folio) -> int:
    """Enter swap PTEs for all pages of a cached folio, one user for each slot.  Returns 0 or -ENOMEM."""
    nr = folio.nr_pages
    table = pte_alloc(s, mm, addr)
    if table is None or swap_duplicate_nr(s, folio.swap, nr):
        folio_free_swap(s, folio)
        return -ENOMEM
    index, entries = addr & PTE_TABLE_MASK, swp_entry_range(folio.swap, folio.swap + nr)
    table[index : index + nr] = [swp_entry_to_pte(entry, PTE_SWP_EXCLUSIVE) for entry in entries]
    mm.swapents += nr
    s.swap.mmlist[mm] = None
    return 0


def zswap_store_alike(s: System, folio: Folio, page: bytes) -> bool:
    """Store a folio whose pages are all ``page``: one compressed object, entered for each slot.  False if refused."""
    pool, nr = s.zswap.pool, folio.nr_pages
    if pool is None or is_folio_zero_filled(folio) or not s.zswap.enabled or not zswap_may_store(s, folio):
        return False
    packed = zswap_compress(s, page, folio.memcg, pool)
    if packed is None:
        return False
    entry = ZswapEntry(folio.swap, len(packed), pool, packed, folio.memcg)
    zswap_enter_range(s, entry, nr)
    account_alike(s, entry, nr)
    return True


def zswap_enter_range(s: System, entry: ZswapEntry, nr: int) -> None:
    """Enter one compressed object for ``nr`` slots from its own on, all without one."""
    for i in range(nr):
        zswap_entry_store(s, swap_nth(entry.swpentry, i), entry)


def account_alike(s: System, entry: ZswapEntry, nr: int) -> None:
    """Count an entry ``nr`` times, as zswap_store_page does once: pool, charge, statistics."""
    size = nr * zs_object_size(entry.length)
    entry.pool.bytes += size
    s.zswap.pool_bytes += size
    s.zswap.stored_pages += nr
    s.zswap.stored_incompressible += nr if entry.length == PAGE_SIZE else 0
    s.vmstat.zswpout += nr
    if entry.memcg is None:
        return
    entry.memcg.stat.zswpout += nr
    if not s.memcg.memsw:
        entry.memcg.stat.zswapped += nr
        charge_zswap_bytes(entry.memcg, nr * entry.length)


def zap_unwritten(s: System, mm: Mm, addr: int, folio: Folio) -> int:
    """If nothing but the folio itself has its content after reclaim, drop it and its PTEs.  Returns 0 or -ENOMEM."""
    nr = folio.nr_pages
    if not folio.swapcache or not vswap_folio_backed(s, folio.swap, nr):
        return 0
    zap_pte_range(s, mm, addr, addr + nr)
    return -ENOMEM
