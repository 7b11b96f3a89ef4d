# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The lock of the swap cache's tree, and what may be done to the tree from below the swap map.

Kernel home: mm/swap_state.c.  Freeing a slot clears its shadow, so this stands below the swap map.  The lock nests
inside a cluster's lock, never the other way round.
"""

from __future__ import annotations

from .state import System
from .types import SwpEntry


def swap_cache_lock(s: System) -> None:
    """Lock the swap cache, all of it."""
    s.swap.cache.xa_lock.acquire()
    s.cost["swap_cache_lock"] += 1


def swap_cache_unlock(s: System) -> None:
    """Unlock the swap cache."""
    s.swap.cache.xa_lock.release()


def swap_cache_lock_irq(s: System) -> None:
    """Lock the swap cache with interrupts off."""
    s.locks.irqs_off.__enter__()
    swap_cache_lock(s)


def swap_cache_unlock_irq(s: System) -> None:
    """Unlock the swap cache and let interrupts in."""
    swap_cache_unlock(s)
    s.locks.irqs_off.__exit__(None, None, None)


def swap_cache_clear_shadow(s: System, entry: SwpEntry, nr: int) -> None:
    """Forget the shadows of slots that are being freed (their cluster is locked)."""
    swap_cache_lock(s)
    if nr == 1:
        s.swap.cache.xa.erase(entry)
    else:
        s.swap.cache.xa.store_range(entry, nr, None)
    swap_cache_unlock(s)
