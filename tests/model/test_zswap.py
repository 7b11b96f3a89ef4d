"""zswap's parameters while it runs: pools, limits, counters of debugfs, the shrinker."""

from __future__ import annotations

import random

import pytest

import vswap_ref as vr
from vswap_ref.kernel import Kernel, Mapping
from vswap_ref.machine import PAGE_SIZE, Codec
from vswap_ref.mm.zswap_pool import zswap_check_limits

pytestmark = pytest.mark.stages(0)

TEXT = b"some text " * 409 + bytes(6)


def booted(zswap: vr.Zswap | str | None = "lz4", pages: int = 16, **options: object) -> tuple[Kernel, Mapping]:
    """A kernel that checks itself, and a process with pages of text."""
    arguments = {"ram": "4M", "swap": [vr.Ssd("4M")], "zswap": zswap, "page_cluster": 0, "debug": True} | options
    kernel = Kernel(**arguments)  # type: ignore[arg-type]
    heap = kernel.spawn("app").mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap.write_page(page, TEXT)
    return kernel, heap


def test_an_old_pool_dies_with_its_last_entry() -> None:
    """New pages go to the new compressor's pool; each pool reads back its own; an old one vanishes when empty."""
    kernel, heap = booted()
    for number, name in enumerate(("lz4", "zstd", "deflate")):
        kernel.set_zswap(compressor=name)
        heap.process.madvise(heap, "pageout", number * 4 * PAGE_SIZE, (number + 1) * 4 * PAGE_SIZE)
    pools = kernel.system.zswap.pools
    assert [pool.codec.name for pool in pools] == ["deflate", "zstd", "lz4"]
    assert kernel.zswap_parameters()["compressor"] == "deflate"
    assert all(heap.read_page(page) == TEXT for page in range(3))
    assert len(pools) == 3
    assert heap.read_page(3) == TEXT
    assert [pool.codec.name for pool in pools] == ["deflate", "zstd"]


def test_choosing_a_compressor_again_revives_its_pool() -> None:
    """The pool that still holds its pages becomes the first again; an empty one is not kept."""
    kernel, heap = booted()
    heap.process.madvise(heap, "pageout", 0, 4 * PAGE_SIZE)
    first = kernel.system.zswap.pool
    kernel.set_zswap(compressor="zstd")
    kernel.set_zswap(compressor="lz4")
    assert kernel.system.zswap.pool is first
    assert kernel.system.zswap.pools == [first]


def test_a_disabled_zswap_still_gives_back() -> None:
    """No new pages, old ones load; enabling it again goes on with the same compressor."""
    kernel, heap = booted("zstd")
    heap.process.madvise(heap, "pageout", 0, 8 * PAGE_SIZE)
    kernel.set_zswap(enabled=False)
    heap.process.madvise(heap, "pageout", 8 * PAGE_SIZE)
    kernel.drain()
    kernel.reclaim("64K")
    assert heap.where().counts() == {"swapfile": 8, "zswap": 8}
    assert kernel.zswap_parameters()["enabled"] == "N"
    kernel.set_zswap(enabled=True)
    assert kernel.zswap_parameters()["compressor"] == "zstd"
    assert all(heap.read_page(page) == TEXT for page in range(16))


def test_zswap_can_be_enabled_after_boot() -> None:
    """It takes lz4 if nobody says otherwise."""
    kernel, heap = booted(None)
    kernel.set_zswap(enabled=True, max_pool_percent=30)
    heap.process.madvise(heap, "pageout")
    assert heap.where().counts() == {"zswap": 16}
    parameters = kernel.zswap_parameters()
    assert (parameters["compressor"], parameters["max_pool_percent"]) == ("lz4", "30")


def test_bad_parameters_change_nothing() -> None:
    """The message names argument, value and what is legal."""
    kernel, _ = booted()
    before = kernel.zswap_parameters()
    for arguments, message in (
        ({"compressor": "gzip"}, "compressor='gzip': expected one of"),
        ({"compressor": "zstd", "max_pool_percent": 101}, "max_pool_percent=101"),
        ({"accept_threshold_percent": -1}, "accept_threshold_percent=-1"),
    ):
        with pytest.raises(ValueError, match=message):
            kernel.set_zswap(**arguments)  # type: ignore[arg-type]
    assert kernel.zswap_parameters() == before


