"""The series: which notebooks make which stage, and the tree of each stage."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .notebook import Cell, SeriesError, read_cells
from .tree import Change, Tree, apply_cells
from .weave import weave_tree


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, as its table in series.toml says.

    id: a number, or a name for a variant.  parent: the stage it builds on (default: the one before), "" if none.
    above: module (without mm/ and .py) -> module that it stands right above from this stage on.
    diffstat: the kernel's own, e.g. "3 files, 10 insertions, 4 deletions".
    """

    id: str
    title: str
    notebooks: list[str]
    parent: str
    above: dict[str, str] = field(default_factory=dict)
    diffstat: str = ""

    @property
    def kernel_numbers(self) -> list[int]:
        """Files, insertions, deletions of the kernel's patch; empty if that is not known."""
        return [int(number) for number in re.findall(r"\d+", self.diffstat)]


class Series:
    """The notebooks in ``root`` as ``series.toml`` there orders them.

    texts: notebooks whose text is another one than that of their file.
    """

    def __init__(self, root: Path, texts: Mapping[str, str] | None = None) -> None:
        self.root, self.texts = root, texts or {}
        settings = tomllib.loads((root / "series.toml").read_text(encoding="utf-8"))
        self.ground = [name for floor in settings.get("floors", []) for name in floor]
        self.stages: dict[str, Stage] = {}
        previous = ""
        for row in settings["stage"]:
            where = f"series.toml: stage {row['id']}"
            if row.keys() - Stage.__annotations__.keys():
                raise SeriesError(f"{where}: expected the keys {', '.join(Stage.__annotations__)}")
            parent, previous = str(row.get("parent", previous)), str(row["id"])
            stage = Stage(**{**row, "id": previous, "parent": parent})
            if parent and parent not in self.stages:
                raise SeriesError(f"{where}: no stage {parent} before it")
            if stage.diffstat and len(stage.kernel_numbers) != 3:
                raise SeriesError(f"{where}: diffstat needs files, insertions and deletions")
            self.stages[stage.id] = stage
        self.build, self.weave = cache(self._build), cache(self._weave)  # each stage once

    @property
    def latest(self) -> str:
        """The last stage of the main line: the highest number."""
        return max((stage for stage in self.stages if stage.isdigit()), key=int)

    def stage(self, stage_id: int | str) -> Stage:
        """The stage with this id; SeriesError listing those that exist."""
        if str(stage_id) not in self.stages:
            raise SeriesError(f"no stage {stage_id!r}; there are {', '.join(self.stages)}")
        return self.stages[str(stage_id)]

    def lineage(self, stage_id: int | str) -> list[Stage]:
        """A stage and those that it builds on, the first one first."""
        stage = self.stage(stage_id)
        return [*(self.lineage(stage.parent) if stage.parent else []), stage]

    def path(self, notebook: str) -> Path:
        """The text file of a notebook."""
        return self.root / f"{notebook}.md"

    def text(self, notebook: str) -> str:
        """The text of a notebook."""
        return self.texts[notebook] if notebook in self.texts else self.path(notebook).read_text(encoding="utf-8")

    def cells(self, notebook: str) -> list[Cell]:
        """The code cells of a notebook."""
        return read_cells(notebook, self.text(notebook))

    def _build(self, stage_id: int | str, without: str = "") -> tuple[Tree, list[Change]]:
        """The sources of a stage, and what it changed; without the cells of one of its notebooks if that is named."""
        stage = self.stage(stage_id)
        tree = self.tree(stage.parent) if stage.parent else {}
        cells = [cell for notebook in stage.notebooks if notebook != without for cell in self.cells(notebook)]
        return apply_cells(tree, cells, partly=bool(without))

    def tree(self, stage_id: int | str) -> Tree:
        """The sources of a stage."""
        return self.build(stage_id)[0]

    def order(self, stage_id: int | str) -> list[str]:
        """The modules of a stage from bottom to top: those of the floors, and what stages put in between."""
        order = self.ground
        for stage in self.lineage(stage_id):
            for module, below in stage.above.items():
                order = [name for name in order if name != module]
                if below not in order:
                    raise SeriesError(f"series.toml: stage {stage.id}: {module} is above {below}, which has no floor")
                order.insert(order.index(below) + 1, module)
        return order

    def _weave(self, stage_id: int | str) -> dict[str, str]:
        """The text of every module of a stage, by path."""
        return weave_tree(self.tree(stage_id), self.order(stage_id))

    def weave_all(self) -> dict[str, dict[str, str]]:
        """Stage -> path -> text, of all stages."""
        return {stage: self.weave(stage) for stage in self.stages}
