# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""swapon: making a device usable for swap.

Kernel home: mm/swapfile.c.  The device comes formatted: slot 0 is the header, there are no bad slots, and the whole
area is one extent.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENOMEM, EPERM

from vswap_ref.machine import Bitmap, BlockDevice, PercpuRef, RequestQueue

from .cluster import move_cluster, swap_cluster_alloc_table
from .state import SwapClusterInfo, SwapInfo, System
from .swap_cgroup import swap_cgroup_swapoff, swap_cgroup_swapon
from .swap_continuation import free_swap_count_continuations
from .swap_device import add_to_avail_list, plist_add
from .types import (
    CLUSTER_FLAG_FREE,
    CLUSTER_FLAG_NONFULL,
    MAX_SWAPFILES,
    SWAP_MAP_BAD,
    SWAPFILE_CLUSTER,
    SWP_BLKDEV,
    SWP_PAGE_DISCARD,
    SWP_SOLIDSTATE,
    SWP_STABLE_WRITES,
    SWP_SYNCHRONOUS_IO,
    SWP_USED,
)
from .zswap_pool import zswap_swapoff, zswap_swapon

SWAP_PRIO_MAX = 32767


def alloc_swap_info(s: System) -> SwapInfo | None:
    """The first unused device number's structure; None if all 24 are taken."""
    for si in s.swap.info:
        if not si.flags & SWP_USED:
            si.flags = SWP_USED
            return si
    if len(s.swap.info) == MAX_SWAPFILES:
        return None
    si = SwapInfo(
        type=len(s.swap.info),
        lock=s.locks.spinlock("si"),
        cont_lock=s.locks.spinlock("cont"),
        global_cluster_lock=s.locks.spinlock("global_cluster"),
        users=PercpuRef(),
    )
    si.flags = SWP_USED
    s.swap.info.append(si)
    return si


def device_flags(bdev: BlockDevice) -> int:
    """SWP_* flags that follow from the device's properties."""
    flags = SWP_USED
    flags |= SWP_BLKDEV if bdev.is_block else 0
    flags |= SWP_STABLE_WRITES if bdev.stable_writes else 0
    flags |= SWP_SYNCHRONOUS_IO if bdev.synchronous else 0
    flags |= 0 if bdev.rotational else SWP_SOLIDSTATE
    return flags


def setup_clusters(s: System, si: SwapInfo) -> int:
    """Make the cluster headers and put every cluster on the free or the nonfull list.  Returns 0 or -ENOMEM."""
    nr_clusters = -(-si.max // SWAPFILE_CLUSTER)
    if s.faults.should_fail("kvcalloc_cluster_info"):
        return -ENOMEM
    spinlock = s.locks.spinlock
    si.cluster_info = [SwapClusterInfo(i, spinlock("ci")) for i in range(nr_clusters)]
    si.cluster_info[0].count += 1
    si.cluster_info[-1].count += nr_clusters * SWAPFILE_CLUSTER - si.max
    for ci in si.cluster_info:
        if not ci.count:
            move_cluster(si, ci, si.free_clusters, CLUSTER_FLAG_FREE)
        elif swap_cluster_alloc_table(s, ci):
            move_cluster(si, ci, si.nonfull_clusters[0], CLUSTER_FLAG_NONFULL)
        else:
            return -ENOMEM
    si.global_next = None if si.flags & SWP_SOLIDSTATE else [0] * 10
    return 0


def setup_swap_map(s: System, si: SwapInfo) -> int:
    """Allocate the arrays that have one element a slot.  Returns 0 or -ENOMEM."""
    if s.faults.should_fail("vzalloc"):
        return -ENOMEM
    si.swap_map = bytearray(si.max)
    si.swap_map[0] = SWAP_MAP_BAD
    if swap_cgroup_swapon(s, si.type, si.max):
        return -ENOMEM
    if s.faults.should_fail("kvzalloc_zeromap"):
        return -ENOMEM
    si.zeromap = Bitmap(si.max)
    return setup_clusters(s, si) or zswap_swapon(s, si.type, si.max)


def enable_swap_info(s: System, si: SwapInfo, prio: int) -> None:
    """Publish the device: count its slots, put it on both priority lists."""
    with s.swap.swap_lock, si.lock:
        si.prio = prio
    si.users.resurrect()
    with s.swap.swap_lock, si.lock:
        s.swap.nr_swap_pages += si.pages
        s.swap.total_swap_pages += si.pages
        plist_add(s.swap.active_head, si)
        add_to_avail_list(s, si, swapon=True)


def release_swap_info(s: System, si: SwapInfo) -> None:
    """Free everything that hangs on a device that nobody uses; its number can be taken again."""
    swap_cgroup_swapoff(s, si.type)
    zswap_swapoff(s, si.type)
    si.swap_map = bytearray()
    si.zeromap = None
    for ci in si.cluster_info:
        if ci.on_list is not None:
            del ci.on_list[ci]
    si.cluster_info = []
    si.global_next = None
    free_swap_count_continuations(si)
    si.bdev = None
    si.max = si.pages = 0
    si.inuse_pages = 1 << 30
    si.flags = 0


def swapon(s: System, bdev: BlockDevice, prio: int = -1, discard: bool = False) -> int:
    """Use a device for swap.

    ``prio`` -1 (the default) to 32767, higher is preferred.  Returns the device number, or -EBUSY (already in use),
    -EINVAL (no usable slot, bad priority), -EPERM (24 devices are in use), -ENOMEM; then nothing has changed.
    """
    if not -1 <= prio <= SWAP_PRIO_MAX or bdev.pages < 2:
        return -EINVAL
    if any(si.bdev is bdev for si in s.swap.info):
        return -EBUSY
    si = alloc_swap_info(s)
    if si is None:
        return -EPERM
    si.bdev = bdev
    si.max = bdev.pages
    si.pages = bdev.pages - 1
    si.flags = device_flags(bdev) | (SWP_PAGE_DISCARD if discard and bdev.can_discard else 0)
    err = setup_swap_map(s, si)
    if err:
        release_swap_info(s, si)
        return err
    s.swap.nr_rotate_swap += bdev.rotational
    s.io.queues[si.type] = RequestQueue(bdev.queue_depth)
    enable_swap_info(s, si, prio)
    return si.type
