"""Patch 3: tryget_swap_entry and put_swap_entry, and their seven callers."""

from __future__ import annotations

import errno
from collections import Counter
from typing import Any

import pytest

import vswap_ref as vr
from vswap_ref.lab.experiments.pins import fault_pins
from vswap_ref.lab.experiments.swapoff_race import FAULTS, FREED, race
from vswap_ref.lab.same_workload import BREAKS, play
from vswap_ref.machine import PAGE_SIZE

AT = vr.at(3)
MODULES = ("fault", "madvise", "readahead", "shmem_swap", "userfaultfd", "zswap_writeback")


def swapped(zswap: str | None = None, **options: Any) -> tuple[Any, Any]:
    """A kernel and a mapping of 8 pages that are on the device, or in zswap."""
    kernel = AT.Kernel(ram="1M", swap=[vr.Ssd("1M")], zswap=zswap, **options)
    heap = kernel.spawn("app").mmap(8 * PAGE_SIZE)
    for number in range(8):
        heap.write_page(number, bytes((number + 1,)) * PAGE_SIZE)
    push_out(kernel, heap)
    return kernel, heap


def push_out(kernel: Any, heap: Any) -> None:
    """Swap a mapping out, so that nothing of it is left in memory."""
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("256K")


def test_success_means_a_device() -> None:
    """A pin on a good entry, none on a bad one; the counter tells."""
    kernel, _ = swapped()
    device, si = AT.module("swap_device"), kernel.system.swap.info[0]
    assert device.tryget_swap_entry(kernel.system, 1) == (True, si)
    assert si.users.count == 1
    for entry in (0, si.max, si.max + 5, 1 << 58 | 1):
        assert device.tryget_swap_entry(kernel.system, entry) == (False, None)
    assert si.users.count == 1
    device.put_swap_entry(kernel.system, 1, si)
    si.users.kill()
    assert device.tryget_swap_entry(kernel.system, 1) == (False, None)
    assert si.users.count == 0


@pytest.mark.parametrize("entry", [0, 1, 77, 1 << 40, 3 << 58 | 9])
def test_put_ignores_the_entry(entry: int) -> None:
    """The pin is the device's."""
    kernel, _ = swapped()
    device, si = AT.module("swap_device"), kernel.system.swap.info[0]
    device.tryget_swap_entry(kernel.system, 1)
    device.put_swap_entry(kernel.system, entry, si)
    assert si.users.count == 0
    with pytest.raises(RuntimeError, match="underflow"):
        device.put_swap_entry(kernel.system, entry, si)


def test_swapoff_does_not_free_under_a_pin() -> None:
    """All pages come back, but the arrays stay until the last pin is gone."""
    kernel, heap = swapped()
    device, s = AT.module("swap_device"), kernel.system
    si = s.swap.info[0]
    device.tryget_swap_entry(s, 1)
    with pytest.raises(AssertionError):
        kernel.swapoff(0)
    assert set(heap.where()) == {"resident"}
    assert len(si.swap_map) == si.max > 0
    assert AT.module("swap_map").__dict__["__swap_count"](s, 1) == 0


def test_the_checker_finds_a_leaked_pin() -> None:
    """A pin that outlives its operation would keep swapoff waiting for ever."""
    kernel, _ = swapped()
    AT.module("swap_device").tryget_swap_entry(kernel.system, 1)
    with pytest.raises(AT.kernel.InvariantError, match="no pin of a device leaked"):
        kernel.check()


