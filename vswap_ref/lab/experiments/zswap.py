"""Experiments of the chapter on zswap: slots burnt, bytes saved, and the pool's limit with its memory."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import vswap_ref
from vswap_ref.display import Figure, Table, picture, table_html, table_text
from vswap_ref.lab.corpus import page_source
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Ssd

PAGES = 512


@dataclass(frozen=True, slots=True)
class BurntSlots:
    """512 pages swapped out: pages in zswap and zero pages, slots in use, pages written, bytes of the pool."""

    content: str
    compressor: str
    zswapped: int
    zero: int
    slots: int
    written: int
    pool_bytes: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "content": self.content,
            "compressor": self.compressor,
            "in zswap": self.zswapped,
            "zero": self.zero,
            "slots in use": self.slots,
            "written": self.written,
            "pool KiB": self.pool_bytes // 1024,
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())

    def _repr_html_(self) -> str:
        kib = 4 * self.zswapped
        used = self.pool_bytes // 1024
        bars = "".join(
            f"<rect x='0' y='{y}' width='{width:.0f}' height='16' fill='{colour}'/>"
            f"<text x='{width + 6:.0f}' y='{y + 13}' fill='currentColor' font-size='12'>{text}</text>"
            for y, width, colour, text in (
                (0, 300 * 4 * self.slots / 2048, "#c8453c", f"{4 * self.slots} KiB of disk reserved"),
                (22, 300 * kib / 2048, "#88888888", f"{kib} KiB of pages in zswap"),
                (44, 300 * used / 2048, "#e0912f", f"{used} KiB of pool"),
            )
        )
        alt = f"{4 * self.slots} KiB of disk reserved for {kib} KiB of pages that take {used} KiB of memory"
        return table_html([self.row()]) + picture(bars, alt, 560, 64)


def burnt_slots(content: str = "mixed", compressor: str = "lz4") -> BurntSlots:
    """Swap 512 pages of a corpus out with zswap in front of a device, and look at the device."""
    kernel = kernel_class(0)(ram="16M", swap=[Ssd("16M")], zswap=vswap_ref.Zswap(compressor, max_pool_percent=50))
    heap = kernel.spawn("app").mmap(PAGES * PAGE_SIZE)
    source = page_source(content, seed=0)
    for page in range(PAGES):
        heap.write_page(page, source(page))
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    stat = kernel.vmstat
    used = kernel.swaps().rows[0]["Used"] // PAGE_SIZE
    return BurntSlots(
        content, compressor, stat["zswpout"], stat["swpout_zero"], used, stat["pswpout"], kernel.system.zswap.pool_bytes
    )


@dataclass(frozen=True, slots=True)
class PoolLimit:
    """Pages stored, rejected and written back while twice the pool's limit is pushed out in steps."""

    accept_percent: int
    rows: list[dict[str, Any]]

    def __repr__(self) -> str:
        return f"accept threshold {self.accept_percent} %\n{table_text(self.rows)}"

    def _repr_html_(self) -> str:
        return table_html(self.rows)


def pool_limit(accept_percent: int = 90, steps: int = 8) -> PoolLimit:
    """Push incompressible pages out, 16 at a time, into a pool that has room for 51; watch the limit work."""
    zswap = vswap_ref.Zswap("lz4", max_pool_percent=5, accept_threshold_percent=accept_percent)
    kernel = kernel_class(0)(ram="4M", swap=[Ssd("4M")], zswap=zswap)
    heap = kernel.spawn("app").mmap(steps * 16 * PAGE_SIZE)
    for page in range(heap.pages):
        heap.write_page(page, random.Random(page).randbytes(PAGE_SIZE))
    rows = []
    for step in range(steps):
        heap.process.madvise(heap, "pageout", step * 16 * PAGE_SIZE, (step + 1) * 16 * PAGE_SIZE)
        kernel.drain()
        z = kernel.system.zswap
        rows.append(
            {
                "pushed out": (step + 1) * 16,
                "pool pages": z.pool_bytes // PAGE_SIZE,
                "limit hit": z.debugfs["pool_limit_hit"],
                "full?": "yes" if z.reached_full else "no",
                "written back": z.debugfs["written_back_pages"],
                "written to the device": kernel.vmstat["pswpout"],
            }
        )
    return PoolLimit(accept_percent, rows)


def pool_limits(first: int = 90, second: int = 50) -> Table:
    """``pool_limit`` for two thresholds side by side: what both agree on once, then what they do not, "first | second".

    Only the rows from the first one on in which the limit has been hit.
    """
    pairs = zip(pool_limit(first).rows, pool_limit(second).rows, strict=True)
    rows = [
        {name: a[name] if name == "pushed out" else Figure(f"{a[name]} | {b[name]}") for name in a}
        for a, b in pairs
        if a["limit hit"]
    ]
    return Table(f"thresholds of {first} | {second} %", rows)
