"""From a tree to ordinary Python modules: imports written, layers checked, text in one form."""

from __future__ import annotations

import builtins
import sys
from collections import defaultdict
from pathlib import Path

from .errors import SeriesError
from .source import Import, free_names, line_of
from .tree import Module, Owned, Tree, symbols

LINE_LENGTH = 120
HEADER = (
    "# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.\n"
)
BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__"}
ALLOWED = ("numpy", "vswap_ref.machine")


def weave_tree(tree: Tree, floors: list[list[str]]) -> dict[str, str]:
    """The text of every module of a stage, by path.  SeriesError if a name or a layer is wrong."""
    homes = symbols(tree)
    needs = {path: module_needs(path, module, homes) for path, module in tree.items()}
    check_floors(tree, needs, homes, floors)
    check_circles(needs, homes)
    texts = {path: weave_module(path, module, needs[path], homes) for path, module in tree.items()}
    for folder in {str(Path(path).parent) for path in tree}:
        texts.setdefault(f"{folder}/__init__.py", HEADER)
    return dict(sorted(texts.items()))


def module_needs(path: str, module: Module, homes: dict[str, str]) -> dict[str, Owned]:
    """Names that a module takes from outside, each with a definition that uses it."""
    needs: dict[str, Owned] = {}
    for owned in module.definitions.values():
        for name in free_names(owned.definition.text):
            if name in module.definitions or name in BUILTINS:
                continue
            if name not in module.imports and name not in homes:
                line = owned.cell.line + 1 + owned.cell.source.split(owned.definition.text)[0].count("\n")
                line += line_of(owned.definition.text, name) - 1
                raise SeriesError(f"{owned.cell.notebook}, cell {owned.cell.number}, line {line}: {name} is unknown")
            needs[name] = owned
    return needs


def check_floors(
    tree: Tree, needs: dict[str, dict[str, Owned]], homes: dict[str, str], floors: list[list[str]]
) -> None:
    """Every module has a floor; imports go down or stay on the floor."""
    level = {f"mm/{name}.py": number for number, names in enumerate(floors) for name in names}
    for path in tree:
        if path not in level:
            raise SeriesError(f"series.toml: {path} has no floor")
    for path, names in needs.items():
        for name, owned in names.items():
            home = homes.get(name)
            if home is not None and name not in tree[path].imports and level[home] > level[path]:
                raise SeriesError(
                    f"{owned.cell.where}: {owned.definition.name} of {path} calls up: {name} is in {home}"
                )


def check_circles(needs: dict[str, dict[str, Owned]], homes: dict[str, str]) -> None:
    """The imports between modules form no circle."""
    below = {path: {homes[name] for name in names if name in homes} - {path} for path, names in needs.items()}
    state: dict[str, str] = {}

    def visit(path: str, chain: list[str]) -> None:
        if state.get(path) == "done":
            return
        if path in chain:
            raise SeriesError(f"imports form a circle: {' -> '.join([*chain[chain.index(path) :], path])}")
        for other in sorted(below[path]):
            visit(other, [*chain, path])
        state[path] = "done"

    for path in below:
        visit(path, [])


def weave_module(path: str, module: Module, needs: dict[str, Owned], homes: dict[str, str]) -> str:
    """The text of one module."""
    imports = [module.imports[name] for name in needs if name in module.imports]
    imports += [Import(name, relative(path, homes[name]), name) for name in needs if name not in module.imports]
    for item in imports:
        check_allowed(path, item)
    parts = [module.docstring] if module.docstring else []
    parts.append("\n\n".join(["from __future__ import annotations", *import_sections(imports)]))
    head = HEADER + "\n\n".join(parts)
    text, above = head, None
    for owned in module.definitions.values():
        text += separator(above, owned) + owned.definition.text
        above = owned
    return text + "\n"


def separator(above: Owned | None, owned: Owned) -> str:
    """Blank lines before a definition: two around functions and classes, between constants as their cell has it."""
    definition = owned.definition
    if definition.kind.endswith("Def") or (above is not None and above.definition.kind.endswith("Def")):
        return "\n\n\n"
    if above is not None and f"{above.definition.text}\n{definition.text}" in owned.cell.source:
        return "\n"
    return "\n\n"


def relative(path: str, home: str) -> str:
    """The relative import of module ``home`` as seen from module ``path``."""
    here, there = Path(path).parent.parts, Path(home).with_suffix("").parts
    common = 0
    while common < len(here) and common < len(there) - 1 and here[common] == there[common]:
        common += 1
    return "." * (len(here) - common + 1) + ".".join(there[common:])


def check_allowed(path: str, item: Import) -> None:
    """Cells import the standard library, NumPy and the machine; nothing else."""
    top = item.module.partition(".")[0]
    if not item.module.startswith((".", *ALLOWED)) and top not in sys.stdlib_module_names:
        raise SeriesError(f"{path}: imports {item.module}; allowed are the standard library, {' and '.join(ALLOWED)}")


def import_sections(imports: list[Import]) -> list[str]:
    """Import statements in sections: standard library, NumPy, the machine, neighbours."""
    sections: dict[int, list[Import]] = defaultdict(list)
    for item in imports:
        top = item.module.partition(".")[0]
        section = 3 if item.module.startswith(".") else 2 if top == "vswap_ref" else 1 if top == "numpy" else 0
        sections[section].append(item)
    return ["\n".join(import_lines(sections[number])) for number in sorted(sections)]


def import_lines(imports: list[Import]) -> list[str]:
    """The statements of one section: plain imports, then from-imports, sorted."""
    plain = sorted({(item.module, item.local) for item in imports if item.name is None})
    lines = [f"import {module}" + (f" as {local}" if local != module else "") for module, local in plain]
    members: dict[str, set[str]] = defaultdict(set)
    for item in imports:
        if item.name is not None:
            members[item.module].add(item.name if item.name == item.local else f"{item.name} as {item.local}")
    for module in sorted(members, key=lambda name: (-(len(name) - len(name.lstrip("."))), name)):
        lines.append(from_import(module, sorted(members[module], key=member_order)))
    return lines


def member_order(name: str) -> tuple[int, str, str]:
    """Constants, then classes, then the rest."""
    bare = name.partition(" ")[0]
    return 0 if bare.isupper() and len(bare) > 1 else 1 if bare[:1].isupper() else 2, name.lower(), name


def from_import(module: str, names: list[str]) -> str:
    """One from-import, on one line if it fits."""
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= LINE_LENGTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
