# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The life of an entry: who refers to it, and its end.

Kernel home: mm/vswap.c.  A virtual slot is allocated exactly as long as somebody refers to it (``swap_count``) or the
swap cache pins it (``in_swapcache``).  Whoever takes the last of these away frees it, under the lock of its cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import ENOENT

from ..memcg import mem_cgroup_uncharge_swap_by_id
from ..state import System, VswapCluster
from ..types import VSWAP_CLUSTER_MASK, VSWAP_SWAPFILE, SwpEntry, SwpSlot, swp_entry_range
from .backing import release_backing
from .batch import BATCH, vswap_alike, vswap_free_batch
from .cluster import release_vswap_slot
from .lookup import vswap_iter
from .rmap import swap_rmap_clear_cache_only, swap_rmap_mark_cache_only


def vswap_free(s: System, cluster: VswapCluster, entry: SwpEntry) -> None:
    """Free a virtual slot that nobody needs: what is behind it, its charge, then the slot itself.

    Its cluster is locked, in an RCU read section.  Other fields keep what they have until the next allocation.
    """
    memcgid = cluster.desc.memcgid[entry & VSWAP_CLUSTER_MASK]
    release_backing(s, cluster, entry, 1)
    mem_cgroup_uncharge_swap_by_id(s, memcgid, 1)
    release_vswap_slot(s, cluster, entry)


def vswap_put_count(s: System, cluster: VswapCluster, entry: SwpEntry) -> bool:
    """Take one reference off a slot (cluster locked); the last one frees it unless it is pinned for the cache.

    True if it is pinned and this was the last one.  ValueError for a slot that has none: the kernel would count on
    from 2**32.
    """
    desc, index = cluster.desc, entry & VSWAP_CLUSTER_MASK
    count, pinned = desc.swap_count[index], desc.in_swapcache[index]
    desc.swap_count[index] = count - 1
    if count > 1:
        return False
    if pinned:
        if desc.type[index] == VSWAP_SWAPFILE:
            swap_rmap_mark_cache_only(s, SwpSlot(desc.slot[index]))
        return True
    if desc.swap_cache[index] & 1:
        desc.swap_cache[index] = 0
    vswap_free(s, cluster, entry)
    return False


def vswap_free_nr_any_cache_only(s: System, entry: SwpEntry, nr: int) -> bool:
    """Take one reference off each of ``nr`` slots.  True if some slot is now held by the swap cache alone: a hint."""
    cluster, any_cache_only, entries = None, False, swp_entry_range(entry, entry + nr)
    with s.rcu.read:
        if nr >= BATCH:
            cluster, entries = vswap_put_batches(s, entries)
        for one in entries:
            cluster = vswap_iter(s, cluster, one)
            assert cluster is not None
            any_cache_only |= vswap_put_count(s, cluster, one)
        if cluster is not None:
            cluster.lock.release()
    return any_cache_only


def swap_free_nr(s: System, entry: SwpEntry, nr: int) -> None:
    """Take one reference off each of ``nr`` entries."""
    vswap_free_nr_any_cache_only(s, entry, nr)


def swap_free(s: System, entry: SwpEntry) -> None:
    """Take one reference off an entry."""
    swap_free_nr(s, entry, 1)


def vswap_get_count(s: System, cluster: VswapCluster, entry: SwpEntry) -> bool:
    """One reference more to an allocated slot (cluster locked).  False if it has none and is not pinned."""
    desc, index = cluster.desc, entry & VSWAP_CLUSTER_MASK
    count = desc.swap_count[index]
    if not count:
        if not desc.in_swapcache[index]:
            return False
        if desc.type[index] == VSWAP_SWAPFILE:
            swap_rmap_clear_cache_only(s, SwpSlot(desc.slot[index]))
    desc.swap_count[index] = count + 1
    return True


def swap_duplicate_nr(s: System, entry: SwpEntry, nr: int) -> int:
    """One reference more to each of ``nr`` entries.  0, or -ENOENT if one is not allocated: then no count has changed.

    What was added before is taken back under another lock; a slot that had no users is marked then.
    """
    cluster, done = None, 0
    with s.rcu.read:
        for one in swp_entry_range(entry, entry + nr):
            cluster = vswap_iter(s, cluster, one)
            if cluster is None or not vswap_get_count(s, cluster, one):
                break
            done += 1
        if cluster is not None:
            cluster.lock.release()
    if 0 < done < nr:
        swap_free_nr(s, entry, done)
    return 0 if done == nr else -ENOENT


def swap_duplicate(s: System, entry: SwpEntry) -> int:
    """One more PTE refers to the entry.  Returns 0, or -ENOENT if it is not allocated."""
    return swap_duplicate_nr(s, entry, 1)


def swap_shmem_alloc(s: System, entry: SwpEntry, nr: int) -> None:
    """A shared object refers to the entries: it counts like any other reference."""
    swap_duplicate_nr(s, entry, nr)


def swp_swapcount(s: System, entry: SwpEntry) -> int:
    """How many references the entry has; 0 if it is not allocated."""
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        if cluster is None:
            return 0
        count = cluster.desc.swap_count[entry & VSWAP_CLUSTER_MASK]
        cluster.lock.release()
    return count


def __swap_count(s: System, entry: SwpEntry) -> int:
    """swp_swapcount."""
    return swp_swapcount(s, entry)


def swap_entry_swapped(s: System, entry: SwpEntry) -> bool:
    """Somebody refers to the entry."""
    return swp_swapcount(s, entry) != 0


def vswap_put_batches(s: System, entries: Sequence[SwpEntry]) -> tuple[VswapCluster | None, Sequence[SwpEntry]]:
    """Free entries at once, cluster by cluster, as long as they are alike: (the locked cluster or None, the others)."""
    cluster = None
    while entries and (nr := vswap_alike(s, entries[0], len(entries), pinned=0, users=1)):
        cluster = vswap_iter(s, cluster, entries[0])
        assert cluster is not None
        index = entries[0] & VSWAP_CLUSTER_MASK
        words = cluster.desc.array["swap_cache"][index : index + nr]
        words[words & 1 == 1] = 0
        vswap_free_batch(s, cluster, entries[0], nr - 1)
        vswap_put_count(s, cluster, entries[nr - 1])
        entries = entries[nr:]
    return cluster, entries
