"""Functions of the kernel that no ordinary run reaches, called one by one."""

from __future__ import annotations

import random
from errno import EINVAL

import pytest

import vswap_ref as vr
from vswap_ref.kernel import Kernel
from vswap_ref.machine import PAGE_SIZE

BEFORE = vr.at(8)
"""The last stage at which the name of a page is its place."""
swap_do_scheduled_discard, folio_alloc = map(BEFORE.find, ("swap_do_scheduled_discard", "folio_alloc"))
folio_lock, folio_put, folio_unlock = map(BEFORE.find, ("folio_lock", "folio_put", "folio_unlock"))
folio_add_lru, lruvec_add_folio = map(BEFORE.find, ("folio_add_lru", "lruvec_add_folio"))
lruvec_del_folio, mincore_swap, swap_writeout = map(BEFORE.find, ("lruvec_del_folio", "mincore_swap", "swap_writeout"))
ptep_get, ScanControl, shrink_lruvec = map(BEFORE.find, ("ptep_get", "ScanControl", "shrink_lruvec"))
folio_free_swap, free_folio_and_swap_cache = map(BEFORE.find, ("folio_free_swap", "free_folio_and_swap_cache"))
Folio, cluster_reclaim_range = map(BEFORE.find, ("Folio", "cluster_reclaim_range"))
swap_sync_discard, swap_cache_del_folio = map(BEFORE.find, ("swap_sync_discard", "swap_cache_del_folio"))
swap_cache_get_folio, total_swapcache_pages = map(BEFORE.find, ("swap_cache_get_folio", "total_swapcache_pages"))
swp_swapcount, swap_cluster_lock = map(BEFORE.find, ("swp_swapcount", "swap_cluster_lock"))
swap_cluster_unlock, swap_folio_sector = map(BEFORE.find, ("swap_cluster_unlock", "swap_folio_sector"))
__swap_duplicate, swap_duplicate, swap_free = map(BEFORE.find, ("__swap_duplicate", "swap_duplicate", "swap_free"))
swap_shmem_alloc, swap_flags, swapon = map(BEFORE.find, ("swap_shmem_alloc", "swap_flags", "swapon"))
SWAP_HAS_CACHE, SWAP_MAP_SHMEM = map(BEFORE.find, ("SWAP_HAS_CACHE", "SWAP_MAP_SHMEM"))
pte_to_swp_entry, swp_offset = map(BEFORE.find, ("pte_to_swp_entry", "swp_offset"))
folio_alloc_swap, pack_shadow = map(BEFORE.find, ("folio_alloc_swap", "pack_shadow"))
workingset_refault, zswap_items = map(BEFORE.find, ("workingset_refault", "zswap_items"))
zswap_shrinker_scan = BEFORE.find("zswap_shrinker_scan")

TEXT = b"some text " * 409 + bytes(6)


def cached_folio(kernel: Kernel) -> Folio:
    """A locked folio in the swap cache that no page table refers to, with one reference of ours."""
    folio = folio_alloc(kernel.system)
    assert folio is not None
    folio.data[:] = TEXT
    folio.swapbacked = folio.uptodate = True
    folio_lock(folio)
    assert folio_alloc_swap(kernel.system, folio) == 0
    folio_add_lru(kernel.system, folio)
    return folio


def drop(kernel: Kernel, *folios: Folio) -> None:
    """Unlock and free; nothing may be left of slots and memory."""
    for folio in folios:
        folio_unlock(folio)
        folio_put(kernel.system, folio)
    kernel.check()
    assert kernel.system.memory.used == 0
    assert kernel.system.swap.nr_swap_pages == kernel.system.swap.total_swap_pages


