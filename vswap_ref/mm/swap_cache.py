# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The swap cache: folios that have a slot, found by it.

Kernel home: mm/swap_state.c.  The cache has no structure of its own; it is the folio words of the swap tables.  The
caller keeps the device from being swapped off, and owns the cache flag of the slots that it adds or deletes.
"""

from __future__ import annotations

from .folio import folio_put, folio_try_get
from .state import Folio, SwapInfo, System
from .swap_device import swap_cluster_lock, swap_cluster_unlock, swp_swap_info
from .swap_map import put_swap_folio
from .swap_table import __swap_table_fill, __swap_table_xchg, swap_table_get
from .types import (
    SWAP_HAS_CACHE,
    SWP_OFFSET_MASK,
    SWP_TYPE_SHIFT,
    Shadow,
    SwpEntry,
    swp_tb_folio,
    swp_tb_is_folio,
    swp_tb_pfn,
)


def swap_cache_peek(s: System, entry: SwpEntry) -> Folio | Shadow | None:
    """What the cache has for an entry: a folio, a shadow or nothing.  Takes no reference."""
    word = swap_table_get(s.swap.info[entry >> SWP_TYPE_SHIFT], entry & SWP_OFFSET_MASK)
    if not word:
        return None
    return s.memory.mem_map[swp_tb_pfn(word)] if swp_tb_is_folio(word) else Shadow(word)


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


def swap_cache_add_folio(s: System, folio: Folio, entry: SwpEntry) -> Shadow | None:
    """Put a locked folio in the cache for its slots; cannot fail.

    The caller owns the slots' cache flags.  Takes one reference per page.  Returns the last shadow that it replaced.
    """
    assert folio.locked
    assert folio.swapbacked
    assert not folio.swapcache
    si = s.swap.info[entry >> SWP_TYPE_SHIFT]
    nr = 1 << folio.order
    shadow = 0
    word = swp_tb_folio(folio.pfn)
    offset = entry & SWP_OFFSET_MASK
    ci = swap_cluster_lock(s, si, offset)
    for old in __swap_table_fill(si, offset, nr, word):
        if old:
            assert not swp_tb_is_folio(old)
            shadow = old
    folio.refcount += nr
    folio.swapcache = True
    folio.swap = entry
    swap_cluster_unlock(ci)
    account_swap_cache(s, folio, nr)
    return Shadow(shadow) if shadow else None


def account_swap_cache(s: System, folio: Folio, nr: int) -> None:
    """Count pages that enter (nr > 0) or leave (nr < 0) the swap cache."""
    vmstat = s.vmstat
    vmstat["nr_file_pages"] += nr
    vmstat["nr_swapcached"] += nr
    if folio.memcg is not None:
        folio.memcg.stat["swapcached"] += nr


def __swap_cache_del_folio(s: System, si: SwapInfo, folio: Folio, entry: SwpEntry, shadow: int) -> None:
    """Take a folio out of the cache, leaving ``shadow`` (0: none) in its words (cluster and folio locked).

    References and cache flags stay with the caller.
    """
    assert folio.locked
    assert folio.swapcache
    assert not folio.writeback
    nr = 1 << folio.order
    __swap_table_fill(si, entry & SWP_OFFSET_MASK, nr, shadow)
    folio.swap = SwpEntry(0)
    folio.swapcache = False
    account_swap_cache(s, folio, -nr)


def swap_cache_del_folio(s: System, folio: Folio) -> None:
    """Take a folio out of the cache and give up its slots' cache flags and its references.

    Only if the content is not needed (nobody refers to the slots) or stands elsewhere.
    """
    entry = folio.swap
    si = swp_swap_info(s, entry)
    ci = swap_cluster_lock(s, si, entry & SWP_OFFSET_MASK)
    __swap_cache_del_folio(s, si, folio, entry, 0)
    swap_cluster_unlock(ci)
    put_swap_folio(s, folio, entry)
    folio_put(s, folio, 1 << folio.order)


def __swap_cache_replace_folio(si: SwapInfo, old: Folio, new: Folio) -> None:
    """``new`` takes over the words from its slot on, which hold ``old`` (cluster and both folios locked)."""
    offset = new.swap & SWP_OFFSET_MASK
    for i in range(offset, offset + (1 << new.order)):
        word = __swap_table_xchg(si, i, swp_tb_folio(new.pfn))
        assert word == swp_tb_folio(old.pfn)


def folio_matches_swap_entry(folio: Folio, entry: SwpEntry) -> bool:
    """A locked folio is (still) cached for this entry."""
    return folio.swapcache and folio.swap == entry & -(1 << folio.order)


def swap_zeromap_batch(s: System, entry: SwpEntry, max_nr: int) -> int:
    """How many slots from the entry on have the same zero bit as the first (1..max_nr)."""
    zeromap, offset = swp_swap_info(s, entry).zeromap, entry & SWP_OFFSET_MASK
    assert zeromap is not None
    other = zeromap.bits.find(1 - zeromap.bits[offset], offset, offset + max_nr)
    return max_nr if other < 0 else other - offset


def non_swapcache_batch(s: System, entry: SwpEntry, max_nr: int) -> int:
    """How many slots from the entry on are not in the swap cache (0..max_nr); read without lock."""
    offset = entry & SWP_OFFSET_MASK
    window = s.swap.info[entry >> SWP_TYPE_SHIFT].swap_map[offset : offset + max_nr]
    return next((nr for nr, byte in enumerate(window) if byte & SWAP_HAS_CACHE), max_nr)


def total_swapcache_pages(s: System) -> int:
    """Pages in the swap cache."""
    return s.vmstat["nr_swapcached"]
