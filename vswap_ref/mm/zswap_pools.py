# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""zswap's pools: the first takes new pages, the others die with their last entry.

Kernel home: mm/zswap.c (zswap_compressor_param_set, zswap_pool_create, __zswap_pool_empty).
"""

from __future__ import annotations

from vswap_ref.machine import get_codec

from .state import System, ZswapPool


def zswap_compressor_param_set(s: System, compressor: str) -> None:
    """Choose the compressor of new pages.  ValueError for an unknown one."""
    z, old = s.zswap, s.zswap.pool
    pool = next((known for known in z.pools if known.codec.name == compressor), None)
    if pool is None:
        pool = ZswapPool(get_codec(compressor))
    else:
        z.pools.remove(pool)
    z.pools.insert(0, pool)
    z.pool = pool
    if old is not None and old is not pool and not old.bytes:
        zswap_pool_destroy(s, old)


def zswap_pool_destroy(s: System, pool: ZswapPool) -> None:
    """An old pool has lost its last entry."""
    assert not pool.bytes
    s.zswap.pools.remove(pool)
