"""Experiments of the chapter on decoupling: no device, a swap file of some size, a device in fragments, large reads."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import vswap_ref
from vswap_ref.display import COLOURS, OneRow, legend_html, picture, table_html, table_text
from vswap_ref.lab.corpus import page_source
from vswap_ref.machine import PAGE_SIZE, Pmem, Ssd, Zram, format_size, parse_size

TEXT = b"compressible    " * (PAGE_SIZE // 16)
PAGES = 100


# --- without a device ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoDevice:
    """100 pages pushed out on a machine with zswap and a device or none: where they are."""

    stage: str
    device: bool
    incompressible: int
    where: dict[str, int]
    slots: int
    scanned: int
    reclaimed: int
    """Of a second round of reclaim: folios looked at, pages freed."""

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        places = ("resident", "swapcache", "zero", "zswap", "swapfile")
        row: dict[str, Any] = {"stage": self.stage, "device": self.device, "incompressible": self.incompressible}
        row |= {place: self.where.get(place, 0) for place in places}
        return row | {"slots": self.slots, "scanned again": self.scanned, "freed": self.reclaimed}

    def __repr__(self) -> str:
        device = "a device" if self.device else "no device"
        return f"stage {self.stage}, {device}, {self.incompressible} incompressible: {self.where}, {self.slots} slots"

    def _repr_html_(self) -> str:
        x, rects = 0, ""
        for place, nr in self.where.items():
            rects += f"<rect x='{x}' width='{6 * nr}' height='20' fill='{COLOURS[place]}'/>"
            x += 6 * nr
        return picture(rects, repr(self), 600, 22) + legend_html(self.where) + table_html([self.row()])


def no_device(incompressible: int = 10, stage: int | str = 14, device: bool = False) -> NoDevice:
    """Push 100 pages out of a cgroup that may not write back: 20 of zeros, some incompressible, the rest text."""
    swap = [Ssd("4M")] if device else []
    kernel = vswap_ref.at(stage).Kernel(ram="4M", swap=swap, zswap="lz4", cpus=1)
    app = kernel.spawn("app", cgroup=kernel.cgroup("app", zswap_writeback=False))
    heap = app.mmap(PAGES * PAGE_SIZE)
    for page in range(PAGES):
        content = random.Random(page).randbytes(PAGE_SIZE) if page < incompressible else TEXT
        heap.write_page(page, bytes(PAGE_SIZE) if page >= PAGES - 20 else content)
    app.madvise(heap, "pageout")
    kernel.drain()
    before = kernel.vmstat.snapshot()
    freed = kernel.reclaim(PAGES * PAGE_SIZE) // PAGE_SIZE
    scanned = kernel.vmstat.since(before).get("pgscan_direct", 0)
    kernel.check()
    slots = sum(row["Used"] for row in kernel.swaps().rows) // PAGE_SIZE
    return NoDevice(str(stage), device, incompressible, heap.where().counts(), slots, scanned, freed)


# --- how large must the swap file be -------------------------------------------------------------------------------

HEAP_PAGES = 4000


@dataclass(frozen=True, slots=True)
class Sized(OneRow):
    """A process larger than memory, behind zswap: how far it came, and what was reserved for it on a device."""

    stage: str
    swap: int
    """Bytes of device; 0: none."""
    pages: int
    """Pages that were written before memory ran out, or all."""
    entries: int
    used: int
    written: int
    pool: int
    metadata: int
    """Bytes at the end: virtual slots, device in use, device ever written, zswap's pool, metadata of swap as the cover
    letter counts it."""

    @property
    def survived(self) -> bool:
        """It wrote all its pages."""
        return self.pages == HEAP_PAGES

    @property
    def wasted(self) -> int:
        """Bytes of device that nothing was ever written to, although the device had to be there."""
        return self.swap - self.written

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "stage": self.stage,
            "swap file": format_size(self.swap) if self.swap else "none",
            "outcome": "done" if self.survived else f"out of memory at page {self.pages}",
            "virtual slots": format_size(self.entries),
            "in use": format_size(self.used),
            "written": format_size(self.written),
            "disk wasted": format_size(self.wasted),
            "metadata KiB": self.metadata // 1024,
            "pool": format_size(self.pool),
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())


def sized(swap: str | int = "8M", stage: int | str = 13, pages: str = "python") -> Sized:
    """Write 4,000 pages of real memory in 8 MiB of RAM, zswap in front of a swap file of some size (0: none)."""
    size = parse_size(swap, "swap") if swap else 0
    zswap = vswap_ref.Zswap("zstd", max_pool_percent=80)
    kernel = vswap_ref.at(stage).Kernel(ram="8M", swap=[Ssd(size)] if size else [], zswap=zswap, cpus=1)
    heap = kernel.spawn("app").mmap(HEAP_PAGES * PAGE_SIZE)
    source, written = page_source(pages, seed=0), 0
    with suppress(MemoryError):
        for page in range(HEAP_PAGES):
            heap.write_page(page, source(page))
            written = page + 1
    used, pool = sum(row["Used"] for row in kernel.swaps().rows), kernel.zswap_debugfs()["pool_total_size"]
    entries, to_device = kernel.debugfs()["vswap"]["used"] * PAGE_SIZE, kernel.vmstat["pswpout"] * PAGE_SIZE
    return Sized(str(stage), size, written, entries, used, to_device, pool, kernel.memory().letter)


# --- a device that comes later -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LateDevice:
    """A full zswap, a device that is added, and zswap's limit lowered: a row a step."""

    rows: list[dict[str, Any]]

    def __repr__(self) -> str:
        return table_text(self.rows)

    def _repr_html_(self) -> str:
        return table_html(self.rows)


