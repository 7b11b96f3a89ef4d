# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""swapon: making a device usable for swap.

Kernel home: mm/swapfile.c.  The steps are those of the system call, in its order; every failure undoes them.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENOMEM, EPERM

from vswap_ref.machine import Bitmap, BlockDevice, PercpuRef, RequestQueue

from .cluster import move_cluster, swap_cluster_alloc_table
from .state import SwapClusterInfo, SwapInfo, System
from .swap_device import add_to_avail_list, plist_add
from .swap_extent import discard_swap, setup_swap_extents
from .swap_header import SwapHeader, read_header_page, read_swap_header
from .types import (
    CLUSTER_FLAG_FREE,
    CLUSTER_FLAG_NONFULL,
    CLUSTER_SHIFT,
    MAX_SWAPFILES,
    SWAP_MAP_BAD,
    SWAP_NR_ORDERS,
    SWAP_USAGE_OFFLIST_BIT,
    SWAPFILE_CLUSTER,
    SWP_AREA_DISCARD,
    SWP_BLKDEV,
    SWP_DISCARDABLE,
    SWP_PAGE_DISCARD,
    SWP_SOLIDSTATE,
    SWP_STABLE_WRITES,
    SWP_SYNCHRONOUS_IO,
    SWP_USED,
)

SWAP_FLAG_PRIO_MASK = 0x7FFF
SWAP_FLAG_PREFER = 0x8000
SWAP_FLAG_DISCARD = 0x10000
SWAP_FLAG_DISCARD_ONCE = 0x20000
SWAP_FLAG_DISCARD_PAGES = 0x40000
SWAP_FLAGS_VALID = 0x7FFFF
DEF_SWAP_PRIO = -1


def swap_flags(priority: int, discard: str | None) -> int:
    """The second argument of swapon, as swapon(8) makes it from its options; ``priority`` -1: none was given."""
    policy = {None: 0, "both": 0, "once": SWAP_FLAG_DISCARD_ONCE, "pages": SWAP_FLAG_DISCARD_PAGES}[discard]
    flags = policy | (SWAP_FLAG_DISCARD if discard else 0)
    return flags if priority < 0 else flags | SWAP_FLAG_PREFER | priority


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
        global_cluster_lock=s.locks.spinlock("global_cluster"),
        users=PercpuRef(),
    )
    si.flags = SWP_USED
    s.swap.info.append(si)
    return si


def claim_swapfile(s: System, si: SwapInfo, swap_file: BlockDevice) -> int:
    """Open the device or file exclusively.  Returns 0, or -EBUSY if it is used for swap already."""
    for other in s.swap.info:
        if other.swap_file is None:
            continue
        if other.swap_file is swap_file or other.bdev is swap_file or other.swap_file is swap_file.backing:
            return -EBUSY
    si.swap_file, si.bdev = swap_file, swap_file.backing
    si.flags |= SWP_BLKDEV if swap_file.is_block else 0
    return 0


def setup_swap_map(s: System, si: SwapInfo, header: SwapHeader) -> int:
    """Allocate the arrays that have one element a slot, and mark the bad slots.

    Returns 0, -ENOMEM, or -EINVAL (a bad page that cannot be one, or no usable slot).
    """
    if s.faults.should_fail("vzalloc"):
        return -ENOMEM
    si.swap_map = bytearray(si.max)
    si.swap_map[0] = SWAP_MAP_BAD
    for page in header.badpages:
        if not 0 < page <= header.last_page:
            return -EINVAL
        if page < si.max:
            si.swap_map[page] = SWAP_MAP_BAD
            si.pages -= 1
    if si.pages <= 0:
        return -EINVAL
    if s.faults.should_fail("kvzalloc_zeromap"):
        return -ENOMEM
    si.zeromap = Bitmap(si.max)
    return 0


def set_device_flags(s: System, si: SwapInfo, bdev: BlockDevice) -> None:
    """SWP_* flags that follow from the device's properties; a rotating one is counted."""
    si.flags |= SWP_STABLE_WRITES if bdev.stable_writes else 0
    si.flags |= SWP_SYNCHRONOUS_IO if bdev.synchronous else 0
    s.io.queues[si.type] = RequestQueue(bdev.queue_depth)
    if bdev.rotational:
        s.swap.nr_rotate_swap += 1
        si.global_next = [0] * SWAP_NR_ORDERS
    else:
        si.flags |= SWP_SOLIDSTATE


