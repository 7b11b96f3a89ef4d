"""Small facts about Linux 6.19 that are often told wrongly, one test each."""

from __future__ import annotations

import random
from errno import ENOENT
from typing import Any

import pytest

import vswap_ref as vr
from vswap_ref.kernel import Kernel, Mapping
from vswap_ref.machine import PAGE_SIZE, Pmem, Scheduler, follow, switch_point

BEFORE = vr.at(8)
"""The last stage at which the name of a page is its place."""
memcg_module = BEFORE.module("memcg")
swap_alloc = BEFORE.module("swap_alloc")
folio_alloc, Folio, SwapInfo, System = map(BEFORE.find, ("folio_alloc", "Folio", "SwapInfo", "System"))
swap_cache_peek, lookup_swap_cgroup_id = map(BEFORE.find, ("swap_cache_peek", "lookup_swap_cgroup_id"))
swap_usage_in_pages, swap_entry_swapped = map(BEFORE.find, ("swap_usage_in_pages", "swap_entry_swapped"))
swapcache_prepare, SWAP_HAS_CACHE = map(BEFORE.find, ("swapcache_prepare", "SWAP_HAS_CACHE"))
SWAP_MAP_BAD, SwpEntry, swp_entry = map(BEFORE.find, ("SWAP_MAP_BAD", "SwpEntry", "swp_entry"))
folio_alloc_swap, is_zswapped = map(BEFORE.find, ("folio_alloc_swap", "is_zswapped"))
zswap_never_enabled = BEFORE.find("zswap_never_enabled")
read_swap_cache_async = BEFORE.find("__read_swap_cache_async")

TEXT = b"some text " * 409 + bytes(6)


def booted(pages: int = 1, **options: object) -> tuple[Kernel, Mapping, SwapInfo]:
    """A kernel that checks itself, a process with pages of text, and the first device."""
    arguments = {"ram": "2M", "swap": [vr.Ssd("1M")], "page_cluster": 0, "debug": True} | options
    kernel = BEFORE.Kernel(**arguments)  # type: ignore[arg-type]
    heap = kernel.spawn("app").mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap.write_page(page, TEXT)
    return kernel, heap, kernel.system.swap.info[0]


def push_out(heap: Mapping) -> None:
    """Out of memory completely."""
    heap.process.madvise(heap, "pageout")
    heap.process.kernel.drain()
    heap.process.kernel.reclaim(len(heap))


def cached_folio(kernel: Kernel) -> Any:
    """The one folio in the swap cache."""
    (folio,) = (folio for folio in kernel.system.memory.mem_map if folio is not None and folio.swapcache)
    return folio


def test_the_swap_table_holds_neither_counts_nor_flags() -> None:
    """A second user of a slot changes its byte; what the cache has for it stays the same shadow."""
    kernel, heap, si = booted()
    push_out(heap)
    shadow, byte = swap_cache_peek(kernel.system, swp_entry(0, 1)), si.swap_map[1]
    assert isinstance(shadow, int)
    heap.process.fork()
    assert swap_cache_peek(kernel.system, swp_entry(0, 1)) == shadow
    assert si.swap_map[1] == byte + 1


class WatchedPmem(Pmem):
    """Calls back while a page is being read."""

    watch = staticmethod(lambda: None)

    def read_into(self, page: int, buffer: bytearray | memoryview) -> None:
        """Read, and let the test look."""
        self.watch()
        super().read_into(page, buffer)


def test_three_meanings_of_in_the_swap_cache_differ_for_a_moment() -> None:
    """While a page bypasses the cache its byte says "cached"; the cache has no folio, and no folio has the flag."""
    device = WatchedPmem("1M")
    kernel, heap, si = booted(swap=[device])
    push_out(heap)
    seen: list[tuple[bool, bool, int]] = []

    def watch() -> None:
        flagged = sum(folio is not None and folio.swapcache for folio in kernel.system.memory.mem_map)
        cached = isinstance(swap_cache_peek(kernel.system, swp_entry(0, 1)), Folio)
        seen.append((bool(si.swap_map[1] & SWAP_HAS_CACHE), cached, flagged))

    device.watch = watch  # type: ignore[method-assign]
    assert heap.read_page(0) == TEXT
    assert seen == [(True, False, 0)]
    assert si.swap_map[1] == 0


def test_readahead_over_a_bad_slot_is_stopped_late() -> None:
    """A bad slot counts as swapped, a folio is allocated for it, and only taking the cache flag fails."""
    kernel, _, si = booted()
    bad = SwpEntry(swp_entry(0, 0))
    assert si.swap_map[0] == SWAP_MAP_BAD
    assert swap_entry_swapped(kernel.system, si, bad)
    assert swapcache_prepare(kernel.system, bad, 1) < 0
    allocated = kernel.vmstat["pgalloc_normal"]
    assert read_swap_cache_async(kernel.system, bad, kernel.system.memcg.root) == (None, False)
    assert kernel.vmstat["pgalloc_normal"] == allocated + 1
    kernel.check()


