# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The invariants of the swap subsystem, asserted over all structures.

``check`` walks everything and raises ``InvariantError`` naming the invariant and the state that breaks it.  It is
called between operations, when no lock is held.
"""

from __future__ import annotations

from collections import Counter

from vswap_ref.machine import PAGE_SIZE

from .memcg import memcg_lineage, memcg_subtree
from .pagetable import PTE_TABLE_MASK, ptep_get, table_ranges
from .slot_reclaim import swap_cache_only
from .state import Folio, Memcg, ShmemInode, SwapInfo, System, VswapCluster
from .swap_device import swap_usage_in_pages
from .types import (
    CLUSTER_FLAG_DISCARD,
    CLUSTER_FLAG_FRAG,
    CLUSTER_FLAG_FREE,
    CLUSTER_FLAG_FULL,
    CLUSTER_FLAG_NONFULL,
    PTE_PRESENT,
    PTE_SHIFT,
    SWAP_MAP_ALLOCATED,
    SWAP_MAP_BAD,
    SWAP_USAGE_OFFLIST_BIT,
    SWAPFILE_CLUSTER,
    SWP_PTE_MARKER,
    SWP_RMAP_ENTRY_MASK,
    SWP_SOLIDSTATE,
    SWP_WRITEOK,
    VSWAP_CLUSTER_SIZE,
    VSWAP_FOLIO,
    VSWAP_SWAPFILE,
    VSWAP_ZSWAP,
    Pte,
    SwpEntry,
    SwpSlot,
    is_poisoned_swp_entry,
    is_swap_pte,
    radix_to_swp_entry,
    swap_nth,
    swp_entry_range,
    swp_slot,
    swp_slot_offset,
    swp_slot_type,
    swp_type,
    vswap_entry,
    word_is_folio,
    word_pfn,
)
from .vswap.backing import vswap_peek_type
from .vswap.cluster import cluster_is_alloc_candidate
from .vswap.rmap import swp_slot_to_swp_entry
from .vswap.swap_cache import swap_cache_peek
from .vswap.zswap_index import zswap_items


class InvariantError(AssertionError):
    """An invariant does not hold; the message names it and shows the structure."""


def check(s: System) -> None:
    """Assert every invariant; silent if all hold.  Looking is not the kernel's work: its costs are not counted."""
    costs = s.cost.snapshot()
    check_vswap(s, swap_pte_references(s) + shmem_references(s))
    for si in s.swap.info:
        if si.bdev is not None:
            check_extents(si)
            check_device_counters(s, si)
            check_clusters(si)
            check_slots(s, si)
    check_totals(s)
    check_priority_lists(s)
    check_folios(s)
    check_swap_cache(s)
    check_lists(s)
    check_mms(s)
    check_anon_rmap(s)
    check_shmem(s)
    check_zswap(s)
    check_memcgs(s)
    check_no_lock_held(s)
    s.cost.update(costs)


def expect(holds: bool, invariant: str, **state: object) -> None:
    """Raise InvariantError unless ``holds``."""
    if not holds:
        shown = ", ".join(f"{name}={value!r}" for name, value in state.items())
        raise InvariantError(f"{invariant}: {shown}")


def swap_pte_references(s: System) -> Counter[int]:
    """How many swap PTEs name each entry."""
    references: Counter[int] = Counter()
    for mm in s.mms:
        for table in mm.pgd.values():
            references.update(pte >> PTE_SHIFT for pte in table if pte and not pte & PTE_PRESENT)
    return references


def check_device_counters(s: System, si: SwapInfo) -> None:
    """In-use counter and available list."""
    used = si.max - si.swap_map.count(0) - si.swap_map.count(SWAP_MAP_BAD)
    expect(swap_usage_in_pages(si) == used, "inuse_pages counts used slots", counter=swap_usage_in_pages(si), used=used)
    off_list = bool(si.inuse_pages & SWAP_USAGE_OFFLIST_BIT)
    expect(off_list == (si not in s.swap.avail_head), "off-list bit = not on the available list", device=si.type)
    expect(used < si.pages or off_list, "a full device is off the available list", device=si.type)
    usable = si.max - si.swap_map.count(SWAP_MAP_BAD)
    expect(si.pages == usable, "pages = slots that are not bad", pages=si.pages, usable=usable)


