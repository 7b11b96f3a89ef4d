"""From edited modules back to the cells that own the definitions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .notebook import Cell, SeriesError
from .series import Series
from .source import DOC, Definition, Module, free_names, split
from .weave import HEADER, import_sections


class Edit(NamedTuple):
    """A definition that a cell owns, what stands in its place from now on, and a line that says what was done."""

    owned: Definition
    text: str
    deed: str


def stitch(series: Series, package: Path) -> list[str]:
    """Carry every definition that was edited in ``package`` (the folder above mm/) back into its cell.

    A replaced definition goes where it stands, also if that is the notebook of an earlier stage (later renames are
    undone in it); a new one goes below the one above it in the module, or above the one below if that uses it; one
    that is gone is taken out of its cell.  Returns what was done.  SeriesError, and nothing is written, for a module
    that no cell writes, and if a stage could not be woven any more.
    """
    tree = series.tree(series.latest)
    edits: list[Edit] = []
    for file in sorted((package / "mm").rglob("*.py")):
        path = file.relative_to(package).as_posix()
        if path in tree:
            edits += module_edits(tree[path], path, file.read_text(encoding="utf-8"))
        elif file.name != "__init__.py":
            raise SeriesError(f"{path}: no notebook writes this module; begin a cell with %%patch {path}")
    texts = edited_notebooks(series, edits)
    Series(series.root, texts).weave_all()
    for notebook, text in texts.items():
        series.path(notebook).write_text(text, encoding="utf-8")
    return [edit.deed for edit in edits]


def module_edits(module: Module, path: str, text: str) -> Iterator[Edit]:
    """What has to change in the cells of a module so that it has a new text."""
    edited = split(Cell(path, 0, 0, "\n" + text.removeprefix(HEADER)))
    parts = allot(module, edited)
    if imports := new_imports(module, path, edited):
        first = next(name for name in parts if name != DOC)
        parts[first] = {"imports": "\n".join(import_sections(imports)), **parts[first]}
    for name, owned in module.definitions.items():
        now = "\n\n\n".join(parts[name].values())
        deed = f"{', '.join(parts[name])} written to" if now else f"{name} removed from"
        if now != owned.text:
            yield Edit(owned, now, f"{path}: {deed} {owned.cell.where}")


def allot(module: Module, edited: Module) -> dict[str, dict[str, str]]:
    """Definition of the module -> the texts that stand in its place from now on: its own, and those of new neighbours.

    A new one goes with the one below if that uses it, else with the one above.
    """
    parts: dict[str, dict[str, str]] = {name: {} for name in module.definitions}
    names, above = list(edited.definitions), next(iter(parts))
    for number, name in enumerate(names):
        above = name if name in parts else above
        below = next((other for other in names[number:] if other in parts), None)
        used = below is not None and name in free_names(edited.definitions[below].text)
        host = below if below is not None and used else above
        parts[host][name] = edited.definitions[name].text
    return parts


def new_imports(module: Module, path: str, edited: Module) -> list[str]:
    """Imports that no cell has yet.  SeriesError for one that was changed."""
    new = {name: item for name, item in edited.imports.items() if module.imports.get(name) != item}
    if changed := new.keys() & module.imports.keys():
        raise SeriesError(f"{path}: change the import of {', '.join(changed)} in the notebook")
    return list(new.values())


def edited_notebooks(series: Series, edits: list[Edit]) -> dict[str, str]:
    """Notebook -> its new text, of those that change; from the last definition up, as lines shift."""
    notebooks: dict[str, list[str]] = {}
    for owned, text, _ in sorted(edits, key=lambda edit: (edit.owned.cell.line, edit.owned.line), reverse=True):
        lines = notebooks.setdefault(owned.cell.notebook, series.text(owned.cell.notebook).split("\n"))
        old = owned.as_written(owned.text).split("\n")
        new = owned.as_written(text).split("\n") if text else []
        first = owned.cell.line + owned.line - 2
        end = first + len(old)
        if lines[first:end] != old:
            raise SeriesError(f"{owned.where}: {owned.name} cannot be found as woven; edit the notebook")
        while not new and not lines[first - 1]:  # blank lines above go along
            first -= 1
        lines[first:end] = new
    return {notebook: "\n".join(lines) for notebook, lines in notebooks.items()}
