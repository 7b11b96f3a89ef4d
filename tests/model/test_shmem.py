"""Shared memory: one object, many mappings; its way out and back, truncation, its end, swapoff, and who pays."""

from __future__ import annotations

import random
from errno import EEXIST, ENOMEM
from typing import Any

import pytest

import vswap_ref as vr
from vswap_ref.kernel import Cgroup, Kernel, Mapping, Process, Shmem
from vswap_ref.lab import interleave
from vswap_ref.lab.defects import VERSION_1_RECLAIM, stages_with
from vswap_ref.lab.experiments.calls import record_calls
from vswap_ref.machine import PAGE_SIZE, BlockDevice
from vswap_ref.mm.folio import folio_alloc, folio_lock, folio_put, folio_unlock
from vswap_ref.mm.shmem import shmem_add_to_page_cache
from vswap_ref.mm.types import NO_ENTRY, radix_to_swp_entry, swp_entry, swp_to_radix_entry
from vswap_ref.series.stages import LoadedStage

pytestmark = pytest.mark.stages(0)

TEXT = b"some text " * 409 + bytes(6)
NOISE = random.Random(0).randbytes(PAGE_SIZE)


def boot(**options: Any) -> Kernel:
    """A kernel that checks itself after every operation and every access."""
    arguments: dict[str, Any] = {"ram": "1M", "swap": [vr.Ssd("1M")], "debug": True, "locks": "validated"} | options
    return vr.Kernel(**arguments)


def two_mappings(pages: int = 4, **options: Any) -> tuple[Kernel, Shmem, Mapping, Mapping]:
    """An object, mapped by two processes at different addresses."""
    kernel = boot(**options)
    shm = kernel.shmem(pages * PAGE_SIZE, name="cache")
    first, second = kernel.spawn("first"), kernel.spawn("second")
    second.mmap("8M")
    return kernel, shm, first.mmap(shm), second.mmap(shm)


def push_out(kernel: Kernel, cgroup: Cgroup | None = None) -> None:
    """Everything out of memory: used marks gone, written, dropped; reclaim's statistics are up to two seconds old."""
    for _ in range(4):
        kernel.reclaim("1M", cgroup)
        kernel.drain()
        kernel.clock.advance(2 * 10**9)


def slot_byte(kernel: Kernel, shm: Shmem, page: int) -> int:
    """The swap map's byte for a swapped page."""
    radswap = shm.inode.i_pages.load(page)
    assert isinstance(radswap, int)
    entry = radix_to_swp_entry(radswap)
    return kernel.system.swap.info[0].swap_map[entry]


def used_slots(kernel: Kernel) -> int:
    """Swap entries in use: slots on devices, from patch 9 on virtual slots."""
    system = kernel.system
    virtual = getattr(system, "vswap", None)
    return system.swap.total_swap_pages - system.swap.nr_swap_pages if virtual is None else virtual.used


def test_radix_entries_are_odd_and_come_back() -> None:
    entry = swp_entry(23, (1 << 50) - 1)
    assert swp_to_radix_entry(entry) & 1
    assert radix_to_swp_entry(swp_to_radix_entry(entry)) == entry


def test_all_mappings_show_the_same_bytes() -> None:
    kernel, shm, first, second = two_mappings()
    first[100:105] = b"hello"
    assert second[100:105] == b"hello"
    second[PAGE_SIZE - 1 : PAGE_SIZE + 1] = b"ab"
    child = first.process.fork()
    child.mappings[0][0] = 7
    assert (first[0], second[0], first[PAGE_SIZE]) == (7, 7, ord("b"))
    assert (shm.resident, kernel.meminfo()["Shmem"], kernel.meminfo()["AnonPages"]) == (2 * PAGE_SIZE, 2 * PAGE_SIZE, 0)
    assert (first.process.rss, child.rss) == (2 * PAGE_SIZE, PAGE_SIZE)  # fork copies no page-table entry of it


