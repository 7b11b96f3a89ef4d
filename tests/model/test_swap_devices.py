"""swapon and its header, bad pages, extents, discard, several devices, hibernation, swapoff."""

from __future__ import annotations

import errno
import random
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vswap_ref as vr
from vswap_ref.kernel import Kernel, Mapping
from vswap_ref.lab.defects import image_pages
from vswap_ref.machine import PAGE_SIZE, BlockDevice, swap_header
from vswap_ref.mm.folio import folio_alloc
from vswap_ref.mm.hibernate import count_swap_pages, swap_type_of, swapdev_block, swsusp_extents_insert
from vswap_ref.mm.slot_reclaim import folio_free_swap
from vswap_ref.mm.state import SwapInfo
from vswap_ref.mm.swap_extent import swap_slot_block
from vswap_ref.mm.types import SWP_AREA_DISCARD, SWP_DISCARDABLE, SWP_PAGE_DISCARD
from vswap_ref.mm.vswap.swap_out import folio_alloc_swap
from vswap_ref.series.stages import LoadedStage

pytestmark = pytest.mark.stages(0)


def raw_header(last_page: int, bad: list[int], nr_bad: int | None = None, version: int = 1) -> bytes:
    """A header page made by hand, with numbers that mkswap would refuse."""
    page = bytearray(PAGE_SIZE)
    struct.pack_into("<3I", page, 1024, version, last_page, len(bad) if nr_bad is None else nr_bad)
    struct.pack_into(f"<{len(bad)}I", page, 1536, *bad)
    page[-10:] = b"SWAPSPACE2"
    return bytes(page)


def with_header(page: bytes, device: BlockDevice | None = None) -> BlockDevice:
    """A device with this page 0."""
    device = device or vr.Ssd("64K")
    device.write(0, page)
    return device


def state_of(kernel: Kernel) -> tuple[Any, ...]:
    """All that a refused swapon must leave alone."""
    swap = kernel.system.swap
    return (
        [
            (si.flags, si.max, si.pages, si.bdev, si.swap_file, bytes(si.swap_map), list(si.swap_extents))
            for si in swap.info
        ],
        [si.type for si in swap.active_head],
        [si.type for si in swap.avail_head],
        (swap.nr_swap_pages, swap.total_swap_pages, swap.nr_rotate_swap),
        sorted(getattr(swap, "cgroup", ())),  # side tables, at stages that have them
        list(kernel.devices),
    )


def one_device(device: BlockDevice, **options: Any) -> tuple[Kernel, SwapInfo]:
    """A kernel that checks itself, with this device in use."""
    kernel = vr.Kernel(ram="8M", cpus=1, debug=True)
    kernel.swapon(device, **options)
    return kernel, kernel.system.swap.info[0]


def swap_out(kernel: Kernel, pages: int, seed: int = 0) -> Mapping:
    """A process with random pages, all of them swapped out."""
    heap = kernel.spawn("app").mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap.write_page(page, random.Random(seed + page).randbytes(PAGE_SIZE))
    push_out(heap)
    return heap


def push_out(heap: Mapping) -> None:
    """Push a mapping out and wait for it."""
    kernel = heap.process.kernel
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim(heap.pages * PAGE_SIZE)


def assert_intact(heap: Mapping, seed: int = 0) -> None:
    """Every page reads back."""
    for page in range(heap.pages):
        assert heap.read_page(page) == random.Random(seed + page).randbytes(PAGE_SIZE)


# --- the header ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "device",
    [
        with_header(bytes(PAGE_SIZE)),
        with_header(raw_header(15, [])[:-1] + b"1"),
        with_header(raw_header(15, [], version=2)),
        with_header(raw_header(0, [])),
        with_header(raw_header(16, [])),
        with_header(raw_header(15, [0])),
        with_header(raw_header(10, [11])),
        with_header(raw_header(15, list(range(1, 16)))),
        with_header(raw_header(700, list(range(1, 638)), nr_bad=638), vr.Ssd("4M")),
        with_header(raw_header(15, [3]), vr.SwapFile("64K", on=vr.Ssd("64K"))),
        vr.SwapFile("64K", on=vr.Ssd("1M"), fragments=[(3, 8), (None, 1), (20, 7)]),
        vr.SwapFile("64K", on=vr.Ssd("1M"), fragments=[(None, 1), (20, 15)]),
        vr.SwapFile("8K", on=vr.Ssd("1M"), fragments=[(1, 8)], block_size=1024),
    ],
    ids=[
        "no header",
        "magic of version 1",
        "version 2",
        "last page 0",
        "shorter than its header says",
        "bad page 0",
        "bad page beyond the end",
        "every page bad",
        "638 bad pages",
        "bad page in a file",
        "hole",
        "hole at the start",
        "file with one whole page",
    ],
)
def test_swapon_refuses_what_is_no_swap_area(device: BlockDevice) -> None:
    """EINVAL, and nothing has changed."""
    kernel = vr.Kernel(ram="1M", swap=[vr.Disk("64K")], debug=True)
    kernel.swapon(vr.Disk("64K"))
    kernel.swapoff(1)
    before = state_of(kernel)
    with pytest.raises(OSError, match="EINVAL"):
        kernel.swapon(device)
    assert state_of(kernel) == before
    kernel.check()