def check_clusters(si: SwapInfo) -> None:
    """Cluster counts, flags, list membership and tables."""
    for ci in si.cluster_info:
        first = ci.index * SWAPFILE_CLUSTER
        end = min(first + SWAPFILE_CLUSTER, si.max)
        used = end - first - si.swap_map.count(0, first, end) + first + SWAPFILE_CLUSTER - end
        where = {"cluster": ci.index, "count": ci.count, "flags": ci.flags, "order": ci.order}
        expect(ci.count == used, "cluster count = used slots", used=used, **where)
        lists = {
            CLUSTER_FLAG_FREE: si.free_clusters,
            CLUSTER_FLAG_NONFULL: si.nonfull_clusters[ci.order],
            CLUSTER_FLAG_FRAG: si.frag_clusters[ci.order],
            CLUSTER_FLAG_FULL: si.full_clusters,
        }
        expected = lists.get(ci.flags, si.discard_clusters)
        expect(ci.on_list is expected and ci in expected, "cluster is on the list that its flag names", **where)
        expect((ci.flags == CLUSTER_FLAG_FREE) <= (ci.count == 0 and ci.table is None), "free cluster is bare", **where)
        expect(ci.table is not None or ci.count == 0, "cluster in use has a table", **where)
        expect((ci.flags == CLUSTER_FLAG_FULL) <= (ci.count == SWAPFILE_CLUSTER), "full cluster is full", **where)
        expect((ci.flags == CLUSTER_FLAG_DISCARD) <= (ci.count == 0), "cluster to be discarded is empty", **where)


def check_slots(s: System, si: SwapInfo) -> None:
    """Byte and name of every physical slot, and its mark."""
    image = image_slots(s)
    for offset in range(1, si.max):
        byte, slot = si.swap_map[offset], swp_slot(si.type, offset)
        entry, marked = swp_slot_to_swp_entry(s, slot), swap_cache_only(si, offset)
        state = {"slot": hex(slot), "entry": hex(entry), "byte": byte}
        expect(byte in (0, SWAP_MAP_ALLOCATED, SWAP_MAP_BAD), "a slot is free, allocated or bad", **state)
        named = byte == SWAP_MAP_ALLOCATED and slot not in image
        expect(named == bool(entry), "a slot in use has a virtual slot", **state)
        expect(slot not in image or byte == SWAP_MAP_ALLOCATED, "an image's slot is allocated", **state)
        expect(bool(entry) or not marked, "only a slot in use is marked as the cache's alone", **state)
        if not byte:
            check_free_slot(s, si, offset)


def check_free_slot(s: System, si: SwapInfo, offset: int) -> None:
    """A free slot has no zero bit; without a name it can have neither a shadow nor a compressed copy nor a cgroup."""
    assert si.zeromap is not None
    expect(not si.zeromap.test(offset), "free slot is clean", device=si.type, slot=offset)


def check_totals(s: System) -> None:
    """Slots free in the system."""
    active = s.swap.active_head
    free = sum(si.pages - swap_usage_in_pages(si) for si in active)
    expect(s.swap.nr_swap_pages == free, "nr_swap_pages = free slots", counter=s.swap.nr_swap_pages, free=free)
    total = sum(si.pages for si in active)
    expect(s.swap.total_swap_pages == total, "total_swap_pages", counter=s.swap.total_swap_pages, total=total)


def all_folios(s: System) -> set[Folio]:
    """Every folio that exists, the zero page excepted."""
    return {folio for folio in s.memory.mem_map[1:] if folio is not None}