@pytest.mark.stages(0, without=stages_with(VERSION_1_RECLAIM))
@pytest.mark.parametrize("device", [vr.Ssd, vr.Disk, vr.Pmem, vr.Zram])
@pytest.mark.parametrize("zswap", ["off", "lz4"])
@pytest.mark.parametrize("memcg", ["v2", "v1", None])
def test_pages_go_out_and_come_back(device: type[BlockDevice], zswap: str, memcg: str | None) -> None:
    """Once out, no process has a swap entry, and a fork adds no user; once back, the slot is free."""
    kernel, shm, first, second = two_mappings(swap=[device("1M")], zswap=zswap, memcg=memcg)
    contents = [TEXT, NOISE, bytes(PAGE_SIZE), TEXT[::-1]]
    for page, content in enumerate(contents):
        (first, second)[page % 2].write_page(page, content)
    push_out(kernel)
    assert (shm.resident, shm.swapped, kernel.meminfo()["Shmem"]) == (0, len(first), 0)
    assert first.process.rss == first.process.swap == 0
    assert first.where().counts()["zero"] == 1
    assert first.process.fork().swap == 0
    assert [second.read_page(page) for page in range(4)] == contents
    assert (shm.resident, shm.swapped, used_slots(kernel)) == (len(first), 0, 0)
    push_out(kernel)
    assert [first.read_page(page) for page in range(4)] == contents


@pytest.mark.stages(0, until=8)
def test_the_swap_map_names_the_owner() -> None:
    """A byte of its own says that a slot is shmem's, cached or not; a fork changes nothing."""
    kernel, shm, first, _ = two_mappings(page_cluster=0)
    first.write_page(0, NOISE)
    first.process.madvise(first, "pageout")
    assert slot_byte(kernel, shm, 0) == 0xFF
    push_out(kernel)
    assert slot_byte(kernel, shm, 0) == 0xBF
    first.process.fork()
    assert slot_byte(kernel, shm, 0) == 0xBF


def test_a_page_is_in_one_cache_only() -> None:
    """While it is written the page is in the swap cache; touched then, it waits, and leaves its slot."""
    kernel, shm, first, second = two_mappings(page_cluster=0)
    first.write_page(0, NOISE)
    first.process.madvise(first, "pageout")
    assert first.where()[0] == "swapcache"
    began = kernel.clock.ns
    assert second.read_page(0) == NOISE
    assert kernel.clock.ns - began >= 10_000
    assert (shm.where()[0], used_slots(kernel), kernel.vmstat["pgmajfault"]) == ("resident", 0, 0)


@pytest.mark.stages(0, until=13)
def test_a_page_that_was_only_read_is_dropped() -> None:
    """A page of zeros that nobody wrote is as good as a hole: no slot, no write.  Written zeros take a slot."""
    kernel, shm, first, second = two_mappings()
    assert first[0] == 0
    second[PAGE_SIZE] = 0
    assert shm.resident == 2 * PAGE_SIZE
    push_out(kernel)
    assert shm.where()[:2] == ["hole", "zero"]
    assert (used_slots(kernel), kernel.vmstat["swpout_zero"]) == (1, 1)
    second[2 * PAGE_SIZE] = 1
    assert shm.inode.alloced == 2  # the dropped page is found by the next count


