# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Bringing a folio for an entry into the swap cache, without reading it.

Kernel home: mm/swap_state.c (__read_swap_cache_async).
"""

from __future__ import annotations

from errno import EAGAIN, EEXIST, ENOENT

from vswap_ref.machine import relax

from .folio import folio_alloc, folio_lock, folio_put, folio_unlock
from .lru import folio_add_lru
from .memcg import mem_cgroup_charge, memcg1_swapin
from .state import Folio, Memcg, System
from .types import SwpEntry
from .vswap.backing import vswap_folio_backed
from .vswap.cache_pin import put_swap_folio, swapcache_clear, swapcache_prepare
from .vswap.cgroup import lookup_swap_cgroup_id
from .vswap.lifecycle import swap_entry_swapped
from .vswap.swap_cache import swap_cache_add_folio, swap_cache_get_folio, swap_cache_peek
from .workingset import workingset_refault


def mem_cgroup_swapin_charge_folio(s: System, folio: Folio, memcg: Memcg, entry: SwpEntry) -> int:
    """Charge a folio that is swapped in to the cgroup recorded for its entry, or else to ``memcg``."""
    return mem_cgroup_charge(s, folio, mem_cgroup_of_entry(s, memcg, entry))


def mem_cgroup_of_entry(s: System, memcg: Memcg, entry: SwpEntry) -> Memcg:
    """The cgroup that is charged for an entry's page: the one recorded for it if it is online, or else ``memcg``."""
    if not s.memcg.enabled:
        return memcg
    s.cost.mem_cgroup_from_id += 1
    owner = s.memcg.by_id.get(lookup_swap_cgroup_id(s, entry))
    return owner if owner is not None and owner.online else memcg


def charge_and_add_folio(s: System, folio: Folio, memcg: Memcg, entry: SwpEntry) -> int:
    """Charge a new locked folio and put it in the swap cache.  Returns 0 or an errno; the cache flag is not touched."""
    err = mem_cgroup_swapin_charge_folio(s, folio, memcg, entry)
    if err:
        return err
    shadow = swap_cache_add_folio(s, folio, entry)
    memcg1_swapin(s, entry, 1)
    if shadow is not None:
        workingset_refault(s, folio, shadow)
    return 0


def claim_cache_flag(s: System, entry: SwpEntry, skip_if_exists: bool) -> int:
    """swapcache_prepare for one slot; if another task brings it in, sleep a tick, unless told not to.

    Returns 0, -ENOENT, -EAGAIN after the tick (look again), or -EEXIST: nobody is waited for, or nobody else runs.
    """
    err = swapcache_prepare(s, entry, 1)
    if err != -EEXIST or skip_if_exists:
        return err
    folio_is_there = isinstance(swap_cache_peek(s, entry), Folio)
    return -EAGAIN if folio_is_there or relax("the swap cache flag") else -EEXIST


def add_new_folio(s: System, folio: Folio, memcg: Memcg, entry: SwpEntry) -> bool:
    """Lock a new folio and put it in the swap cache and on the LRU.  False: no charge; it and the flag are given up."""
    folio_lock(folio)
    folio.swapbacked = True
    if charge_and_add_folio(s, folio, memcg, entry):
        put_swap_folio(s, folio, entry)
        folio_unlock(folio)
        folio_put(s, folio)
        return False
    folio_add_lru(s, folio)
    return True


def __read_swap_cache_async(
    s: System, entry: SwpEntry, memcg: Memcg, skip_if_exists: bool = False
) -> tuple[Folio | None, bool]:
    """A folio for the entry, in the swap cache: (folio with a reference, newly allocated?).

    A new folio is locked and not up to date; the caller must start the read, which unlocks it.  None: entry 0, nobody
    refers to the entry any more, another task is bringing it in, or memory is short.  The entry must be pinned.
    """
    if not entry:
        return None, False
    new = None
    while (folio := swap_cache_get_folio(s, entry)) is None:
        if not swap_entry_swapped(s, entry):
            break
        new = new or folio_alloc(s)
        if new is None:
            break
        err = swapcache_prepare_read(s, entry, skip_if_exists)
        if not err:
            added = add_new_folio(s, new, memcg, entry)
            return (new if added else None), added
        if err != -EAGAIN:
            break
    if new is not None:
        folio_put(s, new)
    return folio, False


def swapcache_prepare_read(s: System, entry: SwpEntry, skip_if_exists: bool) -> int:
    """Pin a slot that is to be read into the swap cache.

    Returns 0, -EAGAIN or -EEXIST (somebody else has the pin) or -ENOENT (a free slot, or one with nothing to read).
    """
    err = claim_cache_flag(s, entry, skip_if_exists)
    if not err and vswap_folio_backed(s, entry, 1):
        swapcache_clear(s, entry, 1)
        return -ENOENT
    return err
