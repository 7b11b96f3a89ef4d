"""The sources of a stage as a tree of definitions, each with the cell that owns it, and how a cell changes it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from .errors import SeriesError
from .notebook import Cell
from .source import Definition, Import, split


@dataclass(frozen=True, slots=True)
class Owned:
    """A definition and the cell that it stands in."""

    definition: Definition
    cell: Cell


@dataclass(slots=True)
class Module:
    """A module: docstring and the cell that it stands in, the imports its cells wrote, its definitions in order."""

    docstring: str = ""
    head: Cell | None = None
    imports: dict[str, Import] = field(default_factory=dict)
    definitions: dict[str, Owned] = field(default_factory=dict)

    def copy(self) -> Module:
        """A copy that can be changed alone."""
        return Module(self.docstring, self.head, dict(self.imports), dict(self.definitions))


Tree = dict[str, Module]
"""Path such as "mm/zswap.py" -> module."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a cell did to one name: added, replaced, removed or moved; lines more and less; the texts."""

    module: str
    name: str
    verb: str
    plus: int = 0
    minus: int = 0
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        return f"{self.module}: {self.name} {self.verb}, +{self.plus} -{self.minus}"


def copy_tree(tree: Tree) -> Tree:
    """A copy of a tree that can be changed alone."""
    return {path: module.copy() for path, module in tree.items()}


def apply_cells(tree: Tree, cells: Iterable[Cell]) -> tuple[Tree, list[Change]]:
    """A new tree with all cells of one notebook applied.  SeriesError if a name is defined twice in it."""
    tree = copy_tree(tree)
    changes: list[Change] = []
    seen: dict[tuple[str, str], str] = {}
    for cell in cells:
        for change in apply_cell(tree, cell):
            key = (change.module, change.name)
            if change.verb in ("added", "replaced") and key in seen:
                raise SeriesError(f"{cell.where}: {change.name} of {change.module} was defined before in {seen[key]}")
            seen[key] = cell.where
            changes.append(change)
    return tree, changes


def apply_cell(tree: Tree, cell: Cell) -> list[Change]:
    """Change the tree as one cell says; returns what it did."""
    if cell.patch is None:
        return [change for verb, arguments in cell.mechanical for change in MECHANICS[verb](tree, cell, arguments)]
    path, after = cell.patch
    if not re.fullmatch(r"mm(/\w+)+\.py", path):
        raise SeriesError(f"{cell.where}: {path!r} is no module path such as mm/zswap.py")
    fragment = split(cell.source, f"{cell.notebook}, cell {cell.number}", cell.line + 1)
    module = tree.setdefault(path, Module())
    if after is not None and after not in module.definitions:
        raise SeriesError(f"{cell.where}: --after {after}: {path} has no such definition")
    if fragment.docstring:
        module.docstring, module.head = fragment.docstring, cell
    module.imports.update({item.local: item for item in fragment.imports})
    changes = [define(module, path, Owned(definition, cell)) for definition in fragment.definitions]
    if after is not None:
        place_after(module, after, [definition.name for definition in fragment.definitions])
    return changes + [remove(module, path, name, cell) for name in fragment.deleted]


def define(module: Module, path: str, owned: Owned) -> Change:
    """Add or replace a definition; a replaced one keeps its place."""
    name = owned.definition.name
    old = module.definitions.get(name)
    module.definitions[name] = owned
    before = old.definition.text if old else ""
    plus, minus = count_difference(before.splitlines(), owned.definition.text.splitlines())
    return Change(path, name, "replaced" if old else "added", plus, minus, before, owned.definition.text)


def count_difference(before: list[str], after: list[str]) -> tuple[int, int]:
    """(lines only in ``after``, lines only in ``before``) of a line diff."""
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    same = sum(block.size for block in matcher.get_matching_blocks())
    return len(after) - same, len(before) - same


def remove(module: Module, path: str, name: str, cell: Cell) -> Change:
    """Delete a definition."""
    old = module.definitions.pop(name, None)
    if old is None:
        raise SeriesError(f"{cell.where}: del {name}: {path} has no such definition")
    return Change(path, name, "removed", 0, len(old.definition.text.split("\n")))


def place_after(module: Module, after: str, names: list[str]) -> None:
    """Reorder: ``names`` come right behind ``after``."""
    moved = {name: module.definitions.pop(name) for name in names if name != after}
    order = list(module.definitions.items())
    at = [name for name, _ in order].index(after) + 1
    module.definitions = dict([*order[:at], *moved.items(), *order[at:]])


def delete_module(tree: Tree, cell: Cell, arguments: str) -> list[Change]:
    """``%patch --delete mm/x.py``."""
    module = tree.pop(arguments, None)
    if module is None:
        raise SeriesError(f"{cell.where}: --delete {arguments}: no such module")
    return [
        Change(arguments, name, "removed", 0, len(owned.definition.text.split("\n")))
        for name, owned in module.definitions.items()
    ]


def move_definition(tree: Tree, cell: Cell, arguments: str) -> list[Change]:
    """``%patch --move mm/a.py:name mm/b.py``."""
    source, _, target = arguments.partition(" ")
    path, _, name = source.partition(":")
    if path not in tree or name not in tree[path].definitions or not target:
        raise SeriesError(f"{cell.where}: --move {arguments}: expected mm/a.py:name mm/b.py of an existing definition")
    module = tree.setdefault(target.strip(), Module())
    module.definitions[name] = tree[path].definitions.pop(name)
    module.imports = {**tree[path].imports, **module.imports}
    if not tree[path].definitions:
        del tree[path]
    return [Change(target.strip(), name, "moved")]


def rename_symbol(tree: Tree, cell: Cell, arguments: str) -> list[Change]:
    """``%patch --rename old new``: the definition and all its uses, in code and in text."""
    old, _, new = arguments.partition(" ")
    homes = [path for path, module in tree.items() if old in module.definitions]
    if not homes or not new.strip().isidentifier():
        raise SeriesError(f"{cell.where}: --rename {arguments}: expected an existing name and a new one")
    word, new = re.compile(rf"\b{re.escape(old)}\b"), new.strip()
    for module in tree.values():
        module.docstring = word.sub(new, module.docstring)
        module.definitions = {
            new if name == old else name: rename_in(owned, word, new) for name, owned in module.definitions.items()
        }
    return [Change(path, new, "renamed") for path in homes]


def rename_in(owned: Owned, word: re.Pattern[str], new: str) -> Owned:
    """A definition with a word replaced."""
    definition = owned.definition
    name = word.sub(new, definition.name)
    return Owned(replace(definition, name=name, text=word.sub(new, definition.text)), owned.cell)


MECHANICS = {"delete": delete_module, "move": move_definition, "rename": rename_symbol}


def symbols(tree: Tree) -> dict[str, str]:
    """Name -> module of every definition.  SeriesError if two modules define one name (``__all__`` excepted)."""
    homes: dict[str, str] = {}
    for path, module in tree.items():
        for name, owned in module.definitions.items():
            if name in homes and name != "__all__":
                raise SeriesError(f"{owned.cell.where}: {name} is defined in {homes[name]} and in {path}")
            homes[name] = path
    return homes
