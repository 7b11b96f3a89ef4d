"""The series: which notebooks make which stage, and the tree of each stage."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path

from .errors import SeriesError
from .notebook import Cell, read_cells
from .tree import Change, Owned, Tree, apply_cells, symbols


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its id (a number, or a name for a variant), title, notebooks, and the stage that it builds on."""

    id: str
    title: str
    notebooks: tuple[str, ...]
    parent: str | None


class Series:
    """The notebooks in ``root`` as ``series.toml`` there orders them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        settings = tomllib.loads((root / "series.toml").read_text(encoding="utf-8"))
        self.floors: list[list[str]] = settings.get("floors", [])
        self.stages: dict[str, Stage] = {}
        previous = None
        for row in settings["stage"]:
            stage_id = str(row["id"])
            parent = str(row["parent"]) if "parent" in row else previous
            if parent is not None and parent not in self.stages:
                raise SeriesError(f"series.toml: stage {stage_id}: no stage {parent} before it")
            self.stages[stage_id] = Stage(stage_id, row["title"], tuple(row["notebooks"]), parent)
            previous = stage_id
        self._trees: dict[str, Tree] = {}
        self._cells: dict[str, list[Cell]] = {}

    @property
    def latest(self) -> str:
        """The last stage of the main line: the highest number."""
        return max((stage for stage in self.stages if stage.isdigit()), key=int)

    def stage(self, stage_id: int | str) -> Stage:
        """The stage with this id; SeriesError listing those that exist."""
        try:
            return self.stages[str(stage_id)]
        except KeyError:
            raise SeriesError(f"no stage {stage_id!r}; there are {', '.join(self.stages)}") from None

    def path(self, notebook: str) -> Path:
        """The text file of a notebook."""
        return self.root / f"{notebook}.md"

    def cells(self, notebook: str) -> list[Cell]:
        """The code cells of a notebook."""
        if notebook not in self._cells:
            self._cells[notebook] = read_cells(self.path(notebook))
        return self._cells[notebook]

    def tree(self, stage_id: int | str, without: str | None = None) -> Tree:
        """The sources of a stage; without the cells of one of its notebooks if that is named."""
        stage = self.stage(stage_id)
        if without is None and stage.id in self._trees:
            return self._trees[stage.id]
        tree: Tree = {} if stage.parent is None else self.tree(stage.parent)
        for notebook in stage.notebooks:
            if notebook != without:
                tree, _ = apply_cells(tree, self.cells(notebook))
        if without is None:
            symbols(tree)
            self._trees[stage.id] = tree
        return tree

    def changes(self, notebook: str) -> list[Change]:
        """What a notebook does to the stage as the others write it."""
        _, changes = apply_cells(self.tree(self.stage_of(notebook).id, without=notebook), self.cells(notebook))
        return changes

    def stage_of(self, notebook: str) -> Stage:
        """The stage that a notebook belongs to."""
        for stage in self.stages.values():
            if notebook in stage.notebooks:
                return stage
        raise SeriesError(f"notebook {notebook!r} is not listed in series.toml")

    def find(self, symbol: str, stage_id: int | str) -> tuple[str, Owned]:
        """(module, definition) of a symbol at a stage; SeriesError with close names if there is none."""
        tree = self.tree(stage_id)
        homes = symbols(tree)
        if symbol not in homes:
            close = ", ".join(difflib.get_close_matches(symbol, homes, 3))
            raise SeriesError(f"stage {stage_id} has no {symbol!r}" + (f"; close: {close}" if close else ""))
        return homes[symbol], tree[homes[symbol]].definitions[symbol]

    def diff(self, old: int | str, new: int | str, what: str | None = None) -> str:
        """Unified diff of two stages, definition by definition; ``what`` limits it to a symbol or a module."""
        before, after = self.tree(old), self.tree(new)
        parts: list[str] = []
        for path in sorted({*before, *after}):
            names = {**definitions(before, path), **definitions(after, path)}
            for name in names:
                if what in (None, path, name):
                    a, b = (definitions(tree, path).get(name, "").splitlines() for tree in (before, after))
                    parts += difflib.unified_diff(a, b, f"{old}/{path}:{name}", f"{new}/{path}:{name}", lineterm="")
        return "\n".join(parts)


def definitions(tree: Tree, path: str) -> dict[str, str]:
    """Name -> text of the definitions of a module; empty if the tree has no such module."""
    if path not in tree:
        return {}
    return {name: owned.definition.text for name, owned in tree[path].definitions.items()}
