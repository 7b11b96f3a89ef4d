"""From a tree to ordinary Python modules: imports written, layers checked, text in one form."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Iterable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

from .notebook import SeriesError
from .source import DOC, Definition, Import, Module, free_names
from .tree import Tree, symbols

LINE_LENGTH = 120
HEADER = (
    "# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.\n"
)
BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__"}


class Need(NamedTuple):
    """A name that a module takes from outside: its import, one definition that uses it, its home if that is in mm."""

    item: Import
    user: Definition
    home: str | None

    def __str__(self) -> str:
        return f"{self.user.use_of(self.item.local)}: {self.user.name} uses {self.item.local} of {self.home}"


Needs = dict[str, dict[str, Need]]
"""Module -> name -> need."""


def weave_tree(tree: Tree, floors: list[list[str]]) -> dict[str, str]:
    """The text of every module of a stage, by path.  SeriesError if a name or a layer is wrong."""
    homes = symbols(tree)
    needs = {path: module_needs(path, module, homes) for path, module in tree.items()}
    check_floors(tree, needs, floors)
    check_circles(needs)
    texts = {path: weave_module(module, needs[path]) for path, module in tree.items()}
    for folder in {str(Path(path).parent) for path in tree}:
        texts.setdefault(f"{folder}/__init__.py", HEADER)
    return dict(sorted(texts.items()))


def module_needs(path: str, module: Module, homes: dict[str, str]) -> dict[str, Need]:
    """What a module takes from outside."""
    needs: dict[str, Need] = {}
    for user in module.definitions.values():
        for name in free_names(user.text) - module.definitions.keys() - BUILTINS:
            if name in module.imports:
                needs[name] = Need(module.imports[name], user, None)
            elif name in homes:
                needs[name] = Need(Import(name, relative(path, homes[name]), name), user, homes[name])
            else:
                raise SeriesError(f"{user.use_of(name)}: {name} is unknown")
    return needs


@cache
def relative(path: str, home: str) -> str:
    """The relative import of module ``home`` as seen from module ``path``."""
    steps = os.path.relpath(home.removesuffix(".py"), Path(path).parent).split(os.sep)
    return "." * (steps.count("..") + 1) + ".".join(step for step in steps if step != "..")


def check_floors(tree: Tree, needs: Needs, floors: list[list[str]]) -> None:
    """Every module has a floor; imports go down or stay on the floor."""
    level = {f"mm/{name}.py": number for number, names in enumerate(floors) for name in names}
    for path, module in tree.items():
        if path not in level:
            first = next(iter(module.definitions.values()))
            raise SeriesError(f"{first.where}: {path} has no floor in series.toml")
    for path, uses in needs.items():
        for need in uses.values():
            if need.home is not None and level[need.home] > level[path]:
                raise SeriesError(f"{need}: a call up from {path}")


def check_circles(needs: Needs) -> None:
    """The imports between modules form no circle."""
    below = {path: sorted({need.home for need in uses.values() if need.home}) for path, uses in needs.items()}
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        links = [next(need for need in needs[a].values() if need.home == b) for a, b in pairwise(circle)]
        raise SeriesError(f"imports form a circle, {' -> '.join(circle)}: {'; '.join(map(str, links))}") from None


def weave_module(module: Module, needs: dict[str, Need]) -> str:
    """The text of one module."""
    definitions = [definition for name, definition in module.definitions.items() if name != DOC]
    head = [module.definitions[DOC].text] if DOC in module.definitions else []
    head.append("from __future__ import annotations")
    text = HEADER + "\n\n".join(head + import_sections(need.item for need in needs.values()))
    for above, definition in pairwise([None, *definitions]):
        assert definition is not None
        text += separator(above, definition) + definition.text
    return text + "\n"


def separator(above: Definition | None, definition: Definition) -> str:
    """Blank lines before a definition: two around functions and classes, between constants as their cell has it."""
    if definition.kind.endswith("Def") or (above is not None and above.kind.endswith("Def")):
        return "\n\n\n"
    if above is not None and f"{above.text}\n{definition.text}" in definition.cell.source:
        return "\n"
    return "\n\n"


def import_sections(imports: Iterable[Import]) -> list[str]:
    """Import statements in sections: standard library, NumPy, the machine, neighbours; sorted."""
    sections: list[str] = []
    for _, items in groupby(sorted(set(imports), key=import_order), key=import_section):
        lines: list[str] = []
        for module, group in groupby(items, key=lambda item: item.name and item.module):
            members = list(group)
            lines += [from_import(members)] if module else [item.statement for item in members]
        sections.append("\n".join(lines))
    return sections


def import_section(item: Import) -> int:
    """The number of the section that an import belongs to."""
    top = item.module.partition(".")[0]
    return 3 if not top else 0 if top in sys.stdlib_module_names else 1 if top == "numpy" else 2


def import_order(item: Import) -> tuple[object, ...]:
    """Plain imports first; far modules before near ones; of a module constants, then classes, then the rest."""
    dots = len(item.module) - len(item.module.lstrip("."))
    name = item.name or ""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return import_section(item), item.name is not None, -dots, item.module, kind, name.lower(), name, item.local


def from_import(items: list[Import]) -> str:
    """The members of one module, on one line if they fit."""
    head, names = f"from {items[0].module} import ", [item.statement.partition(" import ")[2] for item in items]
    line = head + ", ".join(names)
    if len(line) <= LINE_LENGTH:
        return line
    return f"{head}(\n" + "".join(f"    {name},\n" for name in names) + ")"
