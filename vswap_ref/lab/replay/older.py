"""Stand-ins for what is not yet in the layer: swap map (to 12), zswap's tree (to 10), swap cache (9).

Plain tables, by physical slot and by entry.  The real swap map works on physical ranges; here it looks up one slot
after the other, as the recorded stand-in did.
"""

from __future__ import annotations

from errno import EEXIST, ENOENT
from typing import Any

from .world import CLUSTER, OutOfStep, World, next_run, place

Pair = tuple[int, int]
"""(entry, its physical slot)."""


def pairs(world: World, entry: int, nr: int) -> list[Pair]:
    """``nr`` entries with their slots."""
    return [(entry + i, slot_of_entry(world, entry + i)) for i in range(nr)]


def user(world: World, entry: int) -> list[int] | None:
    """[count, held by the swap cache] of an entry's slot; None if it has none."""
    return world.swap_map.get(slot_of_entry(world, entry))


def slot_of_entry(world: World, entry: int) -> int:
    """An entry's physical slot, or 0; looked up from outside, as the recorder's tables did: it costs nothing."""
    cluster = world.s.vswap.cluster_map.load(entry // CLUSTER)
    used = cluster is not None and cluster.bitmap.bits[entry % CLUSTER]
    return int(cluster.desc.slot[entry % CLUSTER]) if used else 0


def swap_duplicate(world: World, entry: int) -> int:
    """One PTE more refers to an entry."""
    found = user(world, entry)
    if found is None:
        return -ENOENT
    found[0] += 1
    return 0


def swap_shmem_alloc(world: World, entry: int, nr: int) -> None:
    """Shared memory refers to entries."""
    for i in range(nr):
        swap_duplicate(world, entry + i)


def swapcache_prepare(world: World, entry: int, nr: int) -> int:
    """Claim entries for the swap cache, all or none."""
    found = [user(world, entry + i) for i in range(nr)]
    for one in found:
        if one is None or one[1]:
            return -ENOENT if one is None else -EEXIST
    for one in found:
        if one is not None:
            one[1] = 1
    return 0


def swp_swapcount(world: World, entry: int) -> int:
    """How many PTEs refer to an entry."""
    found = user(world, entry)
    return found[0] if found else 0


def swap_entry_swapped(world: World, entry: int) -> bool:
    """Some PTE refers to an entry."""
    return swp_swapcount(world, entry) > 0


def put_swap_folio(world: World, folio: Any, entry: int) -> None:
    """The swap cache no longer holds a folio's slots."""
    drop(world, pairs(world, entry, 1 << folio.order), 1)


def swapcache_clear(world: World, *arguments: Any) -> None:
    """Give up the claim on entries ([device,] entry, nr), and those that no PTE refers to."""
    drop(world, pairs(world, *arguments[-2:]), 1)


def swap_free_nr(world: World, entry: int, nr: int) -> None:
    """One PTE less refers to each of ``nr`` entries."""
    drop(world, pairs(world, entry, nr), 0)


def drop(world: World, users: list[Pair], what: int) -> bool:
    """Take a count (0) or the swap cache's hold (1) off slots and free those that nobody uses.

    True if a slot is left that only the swap cache holds.  Which slots are freed together is the swap map's business:
    the trace tells.
    """
    dead, cache_only = [], False
    for entry, slot in users:
        state = world.swap_map[slot]
        cache_only |= state == [1, 1]
        state[what] -= 1
        if state == [0, 0]:
            dead.append((entry, slot))
    while dead:
        nr = next_run(world, dead[0][1])
        swap_slots_free(world, dead[:nr])
        del dead[:nr]
    return cache_only


def swap_slots_free(world: World, run: list[Pair]) -> None:
    """Free neighbouring physical slots of one physical cluster and, through the layer, their entries."""
    type_, offset = place(run[0][1])
    slots = [slot for _, slot in run]
    if slots != list(range(slots[0], slots[0] + len(run))) or place(slots[-1])[1] // CLUSTER != offset // CLUSTER:
        raise OutOfStep(f"frees slots that are no neighbours in one physical cluster: {slots}")
    world.note("swap_slots_free", (type_, offset), len(run))
    ci = world.s.swap.info[type_].cluster_info[offset // CLUSTER]
    world.s.cost["ci_lock"] += 1
    with ci.lock:
        for entry, slot in run:
            found = world.swp_entry_to_swp_slot(entry)
            assert found == slot
            world.vswap_free(entry, ci)
            del world.swap_map[slot]
            world.phys[type_].discard(place(slot)[1])


def folio_free_swap(world: World, folio: Any) -> bool:
    """Give up the slots of a locked cached folio that no PTE refers to."""
    if not folio.swapcache or folio.writeback or world.s.power.suspended_storage:
        return False
    if any(swp_swapcount(world, folio.swap + i) for i in range(1 << folio.order)):
        return False
    world.swap_cache_del_folio(folio)
    folio.dirty = True
    return True


def free_swap_and_cache_nr(world: World, entry: int, nr: int) -> None:
    """Drop a reference of each of ``nr`` entries, then cached folios that nobody needs."""
    end = entry + nr
    if not drop(world, pairs(world, entry, nr), 0):
        return
    while entry < end:
        entry += reclaim(world, entry)


def reclaim(world: World, entry: int) -> int:
    """Try to take the folio off an entry that only the swap cache holds; how many entries to go on."""
    found = user(world, entry)
    folio = world.swap_cache_get_folio(entry) if found == [0, 1] else None
    if folio is None:
        return 1
    step = 1
    if not folio.locked:
        folio.locked = True
        nr = 1 << folio.order
        if folio.swapcache and folio.swap == entry & -nr:
            step = nr - entry % nr
            folio_free_swap(world, folio)
        folio.locked = False
    folio_put(world, folio)
    return step


def folio_put(world: World, folio: Any, nr: int | None = None) -> None:
    """Drop a reference; where the kernel drops several at once (folio_ref_sub), there is no call to note."""
    folio.refcount -= nr or 1
    if nr is None:
        world.note("folio_put", folio.pfn, folio.refcount)


def zswap_entry_store(world: World, entry: int, zswap: Any) -> Any:
    """Enter a compressed copy; the one that it replaces."""
    old = world.zswap_tree.get(entry)
    world.zswap_tree[entry] = zswap
    return old


def zswap_entry_load(world: World, entry: int) -> Any:
    """The compressed copy of an entry."""
    return world.zswap_tree.get(entry)


def zswap_entry_erase(world: World, entry: int) -> Any:
    """Take out the compressed copy of an entry."""
    return world.zswap_tree.pop(entry, None)


def zswap_empty(world: World, entry: int) -> bool:
    """No entry has a compressed copy."""
    return not world.zswap_tree


def zswap_invalidate(world: World, entry: int) -> None:
    """An entry is freed: so is its compressed copy (to 12)."""
    zswap = None if world.zswap_empty(entry) else world.zswap_entry_erase(entry)
    if zswap is not None:
        zswap_entry_free(world, zswap)


def zswap_entry_free(world: World, zswap: Any) -> None:
    """Free a compressed copy."""
    world.note("zswap_entry_free", world.zswap_ids[zswap], 1)


def swap_cache_lock(world: World, entry: int) -> None:
    """Level 9: the stand-in needs no lock."""


def swap_cache_get_folio(world: World, entry: int) -> Any:
    """Level 9: the folio of an entry, with a reference."""
    found = world.swap_cache.get(entry)
    if found is None or isinstance(found, int):
        return None
    found.refcount += 1
    return found


def swap_cache_get_shadow(world: World, entry: int) -> int | None:
    """Level 9: the shadow of an entry."""
    found = world.swap_cache.get(entry)
    return found if isinstance(found, int) else None


def swap_cache_add_folio(world: World, folio: Any, entry: int, *_: Any) -> tuple[int, int | None]:
    """Level 9: put a folio in the cache: (0, the first shadow that it replaced)."""
    nr = 1 << folio.order
    world.note("swap_cache_add_folio", folio.pfn, entry)
    shadows = [found for i in range(nr) if isinstance(found := world.swap_cache.get(entry + i), int)]
    world.swap_cache.update((entry + i, folio) for i in range(nr))
    folio.refcount += nr
    folio.swapcache, folio.swap = True, entry
    count_cached(world, nr)
    return 0, next(iter(shadows), None)


def swap_cache_clear_shadow(world: World, entry: int, nr: int) -> None:
    """Level 9: forget shadows."""
    world.note("swap_cache_clear_shadow", entry, nr)
    for i in range(nr):
        world.swap_cache.pop(entry + i, None)


def __swap_cache_del_folio(world: World, folio: Any, entry: int, shadow: int | None) -> None:
    """Level 9: a shadow takes a folio's place."""
    nr = 1 << folio.order
    world.swap_cache.update((entry + i, shadow) for i in range(nr))
    folio.swapcache, folio.swap = False, 0
    count_cached(world, -nr)


def swap_cache_del_folio(world: World, folio: Any) -> None:
    """Level 9: take a folio out of the cache and give up its slots' hold and its references."""
    entry = folio.swap
    __swap_cache_del_folio(world, folio, entry, None)
    put_swap_folio(world, folio, entry)
    folio.refcount -= 1 << folio.order


def __swap_cache_replace_folio(world: World, old: Any, new: Any) -> None:
    """Level 9: a folio takes over entries from another."""
    world.swap_cache.update((new.swap + i, new) for i in range(1 << new.order))


def count_cached(world: World, nr: int) -> None:
    """Count pages in the swap cache."""
    world.s.vmstat["nr_file_pages"] += nr
    world.s.vmstat["nr_swapcached"] += nr
