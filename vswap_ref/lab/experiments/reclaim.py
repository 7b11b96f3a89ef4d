"""Experiments of the chapter on reclaim and swap-in: what readahead brings, what a slot kept after a fault saves."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from vswap_ref.display import picture, table_html
from vswap_ref.kernel import Kernel, Mapping
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, BlockDevice, Disk, Pmem, Ssd, Zram

DEVICES: dict[str, type[BlockDevice]] = {"disk": Disk, "ssd": Ssd, "pmem": Pmem, "zram": Zram}
PATTERNS = ("sequential", "backward", "random")


@dataclass(frozen=True, slots=True)
class ReadaheadRecord:
    """One run: its settings, the counters that it moved, and the virtual time in milliseconds."""

    device: str
    pattern: str
    page_cluster: int
    major_faults: int
    read_ahead: int
    hits: int
    milliseconds: float

    def row(self) -> dict[str, object]:
        """As a row of a table."""
        return {
            "device": self.device,
            "pattern": self.pattern,
            "page_cluster": self.page_cluster,
            "major faults": self.major_faults,
            "read ahead": self.read_ahead,
            "of these hit": self.hits,
            "virtual ms": round(self.milliseconds, 1),
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())

    def _repr_html_(self) -> str:
        return table_html([self.row()]) + readahead_bar(self)


def readahead_bar(record: ReadaheadRecord) -> str:
    """The pages of the run as one bar: brought by a major fault, hit after readahead, read ahead in vain."""
    wasted = record.read_ahead - record.hits
    parts = (
        ("major fault", record.major_faults, "#c8453c"),
        ("readahead hit", record.hits, "#2e9e5b"),
        ("read in vain", wasted, "#88888866"),
    )
    total = max(1, sum(nr for _, nr, _ in parts))
    x, rects = 0.0, ""
    for _, nr, colour in parts:
        width = 512 * nr / total
        rects += f"<rect x='{x:.1f}' y='0' width='{width:.1f}' height='18' fill='{colour}'/>"
        x += width
    alt = ", ".join(f"{name} {nr}" for name, nr, _ in parts)
    return f"{picture(rects, alt, 512, 20)}<div>{alt}</div>"


def readahead(
    device: str = "ssd", pattern: str = "sequential", page_cluster: int = 3, pages: int = 1024
) -> ReadaheadRecord:
    """Swap ``pages`` pages out, then read each once in an order; count what faults and what readahead brought."""
    kernel = kernel_class(0)(ram="32M", swap=[DEVICES[device]("32M")], page_cluster=page_cluster)
    heap = kernel.spawn("reader").mmap(pages * PAGE_SIZE)
    swap_everything_out(kernel, heap)
    order = list(range(pages))
    if pattern == "backward":
        order.reverse()
    elif pattern == "random":
        random.Random(0).shuffle(order)
    before, begin = kernel.vmstat.snapshot(), kernel.clock.ns
    for page in order:
        heap.touch(page)
    moved = kernel.vmstat.since(before)
    return ReadaheadRecord(
        device,
        pattern,
        page_cluster,
        moved.get("pgmajfault", 0),
        moved.get("swap_ra", 0),
        moved.get("swap_ra_hit", 0),
        (kernel.clock.ns - begin) / 1e6,
    )


def swap_everything_out(kernel: Kernel, heap: Mapping) -> None:
    """Write every page of a mapping and push all of them out of memory."""
    for page in range(heap.pages):
        heap.write_page(page, page.to_bytes(4, "little") * (PAGE_SIZE // 4))
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim(heap.pages * PAGE_SIZE)


@dataclass(frozen=True, slots=True)
class RewriteRecord:
    """Writes to the device in each round of "read everything, change some pages, push everything out"."""

    device: str
    zswap: str
    changed_percent: int
    written: list[int] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)

    def rows(self) -> list[dict[str, object]]:
        """One row a round."""
        return [
            {"round": number, "written to the device": written, "stored in zswap": stored}
            for number, (written, stored) in enumerate(zip(self.written, self.stored, strict=True), 1)
        ]

    def __repr__(self) -> str:
        return f"{self.device}, zswap {self.zswap}, {self.changed_percent} % changed: written {self.written}, " + (
            f"stored {self.stored}"
        )

    def _repr_html_(self) -> str:
        return table_html(self.rows())


def rewrites(
    device: str = "ssd", zswap: str = "off", changed_percent: int = 25, pages: int = 512, rounds: int = 4
) -> RewriteRecord:
    """Bring ``pages`` pages in and push them out, several times; each round changes a share of them first.

    Shows who keeps a clean copy: a slot that survives the swap-in, or nobody.
    """
    kernel = kernel_class(0)(ram="32M", swap=[DEVICES[device]("64M")], zswap=zswap)
    heap = kernel.spawn("writer").mmap(pages * PAGE_SIZE)
    swap_everything_out(kernel, heap)
    record = RewriteRecord(device, zswap, changed_percent)
    for number in range(rounds):
        before = kernel.vmstat.snapshot()
        for page in range(pages):
            heap.touch(page)
        for page in range(pages * changed_percent // 100):
            heap[page * PAGE_SIZE] = number + 1
        heap.process.madvise(heap, "pageout")
        kernel.drain()
        kernel.reclaim(pages * PAGE_SIZE)
        moved = kernel.vmstat.since(before)
        record.written.append(moved.get("pswpout", 0))
        record.stored.append(moved.get("zswpout", 0))
    return record