@pytest.mark.stages(0, without=stages_with(VERSION_1_RECLAIM))
@pytest.mark.parametrize("memcg", ["v2", "v1"])
@pytest.mark.parametrize("device", [vr.Ssd, vr.Pmem])
def test_the_first_to_touch_pays(memcg: str, device: type[BlockDevice]) -> None:
    """Also after the page was swapped out and came back for another cgroup."""
    kernel = boot(memcg=memcg, swap=[device("1M")])
    owner, guest = kernel.cgroup("owner"), kernel.cgroup("guest")
    shm = kernel.shmem("16K")
    mine, theirs = kernel.spawn("a", owner).mmap(shm), kernel.spawn("b", guest).mmap(shm)
    mine[0] = 1
    theirs[0], theirs[PAGE_SIZE] = 2, 3
    rows = [{"cgroup": "guest", "memory": PAGE_SIZE, "swap": 0}, {"cgroup": "owner", "memory": PAGE_SIZE, "swap": 0}]
    assert shm.charged().rows == rows
    assert "shmem 4096\n" in owner.memory_stat()
    assert "file_mapped 4096\n" in owner.memory_stat()
    push_out(kernel)
    assert [row["swap"] for row in shm.charged().rows] == [PAGE_SIZE, PAGE_SIZE]
    assert owner.memory_current == guest.memory_current == 0
    assert (owner.memsw_current if memcg == "v1" else owner.swap_current) == PAGE_SIZE
    assert theirs[0] == 2
    assert (owner.memory_current, owner.swap_current) == (PAGE_SIZE, 0)
    theirs.process.exit()
    assert mine[PAGE_SIZE] == 3
    assert guest.memory_current == PAGE_SIZE  # nobody of the guest lives, and it still pays


@pytest.mark.stages(0, without=stages_with(VERSION_1_RECLAIM))
@pytest.mark.parametrize("memcg", ["v2", "v1"])
def test_the_owners_limit_pushes_out_what_others_use(memcg: str) -> None:
    kernel = boot(memcg=memcg)
    owner = kernel.cgroup("owner", memory_max="32K")
    shm = kernel.shmem("128K")
    mine, theirs = kernel.spawn("a", owner).mmap(shm), kernel.spawn("b").mmap(shm)
    for page in range(mine.pages):
        mine.write_page(page, bytes((page,)) * PAGE_SIZE)
    assert owner.memory_current <= 32 << 10
    assert shm.swapped >= 96 << 10
    assert [theirs[page * PAGE_SIZE] for page in range(theirs.pages)] == list(range(32))


@pytest.mark.stages(0, until=13)
def test_zswap_that_rejects_gives_the_page_back_and_the_slot() -> None:
    """An anonymous page keeps its slot then; a shared one takes its place in the page cache again."""
    kernel = boot(zswap="lz4")
    strict = kernel.cgroup("strict", zswap_writeback=False)
    shm = kernel.shmem("8K")
    heap = kernel.spawn("a", strict).mmap(shm)
    heap.write_page(0, NOISE)
    heap.write_page(1, TEXT)
    push_out(kernel)
    assert shm.where() == ["resident", "zswap"]
    assert (used_slots(kernel), shm.swapped, strict.swap_current) == (1, PAGE_SIZE, PAGE_SIZE)
    assert heap[:] == NOISE + TEXT


def test_zswap_writes_a_shared_page_back() -> None:
    kernel = boot(ram="512K", zswap=vr.Zswap("lz4", max_pool_percent=10))
    shm = kernel.shmem("256K")
    heap = kernel.spawn("a").mmap(shm)
    contents = [random.Random(page).randbytes(PAGE_SIZE) for page in range(heap.pages)]
    for page, content in enumerate(contents):
        heap.write_page(page, content)
    for _ in range(6):
        push_out(kernel)
        shm_order = list(range(heap.pages))
        random.Random(1).shuffle(shm_order)
        assert [heap.read_page(page) for page in shm_order] == [contents[page] for page in shm_order]
    assert kernel.vmstat["zswpwb"] > 0


def prepared(where: str) -> tuple[Kernel, Shmem, Mapping]:
    """An object of four pages, all in one place."""
    kernel, shm, heap, _ = two_mappings(zswap="lz4" if where == "zswap" else "off")
    for page in range(4):
        heap.write_page(page, bytes(PAGE_SIZE) if where == "zero" else TEXT)
    if where == "swapcache":
        heap.process.madvise(heap, "pageout")
    elif where != "resident":
        push_out(kernel)
    assert set(shm.where()) == {where}
    return kernel, shm, heap


