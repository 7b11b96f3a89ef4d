# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Compressed pages: the pool, its limits, the list that ages an entry.

Kernel homes: mm/zswap.c, mm/zsmalloc.c.  Objects are kept at their compressed size; the pool counts each as rounded
up to 16 bytes.
"""

from __future__ import annotations

import numpy as np

from vswap_ref.machine import PAGE_SIZE, ZSWAP_DEBUGFS, Faults, Tally

from .memcg import charge_zswap_bytes, mem_cgroup_zswap_writeback_enabled, obj_cgroup_uncharge_zswap, online_ancestor
from .state import Memcg, System, ZswapEntry, ZswapPool, ZswapState
from .types import SwpEntry
from .zswap_pools import zswap_compressor_param_set, zswap_pool_destroy

ZSMALLOC_GRANULE = 16


def zswap_total_pages(s: System) -> int:
    """Pages that the compressed pools occupy."""
    return -(-s.zswap.pool_bytes // PAGE_SIZE)


def zswap_max_pages(s: System) -> int:
    """The pool's limit, from max_pool_percent of RAM (pages)."""
    return s.memory.ram_pages * s.zswap.max_pool_percent // 100


def zswap_accept_thr_pages(s: System) -> int:
    """After the limit was hit nothing is accepted until the pool is down to this (pages)."""
    return zswap_max_pages(s) * s.zswap.accept_threshold_percent // 100


ZSWAP_FAULT_SITES = {
    "zs_malloc": "an object in the compressed pool",
    "zswap_entry_cache_alloc": "a zswap entry",
}


def zswap_boot(faults: Faults) -> ZswapState:
    """zswap at boot, still off: its counters, and its allocations that can be made to fail."""
    for site, doc in ZSWAP_FAULT_SITES.items():
        faults.declare(site, doc)
    return ZswapState(Tally(ZSWAP_DEBUGFS))


def zswap_check_limits(s: System) -> bool:
    """True if the pool is full; sticky until it is down to the accept threshold."""
    z = s.zswap
    total = zswap_total_pages(s)
    if total >= zswap_max_pages(s):
        z.debugfs.pool_limit_hit += 1
        z.reached_full = True
    elif z.reached_full and total <= zswap_accept_thr_pages(s):
        z.reached_full = False
    return z.reached_full


def zswap_enable(s: System, compressor: str) -> None:
    """Turn zswap on with a compressor: new pages go to its pool, old entries stay in theirs."""
    zswap_compressor_param_set(s, compressor)
    s.zswap.enabled = True
    s.zswap.ever_enabled = True


def zswap_never_enabled(s: System) -> bool:
    """True until zswap is enabled for the first time; large swap-in depends on it."""
    return not s.zswap.ever_enabled


def zs_object_size(length: int) -> int:
    """Bytes that an object of ``length`` bytes takes in the pool."""
    return -(-length // ZSMALLOC_GRANULE) * ZSMALLOC_GRANULE


def zswap_compress(s: System, data: bytes, memcg: Memcg | None, pool: ZswapPool) -> bytes | None:
    """Compress a page; None if it is rejected.

    A page that does not get smaller, or whose compressor fails, is kept as it is, so that it stays in LRU order for
    writeback; if writeback is disabled for its cgroup it is rejected instead.
    """
    debugfs = s.zswap.debugfs
    reason = "reject_compress_poor"
    try:
        packed = pool.codec.compress(data)
    except ValueError:
        packed, reason = data, "reject_compress_fail"
    if len(packed) >= PAGE_SIZE:
        if not mem_cgroup_zswap_writeback_enabled(s, memcg):
            debugfs[reason] += 1
            return None
        packed = data
    if s.faults.should_fail("zs_malloc"):
        debugfs.reject_alloc_fail += 1
        return None
    return packed


def zswap_decompress(s: System, entry: ZswapEntry) -> bytes | None:
    """The page's content, or None if the object does not decompress."""
    if entry.length == PAGE_SIZE:
        return entry.object
    try:
        return entry.pool.codec.decompress(entry.object)
    except ValueError:
        s.zswap.debugfs.decompress_fail += 1
        return None


def zswap_lru_add(s: System, entry: ZswapEntry) -> None:
    """Put an entry at the tail of its cgroup's list; from here on writeback can find it."""
    (entry.memcg or s.memcg.root).zswap_lru[entry] = None


def zswap_lru_del(s: System, entry: ZswapEntry) -> None:
    """Take an entry off its list; one that is on none is left alone, as list_lru_del does."""
    (entry.memcg or s.memcg.root).zswap_lru.pop(entry, None)


def zswap_entry_cache_alloc(s: System) -> bool:
    """Memory for an entry, before the page is compressed; False, and counted, if there is none."""
    if s.faults.should_fail("zswap_entry_cache_alloc"):
        s.zswap.debugfs.reject_kmemcache_fail += 1
        return False
    return True


def zswap_entry_alloc(s: System, entry: SwpEntry, packed: bytes, memcg: Memcg | None) -> ZswapEntry:
    """A new entry owning a pool object.  A deleted cgroup's pages belong to its heir."""
    pool = s.zswap.pool
    assert pool is not None
    size = zs_object_size(len(packed))
    pool.bytes += size
    s.zswap.pool_bytes += size
    owner = memcg if memcg is None or memcg.online else online_ancestor(memcg)
    return ZswapEntry(entry, len(packed), pool, packed, owner)


def zs_free(s: System, entry: ZswapEntry) -> None:
    """Give the entry's object back to its pool."""
    size = zs_object_size(entry.length)
    entry.pool.bytes -= size
    s.zswap.pool_bytes -= size
    if not entry.pool.bytes and entry.pool is not s.zswap.pool:
        zswap_pool_destroy(s, entry.pool)


def zswap_entry_free(s: System, entry: ZswapEntry) -> None:
    """Free a stored entry: list, object, charge, counters."""
    s.cost.zswap_entry_free += 1
    zswap_lru_del(s, entry)
    zs_free(s, entry)
    obj_cgroup_uncharge_zswap(s, entry)
    s.zswap.stored_pages -= 1
    if entry.length == PAGE_SIZE:
        s.zswap.stored_incompressible -= 1


def zswap_entries_free(s: System, entries: list[ZswapEntry]) -> None:
    """zswap_entry_free for many: at once if they are of one cgroup and one pool."""
    memcg, pool = entries[0].memcg, entries[0].pool
    if [entry for entry in entries if entry.memcg is not memcg or entry.pool is not pool]:
        for entry in entries:
            zswap_entry_free(s, entry)
        return
    s.cost.zswap_entry_free += len(entries)
    remove = (memcg or s.memcg.root).zswap_lru.pop
    for entry in entries:
        remove(entry, None)
    lengths = np.fromiter([entry.length for entry in entries], int, len(entries))
    size = int(((lengths + ZSMALLOC_GRANULE - 1) // ZSMALLOC_GRANULE).sum()) * ZSMALLOC_GRANULE
    pool.bytes -= size
    s.zswap.pool_bytes -= size
    if not pool.bytes and pool is not s.zswap.pool:
        zswap_pool_destroy(s, pool)
    if memcg is not None and not s.memcg.memsw:
        memcg.stat.zswapped -= len(entries)
        charge_zswap_bytes(memcg, -int(lengths.sum()))
    s.zswap.stored_pages -= len(entries)
    s.zswap.stored_incompressible -= int((lengths == PAGE_SIZE).sum())
