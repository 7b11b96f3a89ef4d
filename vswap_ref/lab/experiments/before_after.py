"""Two stages side by side: lines that cross, and what a patch changes in the ledgers of operations and of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vswap_ref.display import Figure, Table, picture, table_html
from vswap_ref.lab.metadata import metadata_table

from .cost import page_cost

BEFORE_COLOUR, AFTER_COLOUR = "#3f7fbf", "#e0912f"
SHARES = (0, 25, 50, 75, 100)


@dataclass(frozen=True, slots=True)
class Crossing:
    """Bytes against a share in percent, at two stages: ``names`` says what they are spent on."""

    title: str
    share: str
    names: tuple[str, str]
    percents: Sequence[float]
    before: Sequence[float]
    after: Sequence[float]

    @property
    def equal_at(self) -> float | None:
        """The first share, in percent, at which both are equal; None if there is none."""
        points = zip(self.percents, self.before, self.after, strict=True)
        for (x0, b0, a0), (x1, b1, a1) in pairwise(points):
            if (a0 - b0) * (a1 - b1) <= 0 and a0 - b0 != a1 - b1:
                return x0 + (x1 - x0) * (a0 - b0) / (a0 - b0 + b1 - a1)
        return None

    def rows(self) -> list[dict[str, Any]]:
        """A row a share."""
        old, new = self.names
        return [
            {self.share: Figure(f"{x} %"), old: Figure(f"{b:.2f}"), new: Figure(f"{a:.2f}")}
            for x, b, a in zip(self.percents, self.before, self.after, strict=True)
        ]

    def verdict(self) -> str:
        """Where the lines cross."""
        return f"{self.title}: equal {'nowhere' if self.equal_at is None else f'at {self.equal_at:.1f} %'}"

    def __repr__(self) -> str:
        return f"{Table('', self.rows())!r}\n{self.verdict()}"

    def _repr_html_(self) -> str:
        return f"{lines_svg(self)}<p>{self.verdict()}</p>{table_html(self.rows())}"


def lines_svg(record: Crossing, width: int = 480, height: int = 200) -> str:
    """Both lines of a crossing."""
    top, base, left, right = max(*record.before, *record.after), height - 24, 34, width - 90

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * x / 100, base - (base - 12) * y / top

    parts = []
    for value in (0.0, top / 2, top):
        y = place(0, value)[1]
        parts.append(f"<line x1='{left}' x2='{right}' y1='{y:.0f}' y2='{y:.0f}' stroke='#88888844'/>")
        parts.append(label(left - 6, y + 4, f"{value:.3g}", "end"))
    parts += [label(place(percent, 0)[0], base + 18, f"{percent} %", "middle") for percent in SHARES]
    lines = (record.names[0], record.before, BEFORE_COLOUR), (record.names[1], record.after, AFTER_COLOUR)
    higher = record.before[-1] > record.after[-1]
    for number, (name, values, colour) in enumerate(lines):
        places = [place(x, y) for x, y in zip(record.percents, values, strict=True)]
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f"<polyline points='{corners}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts.append(label(right + 8, places[-1][1] + (0 if (number == 0) == higher else 12), name, "start"))
    alt = f"bytes of {record.names[0]} and of {record.names[1]} against the share {record.share}; {record.verdict()}"
    return picture("".join(parts), alt, width, height)


def label(x: float, y: float, words: str, anchor: str) -> str:
    """A word in a figure."""
    return f"<text x='{x:.0f}' y='{y:.0f}' fill='currentColor' font-size='12' text-anchor='{anchor}'>{words}</text>"


def arrow(old: int, new: int) -> Figure:
    """An old and a new number."""
    return Figure(f"{old:,} -> {new:,}" if old != new else f"{old:,}")


def cost_changes(before: int, after: int, stores: tuple[str, ...] = ("zswap", "device")) -> Table:
    """The primitives of one page's life that a patch changes, a row for each and each store."""
    rows: list[dict[str, Any]] = []
    for store in stores:
        old, new = (page_cost(store, stage=stage).steps for stage in (before, after))
        for name in dict.fromkeys(name for costs in (*old.values(), *new.values()) for name in costs):
            pairs = {step: (old[step].get(name, 0), new[step].get(name, 0)) for step in old}
            if any(a != b for a, b in pairs.values()):
                rows.append(
                    {"page in": store, "primitive": name} | {step: arrow(*pair) for step, pair in pairs.items()}
                )
    return Table("costs", rows)


def byte_changes(before: int, after: int, size: str = "64M", percent: int = 100) -> Table:
    """The rows of the byte ledger that a patch changes, on a device that is used to a share, exactly."""
    rows: list[dict[str, Any]] = []
    for backend in ("zswap", "swapfile"):
        ledgers = [metadata_table(size, stage, [percent], [backend]).points[0].ledger for stage in (before, after)]
        old, new = ({row[0]: row[3] for row in ledger.rows} | {"total": ledger.exact} for ledger in ledgers)
        for name in dict.fromkeys([*new, *old]):
            a, b = old.get(name, 0), new.get(name, 0)
            if a != b:
                rows.append({"pages in": backend, "structure": name, "bytes": arrow(a, b)})
    return Table("bytes", sorted(rows, key=lambda row: (row["pages in"] != "zswap", row["structure"] == "total")))