def test_swap_shmem_alloc_makes_an_owner_that_cannot_be_duplicated() -> None:
    """The byte becomes SHMEM with the cache flag; one free takes the owner away at once."""
    kernel = BEFORE.Kernel(ram="1M", swap=vr.Ssd("4M"))
    s = kernel.system
    folio = cached_folio(kernel)
    entry = folio.swap
    swap_map = s.swap.info[0].swap_map
    swap_shmem_alloc(s, entry, 1)
    assert swap_map[swp_offset(entry)] == SWAP_MAP_SHMEM | SWAP_HAS_CACHE
    assert __swap_duplicate(s, entry, 1, 1) == -EINVAL
    assert not folio_free_swap(s, folio)
    swap_free(s, entry)
    assert swap_map[swp_offset(entry)] == SWAP_HAS_CACHE
    assert folio_free_swap(s, folio)
    drop(kernel, folio)


def test_a_cached_page_that_nobody_maps_is_freed_with_its_slot() -> None:
    """free_folio_and_swap_cache: slot and memory go; total_swapcache_pages counts what is cached."""
    kernel = BEFORE.Kernel(ram="1M", swap=vr.Ssd("4M"))
    s = kernel.system
    folio = cached_folio(kernel)
    assert total_swapcache_pages(s) == 1
    folio_unlock(folio)
    free_folio_and_swap_cache(s, folio)
    assert total_swapcache_pages(s) == 0
    drop(kernel)


def test_a_locked_page_keeps_its_slot() -> None:
    """free_folio_and_swap_cache only tries the lock: the reference goes, the slot stays."""
    kernel = BEFORE.Kernel(ram="1M", swap=vr.Ssd("4M"))
    s = kernel.system
    folio = cached_folio(kernel)
    folio.refcount += 1
    free_folio_and_swap_cache(s, folio)
    assert folio.swapcache
    assert folio.refcount == 2
    swap_cache_del_folio(s, folio)
    drop(kernel, folio)


def test_an_exchanged_word_returns_the_old_one() -> None:
    """__swap_table_xchg of stage 0: the folio's word comes out, a shadow is in its place, and back."""
    stage = vr.at(0)
    kernel = stage.Kernel(ram="1M", swap=vr.Ssd("4M"), cpus=1)
    s, table, cache = kernel.system, stage.module("swap_table"), stage.module("swap_cache")
    heap = kernel.spawn("app").mmap("4K")
    heap[0] = 7
    heap.process.madvise(heap, "pageout")
    (folio,) = s.memory.mem_map[1:]
    ci, offset, shadow = s.swap.info[0].cluster_info[0], folio.swap, pack_shadow(1, 7, False)
    assert table.__swap_table_xchg(ci, offset, shadow) == folio.pfn << 1
    assert cache.swap_cache_get_folio(s, folio.swap) is None
    assert cache.swap_cache_get_shadow(s, folio.swap) == shadow
    assert table.__swap_table_xchg(ci, offset, folio.pfn << 1) == shadow
    kernel.check()


def test_a_slot_is_eight_sectors() -> None:
    """swap_folio_sector: the place on the device is the slot's number times eight."""
    kernel = BEFORE.Kernel(ram="1M", swap=vr.Ssd("4M"))
    folios = [cached_folio(kernel) for _ in range(3)]
    for folio in folios:
        assert swap_folio_sector(kernel.system, kernel.system.swap.info[0], folio) == 8 * swp_offset(folio.swap) > 0
        swap_cache_del_folio(kernel.system, folio)
    drop(kernel, *folios)


def test_cluster_reclaim_range_stops_at_a_folio_that_is_locked() -> None:
    """Cache-only slots become free, their content is dirty in memory; a locked folio ends the walk."""
    kernel = BEFORE.Kernel(ram="1M", swap=vr.Ssd("4M"))
    s = kernel.system
    first, second = folios = [cached_folio(kernel) for _ in range(2)]
    si, offset = s.swap.info[0], swp_offset(first.swap)
    folio_unlock(first)
    ci = swap_cluster_lock(s, si, offset)
    assert not cluster_reclaim_range(s, si, ci, offset, 2)
    assert list(si.swap_map[offset : offset + 2]) == [0, SWAP_HAS_CACHE]
    swap_cluster_unlock(ci)
    folio_unlock(second)
    ci = swap_cluster_lock(s, si, offset)
    assert cluster_reclaim_range(s, si, ci, offset, 2)
    swap_cluster_unlock(ci)
    assert not any(folio.swapcache for folio in folios)
    assert all(folio.dirty for folio in folios)
    drop(kernel, *folios)


