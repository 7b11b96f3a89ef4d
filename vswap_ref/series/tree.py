"""The sources of a stage as a tree of definitions, each with the cell that owns it, and how a cell changes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import unified_diff
from functools import cached_property

from .notebook import Cell, SeriesError
from .source import DOC, Definition, Module, split, substitute

Tree = dict[str, Module]
"""Path such as "mm/zswap.py" -> module."""
Key = tuple[str, str]
"""Path of a module, name of a definition."""


@dataclass(frozen=True)
class Change:
    """What a cell did to one name: added, replaced, moved, renamed or removed; the texts; where it was before."""

    cell: Cell
    module: str
    name: str
    verb: str
    before: str = ""
    after: str = ""
    source: str = ""

    @cached_property
    def diff(self) -> list[str]:
        """A unified diff of the two texts, with all lines."""
        label = f"{self.module}:{self.name}"
        return [*unified_diff(self.before.splitlines(), self.after.splitlines(), label, label, lineterm="", n=999)]

    @property
    def lines(self) -> tuple[int, int]:
        """(lines more, lines less)."""
        marks = [line[0] for line in self.diff[2:]]
        return marks.count("+"), marks.count("-")

    def __str__(self) -> str:
        origin = f" from {self.source}" if self.source else ""
        return f"{self.module}: {self.name} {self.verb}{origin}, +{self.lines[0]} -{self.lines[1]}"


def apply_cells(tree: Tree, cells: Iterable[Cell], partly: bool = False) -> tuple[Tree, list[Change]]:
    """A new tree with all cells of one stage applied, and what they did.  SeriesError if a name is defined twice in it.

    A module that is left empty goes away.  partly: a notebook is left out, so a definition that others stand behind
    may be missing; then they come last.
    """
    tree = {path: Module(dict(module.imports), dict(module.definitions)) for path, module in tree.items()}
    changes = [change for cell in cells for change in apply_cell(tree, cell, partly)]
    writers: dict[Key, Cell] = {}
    for change in changes:
        if change.verb in ("added", "replaced"):
            first = writers.setdefault((change.module, change.name), change.cell)
            if first != change.cell:
                what = f"{change.name} of {change.module}"
                raise SeriesError(f"{change.cell.where}: {what} was defined before in {first.where}")
    tree = {path: module for path, module in tree.items() if module.definitions.keys() - {DOC}}
    symbols(tree)
    return tree, [change for change in changes if change.name != DOC]


def apply_cell(tree: Tree, cell: Cell, partly: bool = False) -> list[Change]:
    """Change the tree as one cell says; returns what it did."""
    if not cell.patch:
        return [change for verb, *words in cell.orders for change in MECHANICS[verb](tree, cell, *words)]
    _, path, *place = cell.orders[0]
    said, module = split(cell), tree.setdefault(path, Module())
    module.imports |= said.imports
    changes = [define(module, path, definition) for definition in said.definitions.values()]
    for after in place:
        if after in module.definitions:
            place_after(module, after, [name for name in said.definitions if name != after])
        elif not partly:
            raise SeriesError(f"{cell.where}: --after {after}: {path} has no such definition")
    return changes + [remove(tree, cell, path, name) for name in said.deleted]


def define(module: Module, path: str, definition: Definition) -> Change:
    """Add or replace a definition; a replaced one keeps its place."""
    old = module.definitions.get(definition.name)
    module.definitions[definition.name] = definition
    verb, before = ("replaced", old.text) if old else ("added", "")
    return Change(definition.cell, path, definition.name, verb, before, definition.text)


def place_after(module: Module, after: str, names: list[str]) -> None:
    """Reorder: ``names`` come right behind ``after``."""
    order = [name for name in module.definitions if name not in names]
    place = order.index(after) + 1
    module.definitions = {name: module.definitions[name] for name in order[:place] + names + order[place:]}


def take(tree: Tree, cell: Cell, path: str, name: str, command: str) -> Definition:
    """Take a definition out."""
    if path not in tree or name not in tree[path].definitions:
        raise SeriesError(f"{cell.where}: {command} {name}: {path} has no such definition")
    return tree[path].definitions.pop(name)


def remove(tree: Tree, cell: Cell, path: str, name: str) -> Change:
    """``del name``."""
    return Change(cell, path, name, "removed", take(tree, cell, path, name, "del").text)


def delete_module(tree: Tree, cell: Cell, path: str) -> list[Change]:
    """``%patch --delete mm/x.py``."""
    if path not in tree:
        raise SeriesError(f"{cell.where}: --delete {path}: no such module")
    return [remove(tree, cell, path, name) for name in list(tree[path].definitions)]


def move_definition(tree: Tree, cell: Cell, path: str, name: str, target: str) -> list[Change]:
    """``%patch --move mm/a.py:name mm/b.py``."""
    definition = take(tree, cell, path, name, "--move")
    module = tree.setdefault(target, Module())
    module.definitions[name] = definition
    module.imports = tree[path].imports | module.imports
    return [Change(cell, target, name, "moved", definition.text, definition.text, path)]


def rename_symbol(tree: Tree, cell: Cell, old: str, new: str) -> list[Change]:
    """``%patch --rename old new``: the definition and all its uses, in code and in text.

    SeriesError if ``new`` stands anywhere already: afterwards nobody could tell the two apart.
    """
    home = next((path for path, name in definitions(tree) if name == old), None)
    if home is None:
        raise SeriesError(f"{cell.where}: --rename {old} {new}: no module defines {old}")
    if clash := mentions(tree, new):
        raise SeriesError(f"{cell.where}: --rename {old} {new}: {new} stands already in {clash[0].where}")
    before = "\n".join(definition.text for definition in mentions(tree, old))
    for module in tree.values():
        renamed = [definition.renamed(old, new) for definition in module.definitions.values()]
        module.definitions = {definition.name: definition for definition in renamed}
    return [Change(cell, home, new, "renamed", before, substitute(before, [(old, new)]), old)]


def mentions(tree: Tree, word: str) -> list[Definition]:
    """The definitions in whose text a word stands."""
    found = [definition for definition in definitions(tree).values() if word in definition.text]
    return [definition for definition in found if re.search(rf"\b{word}\b", definition.text)]


Mechanic = Callable[..., list[Change]]
MECHANICS: dict[str, Mechanic] = {"delete": delete_module, "move": move_definition, "rename": rename_symbol}


def symbols(tree: Tree) -> dict[str, str]:
    """Name -> module of every definition.  SeriesError if two modules define one name (``__all__`` excepted)."""
    homes: dict[str, str] = {}
    for (path, name), definition in definitions(tree).items():
        if name in homes:
            other = tree[homes[name]].definitions[name].where
            raise SeriesError(f"{definition.where}: {name} is defined in {path} and, at {other}, in {homes[name]}")
        if name not in (DOC, "__all__"):
            homes[name] = path
    return homes


def definitions(tree: Tree) -> dict[Key, Definition]:
    """All definitions of a stage."""
    return {(path, name): found for path, module in tree.items() for name, found in module.definitions.items()}