@pytest.mark.parametrize("where", ["resident", "swapcache", "zero", "zswap", "swapfile"])
@pytest.mark.parametrize("how", ["truncate", "punch", "end"])
def test_what_is_cut_off_is_freed_wherever_it_is(where: str, how: str) -> None:
    kernel, shm, heap = prepared(where)
    if how == "truncate":
        shm.truncate("4K")
    elif how == "punch":
        shm.punch_hole(PAGE_SIZE)
    else:
        shm.unlink()
        for process in list(kernel.processes):
            process.exit()
    kept = 0 if how == "end" else 1
    kernel.drain()
    kernel.check()
    push_out(kernel)  # what left while it was written
    assert used_slots(kernel) + kernel.system.memory.used == kept
    assert kernel.system.zswap.stored_pages == (kept if where == "zswap" else 0)
    if kept:
        assert heap.read_page(0) == (bytes(PAGE_SIZE) if where == "zero" else TEXT)
        assert shm.where()[1:] == ["hole"] * (3 if how == "punch" else 0)


def test_beyond_the_end_is_a_bus_error_until_it_grows_again() -> None:
    kernel, shm, heap, other = two_mappings()
    heap[:] = TEXT * 4
    shm.truncate(2 * PAGE_SIZE)
    refusals = [
        lambda: heap[:],
        lambda: heap[2 * PAGE_SIZE],
        lambda: other.touch(2),
        lambda: heap.__setitem__(slice(0, 3 * PAGE_SIZE), NOISE * 3),
    ]
    for refused in refusals:
        with pytest.raises(OSError, match=r"bus error: page \d is beyond the end of shared object 'cache' of 2 pages"):
            refused()
    assert heap[: 2 * PAGE_SIZE] == TEXT * 2
    shm.truncate("1M")
    assert other[:] == TEXT * 2 + bytes(2 * PAGE_SIZE)
    assert kernel.spawn("third").mmap(shm).pages == 256


def test_an_object_lives_as_long_as_its_name_or_a_mapping() -> None:
    kernel, shm, first, _ = two_mappings()
    first[0] = 1
    for process in list(kernel.processes):
        process.exit()
    push_out(kernel)
    late = kernel.spawn("late").mmap(shm)
    assert late[0] == 1
    child = late.process.fork()
    shm.unlink()
    again = kernel.shmem("4K", name="cache")  # the name is free
    with pytest.raises(OSError, match="'cache' was unlinked"):
        kernel.spawn("too late").mmap(shm)
    late.process.exit()
    assert child.mappings[0][0] == 1
    child.mappings[0].munmap()
    assert list(kernel.system.shmem.inodes) == [again.inode]
    with pytest.raises(OSError, match="'cache' is gone"):
        shm.truncate("4K")
    assert kernel.system.memory.used == used_slots(kernel) == 0


@pytest.mark.parametrize("device", [vr.Ssd, vr.Disk, vr.Pmem])
def test_swapoff_brings_shared_pages_back_without_walking_page_tables(device: type[BlockDevice]) -> None:
    kernel, shm, first, second = two_mappings(swap=[device("512K"), device("512K")])
    first[:] = TEXT * 4
    own = first.process.mmap("4K")
    own[0] = 1
    push_out(kernel)
    assert list(kernel.system.shmem.swaplist) == [shm.inode]
    for number in (0, 1):
        kernel.swapoff(number)
    kernel.check()
    assert shm.swapped == 0
    assert second[:] == TEXT * 4
    assert kernel.system.swap.ptes_visited in (1, 2)  # of the process's own page, once a round
    assert kernel.vmstat["pgmajfault"] == 0
    assert not kernel.system.shmem.swaplist


def rival(kernel: Kernel, what: str) -> None:
    """Something that a program does to the object, while ``swapoff`` or a reader works on it."""
    heap = kernel.processes[0].mappings[0]
    if what == "touch":
        assert [heap[page * PAGE_SIZE] for page in range(4)] == [1, 2, 3, 4]
    else:
        heap.process.exit()


