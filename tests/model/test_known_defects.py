"""The defects of Linux 6.19 that the model reproduces: one test each, listed in book/known-defects.md.

Here, and only here, data may read back differently from what was written.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import vswap_ref as vr
from vswap_ref.kernel import Kernel, Mapping
from vswap_ref.machine import PAGE_SIZE

BEFORE = vr.at(8)
"""The last stage at which the name of a page is its place."""
page_io = BEFORE.module("page_io")
Folio, System, ZswapEntry = map(BEFORE.find, ("Folio", "System", "ZswapEntry"))
swap_cache_get_shadow, swap_duplicate = map(BEFORE.find, ("swap_cache_get_shadow", "swap_duplicate"))
SwpEntry, swp_entry, is_zswapped = map(BEFORE.find, ("SwpEntry", "swp_entry", "is_zswapped"))
shrink_memcg = BEFORE.find("shrink_memcg")

TEXT = b"some text " * 409 + bytes(6)
PAGE = Path(__file__).parent.parent.parent / "book" / "known-defects.md"


def one_page(content: bytes = TEXT, **options: object) -> tuple[Kernel, Mapping]:
    """A kernel that checks itself, with zswap, and a process with one page."""
    arguments = {"ram": "1M", "swap": [vr.Ssd("1M")], "zswap": "lz4", "page_cluster": 0, "debug": True} | options
    kernel = BEFORE.Kernel(**arguments)  # type: ignore[arg-type]
    heap = kernel.spawn("app").mmap(PAGE_SIZE)
    heap.write_page(0, content)
    return kernel, heap


def push_out(heap: Mapping) -> None:
    """Out of memory as far as possible."""
    kernel = heap.process.kernel
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("64K")


def write_back_coldest(kernel: Kernel, memcg: object = None) -> int:
    """Let zswap write its coldest entry back: the first visit only takes its mark away."""
    owner = memcg or kernel.system.memcg.root
    shrink_memcg(kernel.system, owner)  # type: ignore[arg-type]
    return shrink_memcg(kernel.system, owner)  # type: ignore[arg-type]


@contextmanager
def lookup_after_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A second task finds each folio in the swap cache right after it was stored, and keeps its reference for a while.

    This is what a fault or a readahead of another process does; one task runs at a time here, so the moment is made.
    """
    held: list[Folio] = []
    store = page_io.zswap_store

    def store_and_be_found(s: System, folio: Folio) -> bool:
        stored = store(s, folio)
        folio.refcount += 1
        held.append(folio)
        return stored

    with monkeypatch.context() as patch:
        patch.setattr(page_io, "zswap_store", store_and_be_found)
        yield
    for folio in held:
        folio.refcount -= 1


def stale_entry_behind_a_zero_page(monkeypatch: pytest.MonkeyPatch) -> tuple[Kernel, Mapping]:
    """Stored in zswap, still cached, mapped writable again, overwritten with zeros, pushed out."""
    kernel, heap = one_page(debug=False)
    with lookup_after_store(monkeypatch):
        heap.process.madvise(heap, "pageout")
    kernel.check()
    assert heap.where()[0] == "swapcache"
    assert heap.read_page(0) == TEXT
    heap.write_page(0, bytes(PAGE_SIZE))
    heap.process.madvise(heap, "pageout")
    kernel.check()
    return kernel, heap