def test_every_pin_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the converted modules unpins as often as it pins, and every one of them does pin."""
    calls: Counter[str] = Counter()

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any) -> Any:
            result = real(*args)
            calls[f"{module.__name__.rpartition('.')[2]} {name[:3]}"] += name[0] == "p" or result[0]
            return result

        monkeypatch.setattr(module, name, call)

    for module in MODULES:
        counted(AT.module(module), "tryget_swap_entry")
        counted(AT.module(module), "put_swap_entry")
    assert not any(step.operation == BREAKS for step in play(AT, worlds=["large folios", "one cluster, version 1"]))
    for module in MODULES:
        assert calls[f"{module} try"] == calls[f"{module} put"] > 0, module


def test_a_fault_that_cannot_pin_is_retried() -> None:
    """It answers 0, maps nothing, reads nothing."""
    kernel, heap = swapped()
    kernel.system.swap.info[0].users.kill()
    before = kernel.vmstat["pswpin"]
    assert AT.module("fault").handle_mm_fault(kernel.system, heap.vma.mm, heap.vma.start, False) == 0
    assert heap.where()[0] == "swapfile"
    assert kernel.vmstat["pswpin"] == before
    with pytest.raises(AT.kernel.OutOfMemory):
        heap.touch(0)


def test_single_reads_and_moves_that_cannot_pin() -> None:
    """read_swap_cache_async answers None, a move -EAGAIN."""
    kernel, heap = swapped()
    s, mm = kernel.system, heap.vma.mm
    target = heap.process.mmap(8 * PAGE_SIZE)
    s.swap.info[0].users.kill()
    entry = AT.module("types").pte_to_swp_entry(AT.module("pagetable").ptep_get(mm, heap.vma.start))
    assert AT.module("readahead").read_swap_cache_async(s, entry, mm.memcg) is None
    with pytest.raises(OSError, match="EAGAIN"):
        heap.process.move_pages(heap, target)
    s.swap.info[0].users.resurrect()
    assert heap.process.move_pages(heap, target) == len(heap)


def test_a_neighbour_that_cannot_be_pinned_is_skipped() -> None:
    """Readahead around an address leaves out pages of a device that is going away, and only those."""
    kernel, heap = swapped()
    kernel.swapon(vr.Ssd("1M", name="second"), priority=5)
    app = heap.process
    heap.touch(3)
    push_out(kernel, heap)
    app.cpu = 1
    for number in (4, 5):
        heap[number * PAGE_SIZE] = 99
    push_out(kernel, heap)
    s = kernel.system
    assert s.swap.info[1].inuse_pages & 0xFFFF == 2
    s.swap.info[1].users.kill()
    heap.vma.ra_hits, heap.vma.ra_addr = 4, 0
    heap.touch(3)
    where = heap.where()
    assert [where[number] for number in (4, 5)] == ["swapfile", "swapfile"]
    assert [where[number] for number in (2, 6)] == ["swapcache", "swapcache"]


def test_shared_memory_that_cannot_pin() -> None:
    """Not resident for mincore; -EINVAL for a swap-in, but -EEXIST if the object has changed meanwhile."""
    kernel = AT.Kernel(ram="1M", swap=[vr.Ssd("1M")])
    shm = kernel.shmem(2 * PAGE_SIZE)
    heap = kernel.spawn("app").mmap(shm)
    heap[:] = b"shared  " * (len(heap) // 8)
    heap.process.madvise(heap, "pageout")
    s, swap = kernel.system, AT.module("shmem_swap")
    assert list(heap.process.mincore(heap)) == [True, True]
    s.swap.info[0].users.kill()
    assert list(heap.process.mincore(heap)) == [False, False]
    swapin = (s, shm.inode, 0, s.memcg.root, True)
    assert swap.shmem_swapin_folio(*swapin) == (None, -errno.EINVAL)
    confirm, swap.shmem_confirm_swap = swap.shmem_confirm_swap, lambda *args: -1
    try:
        assert swap.shmem_swapin_folio(*swapin) == (None, -errno.EEXIST)
        s.swap.info[0].users.resurrect()
        kernel.drain()
        kernel.reclaim("256K")
        before = kernel.vmstat.snapshot()
        assert swap.shmem_swapin_folio(*swapin) == (None, -errno.EEXIST)
        assert kernel.vmstat.snapshot() == before
    finally:
        swap.shmem_confirm_swap = confirm
    assert s.swap.info[0].users.count == 0
    assert bytes(heap[0:6]) == b"shared"


def test_private_mincore_needs_no_pin() -> None:
    """The page-table lock protects it: it answers also while the device goes away."""
    kernel, heap = swapped()
    heap.process.madvise(heap, "willneed")
    kernel.system.swap.info[0].users.kill()
    assert all(heap.process.mincore(heap))


def test_zswap_writeback_that_cannot_pin() -> None:
    """-EEXIST, and the compressed page stays."""
    kernel, heap = swapped(zswap="lz4")
    s = kernel.system
    entry = next(iter(s.memcg.root.zswap_lru))
    writeback = AT.module("zswap_writeback").zswap_writeback_entry
    s.swap.info[0].users.kill()
    assert writeback(s, entry, entry.swpentry) == -errno.EEXIST
    assert s.zswap.stored_pages == 8
    s.swap.info[0].users.resurrect()
    assert writeback(s, entry, entry.swpentry) == 0
    assert s.zswap.stored_pages == 7
    assert s.swap.info[0].users.count == 0
    assert heap.read_page(0) == b"\x01" * PAGE_SIZE


@pytest.mark.parametrize("elsewhere", [0, 1, 4, 7])
def test_pins_of_one_fault(elsewhere: int) -> None:
    """One for the fault's own device, one for each neighbour on another; all given back; as before the patch."""
    for stage in (3, 2):
        pins = fault_pins(elsewhere, stage)
        assert (pins.here, pins.there, pins.left) == (1, elsewhere, 0)


def test_one_order_is_fatal_without_protection() -> None:
    """All of swapoff between the fault's two steps; every protection excludes it, and makes swapoff wait."""
    alone = race("none")
    assert alone.outcomes[FREED] == 1
    assert [task for task, _ in alone.first(FREED).steps] == ["fault", *["swapoff"] * 4, "fault"]
    assert not alone.waits
    for protection in set(FAULTS) - {"none"}:
        record = race(protection)
        assert FREED not in record.outcomes
        assert record.outcomes["safe"] > 0
        assert record.waits > 0
    assert race("pin").outcomes["fault retried"] > 0
