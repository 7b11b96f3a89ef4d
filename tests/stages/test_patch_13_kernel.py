"""The life of an entry in its descriptor: what users see of it, what it costs, what the allocator may take back."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from vswap_costs import Counted, primitives_of

import vswap_ref as vr
from vswap_ref.lab.same import common_sites, compare_runs
from vswap_ref.lab.same_workload import Step, play
from vswap_ref.machine import PAGE_SIZE

ALLOCATIONS = ("pgalloc_normal", "pgfree", "allocstall_normal")
PAGE = bytes([9, 7]) * (PAGE_SIZE // 2)


def visible(step: Step, *but: str) -> Step:
    """What a user sees of a step: no locks, requests for memory or inner state, and not these counters."""
    result = re.sub(rf"\b({'|'.join(but)}) \d+", r"\1 -", "" if step.operation == "state" else step.result)
    vmstat = {name: nr for name, nr in step.vmstat.items() if name not in but}
    return replace(step, result=result, vmstat=vmstat, allocations={}, cost={}, state={})


@pytest.mark.slow
@pytest.mark.parametrize("world", ["large folios", "one cluster, version 1", "file"])
def test_users_see_the_same(world: str) -> None:
    """Values, errors, requests, counters and times of 11,000 steps.

    But for pages that were allocated to read a free slot, and for a statistic of cgroups of version 1: see below.
    """
    sites = common_sites(12, 13) - {"folio_alloc"}
    runs = [play(vr.at(stage), worlds=[world], sites=sites, image_pages=1) for stage in (12, 13)]
    steps = [[visible(step, "swapcached", *ALLOCATIONS) for step in run] for run in runs]
    assert steps[0] == steps[1], compare_runs(*steps, names=("stage 12", "stage 13"))


def booted(stage: int, swap: Callable[[], Any] = lambda: vr.Ssd("4M"), **options: Any) -> tuple[vr.Kernel, vr.Process]:
    """A kernel with one device, one CPU, no readahead, and a process in a cgroup."""
    options = {"ram": "8M", "cpus": 1, "page_cluster": 0, **options}
    kernel = vr.at(stage).Kernel(swap=[swap()], **options)
    return kernel, kernel.spawn("app", kernel.cgroup("web"))


def pushed_out(app: vr.Process, contents: list[bytes]) -> vr.Mapping:
    """A mapping of pages with these contents, none of them in memory."""
    heap = app.mmap(len(contents) * PAGE_SIZE)
    for page, content in enumerate(contents):
        heap.write_page(page, content)
    app.madvise(heap, "pageout")
    app.kernel.drain()
    app.kernel.reclaim("256K")
    return heap


LOCKS = {12: {"lz4": (11, 5), None: (13, 5)}, 13: {"lz4": (9, 2), None: (11, 2)}}


@pytest.mark.parametrize("stage", LOCKS)
@pytest.mark.parametrize("zswap", ["lz4", None])
def test_locks_of_a_swap_out(stage: int, zswap: str | None) -> None:
    """From the allocation until the page is gone: locks of virtual and of physical clusters."""
    kernel, app = booted(stage, zswap=zswap)
    pushed_out(app, [PAGE])
    cost = primitives_of(lambda: pushed_out(app, [PAGE]), kernel)
    assert (cost["cl_lock"], cost["ci_lock"]) == LOCKS[stage][zswap]


@pytest.mark.parametrize(("stage", "batching", "freeing"), [(12, (1536, 0), (1537, 1)), (13, (1024, 0), (1, 512))])
def test_locks_of_unmapping_a_table(stage: int, batching: tuple[int, int], freeing: tuple[int, int]) -> None:
    """512 compressed pages go: to find that they are a run, and to free them."""
    kernel, app = booted(stage, lambda: vr.Ssd("8M", bad_pages=range(1, 512)), zswap="lz4")
    heap, _ = pushed_out(app, [PAGE] * 512), pushed_out(app, [PAGE] * 512)  # the next entry is there, too
    s, module, table = kernel.system, vr.at(stage).module, next(iter(app.mm.pgd.values()))
    exact = {"free_batch": True} if stage == 13 else {}
    walk = primitives_of(lambda: module("pagetable").swap_pte_batch(s, table, 0, 512, **exact), kernel)
    assert (walk["cl_lock"], walk.get("ci_lock", 0)) == batching
    cost = primitives_of(lambda: app.madvise(heap, "dontneed"), kernel)
    assert (cost["cl_lock"] - batching[0], cost["ci_lock"]) == freeing


def test_a_page_with_many_owners_needs_no_pages() -> None:
    """Beyond 62, and beyond 62 + 63 * 127: there is nothing that could fail, and nothing in the ledger."""
    kernel, app = booted(13, lambda: vr.Pmem("4M"))
    heap = pushed_out(app, [PAGE])
    before = kernel.memory()
    children = [app.fork() for _ in range(100)]
    assert "swap_continuation_alloc" not in kernel.faults.docs
    assert "count continuation" not in {row[0] for row in before.rows}
    assert kernel.memory() == before
    kernel.check()
    for process in (app, *children):
        assert process.mappings[0].read_page(0) == PAGE
    kernel.check()
    assert heap.where().counts() == {"swapcache": 1}


def test_readahead_over_free_slots_allocates_nothing() -> None:
    """The header's byte looks like a user's at 12, so each free slot costs a page that is given back at once."""
    allocated = []
    for stage in (12, 13):
        kernel, app = booted(stage, lambda: vr.Disk("4M"), page_cluster=3)
        heap = pushed_out(app, [PAGE] * 8)
        app.madvise(heap, "dontneed", PAGE_SIZE, 7 * PAGE_SIZE)
        kernel.system.swap.readahead_hits = 6
        before = kernel.vmstat["pgalloc_normal"]
        assert heap.read_page(7) == PAGE
        allocated.append(kernel.vmstat["pgalloc_normal"] - before)
    assert allocated[1] == 1 < allocated[0]


def test_unused_cache_goes_with_its_last_user_though_swap_is_empty() -> None:
    """A page in memory and in swap, mapped by two, is unmapped by the one that still has the swap PTE."""
    left = []
    for stage in (12, 13):
        kernel, app = booted(stage)
        pushed_out(app, [PAGE])
        child = app.fork()
        child.mappings[0].read_page(0)
        app.exit()
        kernel.check()
        left.append(kernel.vmstat["nr_swapcached"])
        assert child.mappings[0].read_page(0) == PAGE
    assert left == [1, 0]


def filled_device(marked: bool) -> Counted:
    """A device more than half full, its second cluster of folios of 4 pages that nobody refers to, with four holes.

    No 4 free slots are in a row.  ``marked``: somebody referred to the folios once.
    """
    kernel = Counted(13, size="4M", locks="validated")
    for order in [0] * 10 + [2] * 124:
        folio = kernel.folio(order)
        assert kernel.call("folio_alloc_swap", folio) == 0
        for page in range(marked << order):
            assert kernel.call("swap_duplicate", folio.swap + page) == 0
            kernel.call("swap_free_nr", folio.swap + page, 1)
        kernel.call("folio_add_lru", folio)
        folio.locked = False
    for _ in range(4):
        kernel.call("swap_free_nr", kernel.evicted(2), 1)
    return kernel


def test_slots_that_the_cache_alone_uses_are_taken_back() -> None:
    """One more folio gets the slots of another, which is dirty then, and not in the cache."""
    kernel = filled_device(marked=True)
    assert kernel.call("cluster_scan_range", kernel.s.swap.info[0], 512, 4) == (True, True)
    folio = kernel.folio(2)
    assert kernel.call("folio_alloc_swap", folio) == 0
    assert kernel.s.vmstat["nr_swapcached"] == 10 + 124 * 4
    dropped = {other for other in kernel.s.memory.mem_map[1:] if other and other.lru and not other.swapcache}
    assert [(other.order, other.dirty) for other in dropped] == [(2, True)]


def test_fresh_slots_are_not_taken_back() -> None:
    """Allocated, and not referred to yet: somebody is at work there."""
    kernel = filled_device(marked=False)
    assert kernel.call("cluster_scan_range", kernel.s.swap.info[0], 512, 4) == (False, False)
    assert kernel.call("folio_alloc_swap", kernel.folio(2)) == -errno.ENOMEM
    assert kernel.s.vmstat["nr_swapcached"] == 10 + 124 * 4


def test_a_new_user_wipes_the_mark() -> None:
    """Marked when the last user goes, not marked as soon as there is one again."""
    kernel = Counted(13)
    folio = kernel.swapped()
    si, offset = kernel.s.swap.info[0], kernel.call("swp_entry_to_swp_slot", folio.swap)
    only = kernel.find("swap_cache_only")
    seen = [only(si, offset)]
    for name, args in (("swap_free_nr", (1,)), ("swap_duplicate", ()), ("swap_free_nr", (1,))):
        kernel.call(name, folio.swap, *args)
        seen.append(only(si, offset))
    assert seen == [False, True, False, True]


@pytest.mark.parametrize("state", ["unmarked", "locked", "written", "hibernation", "other slot"])
def test_what_keeps_a_folio_from_reclaim_by_slot(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found, and stays; a folio that has moved on is looked for again."""
    kernel = Counted(13)
    folio = kernel.swapped()
    entry, slot = folio.swap, kernel.call("swp_entry_to_swp_slot", folio.swap)
    if state != "unmarked":
        kernel.call("swap_free_nr", entry, 1)
    folio.locked = state == "locked"
    folio.writeback = state == "written"
    kernel.s.power.suspended_storage = state == "hibernation"
    if state == "other slot":
        reclaim = kernel.stage.module("slot_reclaim")
        taken = []

        def trylock(other: Any) -> bool:
            """While the lock is waited for, the entry dies, and its slot gets another one."""
            if not taken:
                kernel.call("swap_cache_del_folio", folio)
                taken.append(kernel.swapped())
                assert kernel.call("swp_entry_to_swp_slot", taken[0].swap) != slot
            other.locked = True
            return True

        folio.locked = True
        monkeypatch.setattr(reclaim, "folio_trylock", trylock)
        assert kernel.call("__try_to_reclaim_swap", kernel.s.swap.info[0], slot, 1) == 0
        return
    assert kernel.call("__try_to_reclaim_swap", kernel.s.swap.info[0], slot, 1) == -1
    folio.locked = folio.writeback = kernel.s.power.suspended_storage = False
    assert kernel.call("__try_to_reclaim_swap", kernel.s.swap.info[0], slot, 1) == (-1 if state == "unmarked" else 1)


