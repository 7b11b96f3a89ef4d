"""Rich display of plain data: HTML and SVG that are readable in light and in dark.

Nothing here knows a stage or the model; every class holds plain rows and can be used without a notebook.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vswap_ref.machine import format_size

COLOURS = {
    "unmapped": "#88888822",
    "free": "#88888822",
    "hole": "#88888822",
    "zeropage": "#b8b8b8",
    "resident": "#2e9e5b",
    "swapcache": "#1f9bb5",
    "cached": "#1f9bb5",
    "zero": "#9a8fd8",
    "zswap": "#e0912f",
    "swapfile": "#c8453c",
    "disk": "#c8453c",
    "bad": "#555555",
    "image": "#3a66c4",
    "lost": "#555555",
}
"""One colour for one place of a page, everywhere; chosen to differ also in lightness."""

LEDGER_COLOURS = (
    "#3f6fb0",
    "#7aa2d6",
    "#1f9bb5",
    "#c8453c",
    "#9a8fd8",
    "#e0912f",
    "#777777",
    "#2e9e5b",
    "#b8a13a",
    "#b8b8b8",
)
"""One colour a row of a ledger."""


class Swatch(str):
    """A colour, shown as a small square."""


class Figure(str):
    """A number as text, shown to the right like other numbers."""


@dataclass(frozen=True, slots=True)
class Table:
    """A few rows of plain values, shown as a table."""

    title: str
    rows: Sequence[dict[str, Any]]

    def __getitem__(self, name: str) -> Any:
        """Value of the row with this name (two-column tables)."""
        for row in self.rows:
            if row.get("name") == name:
                return row["bytes"]
        raise KeyError(f"no row {name!r} in {self.title}")

    def __repr__(self) -> str:
        return table_text(self.rows)

    def _repr_html_(self) -> str:
        return table_html(self.rows)


@dataclass(frozen=True, slots=True)
class Diff:
    """A line diff, folded below its title; what came is green, what went is red."""

    title: str
    lines: Sequence[str]

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        tints = {"+": "#2e9e5b44", "-": "#c8453c44"}
        rows = "".join(
            f"<span style='display:block;background:{tints.get(line[:1], 'transparent')}'>{escape(line)}</span>"
            for line in self.lines
        )
        return f"<details open><summary>{escape(self.title)}</summary><pre>{rows}</pre></details>"


class OneRow:
    """What notebooks show as a table of one row: the base of an experiment's record."""

    __slots__ = ()

    def row(self) -> dict[str, Any]:
        """As a row of a table: column -> value."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return table_html([self.row()])


def together(records: Iterable[Any]) -> Table:
    """Records of one experiment as one table, a row each; a record has a method ``row``."""
    return Table("", [record.row() for record in records])


@dataclass(frozen=True, slots=True)
class Ledger:
    """Bytes of metadata by structure: (name, when it is paid for, as the cover letter counts, exactly)."""

    rows: Sequence[tuple[str, str, int, int]]

    @property
    def letter(self) -> int:
        """Sum of what the cover letter counts."""
        return sum(row[2] for row in self.rows)

    @property
    def exact(self) -> int:
        """Sum of everything."""
        return sum(row[3] for row in self.rows)

    def paid(self) -> dict[str, tuple[int, int]]:
        """(letter, exact) sums by the time when they are paid for."""
        whens = dict.fromkeys(row[1] for row in self.rows)
        return {
            when: (
                sum(row[2] for row in self.rows if row[1] == when),
                sum(row[3] for row in self.rows if row[1] == when),
            )
            for when in whens
        }

    def __getitem__(self, structure: str) -> tuple[int, int]:
        """(letter, exact) bytes of one structure."""
        for name, _, letter, exact in self.rows:
            if name == structure:
                return letter, exact
        raise KeyError(f"no structure {structure!r}; there are {', '.join(row[0] for row in self.rows)}")

    def __repr__(self) -> str:
        lines = [f"{'structure':<20}{'paid':<12}{'letter':>14}{'exact':>14}"]
        lines += [f"{name:<20}{paid:<12}{letter:>14,}{exact:>14,}" for name, paid, letter, exact in self.rows]
        return "\n".join([*lines, f"{'total':<32}{self.letter:>14,}{self.exact:>14,}"])

    def _repr_html_(self) -> str:
        total = {"structure": "total", "paid": "", "letter (bytes)": self.letter, "exact (bytes)": self.exact}
        rows = [
            {"": Swatch(colour), "structure": name, "paid": paid, "letter (bytes)": letter, "exact (bytes)": exact}
            for (name, paid, letter, exact), colour in zip(self.rows, LEDGER_COLOURS, strict=False)
        ]
        return ledger_svg(self.rows) + table_html([*rows, {"": "", **total}])


class PageMap(list[str]):
    """Where each page of a mapping is; a list of words that draws itself as one square a page."""

    def __init__(self, title: str, places: Iterable[str]) -> None:
        super().__init__(places)
        self.title = title

    def counts(self) -> dict[str, int]:
        """How many pages are in each place."""
        return dict(sorted(Counter(self).items()))

    def _repr_html_(self) -> str:
        return squares_svg(self, f"{self.title}: where each of {len(self)} pages is") + legend_html(self.counts())


class Residency(list[bool]):
    """Which pages are in memory; a list of truth values that draws itself as one square a page."""

    def __init__(self, title: str, pages: Iterable[bool]) -> None:
        super().__init__(pages)
        self.title = title

    @property
    def resident(self) -> int:
        """How many pages are in memory."""
        return sum(self)

    def __repr__(self) -> str:
        return "".join("#" if page else "." for page in self)

    def _repr_html_(self) -> str:
        places = ["resident" if page else "unmapped" for page in self]
        caption = f"{self.title}: {self.resident} of {len(self)} pages are in memory"
        return f"<div>{escape(caption)}</div>{squares_svg(places, caption)}"


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """The clusters of a device, one row each: list, order, use, and what each slot holds."""

    title: str
    rows: Sequence[dict[str, Any]]

    def counts(self) -> dict[str, int]:
        """How many slots are used for what."""
        return dict(sorted(Counter(slot for row in self.rows for slot in row["slots"]).items()))

    def __repr__(self) -> str:
        return "\n".join(
            f"cluster {row['cluster']}: {row['list']}, order {row['order']}, {row['count']} of 512" for row in self.rows
        )

    def _repr_html_(self) -> str:
        parts = []
        for row in self.rows[:16]:
            caption = f"cluster {row['cluster']}: {row['list']}, order {row['order']}, {row['count']} of 512 slots"
            parts.append(f"<div>{escape(caption)}</div>{squares_svg(row['slots'], caption, columns=128, side=5)}")
        if len(self.rows) > 16:
            parts.append(f"<div>and {len(self.rows) - 16} clusters more</div>")
        return "".join(parts) + legend_html(self.counts())


def escape(text: str) -> str:
    """Text for HTML, in attributes too."""
    from html import escape as html_escape  # its table of entities takes longer to load than the whole model

    return html_escape(text, quote=True)


def table_html(rows: Sequence[dict[str, Any]]) -> str:
    """A plain table; numbers to the right."""
    if not rows:
        return "<p>(empty)</p>"
    head = "".join(f"<th style='padding:0 .6em'>{escape(str(name))}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(map(cell_html, row.values())) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def table_text(rows: Sequence[dict[str, Any]]) -> str:
    """The same as text: columns below their names, numbers to the right."""
    if not rows:
        return "(empty)"
    columns = []
    for name in rows[0]:
        values = [row[name] for row in rows]
        cells = [name, *map(cell_text, values)]
        width, align = max(map(len, cells)), ">" if is_number(values[0]) else "<"
        columns.append([f"{cell:{align}{width}}" for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def cell_html(value: object) -> str:
    """One table cell."""
    if isinstance(value, Swatch):
        return f"<td><span style='display:inline-block;width:.8em;height:.8em;background:{value}'></span></td>"
    if is_number(value):
        return f"<td style='text-align:right;padding:0 .6em'>{escape(cell_text(value))}</td>"
    return f"<td style='padding:0 .6em'>{escape(cell_text(value))}</td>"


def is_number(value: object) -> bool:
    """It stands at the right of its column."""
    return isinstance(value, int | float | Figure) and not isinstance(value, bool)


def cell_text(value: object) -> str:
    """One value as text: numbers in groups of three digits, truth as yes or no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def picture(content: str, alt: str, width: float, height: float) -> str:
    """A picture from SVG shapes, with the text of what it shows; where there is less room it shrinks as a whole."""
    size = f"width='{width:.0f}' height='{height:.0f}' viewBox='0 0 {width:.0f} {height:.0f}'"
    return f"<svg role='img' aria-label='{escape(alt)}' {size} xmlns='http://www.w3.org/2000/svg'>{content}</svg>"


