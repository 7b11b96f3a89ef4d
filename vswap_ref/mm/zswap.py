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
from .vswap.backing import vswap_prepare_writeout, vswap_store_folio, zswap_entry_store
from .vswap.zswap_index import zswap_entry_load
from .zswap_pool import (
    zswap_check_limits,
    zswap_compress,
    zswap_decompress,
    zswap_entry_alloc,
    zswap_entry_cache_alloc,
    zswap_lru_add,
    zswap_never_enabled,
)
from .zswap_writeback import shrink_memcg


def zswap_store(s: System, folio: Folio) -> bool:
    """Store a locked, cached folio compressed, all pages or none.

    If it fails in the middle, the folio itself is all that is behind its slots afterwards.
    """
    if not s.zswap.enabled:
        return False
    nr = folio.nr_pages
    stored = zswap_store_pages(s, folio, nr) if zswap_may_store(s, folio) else 0
    if stored == nr:
        s.vmstat.zswpout += nr
        if folio.memcg is not None:
            folio.memcg.stat.zswpout += nr
        return True
    if s.zswap.reached_full:
        s.zswap.shrink_queued = True
    if stored:
        vswap_prepare_writeout(s, folio.swap, folio)
    return False


def zswap_may_store(s: System, folio: Folio) -> bool:
    """The cgroup is below its limit (one try to make room), the pool is not full."""
    memcg = folio.memcg
    if memcg is not None and not obj_cgroup_may_zswap(memcg) and shrink_memcg(s, memcg):
        return False
    return not zswap_check_limits(s) and s.zswap.pool is not None


def zswap_store_pages(s: System, folio: Folio, nr: int) -> int:
    """Store page by page; stops at the first failure.  Returns how many are stored."""
    pool = s.zswap.pool
    assert pool is not None
    for i in range(nr):
        data = bytes(folio.data[i * PAGE_SIZE : (i + 1) * PAGE_SIZE])
        if not zswap_store_page(s, swap_nth(folio.swap, i), data, folio.memcg, pool):
            return i
    return nr


def zswap_store_page(s: System, swpentry: SwpEntry, data: bytes, memcg: Memcg | None, pool: ZswapPool) -> bool:
    """Compress a page; it takes the place of whatever was behind its slot.

    It can be found from then on, and is charged and counted afterwards: the folio's lock keeps others away.
    """
    if not zswap_entry_cache_alloc(s):
        return False
    packed = zswap_compress(s, data, memcg, pool)
    if packed is None:
        return False
    entry = zswap_entry_alloc(s, swpentry, packed, memcg)
    zswap_entry_store(s, swpentry, entry)
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
    s.vmstat.zswpin += 1
    if entry.memcg is not None:
        entry.memcg.stat.zswpin += 1
    return True


def zswap_load(s: System, folio: Folio) -> int:
    """Fill a locked folio from zswap.  Returns 0, -EIO, -EINVAL (both unlocked) or -ENOENT (still locked).

    If the folio is in the swap cache it is the only copy then, and dirty.
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
        vswap_store_folio(s, folio.swap, folio)
    folio_unlock(folio)
    return 0
