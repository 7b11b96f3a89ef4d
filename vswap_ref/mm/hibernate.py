# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Hibernation: slots of a swap device that hold the image of memory.

Kernel homes: mm/swapfile.c (swap_type_of and below), kernel/power/swap.c.  Such a slot has the byte 1, no folio, no
page-table entry and no cgroup.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, EIO, ENODEV, ENOSPC

from vswap_ref.machine import PAGE_SIZE, BlockDevice

from .state import System
from .swap_alloc import cluster_alloc_swap_slot
from .swap_device import swap_type_to_info, swap_usage_in_pages
from .swap_extent import swap_slot_block
from .swap_map import swap_slot_free_nr
from .types import NO_SLOT, SWAP_SLOT_INVALID, SWP_WRITEOK, SwpSlot, swp_slot, swp_slot_offset


def swap_type_of(s: System, bdev: BlockDevice, offset: int) -> int:
    """The number of the device in use whose first slot lies at page ``offset`` of ``bdev``, or -ENODEV."""
    for si in s.swap.info:
        if si.flags & SWP_WRITEOK and si.bdev is bdev and si.swap_extents[0].start_block == offset:
            return si.type
    return -ENODEV


def find_first_swap(s: System) -> int:
    """The number of the first device in use, or -ENODEV."""
    return next((si.type for si in s.swap.info if si.flags & SWP_WRITEOK), -ENODEV)


def swapdev_block(s: System, type_: int, offset: int) -> int:
    """The page of the block device where a slot lies; 0 for a device that is not in use."""
    si = swap_type_to_info(s, type_)
    return swap_slot_block(si, offset) if si is not None and si.flags & SWP_WRITEOK else 0


def count_swap_pages(s: System, type_: int, free: bool) -> int:
    """Usable slots of a device in use, or only the free ones."""
    si = swap_type_to_info(s, type_)
    if si is None or not si.flags & SWP_WRITEOK:
        return 0
    return si.pages - swap_usage_in_pages(si) if free else si.pages


def swap_slot_alloc_of_type(s: System, type_: int) -> SwpSlot:
    """Take one slot of a device for the image; slot 0 if there is none."""
    si = swap_type_to_info(s, type_)
    if si is None or not si.users.tryget():
        return NO_SLOT
    offset = SWAP_SLOT_INVALID
    if si.flags & SWP_WRITEOK:
        with s.swap.percpu.local_lock[s.cpu]:
            offset = cluster_alloc_swap_slot(s, si, 0, usage=1)
    si.users.put()
    return swp_slot(type_, offset) if offset else NO_SLOT


def swsusp_extents_insert(s: System, offset: int) -> int:
    """Remember a slot of the image; runs of slots are kept as one.  Returns 0, or -EINVAL if it is known already."""
    extents = s.power.swsusp_extents
    place = 0
    while place < len(extents) and extents[place][1] < offset:
        place += 1
    here = extents[place] if place < len(extents) else None
    if here is not None and here[0] <= offset < here[1]:
        return -EINVAL
    if here is None or offset + 1 < here[0]:
        extents.insert(place, [offset, offset + 1])
        return 0
    here[0], here[1] = min(here[0], offset), max(here[1], offset + 1)
    if place + 1 < len(extents) and extents[place + 1][0] == here[1]:
        here[1] = extents.pop(place + 1)[1]
    return 0


def alloc_swapdev_block(s: System, type_: int) -> int:
    """Take and remember a slot for the image.  Returns its page on the block device, or 0."""
    slot = swap_slot_alloc_of_type(s, type_)
    if not slot:
        return 0
    offset = swp_slot_offset(slot)
    if swsusp_extents_insert(s, offset):
        swap_slot_free_nr(s, swp_slot(type_, offset), 1)
        return 0
    return swapdev_block(s, type_, offset)


def free_all_swap_pages(s: System, type_: int) -> None:
    """Give all slots of the image back, run by run."""
    while s.power.swsusp_extents:
        first, end = s.power.swsusp_extents.pop()
        swap_slot_free_nr(s, swp_slot(type_, first), end - first)


def snapshot_pages(s: System) -> list[bytes]:
    """The content of every page frame in use, in the order of frames."""
    folios = [folio for number, folio in enumerate(s.memory.mem_map) if number and folio and folio.pfn == number]
    return [bytes(f.data[i : i + PAGE_SIZE]) for f in folios for i in range(0, PAGE_SIZE << f.order, PAGE_SIZE)]


def swsusp_write(s: System, type_: int, nr_pages: int) -> int:
    """Save the first ``nr_pages`` page frames in use to a device.

    Returns 0; -EBUSY (an image exists), -EINVAL (no such device, or not so many pages), -ENOSPC (not enough free
    slots) or -EIO; then every slot has been given back.
    """
    pages = snapshot_pages(s)
    si = swap_type_to_info(s, type_)
    if s.power.suspended_storage:
        return -EBUSY
    if si is None or si.bdev is None or not 0 <= nr_pages <= len(pages):
        return -EINVAL
    if count_swap_pages(s, type_, free=True) < nr_pages:
        return -ENOSPC
    s.power.root_swap, s.power.suspended_storage = type_, True
    err = 0
    for data in pages[:nr_pages]:
        err = err or save_page(s, si.bdev, data)
    if err:
        swsusp_free(s)
    return err


def save_page(s: System, bdev: BlockDevice, data: bytes) -> int:
    """Write one page of the image to a slot of its own.  Returns 0, -ENOSPC or -EIO."""
    block = alloc_swapdev_block(s, s.power.root_swap)
    if not block:
        return -ENOSPC
    try:
        bdev.write(block, data)
    except OSError as error:
        return -(error.errno or EIO)
    s.power.image_blocks.append(block)
    s.clock.advance(bdev.write_ns(block, 1))
    return 0


def swsusp_read(s: System) -> list[bytes]:
    """Read the image back, in the order in which it was saved.  OSError(EIO) if the device fails."""
    bdev = s.swap.info[s.power.root_swap].bdev
    if bdev is None:
        return []  # an image without pages has not kept its device
    return [bdev.read(block) for block in s.power.image_blocks]


def swsusp_free(s: System) -> None:
    """The image is not needed any more: give its slots back and let the storage go on."""
    free_all_swap_pages(s, s.power.root_swap)
    s.power.image_blocks.clear()
    s.power.suspended_storage = False
    s.power.root_swap = -1
