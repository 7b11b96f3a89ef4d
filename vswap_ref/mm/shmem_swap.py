# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Pages of shared objects on their way to swap and back, and swapoff's search through the objects.

Kernel home: mm/shmem.c.  A page is in the object's page cache or in the swap cache, never in both.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, EIO, ENOMEM

from vswap_ref.machine import relax

from .folio import folio_alloc, folio_lock, folio_mark_dirty, folio_put, folio_unlock, folio_zero_user
from .lru import folio_add_lru
from .memcg import mem_cgroup_charge, memcg1_swapin
from .page_io import swap_read_folio, swap_writeout
from .readahead import read_swap_cache_async, swap_cluster_readahead, swap_update_readahead
from .shmem import shmem_add_to_page_cache, shmem_delete_from_page_cache, shmem_recalc_inode
from .state import Folio, Memcg, ShmemInode, SwapInfo, System
from .swap_io import folio_wait_writeback
from .swap_read import mem_cgroup_swapin_charge_folio
from .types import (
    AOP_WRITEPAGE_ACTIVATE,
    NO_ENTRY,
    SWP_SYNCHRONOUS_IO,
    SwpEntry,
    is_poisoned_swp_entry,
    make_poisoned_swp_entry,
    radix_to_swp_entry,
    swp_slot_type,
    swp_to_radix_entry,
)
from .vswap.cache_pin import swapcache_clear, swapcache_prepare
from .vswap.lifecycle import swap_free, swap_shmem_alloc
from .vswap.lookup import swp_entry_to_swp_slot
from .vswap.pin import put_swap_entry, tryget_swap_entry
from .vswap.swap_cache import swap_cache_del_folio, swap_cache_get_folio, swap_cache_get_shadow
from .vswap.swap_out import folio_alloc_swap
from .workingset import workingset_refault


def shmem_writeout(s: System, folio: Folio) -> int:
    """Swap out a locked, dirty, unmapped folio of an object.

    Returns 0 with the folio unlocked and in the swap cache, or AOP_WRITEPAGE_ACTIVATE with the folio still locked,
    dirty and in the page cache: there is neither zswap nor a device, no slot, or the content was rejected.
    """
    inode, index = folio.mapping, folio.index
    assert inode is not None
    if not (s.zswap.enabled or s.swap.total_swap_pages) or folio_alloc_swap(s, folio):
        folio_mark_dirty(folio)
        return AOP_WRITEPAGE_ACTIVATE
    entry = folio.swap
    if shmem_recalc_inode(inode, 0, 1):
        with s.shmem.swaplist_mutex:
            s.shmem.swaplist[inode] = None
    swap_shmem_alloc(s, entry, 1)
    shmem_delete_from_page_cache(s, folio, swp_to_radix_entry(entry))
    if swap_writeout(s, folio) != AOP_WRITEPAGE_ACTIVATE:
        return 0
    undo_writeout(s, folio, inode, index, entry)
    return AOP_WRITEPAGE_ACTIVATE


def undo_writeout(s: System, folio: Folio, inode: ShmemInode, index: int, entry: SwpEntry) -> None:
    """The content has to stay in memory: back into the page cache, and give the slot up."""
    if not shmem_add_to_page_cache(s, folio, inode, index, swp_to_radix_entry(entry)):
        shmem_recalc_inode(inode, 0, -1)
        swap_free(s, entry)
    swap_cache_del_folio(s, folio)
    folio_mark_dirty(folio)


def shmem_remove_mapping(s: System, folio: Folio) -> bool:
    """Reclaim a clean folio: nobody ever wrote to it, so a hole is as good.  False if somebody uses it.

    The page cache and the caller have a reference each; anything more is a user.
    """
    if folio.dirty or folio.refcount != 2:
        return False
    shmem_delete_from_page_cache(s, folio, None)
    folio_unlock(folio)
    folio_put(s, folio)
    return True


def shmem_confirm_swap(inode: ShmemInode, index: int, swap: SwpEntry) -> int:
    """The order of the tree's entry if it still is this swap entry (0: all have one page), else -1."""
    return 0 if inode.i_pages.load(index) == swp_to_radix_entry(swap) else -1


