# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Page faults on anonymous memory: first touch, swap-in, copy on write.

Kernel home: mm/memory.c.  A fault handler returns VM_FAULT_* flags; 0 without a mapped page means: try again.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EEXIST, ENOMEM

from .folio import folio_alloc, folio_lock, folio_put, folio_trylock, folio_unlock, folio_zero_user
from .large_fault import alloc_large_swap_folio, do_huge_zero_wp_pmd, do_large_anonymous_page
from .lru import folio_add_lru
from .memcg import mem_cgroup_charge, mem_cgroup_swap_full, memcg1_swapin
from .page_io import swap_read_folio
from .pagetable import PTE_TABLE_MASK, find_vma, pte_alloc, pte_move_swp_offset, swap_pte_batch
from .readahead import swap_update_readahead, swapin_readahead
from .rmap import folio_add_anon_rmap, folio_add_file_rmap, folio_maybe_mapped_shared, folio_remove_rmap
from .shmem_swap import shmem_get_folio
from .slot_reclaim import free_swap_cache
from .state import Folio, Mm, ShmemInode, SwapInfo, System, Vma
from .swap_device import swap_slot_put_swap_info
from .swap_read import mem_cgroup_swapin_charge_folio
from .types import (
    NO_ENTRY,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_SHIFT,
    PTE_SWP_CARRIED,
    PTE_SWP_EXCLUSIVE,
    PTE_WRITE,
    PTE_YOUNG,
    SWP_STABLE_WRITES,
    SWP_SYNCHRONOUS_IO,
    VM_FAULT_MAJOR,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
    ZERO_PFN,
    Pte,
    SwpEntry,
    is_swap_pte,
    mk_pte,
    pte_pfn,
    pte_to_swp_entry,
    swap_nth,
    swp_entry_align,
    swp_entry_page,
)
from .vswap.backing import vswap_can_swapin_thp, vswap_swapfile_backed
from .vswap.cache_pin import swapcache_clear, swapcache_prepare
from .vswap.lifecycle import __swap_count, swap_free_nr
from .vswap.pin import put_swap_entry, tryget_swap_entry, vswap_get_device
from .vswap.swap_cache import folio_free_swap, folio_matches_swap_entry, swap_cache_get_folio, swap_cache_get_shadow
from .workingset import workingset_refault

MINOR_FAULT_NS = 1_000
"""Virtual time of a fault without I/O: an assumption, so that asynchronous writes can end while a program runs."""


@dataclass(slots=True, eq=False, repr=False)
class VmFault:
    """One page fault (struct vm_fault): where, read or write, and the page-table entry seen at its start."""

    mm: Mm
    vma: Vma
    addr: int
    write: bool
    table: list[int]
    index: int
    pte: Pte


def handle_mm_fault(s: System, mm: Mm, addr: int, write: bool) -> int:
    """Make the page at ``addr`` accessible.  SIGBUS outside of all mappings."""
    s.vmstat.pgfault += 1
    mm.memcg.stat.pgfault += 1
    s.clock.ns += MINOR_FAULT_NS
    vma = find_vma(mm, addr)
    if vma is None:
        return VM_FAULT_SIGBUS
    table = pte_alloc(s, mm, addr)
    if table is None:
        return VM_FAULT_OOM
    index = addr & PTE_TABLE_MASK
    pte = Pte(table[index])
    vmf = VmFault(mm, vma, addr, write, table, index, pte)
    if not pte:
        return do_anonymous_page(s, vmf) if vma.file is None else do_fault(s, vmf, vma.file)
    if not pte & PTE_PRESENT:
        return do_swap_page(s, vmf)
    if write and not pte & PTE_WRITE:
        return do_wp_page(s, vmf)
    return 0


def new_anon_folio(s: System, mm: Mm) -> Folio | None:
    """A zeroed, charged, uptodate folio for anonymous memory, or None."""
    folio = folio_alloc(s)
    if folio is None:
        return None
    if mem_cgroup_charge(s, folio, mm.memcg):
        folio_put(s, folio)
        return None
    folio_zero_user(folio)
    folio.swapbacked = True
    folio.uptodate = True
    return folio


def do_anonymous_page(s: System, vmf: VmFault) -> int:
    """First touch: a read maps the shared zero page, a write a new page."""
    if s.thp.on and do_large_anonymous_page(s, vmf.vma, vmf.addr, vmf.table, vmf.write):
        return 0
    if not vmf.write:
        vmf.table[vmf.index] = mk_pte(ZERO_PFN, PTE_YOUNG)
        return 0
    folio = new_anon_folio(s, vmf.mm)
    if folio is None:
        return VM_FAULT_OOM
    map_new_anon_folio(s, vmf, folio)
    return 0