def test_swapon_reads_the_header_and_nothing_else(stage: LoadedStage) -> None:
    """Its last page counts, not the device's size; a header of the other byte order reads the same."""
    for byteorder in ("little", "big"):
        device = vr.Ssd("64K")
        vr.mkswap(device, bad_pages=[2, 5], last_page=9, byteorder=byteorder)
        _, si = one_device(device)
        assert (si.max, si.pages) == (10, 7)
        assert [i for i in range(10) if si.swap_map[i] == stage.find("SWAP_MAP_BAD")] == [0, 2, 5]


def test_swapon_reports_a_header_that_cannot_be_read() -> None:
    """EIO, nothing changed, and it works the next time."""
    device = vr.Ssd("64K")
    device.fail_reads(pages=[0])
    kernel = vr.Kernel(ram="1M", debug=True)
    with pytest.raises(OSError, match="EIO"):
        kernel.swapon(device)
    assert kernel.swapon(device) == 0


def test_devices_are_claimed_for_one_use() -> None:
    """A device, a file on it, or the device below a file; two files on a device are no problem."""
    disk = vr.Ssd("1M")
    first, second = vr.SwapFile("256K", on=disk), vr.SwapFile("256K", on=disk)
    kernel = vr.Kernel(ram="1M", swap=[first], debug=True)
    for busy in (first, disk):
        with pytest.raises(OSError, match="EBUSY"):
            kernel.swapon(busy)
    assert kernel.swapon(second) == 1
    kernel.swapoff(0)
    kernel.swapoff(1)
    vr.mkswap(disk)
    assert kernel.swapon(disk) == 0
    with pytest.raises(OSError, match="EBUSY"):
        kernel.swapon(first)


def test_there_are_24_device_numbers_and_they_are_reused() -> None:
    """The 25th is refused with EPERM, also one that is in use; a number that is given back is taken again."""
    kernel = vr.Kernel(ram="1M", swap=[vr.Ssd("64K") for _ in range(24)])
    for device in (vr.Ssd("64K"), kernel.devices[3]):
        with pytest.raises(OSError, match="EPERM"):
            kernel.swapon(device)
    kernel.swapoff(7)
    assert kernel.swapon(vr.Ssd("64K"), priority=3) == 7
    assert kernel.swaps().rows[0]["number"] == 7
    kernel.check()


SITES = ["vzalloc", "kvzalloc_zeromap", "kvcalloc_cluster_info", "swap_table_alloc"]


@pytest.mark.parametrize("make", [vr.Disk, vr.Ssd])
@pytest.mark.parametrize(("site", "nth"), [(site, 1) for site in SITES] + [("swap_table_alloc", 2)])
def test_every_failure_of_swapon_is_undone(make: Any, site: str, nth: int) -> None:
    """ENOMEM at each allocation leaves nothing behind; without the failure it works."""
    kernel = vr.Kernel(ram="1M", swap=[vr.Ssd("64K")], debug=True)
    device = make("3M", bad_pages=[600])
    kernel.swapon(vr.Ssd("64K"))
    kernel.swapoff(1)
    before = state_of(kernel)
    kernel.faults.fail(site, nth=nth)
    with pytest.raises(OSError, match="ENOMEM"):
        kernel.swapon(device)
    assert state_of(kernel) == before
    assert kernel.swapon(device) == 1
    kernel.check()


@pytest.mark.stages(0, until=11)
def test_the_array_of_cgroup_ids_may_fail_too() -> None:
    """The second array with an element for each slot."""
    test_every_failure_of_swapon_is_undone(vr.Ssd, "vzalloc", 2)