def shmem_swapin_folio(s: System, inode: ShmemInode, index: int, memcg: Memcg, fault: bool) -> tuple[Folio | None, int]:
    """Bring a swapped page back into the page cache: (locked folio with a reference, 0).

    Or (None, error): -EEXIST (look again), -EIO (the page cannot be read), -ENOMEM, -EINVAL (no such entry).
    ``memcg`` pays if the slot has no record; ``fault``: count a major fault if it was not cached.
    """
    radswap = inode.i_pages.load(index)
    if not isinstance(radswap, int):
        return None, -EEXIST
    swap = radix_to_swp_entry(radswap)
    if is_poisoned_swp_entry(swap):
        return None, -EIO
    pinned, si = tryget_swap_entry(s, swap)
    order = shmem_confirm_swap(inode, index, swap)
    if not pinned:
        return None, -EEXIST if order < 0 else -EINVAL
    folio, err = swapin_pinned(s, inode, index, si, swap, memcg, fault) if order >= 0 else (None, -EEXIST)
    put_swap_entry(s, swap, si)
    return folio, err


def swapin_pinned(
    s: System, inode: ShmemInode, index: int, si: SwapInfo | None, swap: SwpEntry, memcg: Memcg, fault: bool
) -> tuple[Folio | None, int]:
    """shmem_swapin_folio with the entry pinned, and its device if it is on one."""
    folio, bypass, err = swap_cache_get_folio(s, swap), False, -ENOMEM
    if folio is not None:
        swap_update_readahead(s, folio, None, 0)
    else:
        bypass = si is not None and bool(si.flags & SWP_SYNCHRONOUS_IO)
        if bypass:
            folio, err = shmem_swap_alloc_folio(s, swap, memcg)
        else:
            folio = swap_cluster_readahead(s, swap, memcg)
        if folio is None:
            return None, err if shmem_confirm_swap(inode, index, swap) >= 0 else -EEXIST
        s.vmstat.pgmajfault += fault
        memcg.stat.pgmajfault += fault
    folio_lock(folio)
    err = swapin_add(s, inode, index, swap, folio, bypass)
    if not err:
        return folio, 0
    folio_unlock(folio)
    folio_put(s, folio)
    return None, err


def shmem_swap_alloc_folio(s: System, swap: SwpEntry, memcg: Memcg) -> tuple[Folio | None, int]:
    """Read a page without the swap cache: (unlocked folio, 0), or (None, -ENOMEM or -EEXIST).

    The slot's cache flag stays claimed; the caller clears it.
    """
    folio = folio_alloc(s)
    if folio is None:
        return None, -ENOMEM
    err = -ENOMEM if mem_cgroup_swapin_charge_folio(s, folio, memcg, swap) else 0
    if not err and swapcache_prepare(s, swap, 1):
        err = -EEXIST
    if err:
        folio_put(s, folio)
        return None, err
    memcg1_swapin(s, swap, 1)
    folio_lock(folio)
    folio.swapbacked = True
    shadow = swap_cache_get_shadow(s, swap)
    if shadow is not None:
        workingset_refault(s, folio, shadow)
    folio_add_lru(s, folio)
    folio.swap = swap
    swap_read_folio(s, folio)
    return folio, 0


def swapin_add(s: System, inode: ShmemInode, index: int, swap: SwpEntry, folio: Folio, bypass: bool) -> int:
    """Move a locked folio that was read to the page cache and free its slot.  Returns 0, -EEXIST, -EIO or -ENOMEM."""
    err = 0
    if not (bypass or folio.swapcache) or folio.swap != swap or shmem_confirm_swap(inode, index, swap) < 0:
        err = -EEXIST
    elif not folio.uptodate:
        shmem_set_folio_swapin_error(s, inode, index, folio, swap)
        err = -EIO
    else:
        folio_wait_writeback(s, folio)
        err = shmem_add_to_page_cache(s, folio, inode, index, swp_to_radix_entry(swap))
    if not err:
        shmem_recalc_inode(inode, 0, -1)
    if bypass:
        folio.swap = NO_ENTRY
        swapcache_clear(s, swap, 1)
    elif not err:
        swap_cache_del_folio(s, folio)
    if not err:
        folio_mark_dirty(folio)
        swap_free(s, swap)
    return err