def map_new_anon_folio(s: System, vmf: VmFault, folio: Folio, old: Folio | None = None) -> bool:
    """Map a new exclusive folio writable and dirty, instead of ``old``; its reference becomes the mapping's.

    False if the PTE has changed since the fault began: then the folio is freed.
    """
    with vmf.mm.ptl:
        if vmf.table[vmf.index] != vmf.pte:
            folio_put(s, folio)
            return False
        if old is not None:
            unmap_copy_source(s, vmf, old)
        folio_add_anon_rmap(s, folio, vmf.vma, vmf.addr, exclusive=True)
        vmf.mm.anonpages += 1
        vmf.table[vmf.index] = mk_pte(folio.pfn, PTE_WRITE | PTE_DIRTY | PTE_YOUNG)
    folio_add_lru(s, folio)
    return True


def unmap_copy_source(s: System, vmf: VmFault, old: Folio) -> None:
    """The PTE will map a copy: it does not map ``old`` any more (page-table lock held)."""
    folio_remove_rmap(s, old, vmf.addr - old.index)
    vmf.mm.anonpages -= 1
    old.refcount -= 1


def do_swap_page(s: System, vmf: VmFault) -> int:
    """The page is swapped out: bring it back and map it.  SIGBUS if its content was lost (a poison marker)."""
    entry = pte_to_swp_entry(vmf.pte)
    pinned, si = tryget_swap_entry(s, entry)
    if not pinned:
        return 0 if is_swap_pte(vmf.pte) else VM_FAULT_SIGBUS
    folio = swap_cache_get_folio(s, entry)
    if folio is not None:
        swap_update_readahead(s, folio, vmf.vma, vmf.addr)
        ret = map_swapped_in(s, vmf, entry, folio, bypass=False)
    else:
        ret = do_swap_page_major(s, vmf, si, entry)
    put_swap_entry(s, entry, si)
    return ret


def do_swap_page_major(s: System, vmf: VmFault, si: SwapInfo | None, entry: SwpEntry) -> int:
    """Not in the cache: a synchronous device and a single user bypass it, everything else reads ahead."""
    bypass = si is not None and si.flags & SWP_SYNCHRONOUS_IO != 0 and __swap_count(s, entry) == 1
    if bypass:
        folio, err = swapin_bypass(s, vmf, entry)
        if err == -EEXIST:
            return 0
    else:
        folio = swapin_readahead(s, entry, vmf.vma, vmf.addr)
    if folio is None:
        with vmf.mm.ptl:
            return VM_FAULT_OOM if vmf.table[vmf.index] == vmf.pte else 0
    s.vmstat.pgmajfault += 1
    vmf.mm.memcg.stat.pgmajfault += 1
    return VM_FAULT_MAJOR | map_swapped_in(s, vmf, entry, folio, bypass)


def alloc_swap_folio(s: System, vmf: VmFault, entry: SwpEntry) -> Folio | None:
    """A charged folio for a swap-in without the cache: large if the whole block can come back, else one page."""
    folio = alloc_large_swap_folio(s, vmf.vma, vmf.addr, vmf.table) if s.thp.on else None
    if folio is None:
        folio = folio_alloc(s)
        if folio is not None and mem_cgroup_swapin_charge_folio(s, folio, vmf.mm.memcg, entry):
            folio_put(s, folio)
            return None
    return folio


def swapin_bypass(s: System, vmf: VmFault, entry: SwpEntry) -> tuple[Folio | None, int]:
    """Read a folio without the swap cache.

    Only the slots' pins are taken: they keep everybody else from swapping the entry in, and so from freeing and
    reusing the slot meanwhile.  Returns the locked folio, or None with -ENOMEM or -EEXIST.
    """
    folio = alloc_swap_folio(s, vmf, entry)
    if folio is None:
        return None, -ENOMEM
    nr = folio.nr_pages
    if folio.order:
        entry = swp_entry_align(entry, nr)
    folio_lock(folio)
    folio.swapbacked = True
    if swapcache_prepare_bypass(s, entry, nr):
        folio_unlock(folio)
        folio_put(s, folio)
        return None, -EEXIST
    memcg1_swapin(s, entry, nr)
    shadow = swap_cache_get_shadow(s, entry)
    if shadow is not None:
        workingset_refault(s, folio, shadow)
    folio_add_lru(s, folio)
    folio.swap = entry
    swap_read_folio(s, folio)
    folio.swap = NO_ENTRY
    return folio, 0


def map_swapped_in(s: System, vmf: VmFault, entry: SwpEntry, folio: Folio, bypass: bool) -> int:
    """Map a folio that has come back, if everything is still as it was when the fault began."""
    folio_lock(folio)
    ret = 0
    pending_write = False
    if bypass or folio_matches_swap_entry(folio, entry):
        if not folio.uptodate:
            ret = VM_FAULT_SIGBUS
        else:
            pending_write = map_unchanged(s, vmf, entry, folio, bypass)
    folio_unlock(folio)
    if bypass:
        nr = folio.nr_pages
        swapcache_clear(s, swp_entry_align(entry, nr) if nr > 1 else entry, nr)
    folio_put(s, folio)
    return ret | do_wp_page(s, vmf) if pending_write else ret


