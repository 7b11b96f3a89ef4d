# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""zswap: storing folios compressed, and loading them back.

Kernel home: mm/zswap.c (zswap_store, zswap_load).
"""

from __future__ import annotations

from errno import EINVAL, EIO, ENOENT

from vswap_ref.machine import PAGE_SIZE

from .folio import folio_mark_dirty, folio_unlock
from .memcg import obj_cgroup_charge_zswap, obj_cgroup_may_zswap
from .state import Folio, Memcg, System, ZswapEntry, ZswapPool
from .types import SwpEntry, swap_nth
from .vswap.zswap_index import zswap_entry_erase, zswap_entry_load, zswap_entry_store
from .zswap_pool import (
    zswap_check_limits,
    zswap_compress,
    zswap_decompress,
    zswap_entry_alloc,
    zswap_entry_free,
    zswap_lru_add,
    zswap_never_enabled,
)
from .zswap_writeback import shrink_memcg


def zswap_store(s: System, folio: Folio) -> bool:
    """Store a locked, cached folio compressed, all pages or none.

    If that fails, older compressed copies of its slots are dropped too: they are obsolete.
    """
    nr = 1 << folio.order
    if s.zswap.enabled and zswap_may_store(s, folio) and zswap_store_pages(s, folio, nr):
        s.vmstat["zswpout"] += nr
        if folio.memcg is not None:
            folio.memcg.stat["zswpout"] += nr
        return True
    if s.zswap.enabled and s.zswap.reached_full:
        s.zswap.shrink_queued = True
    zswap_erase_folio(s, folio.swap, nr)
    return False


def zswap_erase_folio(s: System, swpentry: SwpEntry, nr: int) -> None:
    """Free what zswap has of ``nr`` slots; their tree is locked for each, whether there is anything or not."""
    for i in range(nr):
        old = zswap_entry_erase(s, swap_nth(swpentry, i))
        if old is not None:
            zswap_entry_free(s, old)


def zswap_may_store(s: System, folio: Folio) -> bool:
    """The cgroup is below its limit (one try to make room), the pool is not full."""
    memcg = folio.memcg
    if memcg is not None and not obj_cgroup_may_zswap(memcg) and shrink_memcg(s, memcg):
        return False
    return not zswap_check_limits(s) and s.zswap.pool is not None


def zswap_store_pages(s: System, folio: Folio, nr: int) -> bool:
    """Store page by page; stops at the first failure."""
    pool = s.zswap.pool
    assert pool is not None
    for i in range(nr):
        data = bytes(folio.data[i * PAGE_SIZE : (i + 1) * PAGE_SIZE])
        if not zswap_store_page(s, swap_nth(folio.swap, i), data, folio.memcg, pool):
            return False
    return True


def zswap_store_page(s: System, swpentry: SwpEntry, data: bytes, memcg: Memcg | None, pool: ZswapPool) -> bool:
    """Compress a page and enter it in place of an older copy.

    It can be found from then on, and is charged and counted afterwards: the folio's lock keeps others away.
    """
    packed = zswap_compress(s, data, memcg, pool)
    if packed is None:
        return False
    entry = zswap_entry_alloc(s, swpentry, packed, memcg)
    if entry is None:
        return False
    old = zswap_entry_store(s, swpentry, entry)
    if old is not None:
        zswap_entry_free(s, old)
    zswap_publish(s, entry)
    return True


def zswap_publish(s: System, entry: ZswapEntry) -> None:
    """Charge and count a stored entry; putting it on the LRU comes last: only then can writeback find it."""
    obj_cgroup_charge_zswap(s, entry)
    s.zswap.stored_pages += 1
    if entry.length == PAGE_SIZE:
        s.zswap.stored_incompressible += 1
    zswap_lru_add(s, entry)


def zswap_fill(s: System, folio: Folio, entry: ZswapEntry) -> bool:
    """Decompress an entry into a folio, and count it; False if it does not decompress."""
    data = zswap_decompress(s, entry)
    if data is None:
        return False
    folio.data[:] = data
    folio.uptodate = True
    s.vmstat["zswpin"] += 1
    if entry.memcg is not None:
        entry.memcg.stat["zswpin"] += 1
    return True


def zswap_load(s: System, folio: Folio) -> int:
    """Fill a locked folio from zswap.  Returns 0, -EIO, -EINVAL (both unlocked) or -ENOENT (still locked).

    If the folio is in the swap cache the compressed copy is dropped and the folio is dirty: memory has the only copy.
    """
    if zswap_never_enabled(s):
        return -ENOENT
    if folio.order:
        folio_unlock(folio)
        return -EINVAL
    entry = zswap_entry_load(s, folio.swap)
    if entry is None:
        return -ENOENT
    if not zswap_fill(s, folio, entry):
        folio_unlock(folio)
        return -EIO
    if folio.swapcache:
        folio_mark_dirty(folio)
        zswap_entry_erase(s, folio.swap)
        zswap_entry_free(s, entry)
    folio_unlock(folio)
    return 0