def swapped_object(stage: LoadedStage, unlinked: bool) -> Kernel:
    """Four pages of an object in swap, under locks at which tasks are switched."""
    kernel = stage.Kernel(ram="1M", swap=[vr.Ssd("1M")], page_cluster=0, locks="scheduled")
    shm = kernel.shmem(4 * PAGE_SIZE)
    heap = kernel.spawn("app").mmap(shm)
    for page in range(heap.pages):
        heap[page * PAGE_SIZE] = page + 1
    push_out(kernel)
    assert shm.inode.swapped == 4
    if unlinked:
        shm.unlink()
    return kernel


@pytest.mark.parametrize("what", ["touch", "exit"])
@pytest.mark.stages(0, every=True)
def test_swapoff_bears_what_programs_do_to_the_object_meanwhile(stage: LoadedStage, what: str) -> None:
    """A page that somebody else brings in is looked for again; an object that ends waits for swapoff to leave it."""
    record = interleave(
        lambda: swapped_object(stage, unlinked=what == "exit"),
        [lambda kernel: kernel.swapoff(0), lambda kernel: rival(kernel, what)],
        seeds=range(60),
    )
    assert record.failure is None, record.failure


@pytest.mark.parametrize("device", [vr.Ssd, vr.Pmem])
def test_a_swap_in_that_fails_is_no_major_fault(device: type[BlockDevice], stage: LoadedStage) -> None:
    kernel, shm, first, _ = two_mappings(pages=1, swap=[device("1M")])
    first[0] = 1
    push_out(kernel)
    kernel.faults.fail("folio_alloc", times=1000)
    system = kernel.system
    swapin = stage.module("shmem_swap").shmem_swapin_folio
    assert swapin(system, shm.inode, 0, system.memcg.root, True) == (None, -ENOMEM)
    assert kernel.vmstat["pgmajfault"] == 0


def test_swapoff_without_room_leaves_all_as_it_was() -> None:
    kernel = boot(ram="256K")
    owner = kernel.cgroup("owner", memory_max="32K")
    shm = kernel.shmem("128K")
    heap = kernel.spawn("a", owner).mmap(shm)
    for page in range(heap.pages):
        heap.write_page(page, bytes((page,)) * PAGE_SIZE)
    kernel.drain()
    with pytest.raises(OSError, match="ENOMEM"):
        kernel.swapoff(0)
    kernel.check()
    assert 0 in kernel.devices
    assert shm.inode in kernel.system.shmem.swaplist
    assert [heap[page * PAGE_SIZE] for page in range(heap.pages)] == list(range(heap.pages))


@pytest.mark.parametrize("device", [vr.Ssd, vr.Pmem])
@pytest.mark.parametrize("by", ["fault", "swapoff"])
def test_a_page_that_cannot_be_read_is_lost_for_everybody(device: type[BlockDevice], by: str) -> None:
    """It never reads as zeros; its slot is freed; a hole in its place is new."""
    kernel, shm, first, second = two_mappings(swap=[device("1M")], page_cluster=0)
    first[:] = TEXT * 4
    push_out(kernel)
    kernel.devices[0].fail_reads(times=1)
    if by == "swapoff":
        kernel.swapoff(0)
        assert used_slots(kernel) == 0
    for heap in (first, second):
        with pytest.raises(OSError, match="cannot be read back"):
            heap[0]
    assert shm.where()[0] == "lost"
    assert second[PAGE_SIZE:] == TEXT * 3
    assert first.process.mincore(first) == [False, True, True, True]
    shm.punch_hole(0, PAGE_SIZE)
    assert second[0] == 0
    assert shm.inode.swapped == 0


