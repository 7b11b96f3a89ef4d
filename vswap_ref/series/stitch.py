"""From edited modules back to the cells that own the definitions."""

from __future__ import annotations

from pathlib import Path

from .errors import SeriesError
from .notebook import Cell, replace_cell
from .series import Series
from .source import Definition, Import, split
from .tree import Module, Owned
from .weave import import_sections


def stitch(series: Series, package: Path) -> list[str]:
    """Carry every definition that was edited in ``package`` (the folder above mm/) back into its cell.

    Replaced definitions and docstrings go where they stand; a new one goes below the one above it in the module; one
    that is gone is taken out of its cell.  Returns what was done.  SeriesError for a module that no cell writes.
    """
    tree = series.tree(series.latest)
    bodies: dict[Cell, str] = {}
    done: list[str] = []
    for path in sorted((package / "mm").rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name in tree:
            done += stitch_module(tree[name], name, path.read_text(encoding="utf-8"), bodies)
        elif path.name != "__init__.py":
            raise SeriesError(f"{name}: no notebook writes this module; begin a cell with %%patch {name}")
    write_bodies(series, bodies)
    return done


def stitch_module(module: Module, path: str, text: str, bodies: dict[Cell, str]) -> list[str]:
    """Collect new cell bodies for one module; returns what changed."""
    fragment = split(text, path)
    edited = {definition.name: definition for definition in fragment.definitions}
    if not module.definitions:
        return []
    first = module.head or next(iter(module.definitions.values())).cell
    done = stitch_docstring(module, path, fragment.docstring or "", first, bodies)
    above: Owned | None = None
    for name, definition in edited.items():
        owned = module.definitions.get(name)
        if owned is None:
            owned = Owned(definition, above.cell if above else first)
            insert(above, definition, first, bodies)
            done.append(f"{path}: {name} added to {owned.cell.where}")
        elif owned.definition.text != definition.text:
            edit(bodies, owned.cell, owned.definition.text, definition.text)
            done.append(f"{path}: {name} replaced in {owned.cell.where}")
        above = Owned(definition, owned.cell)
    for name, owned in module.definitions.items():
        if name not in edited:
            edit(bodies, owned.cell, owned.definition.text, "")
            done.append(f"{path}: {name} removed from {owned.cell.where}")
    return done + stitch_imports(module, path, fragment.imports, first, bodies)


def stitch_docstring(module: Module, path: str, docstring: str, first: Cell, bodies: dict[Cell, str]) -> list[str]:
    """Carry an edited module docstring back."""
    if docstring in ("", module.docstring):
        return []
    edit(bodies, first, module.docstring, docstring)
    return [f"{path}: docstring replaced in {first.where}"]


def stitch_imports(module: Module, path: str, imports: list[Import], first: Cell, bodies: dict[Cell, str]) -> list[str]:
    """Write imports that no cell has yet at the top of the module's first cell."""
    new = [item for item in imports if item.local not in module.imports]
    if not new:
        return []
    lines = "\n".join(import_sections(new))
    body = bodies.get(first, first.body)
    head = f"{module.docstring}\n" if module.docstring and module.docstring in body else body.partition("\n")[0] + "\n"
    bodies[first] = body.replace(head, f"{head}\n{lines}\n", 1)
    return [f"{path}: imported {', '.join(item.local for item in new)} in {first.where}"]


def edit(bodies: dict[Cell, str], cell: Cell, old: str, new: str) -> None:
    """Replace a text in a cell's body."""
    body = bodies.get(cell, cell.body)
    if old not in body:
        raise SeriesError(f"{cell.where}: a mechanical rename wrote this definition; edit the notebook instead")
    bodies[cell] = body.replace(old, new, 1)


def insert(above: Owned | None, definition: Definition, first: Cell, bodies: dict[Cell, str]) -> None:
    """Put a new definition below another one, or at the end of the module's first cell."""
    if above is None:
        bodies[first] = f"{bodies.get(first, first.body)}\n\n\n{definition.text}"
    else:
        text = above.definition.text
        edit(bodies, above.cell, text, f"{text}\n\n\n{definition.text}")


def write_bodies(series: Series, bodies: dict[Cell, str]) -> None:
    """Write the changed cells, the last ones of a notebook first so that line numbers stay true."""
    for cell in sorted(bodies, key=lambda cell: (cell.notebook, -cell.line)):
        body = bodies[cell].strip("\n")
        while "\n\n\n\n" in body:
            body = body.replace("\n\n\n\n", "\n\n\n")
        replace_cell(series.path(cell.notebook), cell, body)