def test_counters_name_the_reason() -> None:
    """Each way to be turned away has its counter; a compressor that fails is not one that compresses badly."""
    kernel, _ = booted(pages=1)
    keep = kernel.cgroup("keep", zswap_writeback=False)
    heap = kernel.spawn("keeper", cgroup=keep).mmap(2 * PAGE_SIZE)
    heap.write_page(0, random.Random(0).randbytes(PAGE_SIZE))
    heap.write_page(1, TEXT)

    def push(page: int) -> dict[str, int]:
        before = kernel.zswap_debugfs()
        heap.process.madvise(heap, "pageout", page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
        return {name: value - before[name] for name, value in kernel.zswap_debugfs().items() if value != before[name]}

    kernel.faults.fail("zswap_entry_cache_alloc")
    assert push(0) == {"reject_kmemcache_fail": 1}, "memory for the entry is asked for before the page is looked at"
    heap.touch(0)
    assert push(0) == {"reject_compress_poor": 1}
    kernel.faults.fail("zs_malloc")
    assert push(1) == {"reject_alloc_fail": 1}
    kernel.faults.fail("zswap_entry_cache_alloc")
    heap.touch(1)
    assert push(1) == {"reject_kmemcache_fail": 1}
    broken = kernel.system.zswap.pool
    assert broken is not None

    def fail(_page: bytes) -> bytes:
        raise ValueError("hardware is gone")

    good = broken.codec
    broken.codec = Codec("lz4", "broken", False, fail, fail)
    heap.touch(1)
    assert push(1) == {"reject_compress_fail": 1}
    keep.zswap_writeback = True
    heap.touch(1)
    assert push(1) == {"pool_total_size": PAGE_SIZE, "stored_pages": 1, "stored_incompressible_pages": 1}
    broken.codec = good
    assert heap.read_page(1) == TEXT


def test_the_limit_remembers() -> None:
    """Full at the limit; closed until the pool is down to the threshold, not just below the limit."""
    kernel = Kernel(ram="4M", zswap=vr.Zswap("lz4", max_pool_percent=1, accept_threshold_percent=50))
    full = []
    for pages in (9, 10, 9, 6, 5, 6, 9, 11):
        kernel.system.zswap.pool_bytes = pages * PAGE_SIZE
        full.append(zswap_check_limits(kernel.system))
    assert full == [False, True, True, True, False, False, False, True]
    assert kernel.zswap_debugfs()["pool_limit_hit"] == 2
    assert kernel.zswap_debugfs()["pool_total_size"] == 11 * PAGE_SIZE


def test_writeback_is_the_and_of_all_ancestors() -> None:
    """A parent that forbids it forbids it for its children; the shrinker asks too."""
    kernel, _ = booted(vr.Zswap("lz4", shrinker=True))
    parent = kernel.cgroup("parent", zswap_writeback=False)
    group = kernel.cgroup("child", parent)
    heap = kernel.spawn("job", cgroup=group).mmap("64K")
    heap[:] = random.Random(0).randbytes(len(heap))
    heap.process.madvise(heap, "pageout")
    for _ in range(3):
        kernel.reclaim("256K", group)
    assert kernel.vmstat["zswpwb"] == 0
    parent.zswap_writeback = True
    for _ in range(3):
        kernel.reclaim("256K", group)
    assert kernel.vmstat["zswpwb"] > 0


def test_the_cgroup_limit_makes_room_or_refuses() -> None:
    """At zswap.max one entry is written back to make room, if that is allowed; with limit 0 zswap is closed."""
    kernel, _ = booted()
    group = kernel.cgroup("job", zswap_max="8K")
    heap = kernel.spawn("job", cgroup=group).mmap("64K")
    for page in range(16):
        heap.write_page(page, random.Random(page).randbytes(PAGE_SIZE))
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    assert group.zswap_current <= 3 * PAGE_SIZE
    assert kernel.vmstat["zswpwb"] > 0
    group.zswap_max = 0
    before = kernel.vmstat["zswpout"]
    for page in range(16):
        heap.touch(page, write=True)
    heap.process.madvise(heap, "pageout")
    assert kernel.vmstat["zswpout"] == before
    assert all(heap.read_page(page) == random.Random(page).randbytes(PAGE_SIZE) for page in range(16))