def test_the_swap_charge_fails_after_the_slot_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit the slot is in use while the charge is tried, and goes back with cgroup id 0."""
    kernel, _, si = booted()
    group = kernel.cgroup("job", swap_max=0)
    heap = kernel.spawn("job", cgroup=group).mmap(PAGE_SIZE)
    heap.write_page(0, TEXT)
    seen: list[tuple[int, int, int]] = []

    def charge(s: System, folio: Folio, entry: SwpEntry) -> int:
        used = swap_usage_in_pages(si)
        err = memcg_module.mem_cgroup_try_charge_swap(s, folio, entry)
        seen.append((used, err, lookup_swap_cgroup_id(s, entry)))
        return err

    monkeypatch.setattr(swap_alloc, "mem_cgroup_try_charge_swap", charge)
    heap.process.madvise(heap, "pageout")
    assert seen == [(1, -12, 0)]
    assert swap_usage_in_pages(si) == 0
    assert group.events == {"swap.max": 1, "swap.fail": 1}


def test_large_allocations_try_one_device_only() -> None:
    """A device without 16 free slots in a row refuses order 4 though another has them; order 0 goes on to it."""
    kernel = BEFORE.Kernel(ram="8M", cpus=1)
    kernel.swapon(vr.Ssd("64K", "small"), priority=10)
    kernel.swapon(vr.Ssd("4M", "large"), priority=1)

    def allocate(order: int) -> int:
        folio = folio_alloc(kernel.system, order)
        assert folio is not None
        folio.locked = folio.swapbacked = folio.uptodate = True
        return folio_alloc_swap(kernel.system, folio)

    assert allocate(4) < 0
    assert all(row["Used"] == 0 for row in kernel.swaps().rows)
    assert [allocate(0) for _ in range(16)] == [0] * 16
    assert {row["Filename"]: row["Used"] // PAGE_SIZE for row in kernel.swaps().rows} == {"small": 15, "large": 1}
    assert allocate(4) == 0


def test_an_exclusive_load_frees_the_copy_but_not_the_slot() -> None:
    """The page is dirty, keeps its slot, and is compressed again into it though nobody changed it."""
    kernel, heap, si = booted(zswap="lz4")
    push_out(heap)
    entry = swp_entry(0, 1)
    assert is_zswapped(kernel.system, entry)
    heap.touch(0)
    assert not is_zswapped(kernel.system, entry)
    assert si.swap_map[1] == SWAP_HAS_CACHE
    push_out(heap)
    assert is_zswapped(kernel.system, entry)
    assert kernel.vmstat["zswpout"] == 2
    assert swap_usage_in_pages(si) == 1


def test_zswap_once_enabled_was_enabled_for_good() -> None:
    """Turning it off again does not bring back what depends on "never enabled"."""
    kernel, _, _ = booted()
    assert zswap_never_enabled(kernel.system)
    kernel.set_zswap(enabled=True)
    kernel.set_zswap(enabled=False)
    assert not zswap_never_enabled(kernel.system)


def test_device_counters_and_major_faults_count_different_things() -> None:
    """pswpin and pswpout are device I/O; a fault on a compressed or zero page is a major fault all the same."""
    kernel, heap, _ = booted(2, zswap="lz4")
    heap.write_page(1, bytes(PAGE_SIZE))
    push_out(heap)
    assert heap.where() == ["zswap", "zero"]
    heap.touch(0)
    heap.touch(1)
    stat = kernel.vmstat
    assert (stat["pswpout"], stat["pswpin"], stat["pgmajfault"], stat["zswpin"], stat["swpin_zero"]) == (0, 0, 2, 1, 1)


def test_a_page_written_back_is_next_to_go() -> None:
    """The reclaim flag moves the folio of a finished write to the cold end of its list."""
    kernel, heap, _ = booted(4, zswap="lz4")
    heap.process.madvise(heap, "pageout", 0, PAGE_SIZE)
    kernel.set_zswap(max_pool_percent=0)
    system = kernel.system
    system.zswap.shrink_queued = True
    for _ in range(2):
        system.zswap.shrink_queued = True
        kernel.drain()
    lruvec = system.memcg.root.lruvec
    coldest = next(iter(lruvec.inactive))
    assert kernel.vmstat["zswpwb"] == kernel.vmstat["pgrotated"] == 1
    assert coldest.swap == swp_entry(0, 1)
    assert len(lruvec.inactive) == 4


def test_zswap_writeback_charges_and_ticks_like_a_swap_in() -> None:
    """It counts zswpwb and pswpout, and takes a page of memory from the owner of the entry while it lasts."""
    kernel, _, _ = booted(zswap="lz4")
    group = kernel.cgroup("job")
    heap = kernel.spawn("job", cgroup=group).mmap(PAGE_SIZE)
    heap.write_page(0, random.Random(0).randbytes(PAGE_SIZE))
    heap.process.madvise(heap, "pageout")
    assert group.memory_current == PAGE_SIZE  # the compressed page, which did not get smaller
    kernel.set_zswap(max_pool_percent=0)
    for _ in range(3):
        kernel.system.zswap.shrink_queued = True
        kernel.drain()
    assert (kernel.vmstat["zswpwb"], kernel.vmstat["pswpout"], kernel.vmstat["zswpin"]) == (1, 1, 0)
    assert group.zswap_current == 0
    assert group.memory_current == PAGE_SIZE  # the folio, in the swap cache until it is reclaimed
    kernel.reclaim("64K")
    assert group.memory_current == 0


@pytest.mark.parametrize("stage", [0, 8, 12, 14])
def test_who_must_not_wait_for_a_swap_in_gets_no_folio_of_it(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write-back looks, finds nothing, and loses the pin to a swap-in: it does not look again, others do."""
    kernel = vr.at(stage).Kernel(ram="2M", swap=[vr.Ssd("1M")], page_cluster=0)
    heap = kernel.spawn("app").mmap_swapped(PAGE_SIZE)
    heap.process.fork()
    heap.touch(0)
    folio = cached_folio(kernel)
    module, found = vr.at(stage).module("swap_read"), []
    look = module.swap_cache_get_folio
    for skip_if_exists in (True, False):
        answers = iter((lambda *_: None, look))
        monkeypatch.setattr(module, "swap_cache_get_folio", lambda *args, answers=answers: next(answers)(*args))
        read = module.__dict__["__read_swap_cache_async"]
        found.append(read(kernel.system, folio.swap, kernel.system.memcg.root, skip_if_exists))
    assert found == [(None, False), (folio, False)]