def check_folios(s: System) -> None:
    """References, locks, lists and the memory counter."""
    folios = all_folios(s)
    mapped: Counter[int] = Counter()
    for mm in s.mms:
        for table in mm.pgd.values():
            mapped.update(pte >> PTE_SHIFT for pte in table if pte & PTE_PRESENT)
    inflight = Counter(item[2].pfn for item in s.io.inflight)
    for folio in folios:
        pages = folio.nr_pages
        maps = sum(mapped[folio.pfn + i] for i in range(pages))
        state = {"pfn": folio.pfn, "refcount": folio.refcount, "mapcount": folio.mapcount, "maps": maps}
        expect(not folio.locked, "no folio lock leaked", **state)
        expect(folio.mapcount == maps, "mapcount = PTEs", **state)
        expect(not (folio.swapcache and folio.mapping), "a page is never in both caches", **state)
        cache = pages if folio.swapcache or folio.mapping else 0
        expect(folio.refcount == maps + cache + inflight[folio.pfn], "references are accounted for", **state)
        expect(folio.lru, "folio is on a list", **state)
        expect(pages == 1 << folio.order, "a folio of an order has 2**order pages", pages=pages, **state)
        if folio.order:
            check_large_folio(s, folio, mapped)
    anon = sum(1 for folio in folios if not folio.mapping for i in range(folio.nr_pages) if mapped[folio.pfn + i])
    expect(s.vmstat.nr_anon_pages == anon, "nr_anon_pages = pages mapped", pages=anon)
    check_split_queues(s, folios)
    used = sum(folio.nr_pages for folio in folios)
    expect(s.memory.used == used, "memory.used = folios", counter=s.memory.used, used=used)


def check_large_folio(s: System, folio: Folio, mapped: Counter[int]) -> None:
    """Mappings page by page, exclusive pages, alignment, and no part of it belongs to anybody else."""
    nr = folio.nr_pages
    pfns = range(folio.pfn, folio.pfn + nr)
    counts = [mapped[pfn] for pfn in pfns]
    state = {"pfn": folio.pfn, "order": folio.order, "index": hex(folio.index), "swap": hex(folio.swap)}
    expect(folio.mapcounts == counts, "a large folio's mapcounts = PTEs of each page", ptes=counts, **state)
    once = all(count == 1 for page, count in enumerate(counts) if folio.exclusive >> page & 1)
    expect(once and not folio.exclusive >> nr, "an exclusive page is mapped once", exclusive=folio.exclusive, **state)
    expect(all(s.memory.mem_map[pfn] is folio for pfn in pfns), "all frames of a folio name it", **state)
    expect(folio.index % nr == 0 and folio.swap % nr == 0, "address and slots are aligned", **state)


def check_split_queues(s: System, folios: set[Folio]) -> None:
    """Partially mapped folios wait in the queue of their cgroup; a folio that lacks no page does not."""
    queued = {folio: memcg for memcg in memcg_subtree(s.memcg.root) for folio in memcg.split_queue}
    waiting = {folio: folio.memcg or s.memcg.root for folio in folios if folio.partially_mapped}
    expect(queued == waiting, "split queues = partially mapped folios", queued=len(queued), waiting=len(waiting))
    for folio in waiting:
        expect(0 in (folio.mapcounts or ()), "a folio that waits for a split lacks a page", pfn=folio.pfn)


def check_swap_cache(s: System) -> None:
    """The descriptors of allocated slots hold cached folios, each at its entries; the rest are shadows or nothing.

    A folio's slots have one backing.
    """
    cached: dict[int, Folio] = {}
    forward = forward_map(dict(s.vswap.cluster_map.items()))
    for entry in forward:
        item = swap_cache_peek(s, SwpEntry(entry))
        if isinstance(item, Folio):
            cached[entry] = item
    flagged = [folio for folio in all_folios(s) if folio.swapcache]
    covered = {swap_nth(folio.swap, page): folio for folio in flagged for page in range(folio.nr_pages)}
    expect(cached == covered, "each cached folio is at its entries", only=sorted(cached.keys() ^ covered.keys()))
    expect(s.vmstat.nr_swapcached == len(cached), "nr_swapcached", counter=s.vmstat.nr_swapcached)
    for folio in flagged:
        pages = [(vswap_peek_type(s, e), forward[e]) for e in swp_entry_range(folio.swap, folio.swap + folio.nr_pages)]
        alike = {(type_, slot and slot - i) for i, (type_, slot) in enumerate(pages)}
        expect(len(alike) == 1, "the slots of a folio have one backing", entry=hex(folio.swap), pages=pages)