def squares_svg(places: Sequence[str], alt: str, columns: int = 64, side: int = 9) -> str:
    """One square a page in reading order; runs of equal squares become one rectangle a line."""
    lines = -(-len(places) // columns)
    rects = []
    for line in range(lines):
        row = places[line * columns : (line + 1) * columns]
        start = 0
        for x in range(1, len(row) + 1):
            if x == len(row) or row[x] != row[start]:
                rects.append(
                    f"<rect x='{start * side}' y='{line * side}' width='{(x - start) * side - 1}' "
                    f"height='{side - 1}' fill='{COLOURS[row[start]]}'/>"
                )
                start = x
    width = min(columns, max(1, len(places))) * side
    return picture("".join(rects), alt, width, lines * side)


def ledger_svg(rows: Sequence[tuple[str, str, int, int]], width: int = 560) -> str:
    """Two stacked bars, as the cover letter counts and exactly; the colours are those of the table's rows."""
    columns = {"letter": [row[2] for row in rows], "exact": [row[3] for row in rows]}
    letter, exact = map(sum, columns.values())
    parts = []
    for y, (name, column) in zip((0, 26), columns.items(), strict=True):
        x = 50.0
        parts.append(f"<text x='0' y='{y + 15}' fill='currentColor' font-size='13'>{name}</text>")
        for size, colour in zip(column, LEDGER_COLOURS, strict=False):
            length = (width - 50) * size / max(1, letter, exact)
            if length:
                parts.append(f"<rect x='{x:.1f}' y='{y}' width='{length:.1f}' height='20' fill='{colour}'/>")
            x += length
    alt = f"bytes of metadata: {letter:,} as the cover letter counts, {exact:,} exactly; by structure in the table"
    return picture("".join(parts), alt, width, 48)


def legend_html(counts: dict[str, int]) -> str:
    """What the colours mean, and how often each occurs."""
    items = "".join(
        f"<span style='margin-right:1.2em;white-space:nowrap'><span style='display:inline-block;width:.8em;"
        f"height:.8em;background:{COLOURS[name]};border:1px solid currentColor'></span> {escape(name)} {nr:,}</span>"
        for name, nr in counts.items()
    )
    return f"<div style='font-size:90%'>{items}</div>"


def kernel_html(kernel: Any) -> str:
    """A kernel at a glance: memory, devices, processes."""
    info = "".join(
        f"<td style='text-align:right'>{escape(row['name'])}<br><b>{format_size(row['bytes'])}</b></td>"
        for row in kernel.meminfo().rows
    )
    processes = [
        {"process": p.name, "cgroup": p.cgroup.name, "rss": format_size(p.rss), "swap": format_size(p.swap)}
        for p in kernel.processes
    ]
    swaps = [
        {"device": row["Filename"], "size": format_size(row["Size"]), "used": format_size(row["Used"])}
        for row in kernel.swaps().rows
    ]
    shared = [
        {"shared object": o.name, "resident": format_size(o.resident), "swapped": format_size(o.swapped)}
        for o in kernel.shared
    ]
    tables = "".join(table_html(rows) for rows in (swaps, processes, shared) if rows)
    return f"<table><tbody><tr>{info}</tr></tbody></table>{tables}"
