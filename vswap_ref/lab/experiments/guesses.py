"""Experiments of the chapter on readahead: how windows grow and shrink, and what guessing brings on real programs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from vswap_ref.display import picture, table_html
from vswap_ref.lab.paging import LEAST_RAM, kernel_class, run
from vswap_ref.lab.trace import AccessTrace, load_trace
from vswap_ref.machine import PAGE_SIZE, BlockDevice, Disk, Ssd

DEVICES: dict[str, type[BlockDevice]] = {"disk": Disk, "ssd": Ssd}
ACCESSES = 30_000
PAGES = 128
COLOURS = {"fault": "#c8453c", "read ahead": "#e0912f", "hit": "#2e9e5b", "cached": "#88888866"}


@dataclass(frozen=True, slots=True)
class Guess:
    """A recorded program with less memory than it wants: what readahead read, hit and cost."""

    trace: str
    layout: str
    device: str
    page_cluster: int
    memory_percent: int
    major_faults: int
    read_ahead: int
    hits: int
    read: int
    milliseconds: float

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "trace": self.trace,
            "layout": self.layout,
            "device": self.device,
            "page_cluster": self.page_cluster,
            "memory %": self.memory_percent,
            "major faults": self.major_faults,
            "read ahead": self.read_ahead,
            "of these hit": self.hits,
            "pages read": self.read,
            "virtual ms": round(self.milliseconds),
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())

    def _repr_html_(self) -> str:
        vain = self.read_ahead - self.hits
        parts = {"fault": self.major_faults, "hit": self.hits, "read ahead": vain}
        x, rects = 0.0, ""
        for name, nr in parts.items():
            rects += f"<rect x='{x:.0f}' width='{1.5 * nr:.0f}' height='18' fill='{COLOURS[name]}'/>"
            x += 1.5 * nr
        alt = f"{self.major_faults} major faults, {self.hits} hits on pages read ahead, {vain} read ahead in vain"
        return f"{table_html([self.row()])}{picture(rects, alt, max(600, x), 20)}<div>{alt}</div>"


def laid_out(trace: AccessTrace, layout: str) -> AccessTrace:
    """The first accesses of a trace, with its pages in their places, mirrored, or strewn over the address space."""
    page = trace.page[:ACCESSES]
    if layout == "mirrored":
        page = (trace.pages - 1 - page).astype(np.uint32)
    elif layout == "strewn":
        page = np.random.default_rng(0).permutation(trace.pages).astype(np.uint32)[page]
    return AccessTrace(trace.name, page, trace.write[:ACCESSES])


def guess(
    trace: str = "sort", layout: str = "recorded", device: str = "disk", page_cluster: int = 3, memory_percent: int = 50
) -> Guess:
    """Run the beginning of a recorded trace with readahead of up to 2**page_cluster pages, short of memory."""
    accesses = laid_out(load_trace(trace), layout)
    swap = [DEVICES[device]("32M")]
    ram = max(LEAST_RAM, accesses.footprint * memory_percent // 100 * PAGE_SIZE)
    record = run(accesses, stage=0, ram=ram, swap=swap, zswap="off", page_cluster=page_cluster, progress=False)
    moved = record.vmstat
    return Guess(
        trace,
        layout,
        device,
        page_cluster,
        memory_percent,
        major_faults=moved.get("pgmajfault", 0),
        read_ahead=moved.get("swap_ra", 0),
        hits=moved.get("swap_ra_hit", 0),
        read=moved.get("pswpin", 0),
        milliseconds=record.virtual_ns / 1e6,
    )


@dataclass(frozen=True, slots=True)
class Windows:
    """The major faults of one pass over 128 swapped pages: page, window, pages read beside it, hits since the last."""

    pattern: str
    page_cluster: int
    rows: list[dict[str, int]]
    history: list[list[str]]

    def __repr__(self) -> str:
        sizes = " ".join(str(row["window"]) for row in self.rows)
        return f"{self.pattern}, at most {1 << self.page_cluster}: {len(self.rows)} major faults, windows {sizes}"

    def _repr_html_(self) -> str:
        side, lines = 4, self.history[:40]
        rects = "".join(
            f"<rect x='{x * side}' y='{y * side}' width='{side}' height='{side}' fill='{COLOURS[kind]}'/>"
            for y, line in enumerate(lines)
            for x, kind in enumerate(line)
            if kind
        )
        alt = "one line a major fault: pages from left to right, the faulting one and those read ahead with it"
        return f"<p>{self!r}</p>{picture(rects, alt, PAGES * side, len(lines) * side)}<div>{alt}</div>"


def order_of(pattern: str) -> list[int]:
    """The pages of one pass, in the order of their first access."""
    pages = list(range(PAGES))
    if pattern == "backward":
        pages.reverse()
    elif pattern == "every second":
        pages = pages[::2]
    elif pattern == "random":
        random.Random(0).shuffle(pages)
    elif pattern == "jumps":
        pages = [page for start in (64, 0, 96, 32) for page in range(start, start + 32)]
    return pages


def windows(pattern: str = "forward", page_cluster: int = 3) -> Windows:
    """Swap 128 pages out to a flash drive, read them in an order, and write each window down."""
    kernel = kernel_class(0)(ram="16M", swap=[Ssd("16M")], page_cluster=page_cluster)
    heap = kernel.spawn("reader").mmap(PAGES * PAGE_SIZE)
    for page in range(PAGES):
        heap.write_page(page, page.to_bytes(4, "little") * (PAGE_SIZE // 4))
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim(PAGES * PAGE_SIZE)
    rows, history = [], []
    for page in order_of(pattern):
        before, resident = kernel.vmstat.snapshot(), heap.process.mincore(heap)
        heap.touch(page)
        moved = kernel.vmstat.since(before)
        if not moved.get("pgmajfault"):
            continue
        now = heap.process.mincore(heap)
        line = ["cached" if old else "read ahead" if new else "" for old, new in zip(resident, now, strict=True)]
        line[page] = "fault"
        rows.append({"page": page, "window": max(1, heap.vma.ra_win), "read ahead": moved.get("swap_ra", 0)})
        history.append(line)
    return Windows(pattern, page_cluster, rows, history)