def check_vswap_cluster(cluster_id: int, cluster: VswapCluster) -> None:
    """Bits, counts, references and reserved slots of a virtual cluster; nobody holds a pin or the lock."""
    nr = 1 << cluster.order
    state = {"id": cluster_id, "order": cluster.order, "count": cluster.count, "refcnt": cluster.refcnt}
    expect(cluster.id == cluster_id, "a virtual cluster is in the map under its id", found=cluster.id, **state)
    weight = cluster.bitmap.weight
    expect(weight == cluster.count, "count of a virtual cluster = allocated slots", bits=weight, **state)
    references = cluster.count + cluster.cached
    expect(cluster.refcnt == references > 0, "refcnt = allocated slots + cached", cached=cluster.cached, **state)
    reserved = cluster_id == 0 and 1 in cluster.bitmap.bits[:nr]
    expect(not reserved, "the first slots of cluster 0 are never given out", **state)
    expect(cluster_id > 0 or nr < VSWAP_CLUSTER_SIZE, "no cluster of the highest order has id 0", **state)
    idle = not cluster.cached and not cluster.full
    expect(nr < VSWAP_CLUSTER_SIZE or idle, "a cluster of the highest order is neither cached nor full", **state)
    expect(not (cluster.cached and cluster.full), "a cached virtual cluster is not full", **state)
    expect(not cluster.cached or cluster_is_alloc_candidate(cluster), "a cached virtual cluster has room", **state)
    expect(not cluster.lock.locked(), "no lock of a virtual cluster leaked", **state)


def check_vswap(s: System, references: Counter[int]) -> None:
    """The virtual clusters, their lists, both ways between slots; ``references``: how many users each entry has."""
    v, clusters = s.vswap, dict(s.vswap.cluster_map.items())
    for cluster_id, cluster in clusters.items():
        check_vswap_cluster(cluster_id, cluster)
        check_entries(s, cluster, references)
    used = sum(cluster.count for cluster in clusters.values())
    expect(v.used == used, "vswap used = allocated virtual slots", counter=v.used, used=used)
    expect(not v.map_lock.locked(), "the lock of the virtual clusters' map did not leak")
    check_vswap_lists(s, clusters)
    forward = forward_map(clusters)
    check_reverse_map(s, forward)
    named = {entry for entry in references if swp_type(SwpEntry(entry)) != SWP_PTE_MARKER}
    expect(named <= forward.keys(), "only allocated virtual slots are referred to", free=sorted(named - forward.keys()))


def check_vswap_lists(s: System, clusters: dict[int, VswapCluster]) -> None:
    """A cluster is cached by one CPU, or on the list of its order, or neither."""
    v = s.vswap
    cached = [c for cpu in v.percpu for order, c in enumerate(cpu.clusters) if c is not None and c.order == order]
    places = sum(c is not None for cpu in v.percpu for c in cpu.clusters)
    expect(places == len(cached) == len(set(cached)), "a virtual cluster is cached once, for its order", places=places)
    flagged = {cluster for cluster in clusters.values() if cluster.cached}
    expect(flagged == set(cached), "cached flag = some CPU has the cluster", flagged=len(flagged), cached=len(cached))
    for order, listed in enumerate(v.partial_lists):
        for c in listed:
            state = {"id": c.id, "order": c.order, "cached": c.cached, "full": c.full}
            expect(clusters.get(c.id) is c, "a listed virtual cluster is in the map", **state)
            expect(c.order == order, "a virtual cluster is on the list of its order", list=order, **state)
            expect(not c.cached and not c.full, "a listed virtual cluster is neither cached nor full", **state)


def forward_map(clusters: dict[int, VswapCluster]) -> dict[int, int]:
    """The physical slot of every allocated virtual slot; 0 if it is backed otherwise."""
    allocated = ((c, i) for c in clusters.values() for i in range(VSWAP_CLUSTER_SIZE) if c.bitmap.bits[i])
    return {vswap_entry(c.id, i): c.desc.slot[i] if c.desc.type[i] == VSWAP_SWAPFILE else 0 for c, i in allocated}


def check_reverse_map(s: System, forward: dict[int, int]) -> None:
    """Virtual slots on a device and physical slots point to each other, one to one; an image's slots to nothing."""
    on_device = {entry: slot for entry, slot in forward.items() if slot}
    back: dict[int, int] = {}
    for si in s.swap.info:
        for ci in si.cluster_info:
            words = enumerate(ci.table or (), ci.index * SWAPFILE_CLUSTER)
            back |= {word & SWP_RMAP_ENTRY_MASK: swp_slot(si.type, offset) for offset, word in words if word}
    wrong = sorted(entry for entry in on_device.keys() | back.keys() if on_device.get(entry) != back.get(entry))
    expect(not wrong, "the reverse map leads back", entries=[hex(entry) for entry in wrong])


