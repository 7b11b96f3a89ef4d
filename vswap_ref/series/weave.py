"""From a tree to ordinary Python modules: imports written, layers checked, text in one form."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from .notebook import SeriesError
from .source import DOC, Definition, Module, free_names
from .tree import Tree, symbols

LINE_LENGTH = 120
HEADER = (
    "# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.\n"
)
BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__"}


class Need(NamedTuple):
    """A name that a module takes from outside, a definition that uses it, and its home.

    That is a module of mm, "" if the module imports it, None if nothing defines it.
    """

    name: str
    user: Definition
    home: str | None


def weave_tree(tree: Tree, order: list[str]) -> dict[str, str]:
    """The text of every module of a stage, by path.  SeriesError if a name or the order of the modules is wrong."""
    homes = symbols(tree)
    needs = {path: module_needs(module, homes) for path, module in tree.items()}
    check_order(tree, needs, order)
    texts = {path: weave_module(path, module, needs[path]) for path, module in tree.items()}
    texts |= {f"{Path(path).parent}/__init__.py": HEADER for path in tree}
    return dict(sorted(texts.items()))


def module_needs(module: Module, homes: Mapping[str, str]) -> list[Need]:
    """What a module takes from outside; ``homes``: name -> module of every definition."""
    users = {name: user for user in module.definitions.values() for name in free_names(user.text)}
    taken = sorted(users.keys() - module.definitions.keys() - BUILTINS)
    return [Need(name, users[name], "" if name in module.imports else homes.get(name)) for name in taken]


def check_order(tree: Tree, needs: dict[str, list[Need]], order: list[str]) -> None:
    """Every module has its place; what it takes has a home, and that stands before it: so imports form no circle."""
    place = {f"mm/{name}.py": number for number, name in enumerate(order)}
    for path, module in tree.items():
        if path not in place:
            first = next(iter(module.definitions.values()))
            raise SeriesError(f"{first.where}: {path} has no floor in series.toml")
        for name, user, home in needs[path]:
            if home is None:
                raise SeriesError(f"{user.use_of(name)}: {name} is unknown")
            if place.get(home, 0) > place[path]:
                raise SeriesError(f"{user.use_of(name)}: {user.name} uses {name} of {home}: a call up from {path}")


def weave_module(path: str, module: Module, needs: list[Need]) -> str:
    """The text of one module."""
    imports = [import_of(path, need.name, need.home) if need.home else module.imports[need.name] for need in needs]
    definitions = [definition for name, definition in module.definitions.items() if name != DOC]
    head = [module.definitions[DOC].text] if DOC in module.definitions else []
    head.append("from __future__ import annotations")
    text = HEADER + "\n\n".join(head + import_sections(imports))
    for above, definition in zip([None, *definitions], definitions, strict=False):
        text += separator(above, definition) + definition.text
    return text + "\n"


def import_of(path: str, name: str, home: str) -> str:
    """The import of a name of module ``home`` as it stands in module ``path``."""
    steps = os.path.relpath(home.removesuffix(".py"), Path(path).parent).split(os.sep)
    return f"from {'.' * (steps.count('..') + 1)}{'.'.join(step for step in steps if step != '..')} import {name}"


def separator(above: Definition | None, definition: Definition) -> str:
    """Blank lines before a definition: two around functions and classes, between constants as their cell has it."""
    if definition.kind.endswith("Def") or (above is not None and above.kind.endswith("Def")):
        return "\n\n\n"
    if above is not None and f"{above.text}\n{definition.text}" in definition.cell.source:
        return "\n"
    return "\n\n"


def import_sections(imports: Iterable[str]) -> list[str]:
    """Imports of one name each as statements, in sections."""
    sections: list[str] = []
    for _, section in groupby(sorted(set(imports), key=import_order), key=lambda item: import_order(item)[0]):
        lines: list[str] = []
        for head, items in groupby(section, key=lambda item: item.rpartition("import ")[0]):
            names = [item.removeprefix(f"{head}import ") for item in items]
            lines += [from_import(head, names)] if head else [f"import {name}" for name in names]
        sections.append("\n".join(lines))
    return sections


def import_order(item: str) -> tuple[object, ...]:
    """The standard library, NumPy, the machine, neighbours; in such a section plain imports first, near modules last;
    of a module constants, then classes, then the rest.
    """
    verb, module, *rest = item.split()
    top, dots, name = module.partition(".")[0], len(module) - len(module.lstrip(".")), "".join(rest[1:2])
    section = 3 if not top else 0 if top in sys.stdlib_module_names else 1 if top == "numpy" else 2
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return section, verb == "from", -dots, module, kind, name.lower(), item


def from_import(head: str, names: list[str]) -> str:
    """The import of members of one module, on one line if they fit."""
    line = f"{head}import {', '.join(names)}"
    if len(line) <= LINE_LENGTH:
        return line
    return f"{head}import (\n" + "".join(f"    {name},\n" for name in names) + ")"
