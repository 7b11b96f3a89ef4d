"""What swap metadata costs on a device of any size, beside the figures that were published.

A kernel with a device that keeps no content is filled step by step through its own allocator, and its byte ledger is
read at each step.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

from vswap_ref.display import Figure, Ledger, picture, table_html
from vswap_ref.machine import PAGE_SIZE, Ssd, format_size, parse_pages

from .corpus import data_path
from .paging import kernel_class, stage_name, with_progress

MIB = 1 << 20
PERCENTS = (0, 25, 50, 75, 100)
BACKENDS = {"zswap": "lz4", "swapfile": None}
"""Where the pages are -> zswap's compressor."""
DESIGNS = {"0": "old"}
"""Stage -> design in the published figures."""
LEAST_RAM = 64 << 20
STEP_PAGES = 1 << 18
"""Pages that are swapped out between two steps of the progress bar."""
COLOURS = {"zswap": "#e0912f", "swapfile": "#c8453c"}


@dataclass(frozen=True, slots=True)
class Point:
    """The ledger at a share of use, and the published figure (MiB) if there is one."""

    backend: str
    percent: int
    entries: int
    ledger: Ledger
    published: float | None

    @property
    def letter(self) -> float:
        """MiB as the cover letter counts."""
        return self.ledger.letter / MIB

    @property
    def exact(self) -> float:
        """MiB exactly, zswap's entries aside: every design that compresses needs them."""
        return self.ledger.exact / MIB - self.zswap_entries

    @property
    def zswap_entries(self) -> float:
        """MiB of zswap entries."""
        return self.ledger["zswap entries"][1] / MIB

    def row(self) -> dict[str, Any]:
        """As a row of a table; MiB with two decimals, as published."""
        return {
            "pages in": self.backend,
            "use": Figure(f"{self.percent} %"),
            "entries": self.entries,
            "letter": Figure(f"{self.letter:.2f}"),
            "published": Figure("-" if self.published is None else f"{self.published:.2f}"),
            "exact": Figure(f"{self.exact:.2f}"),
            "zswap entries": Figure(f"{self.zswap_entries:.2f}"),
        }


@dataclass(frozen=True, slots=True)
class MetadataTable:
    """The cover letter's table, measured: one point for each backend and share of use."""

    size: int
    stage: str
    points: Sequence[Point]

    @property
    def agrees(self) -> bool:
        """Every published figure is met to its last digit."""
        return all(p.published is None or f"{p.letter:.2f}" == f"{p.published:.2f}" for p in self.points)

    def to_json(self) -> str:
        """Everything, with the ledgers in bytes, as a JSON text."""
        points = [
            {
                "backend": p.backend,
                "percent": p.percent,
                "entries": p.entries,
                "letter_bytes": p.ledger.letter,
                "exact_bytes": p.ledger.exact,
                "published_mib": p.published,
                "ledger": [
                    {"structure": name, "paid": paid, "letter": letter, "exact": exact}
                    for name, paid, letter, exact in p.ledger.rows
                ],
            }
            for p in self.points
        ]
        return json.dumps({"stage": self.stage, "device_bytes": self.size, "points": points}, indent=1)

    def __repr__(self) -> str:
        rows = [point.row() for point in self.points]
        widths = {name: max(len(name), *(len(text(row[name])) for row in rows)) for name in rows[0]}
        lines = ["  ".join(name.rjust(width) for name, width in widths.items())]
        lines += ["  ".join(text(row[name]).rjust(width) for name, width in widths.items()) for row in rows]
        return "\n".join([f"stage {self.stage}, a device of {format_size(self.size)}; MB of 1,048,576 bytes", *lines])

    def _repr_html_(self) -> str:
        return curves_svg(self.points) + table_html([point.row() for point in self.points])