def shmem_set_folio_swapin_error(s: System, inode: ShmemInode, index: int, folio: Folio, swap: SwpEntry) -> None:
    """The page cannot be read: put the mark of a lost page in the place of its entry, and free the slot.

    If the entry was truncated meanwhile there is nothing to mark, and the slot is not ours.
    """
    with inode.xa_lock:
        if shmem_confirm_swap(inode, index, swap) < 0:
            return
        inode.i_pages.store(index, swp_to_radix_entry(make_poisoned_swp_entry()))
    if folio.swapcache:
        swap_cache_del_folio(s, folio)
    shmem_recalc_inode(inode, -1, -1)
    swap_free(s, swap)


def shmem_alloc_and_add_folio(s: System, inode: ShmemInode, index: int, memcg: Memcg) -> tuple[Folio | None, int]:
    """Fill a hole with a page of zeros: (locked folio with a reference, 0), or (None, -ENOMEM or -EEXIST)."""
    folio = folio_alloc(s)
    if folio is None:
        return None, -ENOMEM
    folio_lock(folio)
    folio.swapbacked = True
    err = mem_cgroup_charge(s, folio, memcg) or shmem_add_to_page_cache(s, folio, inode, index, None)
    if err:
        folio_unlock(folio)
        folio_put(s, folio)
        return None, err
    shmem_recalc_inode(inode, 1, 0)
    folio_zero_user(folio)
    folio.uptodate = True
    folio_add_lru(s, folio)
    return folio, 0


def shmem_get_folio(s: System, inode: ShmemInode, index: int, memcg: Memcg) -> tuple[Folio | None, int]:
    """The folio of a page, from memory, from swap or new: (locked, with a reference, 0), or (None, error)."""
    while True:
        entry = inode.i_pages.load(index)
        if isinstance(entry, Folio):
            entry.refcount += 1
            folio_lock(entry)
            return entry, 0
        if entry is None:
            folio, err = shmem_alloc_and_add_folio(s, inode, index, memcg)
        else:
            folio, err = shmem_swapin_folio(s, inode, index, memcg, fault=True)
        if err != -EEXIST:
            return folio, err
        relax("the page of a shared object")


def shmem_swapin_range(s: System, inode: ShmemInode, start: int, end: int, memcg: Memcg) -> int:
    """Read the swapped pages of [start, end) into the swap cache.  Returns pages in it."""
    present = 0
    for index, entry in list(inode.i_pages.items()):
        if isinstance(entry, Folio) or not start <= index < end:
            continue
        swap = radix_to_swp_entry(entry)
        folio = None if is_poisoned_swp_entry(swap) else read_swap_cache_async(s, swap, memcg)
        if folio is not None:
            present += 1
            folio_put(s, folio)
    return present


def shmem_find_swap_entries(s: System, inode: ShmemInode, type_: int) -> list[int]:
    """The page numbers whose slots are on a device; those that are on none are left out."""
    swapped = [(index, entry) for index, entry in inode.i_pages.items() if not isinstance(entry, Folio)]
    slots = ((index, swp_entry_to_swp_slot(s, radix_to_swp_entry(entry))) for index, entry in swapped)
    return [index for index, slot in slots if slot and swp_slot_type(slot) == type_]


def shmem_unuse_inode(s: System, inode: ShmemInode, type_: int) -> int:
    """Bring an object's pages back from a device.  Returns 0 or -ENOMEM; a lost page does not stop it."""
    for index in shmem_find_swap_entries(s, inode, type_):
        folio, err = shmem_swapin_folio(s, inode, index, s.memcg.root, fault=False)
        if folio is not None:
            folio_unlock(folio)
            folio_put(s, folio)
        elif err == -ENOMEM:
            return err
    return 0


def shmem_unuse(s: System, si: SwapInfo) -> int:
    """swapoff: bring the pages of all objects back from a device.  Returns 0 or -ENOMEM."""
    err = 0
    for inode in list(s.shmem.swaplist):
        if inode not in s.shmem.swaplist:
            continue  # it ended while another one was worked on
        inode.stop_eviction += 1
        err = err or shmem_unuse_inode(s, inode, si.type)
        with s.shmem.swaplist_mutex:
            if not inode.swapped:
                s.shmem.swaplist.pop(inode, None)
            inode.stop_eviction -= 1
    return err