# --- bad pages ----------------------------------------------------------------------------------------------------


def test_bad_pages_are_never_used(stage: LoadedStage) -> None:
    """A full device holds max - 1 - bad pages, none of them in a bad slot; sizes and clusters say the same."""
    bad = [1, 7, 600, *range(1024, 1536)]
    kernel, si = one_device(vr.Ssd("8M", bad_pages=bad))
    assert (si.max, si.pages) == (2048, 2047 - len(bad))
    assert kernel.swaps().rows[0]["Size"] == si.pages * PAGE_SIZE
    assert [ci.count for ci in si.cluster_info] == [3, 1, 512, 0]
    assert [ci.table is not None for ci in si.cluster_info] == [True, True, True, False]
    assert "nonfull" in repr(kernel.clusters()).splitlines()[1]
    kernel.system.config.debug = False
    heap = swap_out(kernel, 1600)
    kernel.check()
    assert kernel.swaps().rows[0]["Used"] == si.pages * PAGE_SIZE
    assert all(si.swap_map[page] == stage.find("SWAP_MAP_BAD") for page in bad)
    assert kernel.clusters().counts()["bad"] == len(bad) + 1
    assert_intact(heap)


def test_readahead_passes_over_bad_pages(stage: LoadedStage) -> None:
    """A disk reads the block of slots around a fault; a bad slot in it stays bad and is not read."""
    kernel, si = one_device(vr.Disk("64K", bad_pages=[3, 5]))
    heap = swap_out(kernel, 8)
    heap.read_page(0)
    assert si.swap_map[3] == si.swap_map[5] == stage.find("SWAP_MAP_BAD")
    assert_intact(heap)


def test_a_bad_page_listed_twice_is_counted_twice(stage: LoadedStage) -> None:
    """The kernel does not look for it; mkswap refuses to write it, and the checker sees it."""
    device = with_header(raw_header(15, [4, 4]))
    kernel = vr.Kernel(ram="1M")
    kernel.swapon(device)
    si = kernel.system.swap.info[0]
    assert (si.pages, si.swap_map.count(stage.find("SWAP_MAP_BAD"))) == (13, 2)
    with pytest.raises(vr.InvariantError, match="pages = slots that are not bad"):
        kernel.check()
    with pytest.raises(ValueError, match="expected different page numbers from 1 to 15"):
        vr.mkswap(device, bad_pages=[4, 4])


# --- extents ------------------------------------------------------------------------------------------------------