@pytest.mark.parametrize("stage", [0, 6, 9, 13, 14])
def test_who_loses_the_claim_begins_again(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot that was freed is not looked for again; after a tick one asks anew whether anybody refers to it."""
    kernel = vr.at(stage).Kernel(ram="2M", swap=[vr.Pmem("1M")], cpus=1)
    heap = kernel.spawn("app").mmap_swapped(PAGE_SIZE)
    s, find, module = kernel.system, vr.at(stage).find, vr.at(stage).module("swap_read")
    entry = find("pte_to_swp_entry")(find("ptep_get")(heap.process.mm, heap.vma.start))
    read, look, looks = module.__dict__["__read_swap_cache_async"], module.swap_cache_get_folio, []
    monkeypatch.setattr(module, "swap_cache_get_folio", lambda *args: looks.append(args) or look(*args))
    with monkeypatch.context() as freed:
        freed.setattr(module, "swapcache_prepare", lambda *_: -ENOENT)
        assert read(s, entry, s.memcg.root) == (None, False)
    assert len(looks) == 1
    assert find("swapcache_prepare")(s, entry, 1) == 0
    last_user = iter((lambda: find("swap_free")(s, entry),))
    monkeypatch.setattr(module, "relax", lambda _: next(last_user)() or True)
    assert read(s, entry, s.memcg.root) == (None, False)
    assert len(looks) == 3


@pytest.mark.parametrize("stage", [0, 1, 10, 13, 14])
def test_a_frozen_folio_is_looked_up_until_it_is_back(stage: int) -> None:
    """Who finds a folio whose references are frozen lets others run, and looks again; alone he gets nothing."""
    find = vr.at(stage).find
    kernel = vr.at(stage).Kernel(ram="2M", swap=[vr.Ssd("1M")], page_cluster=0, cpus=2, locks="scheduled")
    heap = kernel.spawn("app").mmap_swapped(PAGE_SIZE)
    heap.process.fork()
    heap.touch(0)
    folio = cached_folio(kernel)
    look, found, held = find("swap_cache_get_folio"), [], folio.refcount
    freeze, unfreeze = find("folio_ref_freeze"), find("folio_ref_unfreeze")

    def split() -> None:
        assert freeze(folio, held)
        switch_point("frozen")
        unfreeze(folio, held)

    assert Scheduler([split, lambda: found.append(look(kernel.system, folio.swap))], follow([0, 1])).run() is None
    assert (found, folio.refcount) == ([folio], held + 1)
    assert freeze(folio, held + 1)
    assert look(kernel.system, folio.swap) is None