def test_without_memory_for_the_tree_nothing_changes() -> None:
    kernel, shm, first, second = two_mappings()
    first[0] = 1
    kernel.faults.fail("shmem_xa_node", nth=1)
    with pytest.raises(vr.OutOfMemory):
        first[PAGE_SIZE] = 2
    assert (shm.resident, kernel.system.memory.used) == (PAGE_SIZE, 1)
    first[PAGE_SIZE] = 2
    assert second[PAGE_SIZE] == 2


def test_nobody_enters_the_page_cache_in_the_place_of_another() -> None:
    kernel, shm, first, _ = two_mappings()
    first[0] = 1
    push_out(kernel)
    folio = folio_alloc(kernel.system)
    assert folio is not None
    folio_lock(folio)
    for page, expected in ((0, None), (0, swp_to_radix_entry(NO_ENTRY)), (1, swp_to_radix_entry(swp_entry(0, 1)))):
        assert shmem_add_to_page_cache(kernel.system, folio, shm.inode, page, expected) == -EEXIST
    folio_unlock(folio)
    folio_put(kernel.system, folio)
    kernel.check()


def test_willneed_reads_into_the_swap_cache_and_mincore_sees_it() -> None:
    kernel, shm, first, second = two_mappings(page_cluster=0)
    first[:] = NOISE * 4
    push_out(kernel)
    assert second.process.mincore(second) == [False] * 4
    assert first.process.madvise(first, "willneed", 0, 2 * PAGE_SIZE) == 2
    assert shm.where() == ["swapcache", "swapcache", "swapfile", "swapfile"]
    assert second.process.mincore(second) == [True, True, False, False]
    reads = kernel.vmstat["pswpin"]
    assert second[: 2 * PAGE_SIZE] == NOISE * 2
    assert (kernel.vmstat["pswpin"], kernel.vmstat["pgmajfault"]) == (reads, 0)


def test_dontneed_only_unmaps() -> None:
    """Unlike anonymous memory, which is gone: the object still has the page, written through this mapping or not."""
    kernel, shm, first, second = two_mappings(thp="always")
    first[:] = TEXT * 4
    first.process.madvise(first, "dontneed")
    assert (first.process.rss, shm.resident) == (0, 4 * PAGE_SIZE)
    push_out(kernel)
    assert shm.swapped == 4 * PAGE_SIZE
    assert first[:] == second[:] == TEXT * 4


def test_mincore_of_anonymous_memory() -> None:
    kernel = boot(page_cluster=0)
    heap = kernel.spawn("a").mmap("16K")
    heap[0] = heap[PAGE_SIZE] = 1
    assert heap.process.mincore(heap) == [True, True, False, False]
    push_out(kernel)
    heap.process.madvise(heap, "willneed", 0, PAGE_SIZE)
    assert heap.process.mincore(heap) == [True, False, False, False]


