"""From edited modules back to the cells that own the definitions."""

from __future__ import annotations

from pathlib import Path

from .notebook import Cell, SeriesError
from .series import Series
from .source import DOC, Definition, Module, free_names, split
from .weave import HEADER, import_sections

Texts = dict[str, list[str]]
"""Definition of a module -> what stands in its place from now on: itself, new definitions beside it, or nothing."""
Edit = tuple[Definition, str]
"""A definition that a cell owns, and the text that replaces it there."""


def stitch(series: Series, package: Path) -> list[str]:
    """Carry every definition that was edited in ``package`` (the folder above mm/) back into its cell.

    A replaced definition goes where it stands, also if that is the notebook of an earlier stage (later renames are
    undone in it); a new one goes below the one above it in the module, or above the one below if only that uses it;
    one that is gone is taken out of its cell.  Returns what was done.  SeriesError, and nothing is written, for a
    module that no cell writes, and if a stage could not be woven any more.
    """
    tree = series.tree(series.latest)
    edits: list[Edit] = []
    done: list[str] = []
    for file in sorted((package / "mm").rglob("*.py")):
        path = file.relative_to(package).as_posix()
        if path in tree:
            done += stitch_module(tree[path], path, file.read_text(encoding="utf-8"), edits)
        elif file.name != "__init__.py":
            raise SeriesError(f"{path}: no notebook writes this module; begin a cell with %%patch {path}")
    texts = edited_notebooks(series, edits)
    Series(series.root, texts).weave_all()
    for notebook, text in texts.items():
        series.path(notebook).write_text(text, encoding="utf-8")
    return done


def stitch_module(module: Module, path: str, text: str, edits: list[Edit]) -> list[str]:
    """Collect the edits of one module; returns what changed."""
    edited, done = split(Cell(path, 0, 0, "\n" + text.removeprefix(HEADER))), list[str]()
    texts: Texts = {name: [] for name in module.definitions}
    for name, host in hosts(module, edited).items():
        owned, now = module.definitions[host], edited.definitions[name].text
        texts[host].append(now)
        if name != host:
            done.append(f"{path}: {name} added to {owned.cell.where}")
        elif owned.text != now:
            done.append(f"{path}: {name} replaced in {owned.cell.where}")
    done += stitch_imports(module, path, edited, texts)
    for name, owned in module.definitions.items():
        new = "\n\n\n".join(texts[name])
        if new != owned.text:
            edits.append((owned, new))
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


def stitch_imports(module: Module, path: str, edited: Module, texts: Texts) -> list[str]:
    """Put imports that no cell has yet below the module's docstring, or above its first definition."""
    new = {name: item for name, item in edited.imports.items() if module.imports.get(name) != item}
    if changed := new.keys() & module.imports.keys():
        raise SeriesError(f"{path}: change the import of {', '.join(changed)} in the notebook")
    if not new:
        return []
    first, lines = next(iter(module.definitions)), "\n".join(import_sections(new.values()))
    texts[first].insert(1 if first == DOC else 0, lines)
    return [f"{path}: imported {', '.join(new)} in {module.definitions[first].cell.where}"]


def edited_notebooks(series: Series, edits: list[Edit]) -> dict[str, str]:
    """Notebook -> its new text, of those that change; from the last definition up, as lines shift."""
    notebooks: dict[str, list[str]] = {}
    for owned, text in sorted(edits, key=lambda edit: (edit[0].cell.line, edit[0].line), reverse=True):
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