def test_pending_discards_run_when_the_device_is_short() -> None:
    """An empty cluster waits for its discard; then it is free, and its content is forgotten."""
    kernel = BEFORE.Kernel(ram="4M")
    s = kernel.system
    bdev = vr.Ssd("6M")
    assert swapon(s, bdev, swap_flags(-1, "pages")) == 0
    si = s.swap.info[0]
    folios = [cached_folio(kernel) for _ in range(3)]
    assert swp_offset(folios[0].swap) == 512, "a discarding device starts with a free cluster"
    assert not swap_sync_discard(s)
    for folio in folios:
        bdev.write(swp_offset(folio.swap), folio.data)
        swap_cache_del_folio(s, folio)
    assert len(si.discard_clusters) == 1
    assert swap_sync_discard(s)
    assert not swap_do_scheduled_discard(s, si)
    assert bdev.stats.discards == 1
    assert bytes(bdev.read(512)) == bytes(PAGE_SIZE)
    drop(kernel, *folios)


def test_the_shrinker_visits_twice_before_it_writes() -> None:
    """zswap_shrinker_scan: the first visit takes the second chance away, the second writes back."""
    kernel = BEFORE.Kernel(ram="4M", swap=vr.Ssd("8M"), zswap="lz4", debug=True)
    app = kernel.spawn("app")
    heap = app.mmap("64K")
    for page in range(heap.pages):
        heap.write_page(page, random.Random(page).randbytes(1024) * 4)
    app.madvise(heap, "pageout")
    root = kernel.system.memcg.root
    assert zswap_shrinker_scan(kernel.system, root, 100) == 0
    assert zswap_shrinker_scan(kernel.system, root, 5) == 5
    assert kernel.vmstat["zswpwb"] == kernel.vmstat["pswpout"] == 5
    assert zswap_shrinker_scan(kernel.system, root, 100) == 11
    assert zswap_shrinker_scan(kernel.system, root, 100) == 0
    kernel.drain()
    assert all(heap.read_page(page) == random.Random(page).randbytes(1024) * 4 for page in range(heap.pages))


def test_swp_swapcount_is_exact_over_two_continuation_levels() -> None:
    """Up beyond 63 * 128 * 2 users, in a zigzag, and down again: the count is right at every step."""
    kernel = BEFORE.Kernel(ram="1M", swap=vr.Ssd("4M"))
    s = kernel.system
    folio = cached_folio(kernel)
    entry, users = folio.swap, 0
    for target in (70, 61, 63 * 128 + 2, 63 * 128 - 2, 63 * 128 * 2 + 5, 0):
        step = 1 if target > users else -1
        while users != target:
            if step > 0:
                assert swap_duplicate(s, entry) == 0
            else:
                swap_free(s, entry)
            users += step
            assert swp_swapcount(s, entry) == users
    assert len(s.swap.info[0].continuation[0]) == 2
    assert folio_free_swap(s, folio)
    drop(kernel, folio)


def test_mincore_looks_in_the_swap_cache() -> None:
    """A swapped-out page is not resident until it has been read into the cache."""
    kernel = BEFORE.Kernel(ram="1M", swap=vr.Ssd("4M"))
    app = kernel.spawn("app")
    heap = app.mmap("4K")
    heap.write_page(0, TEXT)
    app.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("64K")
    entry = pte_to_swp_entry(ptep_get(app.mm, heap.vma.start))
    assert not mincore_swap(kernel.system, entry, shmem=False)
    app.madvise(heap, "willneed")
    assert mincore_swap(kernel.system, entry, shmem=False)
    kernel.check()


