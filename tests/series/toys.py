"""What the tests of the engine share: a toy series of three stages and a branch."""

from __future__ import annotations

import shutil
from pathlib import Path

from vswap_ref.series.live_stage import LiveStage
from vswap_ref.series.notebook import Cell
from vswap_ref.series.series import Series
from vswap_ref.series.stages import write_texts

TOY = Path(__file__).parent / "toy"


def copy_toy(folder: Path) -> Series:
    """The toy series in a folder of its own."""
    shutil.copytree(TOY, folder / "notebooks")
    return Series(folder / "notebooks")


def edit(series: Series, notebook: str, old: str, new: str) -> Series:
    """The series after an edit of a notebook's text, or of series.toml."""
    path = series.root / notebook if notebook.endswith(".toml") else series.path(notebook)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return Series(series.root)


def write_package(series: Series) -> Path:
    """The package of the latest stage."""
    package = series.root.parent / "package"
    write_texts(package, series.weave(series.latest))
    return package


def cell(body: str) -> Cell:
    """A cell that a reader runs."""
    return Cell("02-move, this cell", 0, 1, body)


def live(series: Series, stage: str = "2", notebook: str = "02-move") -> LiveStage:
    """A live stage of the toy."""
    return LiveStage(series, stage, notebook)