def inc_cluster_info_page(s: System, si: SwapInfo, offset: int) -> int:
    """Count a slot that can never be used in its cluster.  Returns 0 or -ENOMEM (no swap table)."""
    ci = si.cluster_info[offset >> CLUSTER_SHIFT]
    if ci.table is None and not swap_cluster_alloc_table(s, ci):
        return -ENOMEM
    ci.count += 1
    return 0


def setup_clusters(s: System, si: SwapInfo, badpages: tuple[int, ...]) -> int:
    """Make the cluster headers and put every cluster on the free or the nonfull list.  Returns 0 or -ENOMEM."""
    nr_clusters = -(-si.max // SWAPFILE_CLUSTER)
    if s.faults.should_fail("kvcalloc_cluster_info"):
        return -ENOMEM
    spinlock = s.locks.spinlock
    si.cluster_info = [SwapClusterInfo(i, spinlock("ci")) for i in range(nr_clusters)]
    below_max = (page for page in badpages if page < si.max)
    for offset in (0, *below_max, *range(si.max, nr_clusters * SWAPFILE_CLUSTER)):
        if inc_cluster_info_page(s, si, offset):
            return -ENOMEM
    for ci in si.cluster_info:
        if ci.count:
            move_cluster(si, ci, si.nonfull_clusters[0], CLUSTER_FLAG_NONFULL)
        else:
            move_cluster(si, ci, si.free_clusters, CLUSTER_FLAG_FREE)
    return 0


def setup_discard(si: SwapInfo, flags: int) -> None:
    """Decide what is discarded, and discard the whole area now if asked for; an error there does not matter."""
    assert si.bdev is not None
    if not flags & SWAP_FLAG_DISCARD or not si.bdev.can_discard:
        return
    si.flags |= SWP_DISCARDABLE | SWP_AREA_DISCARD | SWP_PAGE_DISCARD
    if flags & SWAP_FLAG_DISCARD_ONCE:
        si.flags &= ~SWP_PAGE_DISCARD
    elif flags & SWAP_FLAG_DISCARD_PAGES:
        si.flags &= ~SWP_AREA_DISCARD
    if si.flags & SWP_AREA_DISCARD:
        discard_swap(si)


def setup_swap_area(s: System, si: SwapInfo, flags: int) -> int:
    """Read the header, find the slots' places, allocate the arrays.  Returns 0 or a negative errno."""
    assert si.swap_file is not None
    header = read_header_page(si.swap_file)
    if isinstance(header, int):
        return header
    si.max = read_swap_header(si.swap_file, header)
    if not si.max:
        return -EINVAL
    si.pages = si.max - 1
    return setup_swap_extents(si) or setup_swap_map(s, si, header) or setup_device(s, si, header, flags)


def setup_device(s: System, si: SwapInfo, header: SwapHeader, flags: int) -> int:
    """Device properties, clusters, discard.  Returns 0 or -ENOMEM."""
    assert si.bdev is not None
    set_device_flags(s, si, si.bdev)
    err = setup_clusters(s, si, header.badpages)
    if err:
        return err
    setup_discard(si, flags)
    return 0


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
    si.swap_map = bytearray()
    si.zeromap = None
    for ci in si.cluster_info:
        if ci.on_list is not None:
            del ci.on_list[ci]
    si.cluster_info = []
    if si.global_next is not None:
        s.swap.nr_rotate_swap -= 1
        si.global_next = None
    s.io.queues.pop(si.type, None)
    si.swap_extents = []
    si.bdev = si.swap_file = None
    si.max = si.pages = 0
    si.inuse_pages = SWAP_USAGE_OFFLIST_BIT
    si.flags = 0


def swapon(s: System, specialfile: BlockDevice, flags: int = 0) -> int:
    """Use a device or a file for swap.

    ``flags``: SWAP_FLAG_PREFER and a priority, SWAP_FLAG_DISCARD with _ONCE or _PAGES.  Returns the device
    number, or -EINVAL (unknown flags, no or a bad header, a hole in the file, no usable slot), -EBUSY (in use),
    -EPERM (24 devices are in use), -EIO, -ENOMEM; then nothing has changed.
    """
    if flags & ~SWAP_FLAGS_VALID:
        return -EINVAL
    si = alloc_swap_info(s)
    if si is None:
        return -EPERM
    err = claim_swapfile(s, si, specialfile) or setup_swap_area(s, si, flags)
    if err:
        release_swap_info(s, si)
        return err
    prio = flags & SWAP_FLAG_PRIO_MASK if flags & SWAP_FLAG_PREFER else DEF_SWAP_PRIO
    enable_swap_info(s, si, prio)
    return si.type