def text(value: object) -> str:
    """A table value as text; integers with separators."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def published_figures(design: str) -> dict[tuple[str, int, int], float]:
    """(backend, slots, percent) -> MiB of a design, from data/memory/published.csv."""
    with data_path("memory", "published.csv").open(encoding="utf-8", newline="") as file:
        return {
            (row["backend"], int(row["slots"]), int(row["percent"])): float(row["mib"])
            for row in csv.DictReader(file)
            if row["design"] == design
        }


def metadata_table(
    size: int | str = "32G",
    stage: int | str | None = None,
    percents: Sequence[int] = PERCENTS,
    backends: Sequence[str] = tuple(BACKENDS),
    progress: bool | None = False,
) -> MetadataTable:
    """Fill a device of ``size`` to each share of use and read the ledger, once for each backend.

    ``percents`` ascend from 0 to 100; 100 is every usable slot, one less than the device has, because slot 0 is the
    header.  ``backends``: "zswap", "swapfile" or both.  32 GiB take half a minute and 1.1 GiB of memory.
    """
    slots = parse_pages(size, "size", least=2)
    check_choices(percents, backends)
    name = stage_name(stage)
    known = published_figures(DESIGNS.get(name, ""))
    work = (fill(stage, slots, backend, percents, known) for backend in backends)
    total = len(backends) * nr_steps(slots, percents)
    steps = with_progress(chain.from_iterable(work), total, progress, " steps")
    return MetadataTable(slots * PAGE_SIZE, name, [point for point in steps if point is not None])


def check_choices(percents: Sequence[int], backends: Sequence[str]) -> None:
    """ValueError for shares that do not ascend from 0 to 100, or an unknown backend."""
    if list(percents) != sorted(set(percents)) or not all(0 <= percent <= 100 for percent in percents):
        raise ValueError(f"percents={percents!r}: expected ascending numbers from 0 to 100")
    for backend in backends:
        if backend not in BACKENDS:
            raise ValueError(f"backend={backend!r}: expected one of {', '.join(BACKENDS)}")


def entries_at(slots: int, percent: int) -> int:
    """Slots in use at a share of the device; never the header's."""
    return min(slots * percent // 100, slots - 1)


def nr_steps(slots: int, percents: Sequence[int]) -> int:
    """How many steps ``fill`` takes."""
    used = [0, *(entries_at(slots, percent) for percent in percents)]
    return len(percents) + sum(-(-(after - before) // STEP_PAGES) for before, after in pairwise(used))


def fill(
    stage: int | str | None,
    slots: int,
    backend: str,
    percents: Sequence[int],
    known: dict[tuple[str, int, int], float],
) -> Iterator[Point | None]:
    """Boot a kernel and swap pages out until each share of the device is used; a Point at each, None on the way.

    Memory is twice the device, so that zswap's limit is never met.
    """
    size = slots * PAGE_SIZE
    device = Ssd(size, contentless=True)
    kernel = kernel_class(stage)(ram=max(LEAST_RAM, 2 * size), swap=[device], zswap=BACKENDS[backend], cpus=1)
    app = kernel.spawn("app")
    used = 0
    for percent in percents:
        entries = entries_at(slots, percent)
        while used < entries:
            pages = min(STEP_PAGES, entries - used)
            app.mmap_swapped(pages * PAGE_SIZE)
            used += pages
            yield None
        yield Point(backend, percent, used, kernel.memory(), known.get((backend, slots, percent)))


def curves_svg(points: Sequence[Point], width: int = 560, height: int = 260) -> str:
    """Letter (full) and exact (dashed) against use, one colour a backend; published figures as rings."""
    top = max(point.exact for point in points) or 1
    left, right, base = 46, 90, height - 24

    def place(percent: float, mib: float) -> tuple[float, float]:
        return left + (width - left - right) * percent / 100, base - (base - 12) * mib / top

    curves = {name: [p for p in points if p.backend == name] for name in BACKENDS}
    parts = axes_svg(place, top)
    for mine in filter(None, curves.values()):
        parts += curve_svg(place, mine)
    ends = "; ".join(f"{p[-1].backend} {p[-1].letter:.2f} and {p[-1].exact:.2f} MB" for p in curves.values() if p)
    alt = f"metadata against use, as the cover letter counts and exactly; at the end {ends}"
    return picture("".join(parts), alt, width, height)


Place = Callable[[float, float], tuple[float, float]]
"""(percent of use, MiB) -> (x, y)."""


def curve_svg(place: Place, points: Sequence[Point]) -> list[str]:
    """The two lines of one backend, its published figures, its name at the end."""
    parts = []
    colour = COLOURS[points[0].backend]
    for name, dashes in (("letter", ""), ("exact", " stroke-dasharray='5 4'")):
        corners = [place(p.percent, getattr(p, name)) for p in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        parts.append(f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='2'{dashes}/>")
    for p in points:
        if p.published is not None:
            x, y = place(p.percent, p.published)
            parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='5' fill='none' stroke='currentColor'/>")
    x, y = place(points[-1].percent, points[-1].letter)
    return [*parts, svg_text(x + 10, y + 4, points[-1].backend, "start")]


def axes_svg(place: Place, top: float) -> list[str]:
    """Shares of use below, MB at the left, both with light lines."""
    parts = []
    for percent in PERCENTS:
        x, y = place(percent, 0)
        parts.append(line_svg((x, y), place(percent, top)))
        parts.append(svg_text(x, y + 18, f"{percent} %", "middle"))
    for share in (0, 0.5, 1):
        x, y = place(0, share * top)
        parts.append(line_svg((x, y), place(100, share * top)))
        parts.append(svg_text(x - 6, y + 4, f"{share * top:.3g}", "end"))
    return parts


def line_svg(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A light line."""
    (x1, y1), (x2, y2) = start, end
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='#88888844'/>"


def svg_text(x: float, y: float, words: str, anchor: str) -> str:
    """A label."""
    return f"<text x='{x:.1f}' y='{y:.1f}' fill='currentColor' font-size='12' text-anchor='{anchor}'>{words}</text>"
