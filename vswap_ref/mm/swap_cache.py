# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The swap cache: folios that have a slot, found by it.

Kernel home: mm/swap_state.c.  One tree for all devices, indexed by the whole entry.  The caller keeps the device from
being swapped off, and owns the cache flag of the slots that it adds or deletes.
"""

from __future__ import annotations

from errno import EEXIST, ENOMEM

from .bridge import swp_entry_to_swp_slot
from .folio import folio_put, folio_try_get
from .state import Folio, System
from .swap_cache_tree import swap_cache_lock_irq, swap_cache_unlock_irq
from .swap_device import __swap_slot_to_info
from .swap_map import put_swap_folio
from .types import SWAP_HAS_CACHE, Shadow, SwpEntry, swp_entry_align, swp_slot_offset


def swap_cache_peek(s: System, entry: SwpEntry) -> Folio | Shadow | None:
    """What the cache has for an entry: a folio, a shadow or nothing.  Takes no reference."""
    return s.swap.cache.xa.load(entry)


def swap_cache_get_folio(s: System, entry: SwpEntry) -> Folio | None:
    """The folio cached for an entry, with a reference, unlocked; or None.

    Lockless: lock the folio, then check it with folio_matches_swap_entry.
    """
    s.cost["swap_cache_get_folio"] += 1
    folio = swap_cache_peek(s, entry)
    return folio if isinstance(folio, Folio) and folio_try_get(folio) else None


def swap_cache_get_shadow(s: System, entry: SwpEntry) -> Shadow | None:
    """The shadow kept for an entry, or None."""
    s.cost["swap_cache_get_folio"] += 1
    shadow = swap_cache_peek(s, entry)
    return shadow if isinstance(shadow, int) else None


def swap_cache_add_folio(s: System, folio: Folio, entry: SwpEntry) -> tuple[int, Shadow | None]:
    """Put a locked folio in the cache for its slots, whose cache flags the caller owns; one reference for each page.

    Returns (0, the first shadow that it replaced), or (-ENOMEM, None): then it is not in the cache.
    """
    assert folio.locked
    assert folio.swapbacked
    assert not folio.swapcache
    nr = folio.nr_pages
    folio.refcount += nr
    folio.swapcache = True
    folio.swap = entry
    err, shadow = swap_cache_create_and_store(s, folio, entry)
    if err:
        folio.swapcache = False
        folio_put(s, folio, nr)
    return err, shadow


def account_swap_cache(s: System, folio: Folio, nr: int) -> None:
    """Count pages that enter (nr > 0) or leave (nr < 0) the swap cache."""
    vmstat = s.vmstat
    vmstat["nr_file_pages"] += nr
    vmstat["nr_swapcached"] += nr
    if folio.memcg is not None:
        folio.memcg.stat["swapcached"] += nr


def __swap_cache_del_folio(s: System, folio: Folio, entry: SwpEntry, shadow: Shadow | None) -> None:
    """Take a folio out of the cache, leaving ``shadow`` in its place (cache and folio locked).

    References and cache flags stay with the caller.
    """
    assert folio.locked
    assert folio.swapcache
    assert not folio.writeback
    nr, xa = folio.nr_pages, s.swap.cache.xa
    if nr == 1:
        assert xa.load(entry) is folio
        xa.store(entry, shadow)
    else:
        xa.store_range(entry, nr, shadow)
    folio.swap = SwpEntry(0)
    folio.swapcache = False
    account_swap_cache(s, folio, -nr)


def swap_cache_del_folio(s: System, folio: Folio) -> None:
    """Take a folio out of the cache and give up its slots' cache flags and its references.

    Only if the content is not needed (nobody refers to the slots) or stands elsewhere.
    """
    entry = folio.swap
    swap_cache_lock_irq(s)
    __swap_cache_del_folio(s, folio, entry, None)
    swap_cache_unlock_irq(s)
    put_swap_folio(s, folio, entry)
    folio_put(s, folio, folio.nr_pages)


def __swap_cache_replace_folio(s: System, old: Folio, new: Folio) -> None:
    """``new`` takes over the entries from its slot on, which hold ``old`` (cache and both folios locked)."""
    for slot in range(new.swap, new.swap + new.nr_pages):
        before = s.swap.cache.xa.store(slot, new)
        assert before is old


def folio_matches_swap_entry(folio: Folio, entry: SwpEntry) -> bool:
    """A locked folio is (still) cached for this entry."""
    return folio.swapcache and folio.swap == swp_entry_align(entry, folio.nr_pages)


def swap_zeromap_batch(s: System, entry: SwpEntry, max_nr: int) -> int:
    """How many slots from the entry's on have the same zero bit as the first (1..max_nr)."""
    slot = swp_entry_to_swp_slot(s, entry)
    zeromap, offset = __swap_slot_to_info(s, slot).zeromap, swp_slot_offset(slot)
    assert zeromap is not None
    other = zeromap.bits.find(1 - zeromap.bits[offset], offset, offset + max_nr)
    return max_nr if other < 0 else other - offset


def non_swapcache_batch(s: System, entry: SwpEntry, max_nr: int) -> int:
    """How many slots from the entry's on have no cache flag (0..max_nr); read without lock."""
    slot = swp_entry_to_swp_slot(s, entry)
    offset = swp_slot_offset(slot)
    window = __swap_slot_to_info(s, slot).swap_map[offset : offset + max_nr]
    return next((nr for nr, byte in enumerate(window) if byte & SWAP_HAS_CACHE), max_nr)


def total_swapcache_pages(s: System) -> int:
    """Pages in the swap cache."""
    return s.vmstat["nr_swapcached"]


def swap_cache_store(s: System, folio: Folio, entry: SwpEntry) -> tuple[int, Shadow | None]:
    """Enter a folio at each of its slots (cache locked, nodes there): (0, the first shadow that it replaced).

    (-EEXIST, None) if a slot has a folio; the slots before it are then overwritten, and their shadows lost.
    """
    xa, shadow = s.swap.cache.xa, None
    for slot in range(entry, entry + folio.nr_pages):
        old = xa.load(slot)
        if isinstance(old, Folio):
            return -EEXIST, None
        shadow = old if shadow is None else shadow
        xa.store(slot, folio)
    return 0, shadow


def swap_cache_create_and_store(s: System, folio: Folio, entry: SwpEntry) -> tuple[int, Shadow | None]:
    """Get the nodes that a folio's slots lack, then swap_cache_store and count.  Also (-ENOMEM, None)."""
    nr, have = folio.nr_pages, 0
    while True:
        swap_cache_lock_irq(s)
        lacking = s.swap.cache.xa.missing_nodes(entry, nr)
        while have < lacking and not s.faults.should_fail("swap_cache_node"):
            have += 1
        err, shadow = swap_cache_store(s, folio, entry) if have >= lacking else (-ENOMEM, None)
        if not err:
            account_swap_cache(s, folio, nr)
        swap_cache_unlock_irq(s)
        if err != -ENOMEM or s.faults.should_fail("swap_cache_node"):
            return err, shadow
        have += 1
