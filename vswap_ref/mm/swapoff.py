# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""swapoff: bringing everything back from a device, by walking the page tables of every process that ever swapped.

Kernel home: mm/swapfile.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EINTR, EINVAL, ENOMEM

from vswap_ref.machine import relax, wait_until

from .cluster import swap_do_scheduled_discard
from .folio import folio_lock, folio_put, folio_unlock
from .pagetable import PTE_TABLE_MASK, table_ranges
from .readahead import swapin_readahead
from .rmap import folio_add_anon_rmap
from .shmem_swap import shmem_unuse
from .state import Folio, Mm, SwapInfo, System, Vma
from .swap_device import add_to_avail_list, del_from_avail_list, plist_add, swap_type_to_info, swap_usage_in_pages
from .swap_io import folio_wait_writeback
from .swapon import release_swap_info
from .types import (
    PTE_MARKER_POISONED,
    PTE_SWP_CARRIED,
    PTE_SWP_EXCLUSIVE,
    SWAP_MAP_BAD,
    SWAP_SLOT_INVALID,
    SWP_WRITEOK,
    Pte,
    is_swap_pte,
    make_pte_marker,
    mk_pte,
    pte_same_as_swp,
    pte_to_swp_entry,
    swp_entry_page,
    swp_slot,
    swp_slot_offset,
    swp_slot_type,
)
from .vswap.lifecycle import swap_free
from .vswap.lookup import swp_entry_to_swp_slot
from .vswap.rmap import swp_slot_to_swp_entry
from .vswap.swap_cache import folio_free_swap, folio_matches_swap_entry, swap_cache_get_folio


def swapoff(s: System, type_: int) -> int:
    """Stop using a device for swap.

    Returns 0, -EINVAL (not in use), -ENOMEM (its pages do not fit in memory) or -EINTR (a signal came); after an
    error the device is in use again.
    """
    si = swap_type_to_info(s, type_)
    if si is None or not si.flags & SWP_WRITEOK:
        return -EINVAL
    with s.swap.swap_lock, si.lock:
        del_from_avail_list(s, si, swapoff=True)
        s.swap.active_head.remove(si)
        s.swap.nr_swap_pages -= si.pages
        s.swap.total_swap_pages -= si.pages
    wait_for_allocation(s, si)
    err = try_to_unuse(s, si)
    s.swap.signal_pending = False
    if err:
        reinsert_swap_info(s, si)
        return err
    si.users.kill()
    s.rcu.synchronize()
    wait_until(lambda: si.users.is_zero, f"the users of swap device {type_}")
    retire_swap_info(s, si)
    return 0


def wait_for_allocation(s: System, si: SwapInfo) -> None:
    """Take and drop every cluster's lock: no allocation that saw WRITEOK is still running."""
    for ci in si.cluster_info:
        ci.lock.acquire()
        ci.lock.release()
    s.cost.ci_lock += len(si.cluster_info)


def reinsert_swap_info(s: System, si: SwapInfo) -> None:
    """swapoff failed: the device is in use again."""
    with s.swap.swap_lock, si.lock:
        s.swap.nr_swap_pages += si.pages
        s.swap.total_swap_pages += si.pages
        plist_add(s.swap.active_head, si)
        add_to_avail_list(s, si, swapon=True)


def retire_swap_info(s: System, si: SwapInfo) -> None:
    """The device is empty and unreachable: finish its work, forget it on every CPU, free its structures."""
    s.swap.discard_work.pop(si, None)
    swap_do_scheduled_discard(s, si)
    s.swap.reclaim_work.pop(si, None)
    flush_percpu_swap_cluster(s, si)
    if not any(swap_usage_in_pages(other) for other in s.swap.info):
        s.swap.mmlist.clear()
    release_swap_info(s, si)


def flush_percpu_swap_cluster(s: System, si: SwapInfo) -> None:
    """No CPU goes on allocating on this device: drop the hints that name it."""
    for hint in s.swap.percpu:
        for order, other in enumerate(hint.si):
            if other is si:
                hint.si[order], hint.offset[order] = None, SWAP_SLOT_INVALID


def try_to_unuse(s: System, si: SwapInfo) -> int:
    """Bring all pages back from a device.  Returns 0, -ENOMEM or -EINTR.

    The kernel repeats this without limit, because other tasks free slots meanwhile.  If no other task runs, a pass
    that freed nothing would be repeated for ever: it ends as if the administrator had interrupted it.
    """
    while used := swap_usage_in_pages(si):
        err = shmem_unuse(s, si) or unuse_mmlist(s, si)
        if err:
            return err
        unuse_swap_cache(s, si)
        if not swap_usage_in_pages(si):
            break
        if signal_pending(s) or (swap_usage_in_pages(si) == used and not relax("bring pages back")):
            return -EINTR
    return 0


