"""Backings decoupled: swapping out without a device, places taken when something is written, and what else changes."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest
from vswap_costs import Counted, primitives_of

import vswap_ref as vr
from vswap_ref.machine import PAGE_SIZE

ZEROS = bytes(PAGE_SIZE)
TEXT = [bytes([i + 1, 7]) * (PAGE_SIZE // 2) for i in range(64)]
NOISE = [random.Random(i).randbytes(PAGE_SIZE) for i in range(64)]


def booted(stage: int, *swap: Any, **options: Any) -> tuple[vr.Kernel, vr.Process]:
    """A kernel with these devices, one CPU, no readahead, and a process in a cgroup."""
    options = {"ram": "8M", "cpus": 1, "page_cluster": 0, "debug": True, **options}
    kernel = vr.at(stage).Kernel(swap=list(swap), **options)
    return kernel, kernel.spawn("app", kernel.cgroup("web"))


def written(app: vr.Process, contents: list[bytes]) -> vr.Mapping:
    """A mapping of pages with these contents."""
    heap = app.mmap(len(contents) * PAGE_SIZE)
    for page, content in enumerate(contents):
        heap.write_page(page, content)
    return heap


def push_out(heap: vr.Mapping) -> None:
    """None of it stays in memory, if it finds a place."""
    heap.process.madvise(heap, "pageout")
    heap.process.kernel.drain()
    heap.process.kernel.reclaim("256K")


def pushed_out(app: vr.Process, contents: list[bytes]) -> vr.Mapping:
    """A mapping of pages with these contents, swapped out."""
    heap = written(app, contents)
    push_out(heap)
    return heap


def used(kernel: vr.Kernel) -> int:
    """Slots in use on all devices."""
    return sum(row["Used"] for row in kernel.swaps().rows) // PAGE_SIZE


def intact(heap: vr.Mapping, contents: list[bytes]) -> bool:
    """All pages read as written."""
    return [heap.read_page(page) for page in range(heap.pages)] == contents


def only_descriptor(kernel: vr.Kernel) -> Any:
    """The descriptors of the one cluster that there is."""
    (cluster,) = (cluster for _, cluster in kernel.system.vswap.cluster_map.items())
    return cluster.desc


# --- what is taken, and what is paid -------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [13, 14])
def test_three_kinds_of_pages(stage: int) -> None:
    """Zero pages and compressed ones take no slot of a device any more; the cgroup is charged for all, still."""
    kernel, app = booted(stage, vr.Ssd("4M"), zswap="lz4")
    leaf = kernel.cgroup("leaf", zswap_writeback=True)
    kernel.set_zswap(enabled=False)
    other = kernel.spawn("other", leaf)
    disk = pushed_out(other, NOISE[:7])
    kernel.set_zswap(enabled=True)
    zero, packed = pushed_out(other, [ZEROS] * 5), pushed_out(other, TEXT[:6])
    assert [h.where().counts() for h in (zero, packed, disk)] == [{"zero": 5}, {"zswap": 6}, {"swapfile": 7}]
    assert used(kernel) == (18 if stage == 13 else 7)
    assert leaf.memcg.swap.usage == kernel.system.vswap.used == 18
    assert intact(zero, [ZEROS] * 5)
    assert intact(packed, TEXT[:6])
    assert intact(disk, NOISE[:7])
    assert app.cgroup.memcg.swap.usage == 0


LOCKS = {"lz4": {13: (9, 2), 14: (7, 0)}, None: {13: (11, 2), 14: (8, 1)}}


@pytest.mark.parametrize("stage", [13, 14])
@pytest.mark.parametrize("zswap", LOCKS)
def test_locks_of_a_swap_out(stage: int, zswap: str | None) -> None:
    """From the allocation until the page is gone: locks of virtual and of physical clusters."""
    kernel, app = booted(stage, vr.Ssd("4M"), zswap=zswap, debug=False)
    pushed_out(app, TEXT[:1])
    cost = primitives_of(lambda: pushed_out(app, TEXT[1:2]), kernel)
    assert (cost["cl_lock"], cost.get("ci_lock", 0)) == LOCKS[zswap][stage]


def test_locks_of_unmapping_a_table() -> None:
    """512 compressed pages go: one lock, where it was 1,025 and 512 of physical clusters."""
    kernel, app = booted(14, zswap="lz4", debug=False)
    heap = pushed_out(app, TEXT[:1] * 512)
    assert heap.where().counts() == {"zswap": 512}
    cost = primitives_of(lambda: app.madvise(heap, "dontneed"), kernel)
    assert (cost["cl_lock"], cost.get("ci_lock", 0)) == (1, 0)
    assert kernel.system.vswap.used == kernel.system.zswap.stored_pages == 0


def test_metadata() -> None:
    """64 MiB of compressed pages, and what is reserved for them elsewhere."""
    rows = {}
    for stage in (13, 14):
        kernel = vr.at(stage).Kernel(ram="64M", swap=[vr.Pmem("128M")], zswap="lz4", cpus=1)
        kernel.spawn("app").mmap_swapped("64M")
        rows[stage] = {row[0]: row[2] for row in kernel.memory().rows}
    pages = (64 << 20) // PAGE_SIZE
    assert [rows[stage]["vswap descriptors"] for stage in (13, 14)] == [32 * pages, 24 * pages]
    assert [rows[stage]["swap table"] for stage in (13, 14)] == [8 * pages, 0]


# --- without a device ----------------------------------------------------------------------------------------------


def test_swapping_out_needs_no_device() -> None:
    """zswap and zero pages take everything; before, nothing could leave."""
    contents = [ZEROS if i % 3 == 0 else TEXT[i] for i in range(48)]
    places = []
    for stage in (13, 14):
        kernel, app = booted(stage, zswap="lz4")
        heap = pushed_out(app, contents)
        places.append(heap.where().counts())
        assert used(kernel) == 0
        assert intact(heap, contents)
        app.exit()
        kernel.check()
        assert kernel.system.vswap.used == 0
    assert places == [{"resident": 48}, {"zero": 16, "zswap": 32}]


@pytest.mark.parametrize("content", [ZEROS, TEXT[0]])
def test_a_shared_object_needs_no_device(content: bytes) -> None:
    """Shared memory goes to zswap as well."""
    kernel, app = booted(14, zswap="lz4")
    shm = kernel.shmem(8 * PAGE_SIZE)
    view = app.mmap(shm)
    for page in range(8):
        view.write_page(page, content)
    app.madvise(view, "pageout")
    kernel.reclaim("64K")
    assert shm.swapped == 8 * PAGE_SIZE
    assert intact(view, [content] * 8)


def test_without_zswap_and_device_nothing_goes() -> None:
    """Not even pages of zeros."""
    kernel, app = booted(14)
    heap = pushed_out(app, [ZEROS, *TEXT[:7]])
    assert kernel.reclaim("64K") == 0
    assert intact(heap, [ZEROS, *TEXT[:7]])


@pytest.mark.parametrize("zswap", ["lz4", None])
@pytest.mark.parametrize("swap", [(), (1 << 20,)])
def test_lists_age_if_there_is_zswap_or_a_device(zswap: str | None, swap: tuple[int, ...]) -> None:
    """Otherwise nobody will ever reclaim from them."""
    kernel, _ = booted(14, *map(vr.Ssd, swap), zswap=zswap)
    assert vr.at(14).module("reclaim").can_age_anon_pages(kernel.system) == bool(zswap or swap)


def rejecting(*swap: Any) -> tuple[vr.Kernel, vr.Mapping]:
    """Pages that zswap refuses and that may not be written: they are tried, and stay."""
    kernel, _ = booted(14, *swap, zswap="lz4")
    app = kernel.spawn("stubborn", kernel.cgroup("stubborn", zswap_writeback=False))
    heap = written(app, NOISE[:8])
    app.madvise(heap, "pageout")
    return kernel, heap


@pytest.mark.parametrize("swap", [(), (4 << 20,)])
def test_what_is_refused_is_backed_by_its_folio_and_active(swap: tuple[int, ...]) -> None:
    """Unmapped, dirty, in the swap cache, on the active list, and on no device even if there is one."""
    kernel, heap = rejecting(*map(vr.Ssd, swap))
    kernel.check()
    assert heap.where().counts() == {"swapcache": 8}
    assert set(only_descriptor(kernel).type[:8]) == {3}
    folios = {folio for folio in kernel.system.memory.mem_map[1:] if folio is not None and folio.swapcache}
    assert {(f.active, f.dirty, f.mapcount) for f in folios} == {(True, True, 0)}
    assert (used(kernel), kernel.vmstat["pswpout"]) == (0, 0)
    assert intact(heap, NOISE[:8])
    assert kernel.system.vswap.used == 0


def test_a_device_that_comes_later_is_used_on_demand() -> None:
    """What found no place finds one; what zswap has goes there when zswap writes it back."""
    kernel, heap = rejecting()
    packed = pushed_out(heap.process, TEXT[:8])
    kernel.swapon(vr.Ssd("4M"))
    kernel.set_zswap(enabled=False)
    heap.process.cgroup.zswap_writeback = True
    push_out(heap)
    kernel.reclaim("256K")
    kernel.drain()
    kernel.reclaim("256K")
    assert heap.where().counts() == {"swapfile": 8}
    assert used(kernel) == 8
    s, writeback = kernel.system, vr.at(14).module("zswap_writeback")
    for entry, zentry in list(vr.at(14).module("vswap.zswap_index").zswap_items(s)):
        assert writeback.zswap_writeback_entry(s, zentry, entry) == 0
    kernel.drain()
    kernel.reclaim("256K")
    assert packed.where().counts() == {"swapfile": 8}
    assert (used(kernel), kernel.vmstat["zswpwb"]) == (16, 8)
    assert intact(heap, NOISE[:8])
    assert intact(packed, TEXT[:8])


def test_a_limit_of_the_cgroup_still_counts_what_is_on_no_device() -> None:
    """memory.swap.max of 0 keeps its pages from zswap; of 4, all but 4; zswap.max of 0 leaves them without a place."""
    for limit, places in ((0, {"resident": 8}), (4 * PAGE_SIZE, {"resident": 4, "zswap": 4})):
        kernel, _ = booted(14, zswap="lz4")
        group = kernel.cgroup("limited", swap_max=limit)
        heap = pushed_out(kernel.spawn("limited", group), TEXT[:8])
        assert heap.where().counts() == places
        assert group.memcg.swap.usage == limit // PAGE_SIZE
    kernel, _ = booted(14, zswap="lz4")
    room = vr.at(14).module("memcg").mem_cgroup_get_nr_swap_pages
    group = kernel.cgroup("without")
    assert room(kernel.system, group.memcg) > 1 << 50
    group.memcg.zswap_max = 0
    assert room(kernel.system, group.memcg) == 0


# --- writing -------------------------------------------------------------------------------------------------------


def test_zeros_free_the_compressed_copy_at_once() -> None:
    """An entry that two processes have survives; its page is rewritten as zeros by one.  13 keeps the copy."""
    left = []
    for stage in (13, 14):
        kernel = Counted(stage, zswap="lz4")
        folio = kernel.swapped()
        folio.data[:] = TEXT[0]
        assert kernel.call("swap_writeout", folio) == 0
        folio.locked = True
        folio.data[:] = ZEROS
        assert kernel.call("swap_writeout", folio) == 0
        left.append(kernel.s.zswap.stored_pages)
    assert left == [1, 0]


def test_writing_back_fails_when_the_device_is_full() -> None:
    """The place is taken late: -ENOMEM, and all is as before."""
    kernel, app = booted(14, vr.Ssd("64K"), zswap="lz4")
    packed = pushed_out(app, TEXT[:8])
    kernel.set_zswap(enabled=False)
    full = pushed_out(app, NOISE[:24])
    assert used(kernel) == 15
    s, writeback = kernel.system, vr.at(14).module("zswap_writeback")
    (entry, zentry), *_ = vr.at(14).module("vswap.zswap_index").zswap_items(s)
    before = kernel.vmstat["nr_swapcached"]
    assert writeback.zswap_writeback_entry(s, zentry, entry) == -errno.ENOMEM
    kernel.check()
    assert (used(kernel), kernel.vmstat["nr_swapcached"]) == (15, before)
    assert intact(packed, TEXT[:8])
    assert intact(full, NOISE[:24])


def test_a_large_folio_without_room_is_not_split() -> None:
    """A device with one cluster, in which single pages are: at 13 the folio is split, at 14 activated whole."""
    results = []
    for stage in (13, 14):
        _, app = booted(stage, vr.Ssd("1M"), thp=vr.Thp("never", {"16K": "always"}))
        heap = written(app, NOISE[:8])
        push_out(heap)
        results.append((set(heap.orders()), heap.where().counts(), app.cgroup.memcg.events.get("swap.fail", 0)))
        assert intact(heap, NOISE[:8])
    assert results == [({None}, {"swapfile": 8}, 2), ({None}, {"swapcache": 8}, 0)]


# --- reading -------------------------------------------------------------------------------------------------------


def test_zero_pages_and_compressed_ones_come_through_the_cache() -> None:
    """On a synchronous device they were read past it: their slots lay on a device."""
    cached = []
    for stage in (13, 14):
        for contents in ([ZEROS] * 4, TEXT[:4]):
            kernel, app = booted(stage, vr.Pmem("1M"), zswap="lz4", page_cluster=3)
            heap = pushed_out(app, contents)
            assert heap.read_page(0) == contents[0]
            cached.append(kernel.vmstat["swap_ra"])
    assert cached[:2] == [0, 0]
    assert min(cached[2:]) > 0


def test_a_page_that_is_on_no_device_gives_its_slot_back_when_it_is_read() -> None:
    """Compressed and zero pages leave swap at the last fault; a page on a device stays in both places."""
    kernel, app = booted(14, vr.Ssd("1M"), zswap="lz4")
    zero, packed = pushed_out(app, [ZEROS]), pushed_out(app, TEXT[:1])
    kernel.set_zswap(enabled=False)
    disk = pushed_out(app, NOISE[:1])
    for heap in (zero, packed, disk):
        heap.read_page(0)
    assert [heap.where().counts() for heap in (zero, packed, disk)] == [{"resident": 1}] * 2 + [{"swapcache": 1}]
    assert kernel.system.vswap.used == used(kernel) == 1


def batches(kernel: Counted, kinds: str) -> tuple[int, int]:
    """How many PTEs of a folio with these backings (S, Z or C each; a space: a gap) are one run: to free, to read."""
    entry = kernel.evicted(3)
    (cluster,) = (cluster for _, cluster in kernel.s.vswap.cluster_map.items() if cluster.order == 3)
    index = entry & 511
    for offset, kind in enumerate(kinds, 600):
        if kind != " ":
            cluster.desc.type[index], cluster.desc.slot[index] = "SZC".index(kind), offset if kind == "S" else 0
            index += 1
    table = [kernel.find("swp_entry_to_pte")(entry + page, 0) for page in range(8)] + [0] * 504
    batch = kernel.find("swap_pte_batch")
    return tuple(batch(kernel.s, table, 0, 8, free_batch=free) for free in (True, False))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("kinds", "runs"),
    [("CCCCCCCC", (8, 1)), ("ZZZZZZZZ", (8, 8)), ("SSSSSSSZ", (8, 1)), ("SSSS SSSS", (8, 1)), ("SSSSSSSS", (8, 8))],
)
def test_a_run_to_read_is_all_or_one(kinds: str, runs: tuple[int, int]) -> None:
    """Freeing takes any mixture; reading at once needs zeros, or places in a row."""
    assert batches(Counted(14), kinds) == runs


def test_nobody_reads_a_page_that_only_its_folio_has() -> None:
    """A readahead wins the pin of an entry whose folio is on its way out of the cache: it gives the pin back."""
    kernel = Counted(14)
    entry = kernel.evicted()
    assert only_descriptor(kernel.kernel).type[entry & 511] == 3
    before = kernel.s.memory.used
    assert kernel.call("__read_swap_cache_async", entry, kernel.s.memcg.root) == (None, False)
    assert kernel.call("__read_swap_cache_async", 0, kernel.s.memcg.root) == (None, False)
    assert not kernel.call("is_swap_cached", entry)
    assert kernel.s.memory.used == before


# --- swapoff -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
def test_swapoff_of_device_0_brings_back_what_is_on_no_device(number: int) -> None:
    """No slot reads as device 0.  Another device leaves zswap's pages and zero pages where they are.

    Of shared objects it is asked whether there is a slot at all.
    """
    kernel, app = booted(14, vr.Ssd("128K"), vr.Ssd("1M"), zswap="lz4")
    kernel.set_zswap(enabled=False)
    disk = pushed_out(app, NOISE[:64])
    kernel.set_zswap(enabled=True)
    packed, shm = pushed_out(app, [ZEROS, *TEXT[:7]]), kernel.shmem(PAGE_SIZE)
    app.mmap(shm).write_page(0, TEXT[9])
    push_out(app.mappings[-1])
    assert min(row["Used"] for row in kernel.swaps().rows) > 0
    kernel.swapoff(number)
    kernel.check()
    assert packed.where().counts() == ({"resident": 8} if number == 0 else {"zero": 1, "zswap": 7})
    assert list(shm.where()) == ["zswap"]
    assert intact(disk, NOISE[:64])
    assert intact(packed, [ZEROS, *TEXT[:7]])


def test_swapoff_forgets_who_has_pages_in_zswap() -> None:
    """The list of processes with pages in swap is dropped when no slot of a device is in use, though zswap has some.

    Later they go to another device, and its swapoff does not look at their process: it would try for ever.
    """
    kernel, app = booted(14, vr.Ssd("1M"), zswap="lz4")
    heap = pushed_out(app, TEXT[:8])
    kernel.swapoff(0)
    assert heap.where().counts() == {"zswap": 8}
    kernel.swapon(vr.Ssd("1M"))
    s, writeback = kernel.system, vr.at(14).module("zswap_writeback")
    for entry, zentry in list(vr.at(14).module("vswap.zswap_index").zswap_items(s)):
        assert writeback.zswap_writeback_entry(s, zentry, entry) == 0
    kernel.drain()
    kernel.reclaim("256K")
    with pytest.raises(OSError, match="EINTR"):
        kernel.swapoff(0)
    assert intact(heap, TEXT[:8])


# --- the same for programs -----------------------------------------------------------------------------------------


def story(stage: int, zswap: str | None, seed: int) -> list[bytes]:
    """What two processes read while they write, fork, push out and read, on two devices, one of which goes."""
    rng, devices = random.Random(seed), [vr.Ssd("2M"), vr.Disk("2M")]
    kernel = vr.at(stage).Kernel(ram="2M", swap=devices, zswap=zswap, cpus=1, debug=True)
    app = kernel.spawn("app")
    heap = written(app, [rng.choice((ZEROS, TEXT[i % 64], NOISE[i % 64])) for i in range(96)])
    child, seen = app.fork(), []
    for step in range(300):
        process = rng.choice((app, child))
        view, page = process.mappings[0], rng.randrange(heap.pages)
        match rng.randrange(6):
            case 0:
                view.write_page(page, rng.choice((ZEROS, TEXT[page % 64], NOISE[page % 64])))
            case 1:
                process.madvise(view, rng.choice(("pageout", "cold", "willneed")))
            case 2:
                kernel.reclaim("128K")
            case _:
                seen.append(view.read_page(page))
        if step == 200:
            kernel.swapoff(0)
    seen += [view.read_page(page) for view in (heap, child.mappings[0]) for page in range(96)]
    kernel.check()
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("zswap", [None, "lz4"])
def test_programs_read_the_same_as_ever(zswap: str | None) -> None:
    """Stages 8, 12, 13 and 14: every byte that a program reads."""
    seen = [story(stage, zswap, seed=14) for stage in (8, 12, 13, 14)]
    assert all(other == seen[0] for other in seen)


# --- the checker ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [(0, "a slot or a compressed copy|reverse map"), (1, "a slot or a compressed copy"), (3, "compressed copy")],
)
def test_the_checker_sees_a_wrong_type(kind: int, message: str) -> None:
    """A compressed page that is said to be something else."""
    kernel, app = booted(14, vr.Ssd("1M"), zswap="lz4", debug=False)
    pushed_out(app, TEXT[:1])
    kernel.check()
    only_descriptor(kernel).type[0] = kind
    with pytest.raises((vr.at(14).InvariantError, IndexError), match=f"{message}|index"):
        kernel.check()


def test_the_checker_sees_a_page_that_nobody_has() -> None:
    """Backed by its folio, and the folio is clean: reclaim would drop the only copy."""
    kernel, _ = rejecting()
    next(f for f in kernel.system.memory.mem_map[1:] if f is not None and f.swapcache).dirty = False
    with pytest.raises(vr.at(14).InvariantError, match="nowhere else"):
        kernel.check()