def late_device(slots: int = 80, stage: int | str = 14) -> LateDevice:
    """Fill zswap with 64 pages without a device, add one with so many slots, and lower the pool's limit to nothing."""
    zswap = vswap_ref.Zswap("lz4", max_pool_percent=50)
    kernel = vswap_ref.at(stage).Kernel(ram="1M", zswap=zswap, cpus=1)
    app = kernel.spawn("app")
    heap, knock = app.mmap(64 * PAGE_SIZE), app.mmap(PAGE_SIZE)
    for page in range(heap.pages):
        heap.write_page(page, random.Random(page).randbytes(PAGE_SIZE // 2) * 2)
    app.madvise(heap, "pageout")
    rows = []
    for step, percent in (("no device", 50), ("a device", 50), ("limit 9 %", 9), ("limit 6 %", 6), ("limit 0 %", 0)):
        if step == "a device":
            kernel.swapon(Ssd((slots + 1) * PAGE_SIZE))
        kernel.set_zswap(max_pool_percent=percent)
        for _ in range(8):
            knock.write_page(0, TEXT)
            app.madvise(knock, "pageout")
            kernel.drain()
            app.madvise(knock, "dontneed")
        kernel.check()
        where, back = heap.where().counts(), kernel.vmstat["zswpwb"]
        used = sum(row["Used"] for row in kernel.swaps().rows) // PAGE_SIZE
        rows.append({"step": step, "in zswap": where.get("zswap", 0), "written back": back, "slots in use": used})
    return LateDevice(rows)


# --- a device in fragments -----------------------------------------------------------------------------------------

DEVICE_SLOTS = 1024


@dataclass(frozen=True, slots=True)
class Fragments(OneRow):
    """Large folios pushed out to a device of which every other slot is free."""

    stage: str
    free: int
    folios: int
    whole: int
    split: int
    pages_out: int
    stuck: int
    scanned: int
    freed: int
    """Of two more rounds of reclaim: pages looked at, pages freed."""

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "stage": self.stage,
            "free slots": self.free,
            "folios": self.folios,
            "out whole": self.whole,
            "split": self.split,
            "pages out": self.pages_out,
            "activated": self.stuck,
            "scanned again": self.scanned,
            "freed": self.freed,
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())


def fragments(stage: int | str = 14, folios: int = 8, fragmented: bool = True) -> Fragments:
    """Fill a device with single pages, free every other slot (or one half), push out folios of 64 KiB."""
    thp = vswap_ref.Thp("never", {"64K": "madvise"})
    kernel = vswap_ref.at(stage).Kernel(ram="16M", swap=[Zram(DEVICE_SLOTS * PAGE_SIZE)], cpus=1, thp=thp)
    app = kernel.spawn("app")
    small, large = app.mmap((DEVICE_SLOTS - 1) * PAGE_SIZE), app.mmap(folios << 16)
    for page in range(small.pages):
        small[page * PAGE_SIZE] = 1
    app.madvise(small, "pageout")
    gone = range(1, small.pages, 2) if fragmented else range(small.pages // 2, small.pages)
    for page in gone:
        app.madvise(small, "dontneed", page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
    free = kernel.meminfo()["SwapFree"] // PAGE_SIZE
    app.madvise(large, "hugepage")
    for start in range(0, len(large), 1 << 16):
        large[start : start + (1 << 16)] = TEXT * 16
    app.madvise(large, "pageout")
    row = next(row for row in kernel.thp_stats().rows if row["size"] == 1 << 16)
    where = large.where().counts()
    before, freed = kernel.vmstat.snapshot(), 0
    for _ in range(2):
        freed += kernel.reclaim(len(large)) // PAGE_SIZE
    scanned = kernel.vmstat.since(before).get("pgscan_direct", 0)
    kernel.check()
    out, stuck = where.get("swapfile", 0), where.get("swapcache", 0)
    return Fragments(str(stage), free, folios, row["swpout"], row["split"], out, stuck, scanned, freed)


# --- large folios on the way in ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LargeRead:
    """16 pages swapped out one by one to fast memory, then touched once: how many came, in folios of how many."""

    stage: str
    content: str
    came: int
    largest: int

    def __repr__(self) -> str:
        return f"stage {self.stage}, {self.content}: {self.came} pages came, the largest folio has {self.largest}"

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>"


CONTENTS: dict[str, Callable[[int], bytes]] = {
    "text": lambda page: TEXT,
    "zeros": lambda page: bytes(PAGE_SIZE),
    "one of zeros": lambda page: bytes(PAGE_SIZE) if page == 5 else TEXT,
}
"""What 16 pages hold, by number."""


def large_read(content: str = "text", stage: int | str = 14) -> LargeRead:
    """Swap 16 pages out as single pages to a synchronous device, then touch one with 64 KiB folios allowed."""
    thp = vswap_ref.Thp("never", {"64K": "madvise"})
    kernel = vswap_ref.at(stage).Kernel(ram="4M", swap=[Pmem("1M")], cpus=1, thp=thp, page_cluster=0)
    app = kernel.spawn("app")
    heap = app.mmap(16 * PAGE_SIZE)
    for page in range(heap.pages):
        heap.write_page(page, CONTENTS[content](page))
    app.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("64K")
    app.madvise(heap, "hugepage")
    heap.touch(3)
    orders = [order for order in heap.orders() if order is not None]
    return LargeRead(str(stage), content, len(orders), 1 << max(orders))


# --- locks ---------------------------------------------------------------------------------------------------------

LOCKS = {"cl_lock": "virtual clusters", "ci_lock": "physical clusters"}


def locks(stage: int | str = 14) -> dict[str, tuple[int, int]]:
    """Locks of (virtual, physical) clusters: a page to zswap, a page to a device, and unmapping 512 zswapped pages."""
    found = {}
    for step, zswap, pages in (("out to zswap", "lz4", 1), ("out to a device", None, 1), ("unmap 512", "lz4", 512)):
        kernel = vswap_ref.at(stage).Kernel(ram="8M", swap=[Ssd("4M")], zswap=zswap, cpus=1)
        app = kernel.spawn("app")
        heap = app.mmap(pages * PAGE_SIZE)
        for mapping in (app.mmap(PAGE_SIZE), heap) if pages == 1 else (heap,):
            for page in range(mapping.pages):
                mapping.write_page(page, TEXT)
            before = kernel.cost.snapshot()
            app.madvise(mapping, "pageout")
            kernel.drain()
            kernel.reclaim("64K")
        if pages > 1:
            before = kernel.cost.snapshot()
            app.madvise(heap, "dontneed")
        since = kernel.cost.since(before)
        found[step] = since.get("cl_lock", 0), since.get("ci_lock", 0)
    return found