@pytest.mark.parametrize("zswap", ["off", "lz4"])
def test_swapoff_brings_everything_back_and_frees_the_arrays(zswap: str) -> None:
    """Zero, text and random pages, shared and cached ones; afterwards nothing of the device is left."""
    kernel = BEFORE.Kernel(ram="4M", swap=vr.Ssd("8M"), zswap=zswap, debug=True)
    app = kernel.spawn("app")
    heap = app.mmap("64K")
    contents = [(bytes(PAGE_SIZE), TEXT, random.Random(page).randbytes(PAGE_SIZE))[page % 3] for page in range(16)]
    for page, content in enumerate(contents):
        heap.write_page(page, content)
    app.madvise(heap, "pageout")
    child = app.fork()
    kernel.drain()
    kernel.reclaim("64K")
    app.madvise(heap, "willneed", 0, 4)
    child.exit()
    kernel.swapoff(0)
    s = kernel.system
    si = s.swap.info[0]
    assert (s.swap.total_swap_pages, s.swap.nr_swap_pages, app.mm.swapents) == (0, 0, 0)
    assert not any((si.swap_map, si.cluster_info, si.continuation, s.swap.cgroup, s.swap.mmlist))
    assert not list(zswap_items(s))
    assert s.zswap.stored_pages == s.zswap.pool_bytes == 0
    assert [heap.read_page(page) for page in range(16)] == contents


def test_a_page_that_stays_is_no_write_of_reclaim() -> None:
    """nr_vmscan_write counts pages that were put somewhere, not those that zswap and its cgroup refuse."""
    kernel = BEFORE.Kernel(ram="4M", swap=vr.Ssd("8M"), zswap="lz4")
    for allowed in (False, True):
        app = kernel.spawn("app", cgroup=kernel.cgroup(f"writeback={allowed}", zswap_writeback=allowed))
        heap = app.mmap("16K")
        for page in range(4):
            heap.write_page(page, random.Random(page).randbytes(PAGE_SIZE))
        app.madvise(heap, "pageout")
        assert kernel.vmstat["nr_vmscan_write"] == (4 if allowed else 0)
        assert set(heap.where()) == {"zswap" if allowed else "swapcache"}


@pytest.mark.parametrize(("other", "queued"), [("36K", True), ("44K", False)])
def test_a_full_device_starts_slot_reclaim_if_swap_was_half_full_before(other: str, queued: bool) -> None:
    """When the last of 11 slots is taken, 10 of 19 or 21 are in use: the question comes before it is subtracted."""
    kernel = BEFORE.Kernel(ram="4M", swap=vr.Ssd(other))
    kernel.swapon(vr.Ssd("48K"), priority=1)
    s = kernel.system
    folios = [cached_folio(kernel) for _ in range(s.swap.info[1].pages)]
    assert s.swap.info[1] not in s.swap.avail_head
    assert list(s.swap.reclaim_work) == [s.swap.info[1]] * queued
    s.swap.reclaim_work.clear()
    for folio in folios:
        swap_cache_del_folio(s, folio)
    drop(kernel, *folios)


def test_lists_age_while_swap_is_full() -> None:
    """With no free slot nothing is reclaimed, but active pages move to the inactive list; without swap neither."""
    for devices, deactivated in (([vr.Ssd("64K")], 32), ([], 0)):
        kernel = BEFORE.Kernel(ram="4M", swap=devices, memcg=None)
        s = kernel.system
        heap = kernel.spawn("app").mmap("512K")
        for page in range(heap.pages):
            heap.write_page(page, TEXT)
        root = s.memcg.root
        for folio in list(root.lruvec.inactive):
            lruvec_del_folio(s, folio)
            folio.active = True
            lruvec_add_folio(s, folio)
        slots = [cached_folio(kernel) for _ in range(s.swap.nr_swap_pages)]
        control = ScanControl(root, nr_to_reclaim=1, who="direct", priority=0)
        shrink_lruvec(s, root, control)
        assert control.nr_reclaimed == 0
        assert kernel.vmstat["pgdeactivate"] == deactivated
        assert kernel.vmstat["pgscan_anon"] == 0
        assert len(slots) == s.swap.total_swap_pages


