# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Folios: allocation, references, the folio lock.

Kernel homes: mm/page_alloc.c, include/linux/mm.h, mm/filemap.c (lock and writeback bits).
"""

from __future__ import annotations

from vswap_ref.machine import PAGE_SIZE, wait_until

from .lru import lruvec_del_folio
from .memcg import mem_cgroup_uncharge
from .split_queue import folio_unqueue_deferred_split
from .state import Folio, Memory, System
from .types import PF_MEMALLOC, SWAP_NR_ORDERS
from .zswap_pool import zswap_total_pages


def setup_per_zone_wmarks(memory: Memory) -> None:
    """Watermarks from the size of memory: min 1/256 of it, low and high 1/4 and 1/2 above (pages)."""
    memory.min_wmark = max(4, memory.ram_pages // 256)
    memory.low_wmark = memory.min_wmark * 5 // 4
    memory.high_wmark = memory.min_wmark * 3 // 2


def nr_free_pages(s: System) -> int:
    """Free page frames; page tables and the kernel's own structures are not counted."""
    return s.memory.ram_pages - s.memory.used - zswap_total_pages(s)


def folio_alloc(s: System, order: int = 0, reclaim: bool = True) -> Folio | None:
    """An uncharged folio with one reference and undefined content, or None.

    Below the low watermark it reclaims first, if ``reclaim``.  A task inside reclaim uses the reserve below it instead.
    """
    if s.faults.should_fail("folio_alloc"):
        return None
    nr = 1 << order
    left = nr_free_pages(s) - nr
    if reclaim and left < s.memory.low_wmark and not s.task_flags & PF_MEMALLOC:
        left = s.hooks.try_to_free_pages(s, nr) - nr
        if left < s.memory.min_wmark:
            return None
    return prep_new_folio(s, order) if left >= 0 else None


def new_frames(memory: Memory, nr: int) -> tuple[int, bytearray]:
    """Page frames that were never used: (number of the first, their content)."""
    pfn = len(memory.mem_map)
    memory.mem_map += [None] * nr
    return pfn, bytearray(nr * PAGE_SIZE)


def set_mem_map(memory: Memory, pfn: int, nr: int, folio: Folio | None) -> None:
    """Say what ``nr`` page frames belong to."""
    memory.mem_map[pfn : pfn + nr] = [folio] * nr


def prep_new_folio(s: System, order: int) -> Folio:
    """Take page frames off the free list and make a folio of them; the last owner's content is still there."""
    memory = s.memory
    nr = 1 << order
    memory.used += nr
    free = memory.free_frames[order]
    pfn, data = free.pop() if free else expand(memory, order)
    memory.mem_map[pfn] = folio = Folio(pfn, order, data)
    if order:
        folio.nr_pages = nr
        folio.mapcounts = [0] * nr
        set_mem_map(memory, pfn, nr, folio)
    s.vmstat.pgalloc_normal += nr
    return folio


def expand(memory: Memory, order: int) -> tuple[int, bytearray]:
    """Free frames of an order that is out of them: (first frame, content), from a larger block, or else new ones."""
    nr = 1 << order
    for larger in range(order + 1, SWAP_NR_ORDERS):
        if memory.free_frames[larger]:
            pfn, data = memory.free_frames[larger].pop()
            pieces = [(pfn + i, data[i * PAGE_SIZE : (i + nr) * PAGE_SIZE]) for i in range(0, 1 << larger, nr)]
            memory.free_frames[order] += reversed(pieces[1:])
            return pieces[0]
    if order:
        del memory.free_frames[0][-nr:]
    return new_frames(memory, nr)


def folio_zero_user(folio: Folio) -> None:
    """Clear a folio before a program sees it."""
    folio.data[:] = bytes(len(folio.data))


def folio_try_get(folio: Folio) -> bool:
    """Take a reference unless the folio is being freed or frozen."""
    if folio.refcount <= 0:
        return False
    folio.refcount += 1
    return True


def folio_put(s: System, folio: Folio, nr: int = 1) -> None:
    """Drop references; the last one frees the folio."""
    folio.refcount -= nr
    if folio.refcount == 0:
        folio_free(s, folio)


def folio_free(s: System, folio: Folio) -> None:
    """Return a folio without references to the free list."""
    assert not folio.swapcache
    assert folio.mapcount == folio.refcount == 0
    if folio.lru:
        lruvec_del_folio(s, folio)
    if folio.order:
        folio_unqueue_deferred_split(s, folio)
    mem_cgroup_uncharge(s, folio)
    memory = s.memory
    nr = folio.nr_pages
    memory.used -= nr
    memory.mem_map[folio.pfn] = None
    if folio.order:
        set_mem_map(memory, folio.pfn, nr, None)
    memory.free_frames[folio.order].append((folio.pfn, folio.data))
    s.vmstat.pgfree += nr


def folio_ref_freeze(folio: Folio, expected: int) -> bool:
    """Take all references at once if exactly ``expected`` exist: no lookup can get one any more."""
    if folio.refcount != expected:
        return False
    folio.refcount = 0
    return True


def folio_ref_unfreeze(folio: Folio, count: int) -> None:
    """Give a frozen folio its references back."""
    folio.refcount = count


def folio_lock(folio: Folio) -> None:
    """Lock a folio; sleeps while another task has it.  Without other tasks, a locked folio is a leaked lock."""
    if folio.locked:
        __folio_lock(folio)
    folio.locked = True


def __folio_lock(folio: Folio) -> None:
    """Sleep until the task that has the folio unlocks it."""
    wait_until(lambda: not folio.locked, "a folio lock")


def folio_trylock(folio: Folio) -> bool:
    """Lock a folio if it is free."""
    if folio.locked:
        return False
    folio.locked = True
    return True


def folio_unlock(folio: Folio) -> None:
    """Unlock a folio."""
    folio.locked = False


def folio_mark_dirty(folio: Folio) -> None:
    """The only good copy of the content is in memory."""
    folio.dirty = True
