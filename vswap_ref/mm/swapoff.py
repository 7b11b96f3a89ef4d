# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""swapoff: bringing everything back from a device, by walking the page tables of every process that ever swapped.

Kernel home: mm/swapfile.c.
"""

from __future__ import annotations

from errno import EINVAL, ENOMEM

from .cluster import swap_do_scheduled_discard
from .folio import folio_lock, folio_put, folio_unlock
from .pagetable import PTE_TABLE_MASK, table_ranges
from .readahead import swapin_readahead
from .rmap import folio_add_anon_rmap
from .shmem_swap import shmem_unuse
from .slot_reclaim import folio_free_swap
from .state import Folio, Mm, SwapInfo, System, Vma
from .swap_cache import folio_matches_swap_entry, swap_cache_get_folio
from .swap_device import add_to_avail_list, del_from_avail_list, plist_add, swap_type_to_info, swap_usage_in_pages
from .swap_io import folio_wait_writeback
from .swap_map import swap_free
from .swapon import release_swap_info
from .types import (
    PTE_SHIFT,
    PTE_SOFT_DIRTY,
    PTE_SWP_EXCLUSIVE,
    PTE_UFFD_WP,
    SWAP_MAP_BAD,
    SWP_SOLIDSTATE,
    SWP_WRITEOK,
    Pte,
    SwpEntry,
    is_swap_pte,
    mk_pte,
    pte_same_as_swp,
    pte_to_swp_entry,
    swp_entry,
    swp_offset,
    swp_type,
)


def swapoff(s: System, type_: int) -> int:
    """Stop using a device for swap.  Returns 0, -EINVAL (not in use) or -ENOMEM; then the device is in use again."""
    si = swap_type_to_info(s, type_)
    if si is None or not si.flags & SWP_WRITEOK:
        return -EINVAL
    with s.swap.swap_lock:
        del_from_avail_list(s, si, swapoff=True)
        s.swap.active_head.remove(si)
        s.swap.nr_swap_pages -= si.pages
        s.swap.total_swap_pages -= si.pages
    wait_for_allocation(s, si)
    err = try_to_unuse(s, si)
    if err:
        reinsert_swap_info(s, si)
        return err
    si.users.kill()
    s.rcu.synchronize()
    assert si.users.is_zero
    retire_swap_info(s, si)
    return 0


def wait_for_allocation(s: System, si: SwapInfo) -> None:
    """Take and drop every cluster's lock: no allocation that saw WRITEOK is still running."""
    for ci in si.cluster_info:
        ci.lock.acquire()
        ci.lock.release()
    s.cost["ci_lock"] += len(si.cluster_info)


def reinsert_swap_info(s: System, si: SwapInfo) -> None:
    """swapoff failed: the device is in use again."""
    with s.swap.swap_lock:
        s.swap.nr_swap_pages += si.pages
        s.swap.total_swap_pages += si.pages
        plist_add(s.swap.active_head, si)
        add_to_avail_list(s, si, swapon=True)


def retire_swap_info(s: System, si: SwapInfo) -> None:
    """The device is empty and unreachable: finish its work, forget it on every CPU, free its structures."""
    swap_do_scheduled_discard(s, si)
    s.swap.reclaim_work.pop(si, None)
    for hint in s.swap.percpu:
        hint.si = [None if other is si else other for other in hint.si]
    if not si.flags & SWP_SOLIDSTATE:
        s.swap.nr_rotate_swap -= 1
    if not any(swap_usage_in_pages(other) for other in s.swap.info):
        s.swap.mmlist.clear()
    release_swap_info(s, si)


def try_to_unuse(s: System, si: SwapInfo) -> int:
    """Bring all pages back from a device.  Returns 0 or -ENOMEM."""
    while swap_usage_in_pages(si):
        err = shmem_unuse(s, si)
        if err:
            return err
        for mm in list(s.swap.mmlist):
            if not swap_usage_in_pages(si):
                break
            err = unuse_mm(s, mm, si)
            if err:
                return err
        unuse_cache_only(s, si)
    return 0


def unuse_mm(s: System, mm: Mm, si: SwapInfo) -> int:
    """Walk all page tables of a process and bring back what is on the device.  Returns 0 or -ENOMEM."""
    for vma in (vma for vma in mm.vmas if vma.file is None):
        for table, start, end in table_ranges(mm, vma.start, vma.end):
            s.swap.ptes_visited += end - start
            for addr in range(start, end):
                pte = Pte(table[addr & PTE_TABLE_MASK])
                if is_swap_pte(pte) and swp_type(pte_to_swp_entry(pte)) == si.type:
                    err = unuse_pte_range_one(s, si, vma, addr, table)
                    if err:
                        return err
    return 0


def unuse_pte_range_one(s: System, si: SwapInfo, vma: Vma, addr: int, table: list[int]) -> int:
    """Bring one page back and map it.  Returns 0 or -ENOMEM."""
    pte = Pte(table[addr & PTE_TABLE_MASK])
    entry = pte_to_swp_entry(pte)
    folio = swap_cache_get_folio(s, entry) or swapin_readahead(s, entry, vma, addr)
    if folio is None:
        return 0 if si.swap_map[swp_offset(entry)] in (0, SWAP_MAP_BAD) else -ENOMEM
    folio_lock(folio)
    folio_wait_writeback(s, folio)
    err = unuse_pte(s, vma, addr, table, pte, folio)
    if not err:
        folio_free_swap(s, folio)
    folio_unlock(folio)
    folio_put(s, folio)
    return err


def unuse_pte(s: System, vma: Vma, addr: int, table: list[int], old: Pte, folio: Folio) -> int:
    """Replace a swap PTE by a present one: clean, old, not writable.  Returns 0; -ENOMEM if the folio has no data.

    The kernel maps a poison marker for a page that cannot be read; here swapoff fails and nothing is lost.
    """
    entry = SwpEntry(old >> PTE_SHIFT)
    index = addr & PTE_TABLE_MASK
    if not folio_matches_swap_entry(folio, entry):
        return 0
    if not folio.uptodate:
        return -ENOMEM
    with vma.mm.ptl:
        if not pte_same_as_swp(Pte(table[index]), old):
            return 0
        folio_add_anon_rmap(s, folio, vma, addr, exclusive=bool(old & PTE_SWP_EXCLUSIVE))
        folio.refcount += 1
        vma.mm.swapents -= 1
        vma.mm.anonpages += 1
        page = entry & (1 << folio.order) - 1
        table[index] = mk_pte(folio.pfn + page, old & (PTE_SOFT_DIRTY | PTE_UFFD_WP))
    swap_free(s, entry)
    return 0


def unuse_cache_only(s: System, si: SwapInfo) -> None:
    """Free the slots that only the swap cache still holds."""
    for offset in range(1, si.max):
        if si.swap_map[offset] in (0, SWAP_MAP_BAD):
            continue
        folio = swap_cache_get_folio(s, swp_entry(si.type, offset))
        if folio is not None:
            folio_lock(folio)
            folio_wait_writeback(s, folio)
            folio_free_swap(s, folio)
            folio_unlock(folio)
            folio_put(s, folio)
