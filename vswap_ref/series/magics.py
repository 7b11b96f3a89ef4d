"""IPython magics: %stage, %%patch, %patch, %seal."""

from __future__ import annotations

import difflib
from html import escape
from typing import Any

from .errors import SeriesError
from .live_stage import LiveStage, live
from .notebook import Cell
from .stages import checkout_series
from .tree import Change
from .weave import weave_tree


class Locations:
    """What a patch cell did, one line a definition; the text is all that is stored with the notebook."""

    def __init__(self, changes: list[Change]) -> None:
        self.changes = changes

    def __repr__(self) -> str:
        return "\n".join(map(str, self.changes)) or "nothing changed"

    def diff(self) -> DiffView:
        """The change against the stage as it was: ``_.diff()`` in the next cell shows it, coloured."""
        return DiffView(self.changes)


class DiffView:
    """A coloured line diff of what a cell changed, folded; readable in light and dark."""

    def __init__(self, changes: list[Change]) -> None:
        self.changes = changes

    def lines(self) -> list[str]:
        """Unified diff of all changes."""
        parts: list[str] = []
        for change in self.changes:
            label = f"{change.module}:{change.name}"
            parts += difflib.unified_diff(
                change.before.splitlines(), change.after.splitlines(), label, label, lineterm="", n=99
            )
        return parts

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        tints = {"+": "#2e9e5b44", "-": "#c8453c44"}
        rows = "".join(
            f"<span style='display:block;background:{tints.get(line[:1], 'transparent')}'>{escape(line)}</span>"
            for line in self.lines()
        )
        return f"<details open><summary>{escape(repr(Locations(self.changes)))}</summary><pre>{rows}</pre></details>"


class SealSummary:
    """The summary of a notebook whose stage is complete: modules, symbols and lines."""

    def __init__(self, stage: str, changes: list[Change]) -> None:
        self.stage, self.changes = stage, changes

    @property
    def rows(self) -> list[tuple[str, str, int]]:
        """(what, names or number)."""
        verbs = ("added", "replaced", "moved", "renamed", "removed")
        counts = [(verb, sum(change.verb == verb for change in self.changes)) for verb in verbs]
        rows = [("modules", "", len({change.module for change in self.changes}))]
        rows += [("symbols", verb, count) for verb, count in counts if count]
        rows.append(("lines", "added", sum(change.plus for change in self.changes)))
        rows.append(("lines", "removed", sum(change.minus for change in self.changes)))
        return rows

    def __repr__(self) -> str:
        shown = ", ".join(f"{what} {detail} {count}".replace("  ", " ") for what, detail, count in self.rows)
        return f"sealed: the live stage equals stage {self.stage}; {shown}"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{escape(what)} {escape(detail)}</td><td style='text-align:right'>{count}</td></tr>"
            for what, detail, count in self.rows
        )
        return f"<p>Sealed: the live stage equals stage {escape(self.stage)}.</p><table><tbody>{cells}</tbody></table>"


def stage(line: str) -> None:
    """``%stage K NOTEBOOK``: load stage K as it is without this notebook's own cells."""
    words = line.split()
    if len(words) != 2:
        raise SeriesError("usage: %stage K NOTEBOOK, for example %stage 0 00-04-zswap")
    live.current = LiveStage(checkout_series(), words[0], words[1])


def current() -> LiveStage:
    """The live stage; SeriesError if %stage did not run."""
    if live.current is None:
        raise SeriesError("run the %stage cell first")
    return live.current


def patch_cell(line: str, body: str) -> Locations:
    """``%%patch mm/x.py``: define or replace what stands in the cell, in the live stage."""
    cell = Cell(current().notebook, 0, 0, f"%%patch {line.strip()}\n{body.rstrip()}")
    return Locations(current().apply(cell))


def patch_line(line: str) -> Locations:
    """``%patch --delete/--move/--rename``: mechanical changes."""
    return Locations(current().apply(Cell(current().notebook, 0, 0, f"%patch {line.strip()}")))


def seal(line: str) -> SealSummary:
    """``%seal``: fail unless the live stage equals the stage that the notebooks say; show what this one did."""
    stage_ = current()
    wanted = weave_tree(stage_.series.tree(stage_.stage.id), stage_.series.floors)
    have = weave_tree(stage_.tree, stage_.series.floors)
    for path, text in wanted.items():
        if sorted(have.get(path, "").split("\n")) != sorted(text.split("\n")):
            raise SeriesError(
                f"not sealed: {path} differs from stage {stage_.stage.id}; did every cell run as written?"
            )
    return SealSummary(stage_.stage.id, stage_.changes)


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext vswap_ref.series``."""
    shell.register_magic_function(stage, "line", "stage")
    shell.register_magic_function(seal, "line", "seal")
    shell.register_magic_function(patch_cell, "cell", "patch")
    shell.register_magic_function(patch_line, "line", "patch")
    shell.set_custom_exc((SeriesError,), show_error)


def show_error(shell: Any, kind: type, error: Exception, trace: Any, tb_offset: int | None = None) -> None:
    """A SeriesError is one line, without a traceback through the engine."""
    shell._showtraceback(kind, error, [f"SeriesError: {error}"])