def map_unchanged(s: System, vmf: VmFault, entry: SwpEntry, folio: Folio, bypass: bool) -> bool:
    """Map a locked folio if the PTE is as it was when the fault began.  True if a write has to break sharing yet."""
    with vmf.mm.ptl:
        if vmf.table[vmf.index] != vmf.pte:
            return False
        map_locked = map_large_swap_folio if folio.order else map_swap_folio
        mapped = map_locked(s, vmf, entry, folio, bypass)
        folio.refcount += mapped
        vmf.pte = Pte(vmf.table[vmf.index])
    return vmf.write and mapped > 0 and not vmf.pte & PTE_WRITE


def map_swap_folio(s: System, vmf: VmFault, entry: SwpEntry, folio: Folio, bypass: bool) -> int:
    """Give the slot's reference of this PTE back and write a present PTE (page-table lock held).  Returns 1."""
    exclusive = bypass or bool(vmf.pte & PTE_SWP_EXCLUSIVE)
    exclusive = exclusive and not written_to_stable_device(s, folio, entry)
    swap_free_nr(s, entry, 1)
    if should_try_to_free_swap(s, folio, vmf):
        folio_free_swap(s, folio)
    flags = PTE_YOUNG | vmf.pte & PTE_SWP_CARRIED
    if exclusive or folio.refcount == 1:
        exclusive = True
        flags |= PTE_WRITE | PTE_DIRTY if vmf.write else PTE_WRITE
    vmf.mm.anonpages += 1
    vmf.mm.swapents -= 1
    folio_add_anon_rmap(s, folio, vmf.vma, vmf.addr, exclusive)
    vmf.table[vmf.index] = mk_pte(folio.pfn, flags)
    return 1


def swapin_batch(s: System, vmf: VmFault, folio: Folio, entry: SwpEntry, bypass: bool) -> tuple[int, int]:
    """Which PTEs a large folio that came back maps: (page of the folio, number).  Number 0: give up.

    All of them, if they are one batch; one by one, if the folio's slots cannot be taken as one thing.
    """
    nr = folio.nr_pages
    page = swp_entry_page(entry, nr)
    first, index = vmf.addr - page, vmf.index - page
    inside = vmf.vma.start <= first and first + nr <= vmf.vma.end and 0 <= index <= len(vmf.table) - nr
    run = inside and vmf.table[index] == pte_move_swp_offset(vmf.pte, -page)
    if run and swap_pte_batch(s, vmf.table, index, nr, free_batch=False) == nr:
        return 0, nr
    return page, 0 if bypass else 1


def map_large_swap_folio(s: System, vmf: VmFault, entry: SwpEntry, folio: Folio, bypass: bool) -> int:
    """map_swap_folio for a large folio: all its pages, or one.  Returns PTEs mapped; 0: they have changed."""
    page, nr = swapin_batch(s, vmf, folio, entry, bypass)
    if not nr:
        return 0
    back = swp_entry_page(entry, folio.nr_pages) - page
    exclusive = bypass or bool(vmf.pte & PTE_SWP_EXCLUSIVE)
    exclusive = exclusive and not written_to_stable_device(s, folio, entry)
    swap_free_nr(s, swap_nth(entry, -back), nr)
    if should_try_to_free_swap(s, folio, vmf):
        folio_free_swap(s, folio)
    exclusive = exclusive or folio.refcount == 1
    flags = PTE_YOUNG | vmf.pte & PTE_SWP_CARRIED
    if exclusive:
        flags |= PTE_WRITE | PTE_DIRTY if vmf.write else PTE_WRITE
    vmf.mm.anonpages += nr
    vmf.mm.swapents -= nr
    folio_add_anon_rmap(s, folio, vmf.vma, vmf.addr - back, exclusive, nr)
    pfn, index = folio.pfn + page, vmf.index - back
    vmf.table[index : index + nr] = [mk_pte(pfn + i, flags) for i in range(nr)]
    return nr


def should_try_to_free_swap(s: System, folio: Folio, vmf: VmFault) -> bool:
    """A cached folio should give up its slots: swap is scarce, the memory is locked, or it is about to be written.

    Or it is not on a device: then the slots would save no write later.
    """
    if not folio.swapcache:
        return False
    nr = folio.nr_pages
    if mem_cgroup_swap_full(s, folio) or vmf.vma.locked or not vswap_swapfile_backed(s, folio.swap, nr):
        return True
    return vmf.write and folio.refcount == 1 + nr


