"""Reading a text notebook (MyST Markdown): its code cells and where they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .errors import SeriesError

FENCE = re.compile(r"^(`{3,})\{code-cell\}")
OPTION = re.compile(r"^:([\w-]+):")
PATCH = re.compile(r"^%%patch\s+(\S+)(?:\s+--after\s+(\S+))?\s*$")
MECHANICAL = re.compile(r"^%patch\s+--(delete|move|rename)\s+(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell: its notebook's name, its number among the code cells (from 1), the line where its body begins."""

    notebook: str
    number: int
    line: int
    body: str

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.notebook}, cell {self.number}, line {self.line}"

    @property
    def patch(self) -> tuple[str, str | None] | None:
        """(module, definition to come after) of a ``%%patch`` cell; None for any other."""
        match = PATCH.match(self.body.partition("\n")[0])
        return (match[1], match[2]) if match else None

    @property
    def source(self) -> str:
        """The body of a ``%%patch`` cell without its first line."""
        return self.body.partition("\n")[2]

    @property
    def mechanical(self) -> list[tuple[str, str]]:
        """(delete | move | rename, arguments) of the ``%patch --...`` lines of a cell."""
        return [(match[1], match[2]) for match in MECHANICAL.finditer(self.body)]


def read_cells(path: Path) -> list[Cell]:
    """The code cells of a notebook, in order."""
    cells: list[Cell] = []
    lines = path.read_text(encoding="utf-8").split("\n")
    index = 0
    while index < len(lines):
        fence = FENCE.match(lines[index])
        index += 1
        if not fence:
            continue
        while index < len(lines) and OPTION.match(lines[index]):
            index += 1
        first = index
        while index < len(lines) and lines[index] != fence[1]:
            index += 1
        if index == len(lines):
            raise SeriesError(f"{path.stem}, line {first}: the code cell that begins here is never closed")
        cells.append(Cell(path.stem, len(cells) + 1, first + 1, "\n".join(lines[first:index])))
    return cells


def replace_cell(path: Path, cell: Cell, body: str) -> None:
    """Write a new body for a cell of a notebook that has not changed since it was read."""
    lines = path.read_text(encoding="utf-8").split("\n")
    first = cell.line - 1
    lines[first : first + len(cell.body.split("\n"))] = body.split("\n")
    path.write_text("\n".join(lines), encoding="utf-8")
