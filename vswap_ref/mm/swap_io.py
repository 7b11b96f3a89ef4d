# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Moving pages between memory and a device.

Kernel homes: mm/page_io.c (below swap_writeout and swap_read_folio), block layer.  Reads, and writes to a
synchronous device, wait.  Other writes are in flight until the virtual clock reaches their completion time.
"""

from __future__ import annotations

import heapq

from vswap_ref.machine import PAGE_SIZE, BlockDevice

from .folio import folio_mark_dirty, folio_put, folio_unlock
from .lru import folio_rotate_reclaimable
from .state import Folio, System
from .swap_device import __swap_slot_to_info
from .swap_extent import swap_slot_block
from .thp import count_mthp_stat
from .types import PMD_ORDER, SWP_BLKDEV, SWP_SYNCHRONOUS_IO, SwpSlot, swp_slot_offset

SECTORS_PER_PAGE = PAGE_SIZE // 512

SUBMIT_NS = 5_000
"""Virtual time that handing a write to a device takes a processor: an assumption."""


def count_swpout_vm_event(s: System, folio: Folio) -> None:
    """Count a folio that goes to a device."""
    nr = folio.nr_pages
    if folio.order:
        count_large_swpout(s, folio)
    s.vmstat.pswpout += nr
    if folio.memcg is not None:
        folio.memcg.stat.pswpout += nr


def count_large_swpout(s: System, folio: Folio) -> None:
    """Count a large folio that goes to a device whole."""
    count_mthp_stat(s, folio.order, "swpout")
    if folio.order == PMD_ORDER:
        s.vmstat.thp_swpout += 1
        if folio.memcg is not None:
            folio.memcg.stat.thp_swpout += 1


def bdev_write_folio(bdev: BlockDevice, block: int, folio: Folio) -> bool:
    """Hand the folio's pages to the device, from page ``block`` on.  False on an I/O error."""
    try:
        if folio.order == 0:
            bdev.write(block, folio.data)
        else:
            data = memoryview(folio.data)
            for i in range(folio.nr_pages):
                bdev.write(block + i, data[i * PAGE_SIZE : (i + 1) * PAGE_SIZE])
    except OSError:
        return False
    return True


def __swap_writepage(s: System, folio: Folio, slot: SwpSlot) -> None:
    """Write a locked folio to its slots, from ``slot`` on; unlocks it.

    The folio is under writeback until the write ends; an error marks it dirty again.
    """
    si = __swap_slot_to_info(s, slot)
    bdev = si.bdev
    assert bdev is not None
    count_swpout_vm_event(s, folio)
    nr = folio.nr_pages
    block = swap_slot_sector(s, slot) // SECTORS_PER_PAGE
    duration = bdev.write_ns(block, nr)
    folio.writeback = True
    folio_unlock(folio)
    failed = not bdev_write_folio(bdev, block, folio)
    if si.flags & SWP_SYNCHRONOUS_IO:
        s.clock.ns += duration
        end_swap_bio_write(s, folio, failed)
        return
    s.clock.ns += SUBMIT_NS
    folio.refcount += 1
    done = s.io.queues[si.type].submit(s.clock.ns, duration, nr * bdev.page_transfer_ns)
    s.io.sequence += 1
    heapq.heappush(s.io.inflight, (done, s.io.sequence, folio, failed))


def end_swap_bio_write(s: System, folio: Folio, failed: bool) -> None:
    """A write has ended (completion of the bio): end writeback, and move the folio where reclaim finds it next."""
    if failed:
        folio_mark_dirty(folio)
        folio.reclaim = False
    folio.writeback = False
    if folio.reclaim:
        folio.reclaim = False
        folio_rotate_reclaimable(s, folio)


def swap_io_poll(s: System) -> None:
    """Complete the writes that have ended by now."""
    inflight = s.io.inflight
    while inflight and inflight[0][0] <= s.clock.ns:
        _, _, folio, failed = heapq.heappop(inflight)
        with s.locks.interrupt:
            end_swap_bio_write(s, folio, failed)
            folio_put(s, folio)


def swap_io_wait_one(s: System) -> bool:
    """Sleep until the next write ends.  False if none is in flight."""
    if not s.io.inflight:
        return False
    s.clock.advance(max(0, s.io.inflight[0][0] - s.clock.ns))
    swap_io_poll(s)
    return True


def folio_wait_writeback(s: System, folio: Folio) -> None:
    """Sleep until the folio is no longer under writeback."""
    while folio.writeback:
        waited = swap_io_wait_one(s)
        assert waited, "writeback without a write in flight"


def bdev_read_folio(bdev: BlockDevice, block: int, folio: Folio) -> None:
    """Fill the folio from the device, from page ``block`` on.  OSError on an I/O error."""
    if folio.order == 0:
        bdev.read_into(block, folio.data)
        return
    content = memoryview(folio.data)
    for i in range(folio.nr_pages):
        bdev.read_into(block + i, content[i * PAGE_SIZE : (i + 1) * PAGE_SIZE])


def swap_read_folio_bdev(s: System, folio: Folio, slot: SwpSlot) -> None:
    """Read a locked folio from its slots and unlock it; it is up to date unless the device failed."""
    assert slot, "slot 0 would be the header of device 0"
    bdev = __swap_slot_to_info(s, slot).bdev
    assert bdev is not None
    block = swap_slot_sector(s, slot) // SECTORS_PER_PAGE
    nr = folio.nr_pages
    duration = bdev.read_ns(block, nr)
    if folio.order:
        count_mthp_stat(s, folio.order, "swpin")
    s.vmstat.pswpin += nr
    if folio.memcg is not None:
        folio.memcg.stat.pswpin += nr
    try:
        bdev_read_folio(bdev, block, folio)
        folio.uptodate = True
    except OSError:
        folio.uptodate = False
    s.clock.ns += duration
    folio.locked = False


def swap_slot_sector(s: System, slot: SwpSlot) -> int:
    """First 512-byte sector of a physical slot on its device."""
    si, offset = __swap_slot_to_info(s, slot), swp_slot_offset(slot)
    if not si.flags & SWP_BLKDEV:
        offset = swap_slot_block(si, offset)
    return offset * SECTORS_PER_PAGE