def do_wp_page(s: System, vmf: VmFault) -> int:
    """Write to a page that is mapped read-only: take it over if nobody else has it, else copy."""
    if pte_pfn(vmf.pte) == ZERO_PFN:
        if s.thp.on and do_huge_zero_wp_pmd(s, vmf.vma, vmf.addr, vmf.table):
            return 0
        return wp_page_copy(s, vmf, None)
    with vmf.mm.ptl:
        if vmf.table[vmf.index] != vmf.pte:
            return 0
        folio = s.memory.mem_map[pte_pfn(vmf.pte)]
        assert folio is not None
        bit = 1 << (vmf.addr - folio.index)
        if folio.exclusive & bit or wp_can_reuse_anon_folio(s, folio, vmf.mm):
            folio.exclusive |= bit
            vmf.table[vmf.index] |= PTE_WRITE | PTE_DIRTY | PTE_YOUNG
            s.vmstat.pgreuse += 1
            return 0
        folio.refcount += 1
    return wp_page_copy(s, vmf, folio)


def wp_can_reuse_anon_folio(s: System, folio: Folio, mm: Mm) -> bool:
    """Nobody but this mapping (and the swap cache, which is asked to let go) has a reference."""
    if folio.order:
        return wp_can_reuse_large_anon_folio(s, folio, mm)
    if folio.refcount > 1 + folio.swapcache:
        return False
    if not folio_trylock(folio):
        return False
    if folio.swapcache:
        folio_free_swap(s, folio)
    alone = folio.refcount == 1
    folio_unlock(folio)
    return alone


def wp_can_reuse_large_anon_folio(s: System, folio: Folio, mm: Mm) -> bool:
    """Nobody but this process maps a page of the large folio, and nobody else has a reference."""
    if folio.mapcount <= 1 or folio_maybe_mapped_shared(folio, mm):
        return False
    if folio.swapcache:
        if not folio_trylock(folio):
            return False
        folio_free_swap(s, folio)
        folio_unlock(folio)
    return folio.mapcount == folio.refcount


def wp_page_copy(s: System, vmf: VmFault, old: Folio | None) -> int:
    """Map a private copy of a shared folio (None: of the zero page), whose reference is the caller's gift."""
    new = new_anon_folio(s, vmf.mm)
    if new is not None:
        if old is not None:
            page = vmf.addr - old.index
            new.data[:] = old.data[page * len(new.data) : (page + 1) * len(new.data)]
        if map_new_anon_folio(s, vmf, new, old) and old is not None:
            free_swap_cache(s, old)
    unpin_copy_source(s, old)
    return 0 if new is not None else VM_FAULT_OOM


def unpin_copy_source(s: System, old: Folio | None) -> None:
    """Drop the reference that kept the source of a copy in place."""
    if old is not None:
        folio_put(s, old)


def pte_folio(s: System, pte: int) -> Folio | None:
    """The folio of a present PTE; None for the shared zero page."""
    pfn = pte >> PTE_SHIFT
    return s.memory.mem_map[pfn] if pfn != ZERO_PFN else None


def do_fault(s: System, vmf: VmFault, inode: ShmemInode) -> int:
    """Map a page of a shared object (do_shared_fault, do_read_fault): writable, also for a read."""
    page = vmf.addr - vmf.vma.start
    if page >= inode.i_size:
        return VM_FAULT_SIGBUS
    folio, err = shmem_get_folio(s, inode, page, vmf.mm.memcg)
    if folio is None:
        return VM_FAULT_OOM if err == -ENOMEM else VM_FAULT_SIGBUS
    with vmf.mm.ptl:
        if vmf.table[vmf.index] == vmf.pte:
            folio_add_file_rmap(s, folio)
            folio.refcount += 1
            vmf.mm.shmempages += 1
            vmf.table[vmf.index] = mk_pte(folio.pfn, PTE_WRITE | PTE_YOUNG | (PTE_DIRTY if vmf.write else 0))
    folio_unlock(folio)
    folio_put(s, folio)
    return 0


def swapcache_prepare_bypass(s: System, entry: SwpEntry, nr: int) -> int:
    """Pin slots that are to be read past the swap cache, if that is still possible.  Returns 0, -EEXIST or -ENOENT."""
    err = swapcache_prepare(s, entry, nr)
    if not err and not vswap_can_swapin_thp(s, entry, nr):
        swapcache_clear(s, entry, nr)
        return -EEXIST
    return err


def written_to_stable_device(s: System, folio: Folio, entry: SwpEntry) -> bool:
    """The locked folio is being written, and its device must not see it change: it is not for one process alone yet."""
    si = vswap_get_device(s, entry) if folio.writeback else None
    if si is None:
        return False
    stable = bool(si.flags & SWP_STABLE_WRITES)
    swap_slot_put_swap_info(si)
    return stable