def signal_pending(s: System) -> bool:
    """A signal has arrived for the task that runs swapoff (fault injection: "signal")."""
    if s.faults.should_fail("signal"):
        s.swap.signal_pending = True
    return s.swap.signal_pending


def unuse_mmlist(s: System, si: SwapInfo) -> int:
    """Bring pages back into every process that ever swapped, while any are left.  Returns 0 or -ENOMEM."""
    for mm in list(s.swap.mmlist):
        if not swap_usage_in_pages(si) or signal_pending(s):
            break
        err = unuse_mm(s, mm, si)
        if err:
            return err
    return 0


def unuse_mm(s: System, mm: Mm, si: SwapInfo) -> int:
    """Walk all page tables of a process and bring back what is on the device.  Returns 0 or -ENOMEM."""
    for vma in (vma for vma in mm.vmas if vma.file is None):
        for table, start, end in table_ranges(mm, vma.start, vma.end):
            s.swap.ptes_visited += end - start
            for addr in swap_ptes_of_type(s, table, start, end, si.type):
                err = unuse_pte_range_one(s, si, vma, addr, table)
                if err:
                    return err
    return 0


def swap_ptes_of_type(s: System, table: list[int], start: int, end: int, type_: int) -> Iterator[int]:
    """The addresses in [start, end), all in one page table, whose pages lie on a device.

    A page that lies on none counts as one of device 0: correct, but more work than needed.
    """
    for addr in range(start, end):
        pte = Pte(table[addr & PTE_TABLE_MASK])
        if is_swap_pte(pte) and swp_slot_type(swp_entry_to_swp_slot(s, pte_to_swp_entry(pte))) == type_:
            yield addr


def unuse_pte_range_one(s: System, si: SwapInfo, vma: Vma, addr: int, table: list[int]) -> int:
    """Bring one page back and map it.  Returns 0 or -ENOMEM."""
    pte = Pte(table[addr & PTE_TABLE_MASK])
    entry = pte_to_swp_entry(pte)
    folio = swap_cache_get_folio(s, entry) or swapin_readahead(s, entry, vma, addr)
    if folio is None:
        offset = swp_slot_offset(swp_entry_to_swp_slot(s, entry))
        return 0 if si.swap_map[offset] in (0, SWAP_MAP_BAD) else -ENOMEM
    folio_lock(folio)
    folio_wait_writeback(s, folio)
    unuse_pte(s, vma, addr, table, pte, folio)
    folio_free_swap(s, folio)
    folio_unlock(folio)
    folio_put(s, folio)
    return 0


def unuse_pte(s: System, vma: Vma, addr: int, table: list[int], pte: Pte, folio: Folio) -> None:
    """Replace a swap PTE by a present one, clean, old and not writable; by a poison marker if the folio has no data."""
    entry = pte_to_swp_entry(pte)
    index = addr & PTE_TABLE_MASK
    if not folio_matches_swap_entry(folio, entry):
        return
    with vma.mm.ptl:
        old = Pte(table[index])
        if not pte_same_as_swp(old, pte):
            return
        vma.mm.swapents -= 1
        if folio.uptodate:
            folio_add_anon_rmap(s, folio, vma, addr, exclusive=bool(old & PTE_SWP_EXCLUSIVE))
            folio.refcount += 1
            vma.mm.anonpages += 1
            page = swp_entry_page(entry, folio.nr_pages)
            table[index] = mk_pte(folio.pfn + page, old & PTE_SWP_CARRIED)
        else:
            table[index] = make_pte_marker(PTE_MARKER_POISONED)
        swap_free(s, entry)


def unuse_swap_cache(s: System, si: SwapInfo) -> None:
    """Free the slots that only the swap cache still holds."""
    offset = 0
    while swap_usage_in_pages(si) and not signal_pending(s) and (offset := find_next_to_unuse(si, offset)):
        folio = swap_cache_get_folio(s, swp_slot_to_swp_entry(s, swp_slot(si.type, offset)))
        if folio is not None:
            folio_lock(folio)
            folio_wait_writeback(s, folio)
            folio_free_swap(s, folio)
            folio_unlock(folio)
            folio_put(s, folio)


def find_next_to_unuse(si: SwapInfo, prev: int) -> int:
    """The next slot after ``prev`` that is in use; 0 if there is none."""
    for offset in range(prev + 1, si.max):
        if si.swap_map[offset] not in (0, SWAP_MAP_BAD):
            return offset
    return 0