def check_lists(s: System) -> None:
    """The lists of every cgroup: lengths, flags, owners."""
    for memcg in memcg_subtree(s.memcg.root):
        lruvec = memcg.lruvec
        given_away = sum(folio.nr_pages for folio in lruvec.lazyfree)
        expect(lruvec.nr_lazyfree == given_away, "list counter = pages given away", pages=given_away)
        expect(not any(f.swapbacked or f.active for f in lruvec.lazyfree), "given away pages have no swap")
        inactive, active_ones = (lruvec.inactive, lruvec.nr_inactive), (lruvec.active, lruvec.nr_active)
        for active, (folios, nr) in enumerate((inactive, active_ones)):
            where = {"cgroup": memcg.name or "/", "active": bool(active), "counter": nr}
            pages = sum(folio.nr_pages for folio in folios)
            expect(nr == pages, "list counter = pages on the list", pages=pages, **where)
            expect(all(f.lru and f.active == active for f in folios), "folio is on the list of its flags", **where)
            owners = {(folio.memcg or s.memcg.root).id for folio in folios}
            expect(owners <= {memcg.id}, "folio is on a list of its cgroup", owners=owners, **where)


def check_mms(s: System) -> None:
    """Per-process counters."""
    for mm in s.mms:
        ptes = [pte for table in mm.pgd.values() for pte in table if pte]
        swapped = sum(is_swap_pte(Pte(pte)) for pte in ptes)
        folios = [s.memory.mem_map[pte >> PTE_SHIFT] for pte in ptes if pte & PTE_PRESENT and pte >> PTE_SHIFT]
        shared = sum(folio is not None and folio.mapping is not None for folio in folios)
        anon = len(folios) - shared
        expect(mm.swapents == swapped, "MM_SWAPENTS = swap PTEs", counter=mm.swapents, ptes=swapped)
        expect(mm.anonpages == anon, "MM_ANONPAGES = present PTEs of its own", counter=mm.anonpages, ptes=anon)
        expect(mm.shmempages == shared, "MM_SHMEMPAGES = present PTEs, shared", counter=mm.shmempages, ptes=shared)


def check_anon_rmap(s: System) -> None:
    """A mapped anonymous folio knows the address and the family of mappings where its PTEs are found."""
    for vma in (vma for mm in s.mms for vma in mm.vmas if vma.file is None):
        for table, start, end in table_ranges(vma.mm, vma.start, vma.end):
            first = start & PTE_TABLE_MASK
            for addr, pte in enumerate(table[first : first + end - start], start):
                folio = s.memory.mem_map[pte >> PTE_SHIFT] if pte & PTE_PRESENT and pte >> PTE_SHIFT else None
                if folio is not None:
                    right = folio.anon_vma is vma.anon_vma and folio.index + (pte >> PTE_SHIFT) - folio.pfn == addr
                    expect(right, "a folio knows its address", pfn=folio.pfn, index=folio.index, address=addr)


