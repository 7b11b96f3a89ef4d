# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The swap cache: a folio, or the shadow that it left, in the descriptor of its virtual slot.

Kernel home: mm/vswap.c.  There is no cache beside the descriptors: the cache is as many pieces as there are clusters,
each under its cluster's lock.  Who adds or deletes a folio has claimed its slots for the cache before.
"""

from __future__ import annotations

from vswap_ref.machine import relax

from ..folio import folio_mark_dirty, folio_put, folio_try_get, folio_trylock, folio_unlock
from ..memcg import memcg1_swapout
from ..state import Folio, System, VswapCluster
from ..types import (
    NO_ENTRY,
    VSWAP_CLUSTER_MASK,
    VSWAP_CLUSTER_SHIFT,
    Shadow,
    SwpEntry,
    folio_word,
    swap_nth,
    swp_entry_align,
    swp_entry_page,
    word_is_folio,
    word_pfn,
)
from .cache_pin import __swapcache_clear, put_swap_folio
from .lifecycle import vswap_free_nr_any_cache_only
from .lookup import __vswap_iter, vswap_cluster_load, vswap_iter, vswap_load_and_lock


def swap_cache_lock(s: System, entry: SwpEntry) -> None:
    """Lock the entry's part of the swap cache.  Its folio is locked and in the cache, so the cluster stays."""
    with s.rcu.read:
        vswap_load_and_lock(s, entry)


def swap_cache_unlock(s: System, entry: SwpEntry) -> None:
    """Unlock it; any entry of the cluster will do, and is looked up again."""
    with s.rcu.read:
        cluster = vswap_cluster_load(s, entry)
        assert cluster is not None
        cluster.lock.release()


def swap_cache_lock_irq(s: System, entry: SwpEntry) -> None:
    """Lock the entry's part of the swap cache, with interrupts off."""
    s.locks.irqs_off.__enter__()
    swap_cache_lock(s, entry)


def swap_cache_unlock_irq(s: System, entry: SwpEntry) -> None:
    """Unlock it, and let interrupts in."""
    swap_cache_unlock(s, entry)
    s.locks.irqs_off.__exit__(None, None, None)


def swap_cache_word(s: System, entry: SwpEntry) -> int:
    """What the descriptor of an entry has for the swap cache, as a word; 0 also if the slot is not allocated."""
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        if cluster is None:
            return 0
        word = cluster.desc.swap_cache[entry & VSWAP_CLUSTER_MASK]
        cluster.lock.release()
    return word


def swap_cache_get_folio(s: System, entry: SwpEntry) -> Folio | None:
    """The folio cached for an entry, with a reference, unlocked; or None.

    Lock the folio, then check it with folio_matches_swap_entry.
    """
    return vswap_get_swap_cache(s, entry)


def swap_cache_get_shadow(s: System, entry: SwpEntry) -> Shadow | None:
    """The shadow kept for an entry, or None."""
    word = swap_cache_word(s, entry)
    return Shadow(word) if word & 1 else None


def swap_cache_peek(s: System, entry: SwpEntry) -> Folio | Shadow | None:
    """What the cache has for an entry.  For displays and checks: takes no lock, no reference, and costs nothing."""
    cluster = s.vswap.cluster_map.load(entry >> VSWAP_CLUSTER_SHIFT)
    if cluster is None or not __vswap_iter(cluster, entry):
        return None
    index = entry & VSWAP_CLUSTER_MASK
    word = cluster.desc.swap_cache[index]
    if word_is_folio(word):
        return s.memory.mem_map[word_pfn(word)] if cluster.desc.in_swapcache[index] else None
    return Shadow(word) if word else None


def account_swap_cache(s: System, folio: Folio, nr: int) -> None:
    """Count pages that enter (nr > 0) or leave (nr < 0) the swap cache."""
    vmstat = s.vmstat
    vmstat.nr_file_pages += nr
    vmstat.nr_swapcached += nr
    if folio.memcg is not None:
        folio.memcg.stat.swapcached += nr


def swap_cache_exchange(cluster: VswapCluster, entry: SwpEntry, nr: int, word: int) -> list[int]:
    """Write a word to the descriptors of ``nr`` slots (cluster locked); returns what they had."""
    index, words = entry & VSWAP_CLUSTER_MASK, cluster.desc.swap_cache
    if nr == 1:
        old = [words[index]]
        words[index] = word
    else:
        old = words[index : index + nr].tolist()
        cluster.desc.array["swap_cache"][index : index + nr] = word
    return old


def swap_cache_add_folio(s: System, folio: Folio, entry: SwpEntry) -> Shadow | None:
    """Put a locked folio in the cache for its slots, pinned by the caller; one reference for each page.

    Returns the first shadow that it replaced.
    """
    assert folio.locked
    assert folio.swapbacked
    assert not folio.swapcache
    nr, word = folio.nr_pages, folio_word(folio.pfn)
    folio.refcount += nr
    folio.swapcache = True
    folio.swap = entry
    with s.rcu.read, s.locks.irqs_off:
        cluster = vswap_load_and_lock(s, entry)
        old = swap_cache_exchange(cluster, entry, nr, word)
        cluster.lock.release()
    account_swap_cache(s, folio, nr)
    return first_shadow(old, word)


def first_shadow(words: list[int], but: int = 0) -> Shadow | None:
    """The first shadow among words, or None; before it there are no folios, but for the one with the word ``but``."""
    for word in words:
        if word & 1:
            return Shadow(word)
        assert word in (0, but)
    return None


