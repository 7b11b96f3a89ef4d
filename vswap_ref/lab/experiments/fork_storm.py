"""A fork storm: how many pages it takes to count the users of one swapped-out page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vswap_ref.display import escape, picture, table_html

from .counts import read_count, shared_slot


@dataclass(frozen=True, slots=True)
class Storm:
    """One swapped-out page and everybody who has it: where the count is, and pages that it needs beside."""

    stage: str
    users: int
    count: str
    pages: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {"stage": self.stage, "users": self.users, "count": self.count, "extra pages": self.pages}

    def __repr__(self) -> str:
        return f"stage {self.stage}: {self.users:,} users, count {self.count}, {self.pages} extra pages"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"


def fork_storm(users: int = 63, stage: int | str = 13) -> Storm:
    """Swap a page out and fork until ``users`` processes have it."""
    kernel, _ = shared_slot(users, stage)
    if int(stage) >= 13:
        (cluster,) = (cluster for _, cluster in kernel.system.vswap.cluster_map.items())
        return Storm(str(stage), users, str(max(cluster.desc.swap_count)), 0)
    found = read_count(kernel)
    digits = [found.byte & 63, *(digit & 127 for digit in found.digits)]
    return Storm(str(stage), users, " + ".join(map(weighed, range(3), digits)), found.pages)


def weighed(level: int, digit: int) -> str:
    """A digit of a continued count with its weight."""
    return str(digit) + ("", " * 63", " * 63 * 128")[level]


@dataclass(frozen=True, slots=True)
class StormFigure:
    """Extra pages over the number of users, before and after."""

    storms: list[tuple[Storm, Storm]]

    def rows(self) -> list[dict[str, Any]]:
        """A row a number of users."""
        return [
            {
                "users": old.users,
                "count at 12": old.count,
                "pages": old.pages,
                "count at 13": new.count,
                "pages then": new.pages,
            }
            for old, new in self.storms
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{old!r}; stage {new.stage}: count {new.count}" for old, new in self.storms)

    def _repr_html_(self) -> str:
        parts, top = ["<line x1='40' x2='520' y1='100' y2='100' stroke='currentColor'/>"], 2
        step = 480 / len(self.storms)
        for column, pair in enumerate(self.storms):
            for storm, colour, shift in zip(pair, ("#c8453c", "#1f9bb5"), (0.12, 0.5), strict=True):
                height, x = 2 + 76 * storm.pages / top, 40 + step * (column + shift)
                box = f"width='{step * 0.36:.0f}' height='{height:.0f}' fill='{colour}'"
                parts.append(f"<rect x='{x:.0f}' y='{100 - height:.0f}' {box}/>")
            label = f"<text x='{40 + step * (column + 0.5):.0f}' y='116' font-size='12' text-anchor='middle'"
            parts.append(f"{label} fill='currentColor'>{pair[0].users:,}</text>")
        for pages in range(top + 1):
            parts.append(f"<text x='24' y='{104 - 38 * pages}' font-size='12' fill='currentColor'>{pages}</text>")
        note = "<p>Extra pages (up) for a number of users (across). Red: stage 12; blue: stage 13, none.</p>"
        return f"{note}{picture(''.join(parts), repr(self).replace(chr(10), '; '), 530, 122)}{table_html(self.rows())}"


def storm_figure(users: list[int]) -> StormFigure:
    """fork_storm at stages 12 and 13 for several numbers of users."""
    return StormFigure([(fork_storm(nr, 12), fork_storm(nr, 13)) for nr in users])
