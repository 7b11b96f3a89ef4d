# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Extents: where on the device the slots of a swap area lie.

Kernel homes: mm/swapfile.c (add_swap_extent, discard), mm/page_io.c (generic_swapfile_activate).
"""

from __future__ import annotations

from bisect import bisect_right
from errno import EINVAL
from operator import attrgetter

from vswap_ref.machine import PAGE_SIZE, BlockDevice, SwapFile

from .state import SwapExtent, SwapInfo
from .types import SWP_BLKDEV


def add_swap_extent(si: SwapInfo, start_page: int, nr_pages: int, start_block: int) -> int:
    """Append slots to the list of extents.  Returns the number of new extents: 0 if they continue the last one."""
    if si.swap_extents:
        last = si.swap_extents[-1]
        assert last.start_page + last.nr_pages == start_page
        if last.start_block + last.nr_pages == start_block:
            last.nr_pages += nr_pages
            return 0
    si.swap_extents.append(SwapExtent(start_page, nr_pages, start_block))
    return 1


def setup_swap_extents(si: SwapInfo) -> int:
    """Find the places of all slots.  Returns 0, or -EINVAL for a file with a hole or whose blocks cannot be told."""
    if si.flags & SWP_BLKDEV:
        add_swap_extent(si, 0, si.max, 0)
        return 0
    if not isinstance(si.swap_file, SwapFile):
        return -EINVAL
    return generic_swapfile_activate(si, si.swap_file)


def page_of_blocks(file: SwapFile, probe: int, per_page: int) -> int | None:
    """The device's page that the file's blocks from ``probe`` on fill exactly; None if they do not; -EINVAL: a hole."""
    blocks = [file.bmap(probe + i) for i in range(per_page)]
    first = blocks[0]
    if first is None or first % per_page:
        return -EINVAL if first is None else None
    for i, block in enumerate(blocks):
        if block is None:
            return -EINVAL
        if block != first + i:
            return None
    return first // per_page


def generic_swapfile_activate(si: SwapInfo, file: SwapFile) -> int:
    """Walk the blocks of a file and make an extent of each run of pages.  Returns 0 or -EINVAL; may shrink ``max``."""
    per_page = PAGE_SIZE // file.block_size
    nr_blocks = file.pages * per_page
    probe = page = 0
    while probe + per_page <= nr_blocks and page < si.max:
        block = page_of_blocks(file, probe, per_page)
        if block is None:
            probe += 1
            continue
        if block < 0:
            return block
        add_swap_extent(si, page, 1, block)
        page += 1
        probe += per_page
    si.max = max(page, 1)
    si.pages = si.max - 1
    return 0


def offset_to_swap_extent(si: SwapInfo, offset: int) -> SwapExtent:
    """The extent that contains a slot."""
    index = bisect_right(si.swap_extents, offset, key=attrgetter("start_page")) - 1
    extent = si.swap_extents[index]
    assert extent.start_page <= offset < extent.start_page + extent.nr_pages
    return extent


def swap_slot_block(si: SwapInfo, offset: int) -> int:
    """The page of the block device where a slot lies."""
    extent = offset_to_swap_extent(si, offset)
    return extent.start_block + offset - extent.start_page


def discard_swap_cluster(si: SwapInfo, start_page: int, nr_pages: int) -> int:
    """Discard slots, one request for each extent that they touch.  Returns 0 or the first negative errno."""
    assert si.bdev is not None
    end = start_page + nr_pages
    while start_page < end:
        extent = offset_to_swap_extent(si, start_page)
        stop = min(end, extent.start_page + extent.nr_pages)
        err = blkdev_issue_discard(si.bdev, extent.start_block + start_page - extent.start_page, stop - start_page)
        if err:
            return err
        start_page = stop
    return 0


def discard_swap(si: SwapInfo) -> int:
    """Discard the whole area except its header.  Returns 0 or a negative errno, which swapon only logs."""
    return discard_swap_cluster(si, 1, si.max - 1)


def blkdev_issue_discard(bdev: BlockDevice, block: int, nr_pages: int) -> int:
    """One request to the device.  Returns 0 or a negative errno."""
    try:
        bdev.discard(block, nr_pages)
    except OSError as error:
        return -(error.errno or EINVAL)
    return 0
