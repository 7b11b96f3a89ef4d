# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""What a processor does on every access: translate, fault if it must, set the young and dirty bits."""

from __future__ import annotations

from errno import EIO

from vswap_ref.machine import PAGE_SIZE, relax

from .fault import handle_mm_fault
from .memcg import memcg_event
from .memcg_limits import mem_cgroup_handle_over_high
from .pagetable import PTE_TABLE_MASK, PTE_TABLE_SHIFT, ptep_get
from .reclaim import run_deferred_work
from .state import Folio, Mm, ShmemInode, System
from .types import (
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_SHIFT,
    PTE_WRITE,
    PTE_YOUNG,
    SWAP_PTE_END,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
    VSWAP_ZERO,
    VSWAP_ZSWAP,
    SwpEntry,
    is_poisoned_swp_entry,
    is_swap_pte,
    pte_to_swp_entry,
    radix_to_swp_entry,
)
from .vswap.backing import vswap_peek_type
from .vswap.swap_cache import swap_cache_peek

MAX_FAULT_RETRIES = 8


class OutOfMemory(MemoryError):
    """No page could be freed for this access: the kernel would call the OOM killer.  Nothing is lost."""


def access_page(s: System, mm: Mm, addr: int, write: bool) -> tuple[bytearray, int]:
    """Access the page at page number ``addr``: (content of its folio, where the page begins in it).

    Raises OutOfMemory, or OSError(EIO) if the page cannot be read back.
    """
    need = PTE_PRESENT | PTE_WRITE if write else PTE_PRESENT
    tries = 0
    while tries < MAX_FAULT_RETRIES:
        table = mm.pgd.get(addr >> PTE_TABLE_SHIFT)
        if table is not None:
            index = addr & PTE_TABLE_MASK
            pte = table[index]
            if pte & need == need:
                table[index] = pte | (PTE_YOUNG | PTE_DIRTY if write else PTE_YOUNG)
                pfn = pte >> PTE_SHIFT
                folio = s.memory.mem_map[pfn]
                assert folio is not None
                return folio.data, (pfn - folio.pfn) * PAGE_SIZE
        fault(s, mm, addr, write)
        tries += 1
        if tries > 1 and relax("the fault"):
            tries = 1
    raise OutOfMemory(f"page {addr:#x} was reclaimed again before it could be used, {MAX_FAULT_RETRIES} times")


def fault(s: System, mm: Mm, addr: int, write: bool) -> None:
    """Take a page fault and turn its failure into an exception."""
    if s.io.inflight or s.zswap.shrink_queued:
        run_deferred_work(s)
    if s.memcg.nr_over_high:
        mem_cgroup_handle_over_high(s, mm.memcg)
    ret = handle_mm_fault(s, mm, addr, write)
    if ret & VM_FAULT_OOM:
        s.vmstat.oom_kill += 1
        memcg_event(mm.memcg, "oom_kill")
        raise OutOfMemory(
            f"no memory for page {addr:#x} of cgroup {mm.memcg.name or '/'!r}: memory and swap are at their limits"
        )
    if ret & VM_FAULT_SIGBUS:
        raise OSError(EIO, f"page {addr:#x} cannot be read back from swap")


def page_location(s: System, mm: Mm, addr: int) -> str:
    """Where a page's content is: unmapped, zeropage, resident, swapcache, zero, zswap, swapfile or lost."""
    pte = ptep_get(mm, addr)
    if not pte:
        return "unmapped"
    if pte >= SWAP_PTE_END:
        return "lost"
    if not is_swap_pte(pte):
        folio = s.memory.mem_map[pte >> PTE_SHIFT]
        assert folio is not None
        if pte >> PTE_SHIFT == 0:
            return "zeropage"
        return "swapcache" if folio.swapcache else "resident"
    return swap_location(s, pte_to_swp_entry(pte))


def swap_location(s: System, entry: SwpEntry) -> str:
    """Where the content of an entry is: swapcache, zero, zswap or swapfile."""
    if isinstance(swap_cache_peek(s, entry), Folio):
        return "swapcache"
    return {VSWAP_ZERO: "zero", VSWAP_ZSWAP: "zswap"}.get(vswap_peek_type(s, entry), "swapfile")


def shmem_page_location(s: System, inode: ShmemInode, index: int) -> str:
    """Where an object's page is: hole, resident, swapcache, zero, zswap, swapfile or lost."""
    entry = inode.i_pages.load(index)
    if entry is None:
        return "hole"
    if isinstance(entry, Folio):
        return "resident"
    swap = radix_to_swp_entry(entry)
    return "lost" if is_poisoned_swp_entry(swap) else swap_location(s, swap)
