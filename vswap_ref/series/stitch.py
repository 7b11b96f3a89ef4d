"""From edited modules back to the cells that own the definitions."""

from __future__ import annotations

import re
from pathlib import Path

from .notebook import Cell, SeriesError, replace_cell
from .series import Series
from .source import DOC, Definition, Module, free_names, split
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
    texts = edited_texts(series, bodies)
    Series(series.root, texts).weave_all()
    for notebook, text in texts.items():
        series.path(notebook).write_text(text, encoding="utf-8")
    return done


def stitch_module(module: Module, path: str, text: str, bodies: Bodies) -> list[str]:
    """Collect new cell bodies for one module; returns what changed."""
    edited, done = split(Cell(path, 0, 0, "\n" + text.removeprefix(HEADER))), list[str]()
    texts: dict[str, list[str]] = {name: [] for name in module.definitions}
    for name, host in hosts(module, edited).items():
        owned, now = module.definitions[host], edited.definitions[name].text
        texts[host].append(now)
        if name != host:
            done.append(f"{path}: {name} added to {owned.cell.where}")
        elif owned.text != now:
            done.append(f"{path}: {name} replaced in {owned.cell.where}")
    done += stitch_imports(module, path, edited, texts)
    for name, owned in module.definitions.items():
        swap(bodies, owned, "\n\n\n".join(texts[name]))
        if name not in edited.definitions:
            done.append(f"{path}: {name} removed from {owned.cell.where}")
    return done


def hosts(module: Module, edited: Module) -> dict[str, str]:
    """Edited definition -> the module's own in whose place it goes: itself, or a neighbour of one that is new.

    That is the one below if it uses the new one, else the one above.
    """
    found: dict[str, str] = {}
    names, above = list(edited.definitions), next(iter(module.definitions))
    for number, name in enumerate(names):
        above = name if name in module.definitions else above
        below = next((other for other in names[number:] if other in module.definitions), None)
        used = below is not None and name in free_names(edited.definitions[below].text)
        found[name] = below if below is not None and used else above
    return found


def stitch_imports(module: Module, path: str, edited: Module, texts: dict[str, list[str]]) -> list[str]:
    """Put imports that no cell has yet below the module's docstring, or above its first definition."""
    for name, item in edited.imports.items():
        if module.imports.get(name, item) != item:
            raise SeriesError(f"{path}: change the import of {name} in the notebook")
    new = {name: item for name, item in edited.imports.items() if name not in module.imports}
    if not new:
        return []
    lines = "\n".join(import_sections(new.values()))
    first = next(iter(module.definitions.values()))
    texts[first.name] = ["\n\n".join([*texts[DOC], lines])] if first.name == DOC else [lines, *texts[first.name]]
    return [f"{path}: imported {', '.join(new)} in {first.cell.where}"]


def swap(bodies: Bodies, owned: Definition, text: str) -> None:
    """Replace a definition in its cell's body by another text."""
    if text == owned.text:
        return
    body = f"\n{bodies.get(owned.cell, owned.cell.body)}\n"
    old, new = f"\n{owned.as_written(owned.text)}\n", f"\n{owned.as_written(text)}\n"
    if old not in body:
        raise SeriesError(f"{owned.where}: {owned.name} cannot be found as woven; edit the notebook")
    bodies[owned.cell] = body.replace(old, new, 1)[1:-1]


def edited_texts(series: Series, bodies: Bodies) -> dict[str, str]:
    """Notebook -> its text with the new bodies, of those that have some; from the last cell up, as lines shift."""
    texts: dict[str, str] = {}
    for cell in sorted(bodies, key=lambda cell: -cell.line):
        text = texts.get(cell.notebook, series.text(cell.notebook))
        texts[cell.notebook] = replace_cell(text, cell, re.sub(r"\n{4,}", "\n\n\n", bodies[cell].strip("\n")))
    return texts
