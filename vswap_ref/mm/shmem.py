# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Shared memory objects: their page cache, what is counted, how they end.

Kernel home: mm/shmem.c.  A page of an object is in memory, in swap, or has never been touched.
"""

from __future__ import annotations

from errno import EEXIST, ENOMEM

from vswap_ref.machine import XArray, wait_until

from .folio import folio_lock, folio_put, folio_unlock
from .pagetable import mmap_region
from .state import Folio, Mm, ShmemInode, System, Vma
from .types import RadixEntry, is_poisoned_swp_entry, radix_to_swp_entry
from .vswap.swap_cache import free_swap_and_cache_nr


def shmem_get_inode(s: System, name: str, nr_pages: int) -> ShmemInode:
    """A new object of ``nr_pages`` pages, all holes, with one link: its name."""
    inode = ShmemInode(name, nr_pages, XArray(s.faults, "shmem_xa_node"), s.locks.spinlock("i_pages"))
    s.shmem.inodes[inode] = None
    return inode


def shmem_mmap(mm: Mm, inode: ShmemInode) -> Vma:
    """Map the whole object, shared."""
    vma = mmap_region(mm, inode.i_size)
    vma.file = inode
    inode.i_mmap[vma] = None
    return vma


def shmem_recalc_inode(inode: ShmemInode, alloced: int, swapped: int) -> bool:
    """Pages were given to the object, or moved to swap (from it, if negative).  True for its first page in swap.

    Clean hole pages that reclaim has dropped are found here: allocated, but neither in memory nor in swap.  A page
    that is being written out is still in the page cache when it is counted as swapped.
    """
    first_swapped = swapped > 0 and inode.swapped == 0
    inode.alloced += alloced
    inode.swapped += swapped
    dropped = inode.alloced - inode.swapped - inode.nrpages + max(0, swapped)
    inode.alloced -= max(0, dropped)
    return first_swapped


def shmem_update_stats(s: System, folio: Folio, nr: int) -> None:
    """Count pages that enter (nr > 0) or leave (nr < 0) a page cache."""
    s.vmstat.nr_file_pages += nr
    s.vmstat.nr_shmem += nr
    if folio.memcg is not None:
        folio.memcg.stat.file += nr
        folio.memcg.stat.shmem += nr


def shmem_add_to_page_cache(s: System, folio: Folio, inode: ShmemInode, index: int, expected: RadixEntry | None) -> int:
    """Put a locked folio in the place of ``expected`` (None: of a hole); takes a reference.

    Returns 0, -EEXIST (something else stands there) or -ENOMEM (no node for the tree).
    """
    assert folio.locked
    assert not folio.swapcache or expected is not None
    with inode.xa_lock:
        if inode.i_pages.load(index) != expected:
            return -EEXIST
        try:
            inode.i_pages.store(index, folio)
        except MemoryError:
            return -ENOMEM
        folio.refcount += 1
        folio.mapping, folio.index = inode, index
        inode.nrpages += 1
    shmem_update_stats(s, folio, 1)
    return 0


def shmem_delete_from_page_cache(s: System, folio: Folio, radswap: RadixEntry | None) -> None:
    """Take a locked folio out, leaving its swap entry (None: a hole); drops the page cache's reference."""
    inode = folio.mapping
    assert folio.locked
    assert inode is not None
    with inode.xa_lock:
        if radswap is None:
            inode.i_pages.erase(folio.index)
        else:
            inode.i_pages.store(folio.index, radswap)
        folio.mapping = None
        inode.nrpages -= 1
    shmem_update_stats(s, folio, -1)
    folio_put(s, folio)


def shmem_free_swap(s: System, inode: ShmemInode, index: int, radswap: RadixEntry) -> int:
    """Remove a swap entry if it still stands there, and free its slot.  Returns slots freed."""
    with inode.xa_lock:
        if inode.i_pages.cmpxchg(index, radswap, None) != radswap:
            return 0
    entry = radix_to_swp_entry(radswap)
    if is_poisoned_swp_entry(entry):
        return 0
    free_swap_and_cache_nr(s, entry, 1)
    return 1


def truncate_inode_folio(s: System, inode: ShmemInode, folio: Folio) -> None:
    """A page goes for good, unless it has left the page cache while its lock was waited for; it is mapped no more."""
    folio.refcount += 1
    folio_lock(folio)
    if folio.mapping is inode:
        assert not folio.mapcount
        shmem_delete_from_page_cache(s, folio, None)
    folio_unlock(folio)
    folio_put(s, folio)


def shmem_undo_range(s: System, inode: ShmemInode, start: int, end: int) -> None:
    """Make the pages [start, end) holes, wherever they are; their page-table entries are gone already."""
    freed = 0
    for index in [index for index, _ in inode.i_pages.items() if start <= index < end]:
        while (entry := inode.i_pages.load(index)) is not None:
            if isinstance(entry, Folio):
                truncate_inode_folio(s, inode, entry)
            else:
                freed += shmem_free_swap(s, inode, index, entry)
    shmem_recalc_inode(inode, 0, -freed)


def shmem_evict_inode(s: System, inode: ShmemInode) -> None:
    """The object ends: drop all its pages and slots, and wait until swapoff does not look at it any more."""
    shmem_undo_range(s, inode, 0, inode.i_size)
    while inode in s.shmem.swaplist:
        wait_until(lambda: not inode.stop_eviction, "swapoff to leave a shared object")
        with s.shmem.swaplist_mutex:
            if not inode.stop_eviction:
                s.shmem.swaplist.pop(inode, None)
    del s.shmem.inodes[inode]


def iput(s: System, inode: ShmemInode) -> None:
    """A name or a mapping of the object is gone; the last one ends it."""
    if not inode.nlink and not inode.i_mmap:
        shmem_evict_inode(s, inode)
