"""Experiments of the chapter on memory cgroups: who pays for a page, and what a limit does at its edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import vswap_ref
from vswap_ref.display import Figure, picture, table_html, table_text
from vswap_ref.kernel import Cgroup, Kernel
from vswap_ref.lab.corpus import page_source
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Ssd

PAGES = 256


@dataclass(frozen=True, slots=True)
class Bill:
    """What a cgroup is charged for 256 pages, in KiB, before and after they are pushed out."""

    content: str
    backing: str
    version: str
    rows: list[dict[str, Any]]

    def __repr__(self) -> str:
        head = f"{self.content}, to {self.backing}, cgroup {self.version}"
        return f"{head}\n{table_text(self.rows)}"

    def row(self) -> dict[str, Any]:
        """As a row of a table: each charge before and after."""
        before, after = self.rows
        charges = {name: Figure(f"{before[name]:,} -> {after[name]:,}") for name in before if name != "when"}
        names = ("memory KiB", "swap KiB", "of memory: zswap KiB", "memory + swap KiB")
        head = {"pages": self.content, "to": self.backing, "cgroup": self.version}
        return head | {name: charges.get(name, Figure("-")) for name in names}

    def _repr_html_(self) -> str:
        bars = "".join(bill_bar(row) for row in self.rows)
        return f"{table_html(self.rows)}{bars}"


def bill_bar(row: dict[str, Any]) -> str:
    """One row as a bar: memory, then swap."""
    memory = row["memory KiB"]
    swap = row.get("swap KiB", row.get("memory + swap KiB", 0) - memory)
    width = [300 * max(0, nr) / (4 * PAGES) for nr in (memory, swap)]
    alt = f"{row['when']}: {memory} KiB of memory, {swap} KiB of swap"
    bars = (
        f"<rect width='{width[0]:.0f}' height='16' fill='#2e9e5b'/>"
        f"<rect x='{width[0]:.0f}' width='{width[1]:.0f}' height='16' fill='#c8453c'/>"
    )
    return f"{picture(bars, alt, 660, 20)}<div>{alt}</div>"


def bill(kernel: Kernel, group: Cgroup, when: str) -> dict[str, Any]:
    """The charges of a cgroup now; version 1 knows memory, and memory with swap."""
    row: dict[str, Any] = {"when": when, "memory KiB": group.memory_current // 1024}
    if kernel.system.config.memcg == "v1":
        row["memory + swap KiB"] = group.memsw_current // 1024
    else:
        row["swap KiB"] = group.swap_current // 1024
        row["of memory: zswap KiB"] = -(-group.zswap_current // 1024)
    return row


def who_pays(content: str = "python", backing: str = "zswap", version: str = "v2") -> Bill:
    """Push 256 pages of a cgroup out, to zswap or to the device, and look at its charges."""
    zswap = vswap_ref.Zswap("lz4", max_pool_percent=50) if backing == "zswap" else None
    kernel = kernel_class(0)(ram="16M", swap=[Ssd("16M")], zswap=zswap, memcg=version)
    group = kernel.cgroup("job")
    heap = kernel.spawn("job", cgroup=group).mmap(PAGES * PAGE_SIZE)
    source = page_source(content, seed=0)
    for page in range(PAGES):
        heap.write_page(page, source(page))
    rows = [bill(kernel, group, "in memory")]
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim(PAGES * PAGE_SIZE, group)
    rows.append(bill(kernel, group, "pushed out"))
    return Bill(content, backing, version, rows)


@dataclass(frozen=True, slots=True)
class Squeeze:
    """A program that wants 256 pages under a limit of 128: how far it came, at what time, and what was counted."""

    limit: str
    swap: str
    written: int
    peak: int
    milliseconds: float
    events: dict[str, int]
    curve: list[tuple[int, float]]

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "limit": self.limit,
            "swap": self.swap,
            "pages written": self.written,
            "peak (pages)": self.peak,
            "virtual ms": round(self.milliseconds, 1),
            "events": ", ".join(f"{name} {nr}" for name, nr in sorted(self.events.items())) or "none",
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())

    def _repr_html_(self) -> str:
        return table_html([self.row()]) + curve_svg(self)


def curve_svg(record: Squeeze) -> str:
    """Pages written (to the right) against virtual time (upward)."""
    end = max(record.milliseconds, 1e-9)
    points = " ".join(f"{2 * page:.0f},{120 - 110 * ms / end:.1f}" for page, ms in record.curve)
    alt = f"virtual time over pages written, up to {record.milliseconds:.0f} ms at page {record.written}"
    line = f"<polyline points='{points}' fill='none' stroke='#1f9bb5' stroke-width='2'/>"
    mark = "<line x1='256' y1='0' x2='256' y2='124' stroke='currentColor' stroke-dasharray='4'/>"
    label = "<text x='260' y='12' font-size='12' fill='currentColor'>limit</text>"
    return f"{picture(mark + label + line, alt, 530, 126)}<div>{alt}</div>"


def squeeze(limit: str = "high", swap: str = "4M", pages: int = PAGES) -> Squeeze:
    """Write pages one by one in a cgroup whose memory.high or memory.max is 128 pages, with swap or ("0") without."""
    kernel = kernel_class(0)(ram="16M", swap=[Ssd(swap)] if swap != "0" else [])
    group = kernel.cgroup("job")
    setattr(group, f"memory_{limit}", 128 * PAGE_SIZE)
    heap = kernel.spawn("job", cgroup=group).mmap(pages * PAGE_SIZE)
    curve = [(0, 0.0)]
    try:
        for page in range(pages):
            heap.write_page(page, page.to_bytes(4, "little") * (PAGE_SIZE // 4))
            curve.append((page + 1, kernel.clock.ns / 1e6))
    except MemoryError:
        pass
    peak = group.memory_peak // PAGE_SIZE
    return Squeeze(limit, swap, len(curve) - 1, peak, kernel.clock.ns / 1e6, group.events, curve)