def check_zswap(s: System) -> None:
    """Descriptors, handles, lists and counters name the same entries."""
    stored = list(zswap_items(s))
    listed = [entry for memcg in memcg_subtree(s.memcg.root) for entry in memcg.zswap_lru]
    expect(len(stored) == s.zswap.stored_pages, "stored_pages = slots in zswap", counter=s.zswap.stored_pages)
    expect(len(s.zswap.entries) == len(stored), "each handle is in one descriptor", handles=len(s.zswap.entries))
    expect({id(entry) for _, entry in stored} == {id(entry) for entry in listed}, "zswap lists = descriptors")
    expect(all(entry == zentry.swpentry for entry, zentry in stored), "zswap entry is where its swap entry leads")
    pool = sum(-(-entry.length // 16) * 16 for _, entry in stored)
    expect(s.zswap.pool_bytes == pool, "pool bytes = objects", counter=s.zswap.pool_bytes, objects=pool)
    check_zswap_pools(s, {id(entry.pool) for _, entry in stored})


def check_zswap_pools(s: System, used: set[int]) -> None:
    """The current pool comes first; every other one lives as long as an entry is in it."""
    pools = s.zswap.pools
    expect(s.zswap.pool is (pools[0] if pools else None), "the first zswap pool is current", pools=len(pools))
    names = [pool.codec.name for pool in pools]
    expect(len(set(names)) == len(names), "one zswap pool a compressor", pools=names)
    expect({id(pool) for pool in pools[1:]} == used - {id(s.zswap.pool)}, "an old pool lives while it is used")
    expect(all(pool.bytes > 0 for pool in pools[1:]), "an old pool holds bytes", pools=names)


def check_memcgs(s: System) -> None:
    """Memory, swap and zswap usage of every cgroup add up, deleted ones included."""
    memory: Counter[Memcg] = Counter()
    for folio in all_folios(s):
        for memcg in memcg_lineage(folio.memcg):
            memory[memcg] += folio.nr_pages
    swap, zswap = memcg_swapped(s)
    for memcg in memcg_subtree(s.memcg.root):
        if memcg.parent is not None and s.memcg.memsw:
            check_memsw(memcg, memory[memcg], swap[memcg])
        elif memcg.parent is not None:
            check_memcg_usage(memcg, memory[memcg], swap[memcg], zswap[memcg])


def memcg_swapped(s: System) -> tuple[Counter[Memcg], Counter[Memcg]]:
    """Slots recorded for each cgroup, and bytes compressed, with those of its descendants."""
    swap: Counter[Memcg] = Counter()
    zswap: Counter[Memcg] = Counter()
    records = recorded_ids(s)
    for memcg_id, nr in records.items():
        expect(memcg_id in s.memcg.by_id, "a recorded id is a cgroup's", id=memcg_id, slots=nr)
        for memcg in memcg_lineage(s.memcg.by_id[memcg_id]):
            swap[memcg] += nr
    for owner in memcg_subtree(s.memcg.root):
        check_memcg_life(s, owner, records)
        for entry in owner.zswap_lru:
            expect(entry.memcg in (owner, None), "zswap entry is on its owner's list", cgroup=owner.name)
            for memcg in memcg_lineage(entry.memcg):
                zswap[memcg] += entry.length
    return swap, zswap


def check_memcg_life(s: System, memcg: Memcg, records: Counter[int]) -> None:
    """An id lives while its cgroup does or a slot records it; a deleted cgroup has no processes and no zswap pages."""
    named = s.memcg.by_id.get(memcg.id) is memcg
    refs = memcg.online + (records[memcg.id] if named else 0)
    state = {"cgroup": memcg.name, "id": memcg.id, "refs": memcg.id_refs, "online": memcg.online}
    expect(memcg.id_refs == refs, "id references = online + recorded slots", records=refs, **state)
    expect(named == (memcg.id_refs > 0), "an id is known while it is referenced", **state)
    expect(memcg.online != (memcg in s.memcg.dying), "deleted cgroups are dying", **state)
    if not memcg.online:
        expect(all(mm.memcg is not memcg for mm in s.mms), "no process in a deleted cgroup", **state)
        expect(not memcg.zswap_lru and not any(child.online for child in memcg.children), "deleted is bare", **state)


def check_memcg_usage(memcg: Memcg, memory: int, swap: int, zswap: int) -> None:
    """Version 2: memory is folios and compressed bytes, swap is recorded slots."""
    pages = memory + -(-zswap // PAGE_SIZE)
    state = {"cgroup": memcg.name, "memory": memcg.memory.usage, "swap": memcg.swap.usage}
    expect(memcg.memory.usage == pages, "memory.current = folios + zswap", pages=pages, **state)
    expect(memcg.swap.usage == swap, "swap.current = recorded slots", slots=swap, **state)
    expect(memcg.zswap_bytes == zswap, "zswap.current = objects", objects=zswap, **state)


def check_memsw(memcg: Memcg, memory: int, swap: int) -> None:
    """Version 1: memory is folios, memory + swap is folios and recorded slots, nothing else is charged."""
    state = {"cgroup": memcg.name, "memory": memcg.memory.usage, "memsw": memcg.memsw.usage}
    expect(memcg.memory.usage == memory, "memory.usage = folios", folios=memory, **state)
    expect(memcg.memsw.usage == memory + swap, "memsw.usage = folios + recorded slots", slots=swap, **state)
    expect(memcg.swap.usage == memcg.zswap_bytes == 0, "version 1 charges neither swap nor zswap", **state)


def check_no_lock_held(s: System) -> None:
    """No function returned with a lock, or with a device pinned."""
    locked = [ci.index for si in s.swap.info for ci in si.cluster_info if ci.lock.locked()]
    expect(not locked, "no cluster lock leaked", clusters=locked)
    expect(not any(mm.ptl.locked() for mm in s.mms), "no page-table lock leaked")
    pinned = {si.type: si.users.count for si in s.swap.info if not si.users.is_zero}
    expect(not pinned, "no pin of a device leaked", pins=pinned)


def check_extents(si: SwapInfo) -> None:
    """The extents cover all slots in order, and continue each other nowhere (or they would be one)."""
    following, next_block = 0, -1
    for extent in si.swap_extents:
        expect(extent.start_page == following, "extents leave no slot out", device=si.type, extent=extent)
        expect(extent.start_block != next_block, "extents do not continue each other", device=si.type, extent=extent)
        following += extent.nr_pages
        next_block = extent.start_block + extent.nr_pages
    expect(following >= si.max, "extents cover the device", covered=following, max=si.max)


def check_priority_lists(s: System) -> None:
    """Active and available devices are in order of priority; flags and counters follow from the lists."""
    active, available = s.swap.active_head, s.swap.avail_head
    for devices in (active, available):
        prios = [si.prio for si in devices]
        expect(prios == sorted(prios, reverse=True), "devices are sorted by priority", prios=prios)
    writable = {si.type for si in s.swap.info if si.flags & SWP_WRITEOK}
    expect({si.type for si in active} == writable, "active devices are those in service", writable=writable)
    rotating = sum(not si.flags & SWP_SOLIDSTATE for si in active)
    expect(s.swap.nr_rotate_swap == rotating, "nr_rotate_swap", counter=s.swap.nr_rotate_swap, devices=rotating)
    hints = {si.type for hint in s.swap.percpu for si in hint.si if si is not None}
    expect(hints <= writable, "no CPU has a hint to a device that is gone", hints=hints, writable=writable)


def shmem_references(s: System) -> Counter[int]:
    """How many entries of shared objects name each slot; lost pages name none."""
    entries = (entry for inode in s.shmem.inodes for _, entry in inode.i_pages.items() if isinstance(entry, int))
    swaps = (radix_to_swp_entry(entry) for entry in entries)
    return Counter(swap for swap in swaps if not is_poisoned_swp_entry(swap))


def check_shmem(s: System) -> None:
    """Shared objects, their page caches, counters and mappings."""
    for inode in s.shmem.inodes:
        check_shmem_inode(s, inode)
        check_shmem_mappings(s, inode)
    listed = {inode for inode in s.shmem.inodes if inode.swapped}
    expect(listed <= set(s.shmem.swaplist) <= set(s.shmem.inodes), "objects with pages in swap are on the swap list")
    cached = sum(inode.nrpages for inode in s.shmem.inodes)
    expect(s.vmstat.nr_shmem == cached, "nr_shmem", counter=s.vmstat.nr_shmem, cached=cached)
    both = cached + s.vmstat.nr_swapcached
    expect(s.vmstat.nr_file_pages == both, "nr_file_pages", counter=s.vmstat.nr_file_pages, cached=both)
    folios = [folio for folio in all_folios(s) if folio.mapping is not None]
    expect(len(folios) == cached, "a folio with a mapping is in its page cache", folios=len(folios), cached=cached)
    mapped = sum(folio.mapcount > 0 for folio in folios)
    expect(s.vmstat.nr_mapped == mapped, "nr_mapped", counter=s.vmstat.nr_mapped, mapped=mapped)


def check_shmem_inode(s: System, inode: ShmemInode) -> None:
    """The entries of one page cache and the counts of its object; an object that nobody knows has ended."""
    state = {"object": inode.name, "size": inode.i_size, "nrpages": inode.nrpages, "swapped": inode.swapped}
    swapped = nrpages = 0
    for index, entry in inode.i_pages.items():
        expect(index < inode.i_size, "no page beyond the end", index=index, **state)
        if isinstance(entry, Folio):
            nrpages += 1
            expect(entry.mapping is inode and entry.index == index, "folio knows its place", index=index, **state)
        else:
            swapped += not is_poisoned_swp_entry(radix_to_swp_entry(entry))
    expect((inode.nrpages, inode.swapped) == (nrpages, swapped), "counts = entries", found=(nrpages, swapped), **state)
    expect(inode.alloced >= nrpages + swapped, "alloced covers all pages", alloced=inode.alloced, **state)
    expect(bool(inode.nlink or inode.i_mmap), "an object has a name or a mapping", **state)
    expect(not inode.stop_eviction and not inode.xa_lock.locked(), "nobody is at work on the object", **state)


def check_shmem_mappings(s: System, inode: ShmemInode) -> None:
    """Every mapping of an object maps its pages, each at its place, and holds no swap entry."""
    vmas = {vma for mm in s.mms for vma in mm.vmas if vma.file is inode}
    expect(vmas == set(inode.i_mmap), "the object knows its mappings", object=inode.name, mappings=len(vmas))
    for vma in vmas:
        for addr in range(vma.start, vma.end):
            pte = ptep_get(vma.mm, addr)
            if pte:
                folio = s.memory.mem_map[pte >> PTE_SHIFT] if pte & PTE_PRESENT else None
                right = folio is not None and folio.mapping is inode and folio.index == addr - vma.start
                expect(right, "a shared PTE maps the object's page", object=inode.name, page=addr - vma.start)


def image_slots(s: System) -> set[SwpSlot]:
    """The slots of the hibernation image; its runs are in order and do not touch."""
    type_, extents = s.power.root_swap, s.power.swsusp_extents
    bounds = [bound for extent in extents for bound in extent]
    expect(bounds == sorted(set(bounds)), "runs of image slots are apart and in order", extents=extents)
    slots = {swp_slot(type_, offset) for first, end in extents for offset in range(first, end)}
    expect(len(slots) == len(s.power.image_blocks), "each image page has a slot", slots=len(slots))
    return slots


def recorded_ids(s: System) -> Counter[int]:
    """How many allocated virtual slots record each cgroup id; what free ones have is left over, and means nothing."""
    records: Counter[int] = Counter()
    for cluster in (cluster for _, cluster in s.vswap.cluster_map.items()):
        ids = cluster.desc.memcgid
        records.update(ids[index] for index, bit in enumerate(cluster.bitmap.bits) if bit)
    del records[0]
    return records


def check_entries(s: System, cluster: VswapCluster, references: Counter[int]) -> None:
    """Each allocated slot of a virtual cluster is referred to or pinned, and backed; between operations a pin has its
    folio.  The words of free slots are 0.
    """
    desc = cluster.desc
    for index, bit in enumerate(cluster.bitmap.bits):
        entry, count, pinned = vswap_entry(cluster.id, index), desc.swap_count[index], desc.in_swapcache[index]
        state = {"entry": hex(entry), "count": count, "pinned": pinned, "type": desc.type[index]}
        if not bit:
            expect(not desc.slot[index], "a free virtual slot has nothing behind it", word=desc.slot[index], **state)
            continue
        expect(count == references[entry], "swap_count = users", users=references[entry], **state)
        expect(count > 0 or pinned == 1, "an allocated virtual slot is referred to or pinned", **state)
        expect(pinned == word_is_folio(desc.swap_cache[index]), "pinned for the cache = folio in it", **state)
        check_backing(s, cluster, index, state)


def check_backing(s: System, cluster: VswapCluster, index: int, state: dict[str, object]) -> None:
    """What is behind an allocated slot is what its type says."""
    desc, type_, word = cluster.desc, cluster.desc.type[index], cluster.desc.slot[index]
    count, pinned = desc.swap_count[index], desc.in_swapcache[index]
    has_word = type_ in (VSWAP_SWAPFILE, VSWAP_ZSWAP)
    expect(has_word == (word != 0), "a slot or a compressed copy, if the type says so", word=word, **state)
    if type_ == VSWAP_SWAPFILE:
        si, offset = s.swap.info[swp_slot_type(SwpSlot(word))], swp_slot_offset(SwpSlot(word))
        marked = swap_cache_only(si, offset)
        expect(not marked or (not count and bool(pinned)), "a marked slot is used by the cache alone", **state)
    elif type_ == VSWAP_FOLIO:
        folio = s.memory.mem_map[word_pfn(desc.swap_cache[index])] if pinned else None
        dirty = folio is not None and (folio.dirty or not count)
        expect(dirty, "a page that is nowhere else has its dirty folio in the cache", **state)