def test_freeing_asks_for_no_cgroup() -> None:
    """A run of PTEs is one run for freeing, whoever pays for its pages; to come back as one, it must be one payer's."""
    kernel, app = booted(13)
    pushed_out(app, [PAGE] * 8)
    table = next(iter(app.mm.pgd.values()))
    batch, s = vr.at(13).module("pagetable").swap_pte_batch, kernel.system
    (cluster,) = (cluster for _, cluster in s.vswap.cluster_map.items())
    assert [batch(s, table, 0, 8, free_batch=free) for free in (True, False)] == [8, 8]
    cluster.desc.memcgid[5] += 1
    assert [batch(s, table, 0, 8, free_batch=free) for free in (True, False)] == [8, 5]


def test_version_1_forgets_to_count_the_cache_down() -> None:
    """The folio has left its cgroup by the time the statistic is changed: it only grows.  The system's is right."""
    stat = []
    for stage in (12, 13):
        kernel, app = booted(stage, lambda: vr.Pmem("4M"), memcg="v1")
        pushed_out(app, [PAGE] * 4)
        assert kernel.vmstat["nr_swapcached"] == 0
        stat.append(app.cgroup.memcg.stat["swapcached"])
    assert stat == [0, 4]


CORRUPTIONS = {
    "count": ("swap_count", 2, "swap_count = users"),
    "pin": ("in_swapcache", 1, "pinned for the cache = folio in it"),
}


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_the_checker_sees(what: str) -> None:
    """A descriptor that does not tell the truth."""
    column, value, message = CORRUPTIONS[what]
    kernel, app = booted(13)
    pushed_out(app, [PAGE])
    kernel.check()
    (cluster,) = (cluster for _, cluster in kernel.system.vswap.cluster_map.items())
    getattr(cluster.desc, column)[0] = value
    with pytest.raises(vr.at(13).InvariantError, match=message):
        kernel.check()


def test_the_checker_sees_a_wrong_mark() -> None:
    """A slot that somebody uses is not the cache's alone."""
    kernel, app = booted(13)
    pushed_out(app, [PAGE])
    table = kernel.system.swap.info[0].cluster_info[0].table
    table[1] |= 1 << 63
    with pytest.raises(vr.at(13).InvariantError, match="a marked slot is used by the cache alone"):
        kernel.check()