def test_readahead_goes_by_slot_on_every_device() -> None:
    """Neighbours of the slot come along, whatever pages they are, and a hit is counted."""
    kernel, shm, heap, _ = two_mappings(pages=16, page_cluster=3)
    order = list(range(0, 16, 2)) + list(range(1, 16, 2))
    for page in order:
        heap.write_page(page, NOISE)
        heap.process.madvise(heap, "pageout", page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
    push_out(kernel)
    for page in order[:4]:
        heap.touch(page)
    assert kernel.vmstat["swap_ra"] > 0
    cached = [page for page, place in enumerate(shm.where()) if place == "swapcache"]
    assert cached
    assert all(page % 2 == 0 for page in cached)
    hits = kernel.vmstat["swap_ra_hit"]
    heap.touch(cached[0])
    assert kernel.vmstat["swap_ra_hit"] == hits + 1


def test_a_synchronous_device_is_read_without_the_swap_cache() -> None:
    kernel, shm, heap, _ = two_mappings(pages=16, swap=[vr.Pmem("1M")], page_cluster=3)
    heap[:] = NOISE * 16
    push_out(kernel)
    heap.touch(3)
    heap.touch(4)
    assert shm.where().counts() == {"resident": 2, "swapfile": 14}
    assert (kernel.vmstat["pswpin"], kernel.vmstat["swap_ra"], kernel.vmstat["pgmajfault"]) == (2, 0, 2)


@pytest.mark.parametrize(("device", "unpin"), [(vr.Ssd, "swap_cache_del_folio"), (vr.Pmem, "swapcache_clear")])
def test_the_pin_goes_before_the_reference(device: type[BlockDevice], unpin: str, stage: LoadedStage) -> None:
    kernel, _, first, _ = two_mappings(pages=1, swap=[device("1M")])
    first[0] = 1
    push_out(kernel)
    calls = [call.name for call in record_calls(stage.id, kernel, lambda: first.touch(0))]
    steps = [name for name in calls if name in (unpin, "folio_mark_dirty", "swap_free")]
    assert steps == [unpin, "folio_mark_dirty", "swap_free"]


def test_a_failed_write_loses_nothing() -> None:
    kernel, _, first, second = two_mappings(page_cluster=0)
    first.write_page(0, NOISE)
    kernel.devices[0].fail_writes(times=2)
    push_out(kernel)
    assert second.read_page(0) == NOISE


def test_a_copy_of_the_kernel_has_its_own_objects() -> None:
    kernel, shm, first, second = two_mappings()
    first[0] = 1
    push_out(kernel)
    twin = kernel.copy()
    twin.processes[0].mappings[0][0] = 9
    twin.check()
    assert twin.processes[1].mappings[1][0] == 9
    assert second[0] == 1
    twin.shared[0].truncate("4K")
    assert shm.size == 4 * PAGE_SIZE


def test_refusals_change_nothing() -> None:
    kernel, shm, first, _ = two_mappings()
    first[0] = 1
    process: Process = first.process
    foreign = boot().shmem("4K")
    refusals: list[tuple[type[Exception], str, Any]] = [
        (ValueError, "size='1K'", lambda: kernel.shmem("1K")),
        (ValueError, "size=0", lambda: kernel.shmem(0)),
        (ValueError, "name='a/b'", lambda: kernel.shmem("4K", name="a/b")),
        (ValueError, "name=''", lambda: kernel.shmem("4K", name="")),
        (OSError, "named 'cache' exists", lambda: kernel.shmem("4K", name="cache")),
        (ValueError, "another kernel", lambda: process.mmap(foreign)),
        (ValueError, "size='-4K'", lambda: shm.truncate("-4K")),
        (ValueError, "size=100", lambda: shm.truncate(100)),
        (ValueError, "start=1: expected a multiple of 4096", lambda: shm.punch_hole(1)),
        (ValueError, "stop=5000", lambda: shm.punch_hole(0, 5000)),
        (OSError, "not a mapping of process 'first'", lambda: process.mincore(kernel.processes[1].mappings[0])),
    ]
    before = (kernel.vmstat.snapshot(), repr(kernel), repr(shm), len(kernel.shared), len(kernel.events))
    for kind, message, refused in refusals:
        with pytest.raises(kind, match=message):
            refused()
    assert (kernel.vmstat.snapshot(), repr(kernel), repr(shm), len(kernel.shared), len(kernel.events)) == before
    shm.unlink()
    with pytest.raises(OSError, match="unlinked already"):
        shm.unlink()


def test_objects_show_themselves() -> None:
    kernel, shm, first, _ = two_mappings()
    first[0] = 1
    assert repr(shm) == "<Shmem cache: 16.0K, resident 4.0K, swapped 0, 2 mappings>"
    assert "aria-label='cache: where each of 4 pages is'" in shm._repr_html_()
    assert "cache" in kernel._repr_html_()
    assert repr(first) == "<Mapping of first: 4 pages of shared object 'cache'>"
    assert kernel.shmem("4K").name == "shm0"
    assert kernel.shmem("4K").name == "shm1"