def swap_cache_del_folio(s: System, folio: Folio) -> None:
    """Take a folio out of the cache, then unpin its slots, and drop its references.

    Only if the content is not needed (nobody refers to the slots) or stands elsewhere.  In between the slots are
    pinned and have no folio.
    """
    assert folio.swapcache
    assert not folio.writeback
    entry = folio.swap
    with s.rcu.read, s.locks.irqs_off:
        cluster = vswap_load_and_lock(s, entry)
        vswap_replace_words(cluster, folio, 0)
        cluster.lock.release()
    folio_clear_swap(s, folio)
    put_swap_folio(s, folio, entry)
    folio_put(s, folio, folio.nr_pages)


def __swap_cache_replace_folio(s: System, old: Folio, new: Folio) -> None:
    """``new`` takes over the entries from its slot on, which hold ``old`` (cache and both folios locked)."""
    with s.rcu.read:
        cluster = vswap_cluster_load(s, new.swap)
        assert cluster is not None
        words = swap_cache_exchange(cluster, new.swap, 1 << new.order, folio_word(new.pfn))
        assert set(words) == {folio_word(old.pfn)}


def folio_matches_swap_entry(folio: Folio, entry: SwpEntry) -> bool:
    """A locked folio is (still) cached for this entry."""
    return folio.swapcache and folio.swap == swp_entry_align(entry, folio.nr_pages)


def vswap_get_swap_cache(s: System, entry: SwpEntry, cache_only: bool = False) -> Folio | None:
    """The folio cached for an entry, with a reference; or None.  ``cache_only``: only if nobody refers to the entry.

    One that nobody can refer to now is waited for.
    """
    while True:
        with s.rcu.read:
            cluster = vswap_iter(s, None, entry)
            if cluster is None:
                return None
            desc, index = cluster.desc, entry & VSWAP_CLUSTER_MASK
            word = desc.swap_cache[index]
            wanted = desc.in_swapcache[index] and not (cache_only and desc.swap_count[index])
            folio = s.memory.mem_map[word_pfn(word)] if wanted and word_is_folio(word) else None
            referenced = folio is not None and folio_try_get(folio)
            cluster.lock.release()
        if folio is None or referenced:
            return folio
        if not relax("a frozen folio"):
            return None


def folio_clear_swap(s: System, folio: Folio) -> None:
    """The folio is in the swap cache no more: no entry, no flag, and the counts."""
    folio.swap = NO_ENTRY
    folio.swapcache = False
    account_swap_cache(s, folio, -folio.nr_pages)


def vswap_replace_words(cluster: VswapCluster, folio: Folio, word: int) -> None:
    """Write a word to the descriptors of a cached folio, which have the folio now (cluster locked)."""
    nr, index, old = folio.nr_pages, folio.swap & VSWAP_CLUSTER_MASK, folio_word(folio.pfn)
    if nr == 1:
        assert cluster.desc.swap_cache[index] == old
        cluster.desc.swap_cache[index] = word
    else:
        words = cluster.desc.array["swap_cache"][index : index + nr]
        assert (words == old).all()
        words[:] = word


def __vswap_remove_mapping(s: System, folio: Folio, entry: SwpEntry, shadow: Shadow | None) -> None:
    """Take a locked, frozen, clean folio out of the cache, leaving a shadow or nothing; free what nobody refers to.

    The entry's part of the cache is locked, with interrupts off; returns with it unlocked and interrupts on.
    References stay with the caller.
    """
    assert folio.swapcache
    assert not folio.writeback
    with s.rcu.read:
        cluster = vswap_cluster_load(s, entry)
        assert cluster is not None
        vswap_replace_words(cluster, folio, shadow or 0)
        memcg1_swapout(s, folio, entry)
        __swapcache_clear(s, cluster, entry, folio.nr_pages)
        cluster.lock.release()
        s.locks.irqs_off.__exit__(None, None, None)
    folio_clear_swap(s, folio)


def vswap_drop_unused(s: System, cluster: VswapCluster, folio: Folio) -> bool:
    """Free the slots of a cached folio that nobody refers to (cluster locked).  False: somebody does, no change."""
    nr, desc, index = folio.nr_pages, cluster.desc, folio.swap & VSWAP_CLUSTER_MASK
    if desc.swap_count[index] if nr == 1 else desc.array["swap_count"][index : index + nr].any():
        return False
    vswap_replace_words(cluster, folio, 0)
    __swapcache_clear(s, cluster, folio.swap, nr)
    return True


def folio_free_swap(s: System, folio: Folio) -> bool:
    """Give up the slots of a locked cached folio that nobody refers to.  True if done; the folio is dirty then.

    Not while it is being written, nor while a hibernation image is: in the image the slot must keep the content.
    """
    assert folio.locked
    if not folio.swapcache or folio.writeback or s.power.suspended_storage or not folio.swap:
        return False
    with s.rcu.read, s.locks.irqs_off:
        cluster = vswap_load_and_lock(s, folio.swap)
        dropped = vswap_drop_unused(s, cluster, folio)
        cluster.lock.release()
    if dropped:
        folio_clear_swap(s, folio)
        folio.refcount -= folio.nr_pages
        folio_mark_dirty(folio)
    return dropped


def free_swap_and_cache_nr(s: System, entry: SwpEntry, nr: int) -> None:
    """``nr`` swap PTEs go away: drop their references, and cached folios that nobody needs."""
    if not vswap_free_nr_any_cache_only(s, entry, nr):
        return
    i = 0
    while i < nr:
        one = swap_nth(entry, i)
        folio, step = vswap_get_swap_cache(s, one, cache_only=True), 1
        if folio is not None and folio_trylock(folio):
            if folio_matches_swap_entry(folio, one):
                step = folio.nr_pages - swp_entry_page(one, folio.nr_pages)
                folio_free_swap(s, folio)
            folio_unlock(folio)
        if folio is not None:
            folio_put(s, folio)
        i += step
