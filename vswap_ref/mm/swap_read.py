# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Bringing a folio for an entry into the swap cache, without reading it.

Kernel home: mm/swap_state.c (__read_swap_cache_async).
"""

from __future__ import annotations

from errno import EEXIST, ENOENT

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
    """swapcache_prepare for one slot; while another task brings it in, sleep a tick and try again, unless told not to.

    Returns 0, -ENOENT or -EEXIST: then the folio is in the cache by now, or nobody else runs who could put it there.
    """
    while (err := swapcache_prepare(s, entry, 1)) == -EEXIST and not skip_if_exists:
        if isinstance(swap_cache_peek(s, entry), Folio) or not relax("the swap cache flag"):
            break
    return err


def __read_swap_cache_async(
    s: System, entry: SwpEntry, memcg: Memcg, skip_if_exists: bool = False
) -> tuple[Folio | None, bool]:
    """A folio for the entry, in the swap cache: (folio with a reference, newly allocated?).

    A new folio is locked and not up to date; the caller must start the read, which unlocks it.  None: entry 0, nobody
    refers to the entry any more, another task is bringing it in, or memory is short.  The entry must be pinned.
    """
    folio = swap_cache_get_folio(s, entry) if entry else None
    if folio is not None:
        return folio, False
    if not entry or not swap_entry_swapped(s, entry):
        return None, False
    folio = folio_alloc(s)
    if folio is None:
        return None, False
    err = swapcache_prepare_read(s, entry, skip_if_exists)
    if err:
        folio_put(s, folio)
        return (swap_cache_get_folio(s, entry) if err == -EEXIST and not skip_if_exists else None), False
    folio_lock(folio)
    folio.swapbacked = True
    if charge_and_add_folio(s, folio, memcg, entry):
        put_swap_folio(s, folio, entry)
        folio_unlock(folio)
        folio_put(s, folio)
        return None, False
    folio_add_lru(s, folio)
    return folio, True


def swapcache_prepare_read(s: System, entry: SwpEntry, skip_if_exists: bool) -> int:
    """Pin a slot that is to be read into the swap cache.

    Returns 0, -EEXIST (somebody else has the pin) or -ENOENT (the slot is free, or its content is nowhere to be read).
    """
    err = claim_cache_flag(s, entry, skip_if_exists)
    if not err and vswap_folio_backed(s, entry, 1):
        swapcache_clear(s, entry, 1)
        return -ENOENT
    return err
