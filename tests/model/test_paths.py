"""Paths that random programs rarely take: stale marks, all-or-nothing stores, failures in the middle."""

from __future__ import annotations

import random

import pytest

import vswap_ref as vr
from vswap_ref.kernel import Kernel, Mapping
from vswap_ref.machine import PAGE_SIZE

BEFORE = vr.at(8)
"""The last stage at which the name of a page is its place."""
folio_alloc, folio_lock, folio_put = map(BEFORE.find, ("folio_alloc", "folio_lock", "folio_put"))
folio_unlock, folio_add_lru, folio_free_swap = map(BEFORE.find, ("folio_unlock", "folio_add_lru", "folio_free_swap"))
Folio, folio_alloc_swap, zswap_store = map(BEFORE.find, ("Folio", "folio_alloc_swap", "zswap_store"))

TEXT = b"some text " * 409 + bytes(6)


def one_page(**options: object) -> tuple[Kernel, Mapping]:
    """A kernel that checks itself after every operation, and a process with one page."""
    arguments = {"ram": "1M", "swap": [vr.Ssd("1M")], "page_cluster": 0, "debug": True} | options
    kernel = BEFORE.Kernel(**arguments)  # type: ignore[arg-type]
    return kernel, kernel.spawn("app").mmap("4K")


def push_out(heap: Mapping) -> None:
    """Out of memory completely: unmapped, written, dropped."""
    kernel = heap.process.kernel
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("64K")
    assert heap.where()[0] not in ("resident", "swapcache")


@pytest.mark.parametrize("zswap", ["off", "lz4"])
def test_an_old_zero_mark_does_not_win(zswap: str) -> None:
    """A page that was zero, kept its slot, and was written without a fault comes back as written."""
    _, heap = one_page(zswap=zswap)
    heap.write_page(0, bytes(PAGE_SIZE))
    push_out(heap)
    assert heap.where()[0] == "zero"
    assert heap.read_page(0) == bytes(PAGE_SIZE)
    faults = heap.process.kernel.vmstat["pgfault"]
    heap.write_page(0, TEXT)
    assert heap.process.kernel.vmstat["pgfault"] == faults
    push_out(heap)
    assert heap.read_page(0) == TEXT


def test_the_new_content_goes_to_the_same_slot() -> None:
    """A page that kept its slot is written there again, and only if it changed."""
    kernel, heap = one_page()
    heap.write_page(0, TEXT)
    push_out(heap)
    assert heap.read_page(0) == TEXT
    push_out(heap)
    assert kernel.vmstat["pswpout"] == 1
    assert heap.read_page(0) == TEXT
    heap[5] = 7
    push_out(heap)
    assert kernel.vmstat["pswpout"] == 2
    assert kernel.swaps().rows[0]["Used"] == PAGE_SIZE
    assert heap[5] == 7


def large_folio(kernel: Kernel, order: int) -> Folio:
    """A locked, cached folio with slots and text in it."""
    system = kernel.system
    folio = folio_alloc(system, order)
    assert folio is not None
    folio.data[:] = TEXT * (1 << order)
    folio.swapbacked = folio.uptodate = True
    folio_lock(folio)
    assert folio_alloc_swap(system, folio) == 0
    folio_add_lru(system, folio)
    return folio


@pytest.mark.parametrize("fails_at", [1, 3, 4])
def test_a_store_is_all_or_nothing(fails_at: int) -> None:
    """If one page of four cannot be stored, none is; afterwards all can."""
    kernel = BEFORE.Kernel(ram="1M", swap=[vr.Ssd("4M")], zswap="lz4")
    folio = large_folio(kernel, 2)
    kernel.faults.fail("zs_malloc", nth=fails_at)
    assert not zswap_store(kernel.system, folio)
    assert kernel.system.zswap.stored_pages == kernel.system.zswap.pool_bytes == 0
    assert zswap_store(kernel.system, folio)
    assert kernel.system.zswap.stored_pages == 4
    kernel.faults.fail("zs_malloc", nth=2)
    assert not zswap_store(kernel.system, folio)
    assert kernel.system.zswap.stored_pages == 0
    give_back(kernel, folio)


def give_back(kernel: Kernel, folio: Folio) -> None:
    """Free a folio's slots and memory; nothing may be left."""
    assert folio_free_swap(kernel.system, folio)
    folio_unlock(folio)
    folio_put(kernel.system, folio)
    kernel.check()
    assert kernel.system.memory.used == 0
    assert kernel.system.swap.nr_swap_pages == kernel.system.swap.total_swap_pages


@pytest.mark.parametrize("order", [0, 1, 4, 9])
def test_large_folios_get_aligned_slots(order: int) -> None:
    """Slots are naturally aligned, on a block device; a swap file has none for them."""
    kernel = BEFORE.Kernel(ram="4M", swap=[vr.Ssd("8M")])
    folio = large_folio(kernel, order)
    assert folio.swap % (1 << order) == 0
    assert kernel.swaps().rows[0]["Used"] == PAGE_SIZE << order
    give_back(kernel, folio)
    if order:
        file = BEFORE.Kernel(ram="4M", swap=[vr.SwapFile("8M", on=vr.Ssd("8M"))])
        with pytest.raises(AssertionError):
            large_folio(file, order)


def test_swapoff_without_room_changes_nothing() -> None:
    """ENOMEM, the device is in service again, every page is still readable."""
    kernel = BEFORE.Kernel(ram="512K", swap=[vr.Ssd("4M")], debug=True)
    heap = kernel.spawn("app").mmap("1M")
    for page in range(heap.pages):
        heap.write_page(page, random.Random(page).randbytes(PAGE_SIZE))
    with pytest.raises(OSError, match="ENOMEM"):
        kernel.swapoff(0)
    assert kernel.swaps().rows[0]["number"] == 0
    assert all(heap.read_page(page) == random.Random(page).randbytes(PAGE_SIZE) for page in range(heap.pages))


def test_equal_devices_take_turns_and_a_preferred_one_goes_first() -> None:
    """Priority decides; equals are filled cluster by cluster in turn."""
    kernel = BEFORE.Kernel(ram="8M", swap=[vr.Ssd("4M", "a"), vr.Ssd("4M", "b")], cpus=1)
    kernel.swapon(vr.Ssd("256K", "fast"), priority=10)
    app = kernel.spawn("app")
    heap = app.mmap("6M")
    for page in range(0, heap.pages, 64):
        for one in range(page, page + 64):
            heap.write_page(one, TEXT)
        app.madvise(heap, "pageout", page * PAGE_SIZE, (page + 64) * PAGE_SIZE)
        kernel.drain()
    used = {row["Filename"]: row["Used"] // PAGE_SIZE for row in kernel.swaps().rows}
    assert used["fast"] == 63
    assert min(used["a"], used["b"]) >= 511
    kernel.check()


def test_a_cgroup_at_its_swap_limit_keeps_its_pages() -> None:
    """swap.max refuses slots that were found: they go back, and the event is counted."""
    kernel = BEFORE.Kernel(ram="2M", swap=[vr.Ssd("4M")], debug=True)
    group = kernel.cgroup("small", swap_max="32K")
    heap = kernel.spawn("app", cgroup=group).mmap("128K")
    for page in range(heap.pages):
        heap.write_page(page, TEXT)
    heap.process.madvise(heap, "pageout")
    assert group.swap_current == 8 * PAGE_SIZE
    assert group.events["swap.max"] == group.events["swap.fail"] == 24
    assert kernel.swaps().rows[0]["Used"] == 8 * PAGE_SIZE