@st.composite
def fragmented_files(draw: st.DrawFn) -> vr.SwapFile:
    """A file whose runs of blocks lie in any order on a device, with gaps."""
    block_size = draw(st.sampled_from([1024, 2048, 4096]))
    per_page = PAGE_SIZE // block_size
    pages = draw(st.integers(6, 24))
    lengths: list[int] = []
    while sum(lengths) < pages * per_page:
        lengths.append(min(draw(st.integers(1, 5 * per_page)), pages * per_page - sum(lengths)))
    at, runs = 0, []
    for length in lengths:
        at += draw(st.sampled_from([0, 0, 1, per_page]))
        runs.append((at, length))
        at += length
    order = draw(st.permutations(runs))
    device = vr.Ssd(-(-at // per_page) * PAGE_SIZE + PAGE_SIZE)
    return vr.SwapFile(pages * PAGE_SIZE, on=device, fragments=order, block_size=block_size)


def pages_of(file: vr.SwapFile) -> list[int]:
    """Where the slots of a file must lie: greedily, every aligned run of blocks that fills a page."""
    per_page = PAGE_SIZE // file.block_size
    blocks = [start + i for start, nr in file.fragments if start is not None for i in range(nr)]
    places, at = [], 0
    while at + per_page <= len(blocks):
        run = blocks[at : at + per_page]
        if run[0] % per_page == 0 and run == list(range(run[0], run[0] + per_page)):
            places.append(run[0] // per_page)
            at += per_page
        else:
            at += 1
    return places


@settings(max_examples=60, deadline=None)
@given(file=fragmented_files())
def test_extents_put_each_slot_where_the_file_system_put_it(file: vr.SwapFile) -> None:
    """Slots are the whole pages of the file in order; content goes there and comes back."""
    kernel = vr.Kernel(ram="1M", debug=True)
    places = pages_of(file)
    if len(places) < 2:
        with pytest.raises(OSError, match="EINVAL"):
            kernel.swapon(file)
        return
    kernel.swapon(file)
    si = kernel.system.swap.info[0]
    assert [swap_slot_block(si, offset) for offset in range(si.max)] == places
    joins = [a for a, b in pairwise(places) if b != a + 1]
    assert len(si.swap_extents) == len(joins) + 1
    heap = swap_out(kernel, len(places) - 1)
    below = {file.on.read(place) for place in places[1:]}
    assert below == {random.Random(page).randbytes(PAGE_SIZE) for page in range(heap.pages)}
    assert_intact(heap)


def test_fragments_are_checked() -> None:
    """They must be as many blocks as the size says, on the device, and nobody else's."""
    disk = vr.Ssd("64K")
    vr.SwapFile("16K", on=disk, fragments=[(8, 4)])
    for fragments, message in [
        ([(0, 3)], "3 blocks; the size needs 4"),
        ([(0, 2), (1, 2)], "overlap"),
        ([(6, 4)], "overlap"),
        ([(14, 4)], "beyond"),
        ([(0, 4), (4, 0)], "blocks >= 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            vr.SwapFile("16K", on=disk, fragments=fragments)
    with pytest.raises(ValueError, match="block_size=3000"):
        vr.SwapFile("16K", on=disk, block_size=3000)
    with pytest.raises(ValueError, match="not a file"):
        vr.SwapFile("16K", on=vr.SwapFile("16K", on=disk))


def test_two_files_on_a_device_do_not_touch_each_other() -> None:
    """The second file gets room of its own, and both keep their contents."""
    disk = vr.Ssd("256K")
    kernel = vr.Kernel(ram="1M", swap=[vr.SwapFile("64K", on=disk), vr.SwapFile("64K", on=disk)], debug=True)
    first, second = swap_out(kernel, 14), swap_out(kernel, 14, seed=100)
    assert_intact(first)
    assert_intact(second, seed=100)


def test_a_file_on_zram_keeps_its_pages() -> None:
    """zram is told of freed slots only if it is the swap device itself; a file's slots are other pages."""
    kernel = vr.Kernel(ram="1M", page_cluster=0, debug=True)
    kernel.swapon(vr.SwapFile("64K", on=vr.Zram("256K"), fragments=[(20, 8), (4, 8)]))
    heap, other = swap_out(kernel, 6), swap_out(kernel, 6, seed=50)
    heap.munmap()
    assert_intact(other, seed=50)


# --- discard ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("discard", "flags", "pages"),
    [
        (None, 0, 0),
        ("once", SWP_DISCARDABLE | SWP_AREA_DISCARD, 1023),
        ("pages", SWP_DISCARDABLE | SWP_PAGE_DISCARD, 0),
        ("both", SWP_DISCARDABLE | SWP_AREA_DISCARD | SWP_PAGE_DISCARD, 1023),
    ],
)
def test_what_is_discarded_at_swapon(discard: str | None, flags: int, pages: int) -> None:
    """Everything but the header, if asked for; flags as in the kernel; a disk ignores the wish."""
    mask = SWP_DISCARDABLE | SWP_AREA_DISCARD | SWP_PAGE_DISCARD
    ssd, disk = vr.Ssd("4M"), vr.Disk("4M")
    ssd.write(9, b"old" * 1365 + b"!")
    kernel, si = one_device(ssd, discard=discard)
    assert si.flags & mask == flags
    assert ssd.stats.discarded == pages
    assert (ssd.read(9) == bytes(PAGE_SIZE)) == bool(pages)
    number = kernel.swapon(disk, discard=discard)
    assert not kernel.system.swap.info[number].flags & mask
    assert disk.stats.discards == 0
    kernel.swapoff(0)
    assert kernel.swapon(ssd) == 0, "the header is still there"


def test_a_discard_that_fails_does_no_harm() -> None:
    """At swapon it is logged, later the cluster is free anyway."""
    ssd = vr.Ssd("4M")
    ssd.fail_discards(times=5)
    kernel, si = one_device(ssd, discard="both")
    kernel.system.config.debug = False
    heap = swap_out(kernel, 600)
    heap.munmap()
    kernel.drain()
    kernel.check()
    assert ssd.stats.discards == 0
    assert len(si.free_clusters) == 1


def test_an_empty_cluster_waits_for_its_discard() -> None:
    """It is on no usable list until the work has run; then the device has forgotten it."""
    ssd = vr.Ssd("8M")
    kernel, si = one_device(ssd, discard="pages")
    kernel.system.config.debug = False
    heaps = [swap_out(kernel, 512, seed=1000 * n) for n in range(3)]
    assert all(ssd.read(page) != bytes(PAGE_SIZE) for page in range(1024, 1536))
    for heap in heaps:
        heap.munmap()
    kernel.check()
    waiting = [ci.index for ci in si.discard_clusters]
    assert len(waiting) >= 2
    assert ssd.stats.discards == 0
    kernel.drain()
    kernel.check()
    assert (ssd.stats.discards, ssd.stats.discarded) == (len(waiting), 512 * len(waiting))
    assert all(ssd.read(512 * index + 5) == bytes(PAGE_SIZE) for index in waiting)
    assert not si.discard_clusters


def test_an_allocation_that_finds_nothing_discards_at_once() -> None:
    """Every free slot is in a cluster that waits: it is discarded on the spot, and the page gets its slot."""
    ssd = vr.Ssd("4M")
    kernel, _ = one_device(ssd, discard="pages")
    kernel.system.config.debug = False
    heap, rest = swap_out(kernel, 512), swap_out(kernel, 511, seed=600)
    assert kernel.system.swap.nr_swap_pages == 0
    heap.munmap()
    rest.munmap()
    before = ssd.stats.discards
    assert before == 0
    swap_out(kernel, 700, seed=2000)
    kernel.check()
    assert ssd.stats.discards >= 1
    assert kernel.swaps().rows[0]["Used"] == 700 * PAGE_SIZE


def test_a_cluster_of_a_file_is_discarded_run_by_run() -> None:
    """One request for each extent that the cluster touches."""
    disk = vr.Ssd("16M")
    file = vr.SwapFile("4M", on=disk, fragments=[(100, 600), (2000, 300), (1000, 124)])
    kernel, _ = one_device(file, discard="pages")
    kernel.system.config.debug = False
    heap = swap_out(kernel, 1000)
    heap.munmap()
    kernel.drain()
    assert (disk.stats.discards, disk.stats.discarded) == (3, 512)
    kernel.check()


# --- several devices ----------------------------------------------------------------------------------------------


def test_a_device_that_fails_loses_nothing() -> None:
    """Writes to the preferred device fail for a while: the pages stay in memory or go elsewhere later."""
    fast, slow = vr.Ssd("256K", "fast"), vr.Disk("1M", "slow")
    kernel = vr.Kernel(ram="512K", debug=True)
    kernel.swapon(fast, priority=7)
    kernel.swapon(slow)
    fast.fail_writes(times=20)
    heap = kernel.spawn("app").mmap("1M")
    for page in range(heap.pages):
        heap.write_page(page, random.Random(page).randbytes(PAGE_SIZE))
    assert_intact(heap)
    assert [row["Priority"] for row in kernel.swaps().rows] == [7, -1]
    heap.process.exit()
    kernel.swapoff(fast)
    kernel.swapoff(slow)


# --- hibernation --------------------------------------------------------------------------------------------------


def busy_kernel(*devices: BlockDevice) -> tuple[Kernel, Mapping]:
    """A kernel with pages in memory and pages on its devices."""
    kernel = vr.Kernel(ram="1M", swap=list(devices), debug=True)
    heap = kernel.spawn("app").mmap("256K")
    for page in range(heap.pages):
        heap.write_page(page, random.Random(page).randbytes(PAGE_SIZE))
    heap.process.madvise(heap, "pageout", 0, heap.pages * PAGE_SIZE // 2)
    kernel.drain()
    kernel.reclaim("64K")
    return kernel, heap


@pytest.mark.parametrize(
    "make",
    [
        lambda: vr.Ssd("1M"),
        lambda: vr.Disk("1M", bad_pages=[20, 21, 30]),
        lambda: vr.SwapFile("1M", on=vr.Ssd("4M"), fragments=[(500, 100), (100, 156)]),
    ],
    ids=["ssd", "disk with bad pages", "fragmented file"],
)
def test_an_image_survives_whatever_reclaim_does(make: Any, stage: LoadedStage) -> None:
    """Its slots are nobody else's while it exists, and free afterwards."""
    kernel, heap = busy_kernel(make())
    memory = [bytes(folio.data) for folio in kernel.system.memory.mem_map[1:] if folio is not None]
    memory = memory[: image_pages(stage.id, len(memory))]
    used = kernel.swaps().rows[0]["Used"]
    with kernel.hibernate(len(memory)) as image:
        assert image.pages == len(memory)
        assert kernel.swaps().rows[0]["Used"] == used + image.pages * PAGE_SIZE
        assert kernel.system.swap.nr_swap_pages == count_swap_pages(kernel.system, 0, free=True)
        push_out(heap)
        for page in range(heap.pages):
            heap.read_page(page)
        push_out(heap)
        assert image.read() == memory
        with pytest.raises(OSError, match="EBUSY"):
            kernel.hibernate(0)
    assert kernel.system.power.swsusp_extents == []
    with pytest.raises(OSError, match="released"):
        image.read()
    image.release()
    assert_intact(heap)
    heap.process.exit()
    kernel.drain()
    kernel.reclaim("1M")
    assert kernel.swaps().rows[0]["Used"] == 0


def test_an_image_that_does_not_fit_takes_nothing(stage: LoadedStage) -> None:
    """ENOSPC before anything is written, EIO in the middle: all slots are given back."""
    kernel, heap = busy_kernel(vr.Ssd("256K"))
    used = kernel.swaps().rows[0]["Used"]
    written = kernel.devices[0].stats.writes
    with pytest.raises(OSError, match="ENOSPC"):
        kernel.hibernate()
    assert kernel.devices[0].stats.writes == written
    kernel.devices[0].fail_writes(pages=None)
    pages = image_pages(stage.id, 5)
    with pytest.raises(OSError, match="EIO"):
        kernel.hibernate(pages)
    assert kernel.swaps().rows[0]["Used"] == used
    with kernel.hibernate(pages):
        assert kernel.swaps().rows[0]["Used"] == used + pages * PAGE_SIZE
    with pytest.raises(ValueError, match="pages=9999"):
        kernel.hibernate(9999)
    assert_intact(heap)
    with pytest.raises(OSError, match="ENODEV"):
        vr.Kernel(ram="1M").hibernate(0)


def test_cached_slots_are_kept_while_the_storage_is_suspended() -> None:
    """A clean cached folio may stand in the image as "in swap": its slot must not be given away."""
    kernel = vr.Kernel(ram="1M", swap=[vr.Ssd("1M")], page_cluster=0, debug=True)
    heap = swap_out(kernel, 4)
    heap.read_page(2)
    assert heap.where()[2] == "swapcache"
    folio = next(f for f in kernel.system.memory.mem_map[1:] if f is not None and f.swapcache)
    with kernel.hibernate(0):
        folio.locked = True
        assert not folio_free_swap(kernel.system, folio)
        folio.locked = False
        heap[2 * PAGE_SIZE] = 1
        assert kernel.swaps().rows[0]["Used"] == 4 * PAGE_SIZE
    assert heap[2 * PAGE_SIZE] == 1


def test_swapoff_of_an_image_does_not_end_until_interrupted(stage: LoadedStage) -> None:
    """Nothing leads anywhere from the image's slots: EINTR, the device is in service, the image is intact."""
    kernel, heap = busy_kernel(vr.Ssd("1M"))
    with kernel.hibernate(image_pages(stage.id, 7)) as image:
        memory = image.read()
        with pytest.raises(OSError, match="EINTR"):
            kernel.swapoff(0)
        assert image.read() == memory
        assert len(kernel.swaps().rows) == 1
    kernel.swapoff(0)
    assert_intact(heap)


def test_the_image_is_found_again_by_device_and_block() -> None:
    """swap_type_of knows a device by its block device and first block; blocks follow the extents."""
    disk, below = vr.Ssd("1M"), vr.Ssd("1M")
    file = vr.SwapFile("64K", on=below, fragments=[(40, 8), (10, 8)])
    system = vr.Kernel(ram="1M", swap=[disk, file]).system
    assert (swap_type_of(system, disk, 0), swap_type_of(system, below, 40)) == (0, 1)
    assert swap_type_of(system, below, 0) == swap_type_of(system, vr.Ssd("1M"), 0) == -errno.ENODEV
    assert [swapdev_block(system, 1, offset) for offset in (1, 7, 8)] == [41, 47, 10]
    assert swapdev_block(system, 5, 1) == 0
    assert (count_swap_pages(system, 1, free=False), count_swap_pages(system, 9, free=True)) == (15, 0)


@given(st.lists(st.integers(1, 40), max_size=40))
def test_runs_of_image_slots(offsets: list[int]) -> None:
    """Inserting in any order keeps few, sorted, disjoint runs; a slot that is known is refused."""
    system = vr.Kernel(ram="1M").system
    known: set[int] = set()
    for offset in offsets:
        assert swsusp_extents_insert(system, offset) == (-errno.EINVAL if offset in known else 0)
        known.add(offset)
        runs = system.power.swsusp_extents
        assert [i for first, end in runs for i in range(first, end)] == sorted(known)
        assert all(b[0] > a[1] for a, b in pairwise(runs))


# --- swapoff ------------------------------------------------------------------------------------------------------


def test_swapoff_reads_all_page_tables_of_whoever_ever_swapped() -> None:
    """The price: every entry of every table that exists, whatever is on the device."""
    kernel = vr.Kernel(ram="64M", swap=[vr.Ssd("8M")], cpus=1)
    swapped, innocent = kernel.spawn("swapped").mmap("16M"), kernel.spawn("innocent").mmap("16M")
    for mapping in (swapped, innocent):
        for page in range(mapping.pages):
            mapping.touch(page, write=True)
    swapped[0] = 1  # a page of zeros may need no device
    swapped.process.madvise(swapped, "pageout", 0, PAGE_SIZE)
    kernel.swapoff(0)
    assert kernel.system.swap.ptes_visited == swapped.pages


def test_swapoff_stops_at_a_signal_and_can_be_repeated() -> None:
    """Some pages are back, the device is in service, nothing is lost, and the next swapoff finishes the work."""
    kernel = vr.Kernel(ram="1M", swap=[vr.Ssd("1M")], debug=True)
    heaps = [swap_out(kernel, 20, seed=100 * n) for n in range(3)]
    kernel.faults.fail("signal", nth=2)
    with pytest.raises(OSError, match="EINTR"):
        kernel.swapoff(0)
    assert kernel.swaps().rows[0]["Used"] == 40 * PAGE_SIZE
    assert kernel.system.swap.nr_swap_pages == 255 - 40
    swap_out(kernel, 3, seed=900)
    kernel.swapoff(0)
    assert kernel.meminfo()["SwapTotal"] == 0
    for n, heap in enumerate(heaps):
        assert_intact(heap, seed=100 * n)


def test_swapoff_maps_a_page_with_the_flags_of_that_moment(stage: LoadedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork before the page-table lock is taken makes the page shared; the slot is put back under that lock."""
    kernel = vr.Kernel(ram="1M", swap=[vr.Ssd("1M")], page_cluster=0)
    heap = swap_out(kernel, 2)
    mm, module, children = heap.process.mm, stage.module("swapoff"), []
    wait, free = module.folio_wait_writeback, module.swap_free

    def wait_and_fork(*args: Any) -> None:
        wait(*args)
        if not children:
            children.append(heap.process.fork())
            assert mm.swapents == 2

    def free_locked(*args: Any) -> None:
        assert mm.ptl.locked() or mm.swapents == 0
        free(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "folio_wait_writeback", wait_and_fork)
        patch.setattr(module, "swap_free", free_locked)
        with pytest.raises(OSError, match="EINTR"):  # the child is not yet on the list that is walked
            kernel.swapoff(0)
    assert mm.swapents == 0
    heap.write_page(0, b"new" + bytes(PAGE_SIZE - 3))
    assert children[0].mappings[0].read_page(0) == random.Random(0).randbytes(PAGE_SIZE)
    kernel.swapoff(0)
    kernel.check()


def test_swapoff_frees_what_only_the_cache_holds() -> None:
    """A slot without a page-table entry: its user went away while the folio was being written."""
    kernel = vr.Kernel(ram="1M", swap=[vr.Disk("1M")], debug=True)
    heap = kernel.spawn("app").mmap("64K")
    for page in range(heap.pages):
        heap.write_page(page, b"x" * PAGE_SIZE)
    heap.process.madvise(heap, "pageout")
    heap.munmap()
    assert kernel.clusters().counts()["cached"] > 8, "most writes are still in flight"
    kernel.swapoff(0)
    kernel.reclaim("64K")
    assert kernel.system.memory.used == 0


def test_no_cpu_remembers_a_device_that_is_gone() -> None:
    """The next allocation on the CPU goes to another device, even if the number is used again."""
    kernel = vr.Kernel(ram="1M", swap=[vr.Ssd("128K", "old")], debug=True)
    swap_out(kernel, 3)
    kernel.swapoff(0)
    assert all(si is None for hint in kernel.system.swap.percpu for si in hint.si)
    kernel.swapon(vr.Disk("64K", "new"))
    assert_intact(swap_out(kernel, 3, seed=5), seed=5)


def test_mkswap_checks_its_numbers() -> None:
    """The user's tool refuses what the kernel would not understand."""
    for bad in ([0], [16], [-1], ["x"]):
        with pytest.raises((ValueError, TypeError)):
            vr.Ssd("64K", bad_pages=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="638 of them; a header page has room for 637"):
        vr.Ssd("4M", bad_pages=range(1, 639))
    with pytest.raises(ValueError, match="byteorder='pdp'"):
        vr.mkswap(vr.Ssd("64K"), byteorder="pdp")
    assert swap_header(15)[-10:] == b"SWAPSPACE2"
    assert vr.Ssd("64K").stats.writes == 0
    kernel = vr.Kernel(ram="1M", swap=[vr.Ssd("16G", contentless=True, bad_pages=[77])])
    assert kernel.meminfo()["SwapTotal"] == (1 << 34) - 2 * PAGE_SIZE


def test_a_page_that_cannot_be_read_is_poisoned_by_swapoff() -> None:
    """The device goes; whoever touches the page gets EIO, also after a fork; nothing else is touched."""
    ssd = vr.Ssd("1M")
    kernel = vr.Kernel(ram="1M", swap=[ssd], page_cluster=0, debug=True)
    heap = swap_out(kernel, 8)
    ssd.fail_reads(pages=[next(n for n in range(1, 256) if ssd.read(n) == random.Random(3).randbytes(PAGE_SIZE))])
    shared = heap.process.fork().mappings[0]
    kernel.swapoff(0)
    child = heap.process.fork().mappings[0]
    for mapping in (heap, shared, child):
        assert mapping.where().counts()["lost"] == 1
        for _ in range(2):
            with pytest.raises(OSError, match="cannot be read back"):
                mapping.read_page(3)
        with pytest.raises(OSError, match="cannot be read back"):
            mapping.write_page(3, bytes(PAGE_SIZE))
        for page in {*range(8)} - {3}:
            assert mapping.read_page(page) == random.Random(page).randbytes(PAGE_SIZE)
        assert mapping.process.swap == 0
    kernel.swapon(ssd)
    push_out(heap)
    for process in list(kernel.processes):
        process.exit()
    kernel.drain()
    assert kernel.system.memory.used == 0


@pytest.mark.stages(0, until=13)
@pytest.mark.parametrize("order", [1, 4, 9])
def test_the_room_that_is_shown_is_the_room_there_is(order: int) -> None:
    """The allocator places exactly as many large folios as the view of the clusters says."""
    kernel = vr.Kernel(ram="32M", swap=[vr.Ssd("8M")], cpus=1)
    app = kernel.spawn("app")
    pieces = [app.mmap(PAGE_SIZE) for _ in range(1200)]
    for piece in pieces:
        piece.write_page(0, random.Random(1).randbytes(PAGE_SIZE))
        app.madvise(piece, "pageout")
    kernel.drain()
    for piece in [*pieces[:300], *pieces[600:700]]:
        piece.munmap()
    room = sum(row["runs"][order] for row in kernel.clusters().rows if row["usable"][order])
    assert room == {1: 256, 4: 32, 9: 1}[order]
    placed = 0
    while placed <= room:
        folio = folio_alloc(kernel.system, order)
        assert folio is not None
        folio.data[:] = random.Random(2).randbytes(len(folio.data))
        folio.swapbacked = folio.uptodate = folio.locked = True
        if folio_alloc_swap(kernel.system, folio):
            break
        placed += 1
    assert placed == room


def test_the_checker_sees_extents_that_should_be_one() -> None:
    """A run of slots that lies in one piece is one extent."""
    kernel, si = one_device(vr.Disk("64K"))
    (whole,) = si.swap_extents
    si.swap_extents = [type(whole)(0, 7, 0), type(whole)(7, whole.nr_pages - 7, 7)]
    with pytest.raises(vr.InvariantError, match="extents do not continue each other"):
        kernel.check()
