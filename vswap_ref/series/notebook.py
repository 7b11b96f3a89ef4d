"""Reading a text notebook (MyST Markdown): its code cells and where they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass

CODE_CELL = re.compile(r"^(`{3,})\{code-cell\}.*\n(?::[\w-]+:.*\n)*((?s:.*?))(?:^\1$|\Z(?P<open>))", re.MULTILINE)
PATH = r"mm(?:/\w+)+\.py"
ORDER = re.compile(
    rf"%(%patch)\s+({PATH})(?:\s+--after\s+(\w+))?\s*|%patch\s+--(?:"
    rf"(delete)\s+({PATH})|(move)\s+({PATH}):(\w+)\s+({PATH})|(rename)\s+(\w+)\s+(\w+))\s*"
)
USAGE = "%%patch mm/a.py [--after NAME], %patch --delete mm/a.py, --move mm/a.py:NAME mm/b.py or --rename OLD NEW"


class SeriesError(Exception):
    """Something in the notebooks does not add up; the message names notebook, cell and line."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell: its notebook's name, its number among the code cells (from 1), the line where its body begins.

    Number 0 is text that stands in no notebook, such as a cell that a reader runs.
    """

    notebook: str
    number: int
    line: int
    body: str

    def at(self, line: int) -> str:
        """For messages: where a line of the body (from 1) stands."""
        cell = f", cell {self.number}" if self.number else ""
        return f"{self.notebook}{cell}, line {self.line + line - 1}"

    @property
    def where(self) -> str:
        """For messages: where the cell stands."""
        return self.at(1)

    @property
    def patch(self) -> bool:
        """True for a ``%%patch`` cell, whose other lines are definitions."""
        return self.body.startswith("%%patch")

    @property
    def source(self) -> str:
        """The body of a ``%%patch`` cell without its first line."""
        return self.body.partition("\n")[2]

    @property
    def orders(self) -> list[list[str]]:
        """The words of its ``%%patch`` line, or of its ``%patch --delete/--move/--rename`` lines, in order."""
        found: list[list[str]] = []
        for number, line in enumerate(self.body.split("\n")[: 1 if self.patch else None], 1):
            if line.startswith(("%%patch", "%patch")):
                match = ORDER.fullmatch(line)
                if match is None:
                    raise SeriesError(f"{self.at(number)}: expected {USAGE}")
                found.append([word for word in match.groups() if word])
        return found


def read_cells(notebook: str, text: str) -> list[Cell]:
    """The code cells of a notebook's text, in order."""
    cells: list[Cell] = []
    for match in CODE_CELL.finditer(text):
        line = text.count("\n", 0, match.start(2)) + 1
        if match["open"] is not None:
            raise SeriesError(f"{notebook}, line {line}: the code cell that begins here is never closed")
        cells.append(Cell(notebook, len(cells) + 1, line, match[2].removesuffix("\n")))
    return cells