def test_a_refault_counts_though_the_cgroup_is_gone() -> None:
    """The shadow of a cgroup whose id no longer exists: a refault, but no activation."""
    kernel = BEFORE.Kernel(ram="1M", swap=vr.Ssd("4M"))
    s = kernel.system
    folio = cached_folio(kernel)
    workingset_refault(s, folio, pack_shadow(77, 0, False))
    assert kernel.vmstat["workingset_refault_anon"] == 1
    assert kernel.vmstat["workingset_activate_anon"] == 0
    swap_cache_del_folio(s, folio)
    drop(kernel, folio)


def test_a_zero_page_leaves_the_older_compressed_copy() -> None:
    """A known defect of stage 0: write-out of zeros sets the bit and forgets what zswap has of the same slot.

    A fault reads zeros, but zswap's writeback puts the old content in the swap cache, up to date.
    """
    kernel = BEFORE.Kernel(ram="1M", swap=vr.Ssd("4M"), zswap="lz4")
    s = kernel.system
    folio = cached_folio(kernel)
    entry = folio.swap
    assert swap_duplicate(s, entry) == 0
    assert swap_writeout(s, folio) == 0
    folio_lock(folio)
    folio.data[:] = bytes(PAGE_SIZE)
    assert swap_writeout(s, folio) == 0
    assert s.zswap.stored_pages == kernel.vmstat["swpout_zero"] == 1
    folio_lock(folio)
    folio.dirty = False
    swap_cache_del_folio(s, folio)
    folio_unlock(folio)
    folio_put(s, folio)
    assert zswap_shrinker_scan(s, s.memcg.root, 1) == 0
    assert zswap_shrinker_scan(s, s.memcg.root, 1) == 1
    stale = swap_cache_get_folio(s, entry)
    assert stale is not None
    assert stale.uptodate
    assert bytes(stale.data) == TEXT


def test_check_sees_lists_and_processes_that_went_astray() -> None:
    """A wrong list counter, a wrong flag, a process that swapoff would miss: each is named."""
    kernel = BEFORE.Kernel(ram="1M", swap=vr.Ssd("4M"))
    s = kernel.system
    app = kernel.spawn("app")
    heap = app.mmap("64K")
    for page in range(heap.pages):
        heap.write_page(page, TEXT)
    app.madvise(heap, "pageout", 0, 4)
    kernel.check()
    lruvec = s.memcg.root.lruvec
    lruvec.nr_inactive += 1
    with pytest.raises(BEFORE.InvariantError, match="list counter"):
        kernel.check()
    lruvec.nr_inactive -= 1
    folio = next(iter(lruvec.inactive))
    folio.active = True
    with pytest.raises(BEFORE.InvariantError, match="list of its flags"):
        kernel.check()
    folio.active = False
    del s.swap.mmlist[app.mm]
    with pytest.raises(BEFORE.InvariantError, match="swapoff"):
        kernel.check()


def test_an_image_and_the_end_of_a_device_at_stage_0() -> None:
    """Functions of 6.19 that later patches rename or remove."""
    kernel = vr.at(0).Kernel(ram="4M", swap=[vr.Ssd("8M")], zswap="lz4")
    heap = kernel.spawn("app").mmap("64K")
    for page in range(heap.pages):
        heap.write_page(page, b"saved..." * 512)
    with kernel.hibernate(4):
        kernel.check()
        assert kernel.swaps().rows[0]["Used"] == 4 * PAGE_SIZE
    kernel.swapoff(0)
    assert kernel.system.zswap.trees == {}
    assert bytes(heap[0:5]) == b"saved"