def test_stale_zswap_entry_behind_a_zero_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot has the zero bit and the old compressed page; its writeback brings the OLD content to a fault."""
    kernel, heap = stale_entry_behind_a_zero_page(monkeypatch)
    assert heap.where()[0] == "zero"
    assert is_zswapped(kernel.system, swp_entry(0, 1))
    assert write_back_coldest(kernel) == 0
    assert heap.where()[0] == "swapcache"
    assert heap.read_page(0) == TEXT, "zeros were written; if zeros are read the defect is gone"
    kernel.check()


@pytest.mark.parametrize("wait", [False, True])
def test_stale_zswap_entry_is_harmless_outside_its_window(monkeypatch: pytest.MonkeyPatch, wait: bool) -> None:
    """Before the writeback, and after its folio has left the cache, the zero bit is asked first."""
    kernel, heap = stale_entry_behind_a_zero_page(monkeypatch)
    if wait:
        assert write_back_coldest(kernel) == 0
        kernel.drain()
        kernel.reclaim("64K")
    assert heap.read_page(0) == bytes(PAGE_SIZE)


def failed_writeback(memcg: str) -> tuple[Kernel, Mapping, vr.Cgroup]:
    """A page in zswap whose writeback fails once, because it does not decompress."""
    kernel, _ = one_page(memcg=memcg)
    group = kernel.cgroup("job")
    heap = kernel.spawn("job", cgroup=group).mmap(PAGE_SIZE)
    heap.write_page(0, TEXT)
    heap.process.madvise(heap, "pageout")
    entry: ZswapEntry = next(iter(group.memcg.zswap_lru))
    good, entry.object = entry.object, b"\xff" * 8
    before = swap_cache_get_shadow(kernel.system, SwpEntry(entry.swpentry))
    assert before is not None
    assert write_back_coldest(kernel, group.memcg) != 0
    entry.object = good
    return kernel, heap, group


def test_failed_writeback_loses_the_v1_charge() -> None:
    """Version 1: the page is swapped out still, and nobody pays for it any more."""
    kernel, heap, group = failed_writeback("v1")
    assert heap.process.swap == PAGE_SIZE
    assert group.memsw_current == 0
    assert heap.read_page(0) == TEXT
    kernel.check()


def test_failed_writeback_counts_a_refault_and_forgets_the_age() -> None:
    """Nothing came back, but a refault is counted, and the shadow is gone when the page really comes back."""
    kernel, heap, _ = failed_writeback("v2")
    assert kernel.vmstat["workingset_refault_anon"] == 1
    assert swap_cache_get_shadow(kernel.system, swp_entry(0, 1)) is None
    heap.touch(0)
    assert kernel.vmstat["workingset_refault_anon"] == 1


def test_a_bad_entry_duplicates_without_error() -> None:
    """A free slot gains no user, and the caller is told that all is well."""
    kernel, _ = one_page()
    si = kernel.system.swap.info[0]
    assert si.swap_map[5] == 0
    assert swap_duplicate(kernel.system, swp_entry(0, 5)) == 0
    assert si.swap_map[5] == 0


def test_a_page_that_may_not_be_written_costs_memory_and_swap() -> None:
    """Writeback forbidden and not compressible: it stays in memory, its slot is used, both are charged."""
    kernel, _ = one_page()
    group = kernel.cgroup("keep", zswap_writeback=False)
    heap = kernel.spawn("keeper", cgroup=group).mmap(PAGE_SIZE)
    heap.write_page(0, random.Random(0).randbytes(PAGE_SIZE))
    push_out(heap)
    assert heap.where()[0] == "swapcache"
    assert (group.memory_current, group.swap_current) == (PAGE_SIZE, PAGE_SIZE)
    assert kernel.swaps().rows[0]["Used"] == PAGE_SIZE


def test_zero_and_compressed_pages_burn_slots() -> None:
    """Nothing is written, every page owns a slot and is charged for it."""
    kernel = BEFORE.Kernel(ram="2M", swap=[vr.Ssd("1M")], zswap="lz4", debug=True)
    group = kernel.cgroup("job")
    heap = kernel.spawn("job", cgroup=group).mmap(8 * PAGE_SIZE)
    for page in range(8):
        heap.write_page(page, TEXT if page % 2 else bytes(PAGE_SIZE))
    heap.process.madvise(heap, "pageout")
    assert heap.where().counts() == {"zero": 4, "zswap": 4}
    assert kernel.vmstat["pswpout"] == 0
    assert group.swap_current == kernel.swaps().rows[0]["Used"] == 8 * PAGE_SIZE


def test_without_a_free_slot_zswap_cannot_be_used() -> None:
    """The device is full of compressed pages, the pool nearly empty: the next page cannot leave memory."""
    kernel = BEFORE.Kernel(ram="2M", swap=[vr.Ssd("64K")], zswap="lz4", debug=True)
    heap = kernel.spawn("app").mmap(20 * PAGE_SIZE)
    for page in range(20):
        heap.write_page(page, TEXT)
    heap.process.madvise(heap, "pageout")
    assert heap.where().counts() == {"resident": 5, "zswap": 15}
    assert kernel.zswap_debugfs()["pool_total_size"] == PAGE_SIZE


def test_swapoff_walks_all_page_tables() -> None:
    """One page on the device; every entry of every table of the process is looked at."""
    kernel, _ = one_page()
    heap = kernel.spawn("large").mmap("8M")
    for page in range(0, heap.pages, 512):
        heap.touch(page)
    heap.write_page(0, TEXT)
    heap.process.madvise(heap, "pageout", 0, PAGE_SIZE)
    kernel.swapoff(0)
    assert kernel.system.swap.ptes_visited >= heap.pages
    assert heap.read_page(0) == TEXT


def test_the_page_lists_exactly_these_tests() -> None:
    """book/known-defects.md names every test here but the two about the list and the window."""
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    here = {name for name in globals() if name.startswith("test_")}
    assert named == here - {"test_the_page_lists_exactly_these_tests"}
