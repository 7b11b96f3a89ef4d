"""From edited modules back to the cells that own the definitions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from .errors import SeriesError
from .notebook import Cell, replace_cell
from .series import Series
from .source import DOC, Definition, Import, free_names, split
from .tree import Module
from .weave import HEADER, import_sections

Bodies = dict[Cell, str]
"""Cell -> its new body."""


def stitch(series: Series, package: Path) -> list[str]:
    """Carry every definition that was edited in ``package`` (the folder above mm/) back into its cell.

    A replaced definition goes where it stands, also if that is the notebook of an earlier stage (later renames are
    undone in it); a new one goes below the one above it in the module, or above the one below if only that uses it;
    one that is gone is taken out of its cell.  Returns what was done.  SeriesError, and nothing is written, for a
    module that no cell writes, and if a stage could not be woven any more.
    """
    tree = series.tree(series.latest)
    bodies: Bodies = {}
    done: list[str] = []
    for file in sorted((package / "mm").rglob("*.py")):
        path = file.relative_to(package).as_posix()
        if path in tree:
            done += stitch_module(tree[path], path, file.read_text(encoding="utf-8"), bodies)
        elif file.name != "__init__.py":
            raise SeriesError(f"{path}: no notebook writes this module; begin a cell with %%patch {path}")
    write_bodies(series, bodies)
    return done


def stitch_module(module: Module, path: str, text: str, bodies: Bodies) -> list[str]:
    """Collect new cell bodies for one module; returns what changed."""
    fragment = split(Cell(path, 0, 0, "\n" + text.removeprefix(HEADER)))
    edited = {definition.name: definition for definition in fragment.definitions}
    done = stitch_imports(module, path, fragment.imports, bodies)
    above: Definition | None = None
    for name, definition in edited.items():
        owned = module.definitions.get(name)
        if owned is None:
            owned = insert(definition, above, neighbour_below(module, edited, name), module, bodies)
            done.append(f"{path}: {name} added to {owned.cell.where}")
        elif owned.text != definition.text:
            swap(bodies, owned, definition.text)
            done.append(f"{path}: {name} replaced in {owned.cell.where}")
        above = replace(owned, text=definition.text)
    for name, owned in module.definitions.items():
        if name not in edited:
            swap(bodies, owned, "")
            done.append(f"{path}: {name} removed from {owned.cell.where}")
    return done


def stitch_imports(module: Module, path: str, imports: list[Import], bodies: Bodies) -> list[str]:
    """Write imports that no cell has yet below the module's docstring, or above its first definition."""
    for item in imports:
        if module.imports.get(item.local, item) != item:
            raise SeriesError(f"{path}: change the import of {item.local} in the notebook")
    new = [item for item in imports if item.local not in module.imports]
    if not new:
        return []
    lines = "\n".join(import_sections(new))
    first = next(iter(module.definitions.values()))
    swap(bodies, first, f"{first.text}\n\n{lines}" if first.name == DOC else f"{lines}\n\n\n{first.text}")
    return [f"{path}: imported {', '.join(item.local for item in new)} in {first.cell.where}"]


def neighbour_below(module: Module, edited: dict[str, Definition], name: str) -> Definition | None:
    """The next definition below a new one that the module had before, if it uses the new one."""
    names = list(edited)
    below = next((n for n in names[names.index(name) :] if n in module.definitions), None)
    return module.definitions[below] if below and name in free_names(edited[below].text) else None


def insert(
    new: Definition, above: Definition | None, user: Definition | None, module: Module, bodies: Bodies
) -> Definition:
    """Put a new definition above the one that uses it, or below another one, or above the module's first."""
    below = user or (None if above else next(iter(module.definitions.values())))
    if below is not None:
        swap(bodies, below, f"{new.text}\n\n\n{below.text}")
        return replace(new, cell=below.cell)
    assert above is not None
    swap(bodies, above, f"{above.text}\n\n\n{new.text}")
    return replace(new, cell=above.cell)


def swap(bodies: Bodies, owned: Definition, text: str) -> None:
    """Replace a definition in its cell's body by another text."""
    body = f"\n{bodies.get(owned.cell, owned.cell.body)}\n"
    old, new = f"\n{owned.as_written(owned.text)}\n", f"\n{owned.as_written(text)}\n"
    if old not in body:
        raise SeriesError(f"{owned.where}: {owned.name} cannot be found as woven; edit the notebook")
    bodies[owned.cell] = body.replace(old, new, 1)[1:-1]


def write_bodies(series: Series, bodies: Bodies) -> None:
    """Write the changed cells; take that back if a stage cannot be woven then."""
    before = {notebook: series.path(notebook).read_text("utf-8") for notebook in {cell.notebook for cell in bodies}}
    for notebook, text in before.items():
        cells = [cell for cell in bodies if cell.notebook == notebook]
        for cell in sorted(cells, key=lambda cell: -cell.line):
            text = replace_cell(text, cell, re.sub(r"\n{4,}", "\n\n\n", bodies[cell].strip("\n")))
        series.path(notebook).write_text(text, encoding="utf-8")
    try:
        Series(series.root).weave_all()
    except SeriesError:
        for notebook, text in before.items():
            series.path(notebook).write_text(text, encoding="utf-8")
        raise
