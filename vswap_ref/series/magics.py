"""IPython magics: %stage, %%patch, %patch, %seal."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vswap_ref.display import Diff

from .live_stage import LiveStage, live
from .notebook import Cell, SeriesError
from .series import Stage
from .stages import checkout_series
from .tree import Change
from .weave import weave_tree


class Locations(list[Change]):
    """What a patch cell did, one line a definition; the text is all that is stored with the notebook."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "nothing changed"

    def diff(self) -> Diff:
        """The change against the stage as it was: ``_.diff()`` in the next cell shows it, coloured."""
        return Diff(repr(self), [line for change in self for line in change.diff])


def stage(line: str) -> None:
    """``%stage K NOTEBOOK``: load stage K as it is without this notebook's own cells."""
    words = line.split()
    if len(words) != 2:
        raise SeriesError("usage: %stage K NOTEBOOK, for example %stage 0 00-04-zswap")
    live.current = LiveStage(checkout_series(), words[0], words[1])


def run(body: str) -> Locations:
    """Run a cell of the notebook in the live stage."""
    return Locations(live.apply(Cell(f"{live.notebook}, this cell", 0, 1, body)))


def patch_cell(line: str, body: str) -> Locations:
    """``%%patch mm/x.py``: define or replace what stands in the cell, in the live stage."""
    return run(f"%%patch {line.strip()}\n{body.rstrip()}")


def patch_line(line: str) -> None:
    """``%patch --delete/--move/--rename``: mechanical changes; several may stand in a cell."""
    print(run(f"%patch {line.strip()}"))


def seal(line: str) -> None:
    """``%seal``: fail unless the live stage equals the stage that the notebooks say; print what this one did."""
    wanted, have = live.series.weave(live.stage.id), weave_tree(live.tree, live.series.order(live.stage.id))
    for path in sorted({*wanted, *have}):
        if lines(have.get(path, "")) != lines(wanted.get(path, "")):
            raise SeriesError(f"not sealed: {path} differs from stage {live.stage.id}; did every cell run as written?")
    print(f"sealed: the live stage equals stage {live.stage.id}", *summary(live.stage, live.changes), sep="\n")


def summary(stage: Stage, changes: list[Change]) -> list[str]:
    """Modules, symbols and lines that a notebook changed, beside the kernel's diffstat; no row where all are 0."""
    verbs = Counter(change.verb for change in changes)
    model = {"modules": len({change.module for change in changes})}
    model |= {f"symbols {verb}": nr for verb, nr in sorted(verbs.items())}
    model |= {"lines added": sum(change.lines[0] for change in changes)}
    model |= {"lines removed": sum(change.lines[1] for change in changes)}
    kernel = dict(zip(("modules", "lines added", "lines removed"), stage.kernel_numbers, strict=False))
    rows = [(what, nr, kernel.get(what, "")) for what, nr in model.items() if nr or kernel.get(what)]
    head = [("", "model", "kernel")] if kernel else []
    return [f"{what:<17}{model:>6}{kernel:>8}".rstrip() for what, model, kernel in head + rows]


def lines(text: str) -> list[str]:
    """The lines that say something, sorted: the order of a module's definitions depends on which notebook ran last."""
    return sorted(line for line in text.split("\n") if line)


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
