"""Cgroup version 1: memory and swap share a limit, and zswap is not charged."""

from __future__ import annotations

import random

import pytest

from vswap_ref import Kernel, OutOfMemory, Pmem, Ssd
from vswap_ref.lab.defects import VERSION_1_RECLAIM, stages_with
from vswap_ref.machine import PAGE_SIZE, BlockDevice

pytestmark = pytest.mark.stages(0, without=stages_with(VERSION_1_RECLAIM))


def test_a_swapped_out_page_leaves_memory_and_stays_in_memory_plus_swap() -> None:
    kernel = Kernel(ram="4M", swap=[Ssd("4M")], memcg="v1", debug=True)
    group = kernel.cgroup("job")
    heap = kernel.spawn("job", cgroup=group).mmap(8 * PAGE_SIZE)
    heap[:] = b"\1" * len(heap)
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim(len(heap), group)
    assert (group.memory_current, group.memsw_current, group.swap_current) == (0, len(heap), 0)
    heap.touch(0)
    assert group.memsw_current == len(heap)
    heap.munmap()
    assert (group.memory_current, group.memsw_current) == (0, 0)


@pytest.mark.parametrize("device", [Ssd, Pmem])
def test_swapping_does_not_help_at_the_limit_of_memory_plus_swap(device: type[BlockDevice]) -> None:
    kernel = Kernel(ram="2M", swap=[device("1M")], memcg="v1")
    group = kernel.cgroup("job", memory_max=32 * PAGE_SIZE)
    group.memsw_max = 64 * PAGE_SIZE
    heap = kernel.spawn("job", cgroup=group).mmap("1M")
    for page in range(64):
        heap.write_page(page, b"\2" * PAGE_SIZE)
    with pytest.raises(OutOfMemory):
        heap.write_page(64, b"\2" * PAGE_SIZE)
    kernel.check()
    assert group.memsw_current == 64 * PAGE_SIZE
    assert group.events["oom"] == 1
    group.memsw_max = 65 * PAGE_SIZE
    assert all(heap.read_page(page) == b"\2" * PAGE_SIZE for page in range(64))
    kernel.check()


def test_the_compressed_pool_is_not_charged() -> None:
    kernel = Kernel(ram="2M", swap=[Ssd("1M")], zswap="lz4", memcg="v1")
    group = kernel.cgroup("job", memory_max=32 * PAGE_SIZE)
    heap = kernel.spawn("job", cgroup=group).mmap(64 * PAGE_SIZE)
    noise = random.Random(1).randbytes
    pages = [noise(PAGE_SIZE) for _ in range(heap.pages)]
    for page, data in enumerate(pages):
        heap.write_page(page, data)
    assert kernel.vmstat["zswpout"] > 0
    assert group.zswap_current == 0
    assert [heap.read_page(page) for page in range(heap.pages)] == pages
    kernel.check()


def test_limits_belong_to_their_version() -> None:
    kernel = Kernel(memcg="v1")
    with pytest.raises(ValueError, match="set memsw_max"):
        kernel.cgroup("job", swap_max="1M")
    group = kernel.cgroup("job", memory_max="2M")
    with pytest.raises(ValueError, match="only with cgroup version 2"):
        group.swap_max = "1M"
    with pytest.raises(OSError, match="below memory_max"):
        group.memsw_max = "1M"
    heap = kernel.spawn("job", cgroup=group).mmap("2M")
    for page in range(512):
        heap.touch(page, write=True)
    group.memory_max = "4K"
    with pytest.raises(OSError, match="are in use"):
        group.memsw_max = "1M"
    with pytest.raises(ValueError, match="only with cgroup version 1"):
        Kernel().cgroup("job").memsw_max = "1M"
