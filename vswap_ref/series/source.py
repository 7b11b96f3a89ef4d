"""Splitting Python text into its top-level definitions, and finding what a definition needs from outside."""

from __future__ import annotations

import ast
import symtable
from dataclasses import dataclass, field

from .errors import SeriesError


@dataclass(frozen=True, slots=True)
class Definition:
    """A top-level function, class or constant: its name and its text, with comments above and a string below."""

    name: str
    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: ``from module import name`` (name None: ``import module``), known as ``local``."""

    local: str
    module: str
    name: str | None


@dataclass(slots=True)
class Fragment:
    """What a piece of source says: docstring, imports, definitions in order, names to delete."""

    docstring: str | None = None
    imports: list[Import] = field(default_factory=list)
    definitions: list[Definition] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


def split(text: str, where: str, first_line: int = 1) -> Fragment:
    """Split source into definitions.  SeriesError for a syntax error, or a statement that is no definition."""
    try:
        body = ast.parse(text).body
    except SyntaxError as error:
        line = first_line + (error.lineno or 1) - 1
        raise SeriesError(f"{where}: line {line}: {error.msg}") from None
    fragment, lines, begin = Fragment(), text.split("\n"), 0
    for place, node in enumerate(body):
        end = node.end_lineno or node.lineno
        chunk = "\n".join(lines[begin:end]).strip("\n")
        begin = end
        if isinstance(node, ast.Import | ast.ImportFrom):
            fragment.imports += read_import(node)
        elif isinstance(node, ast.Delete):
            fragment.deleted += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif is_string(node):
            add_string(fragment, "\n".join(lines[node.lineno - 1 : end]), place)
        else:
            name = defined_name(node)
            if name is None:
                at = first_line + node.lineno - 1
                raise SeriesError(f"{where}: line {at}: only definitions may stand in an exported cell")
            fragment.definitions.append(Definition(name, chunk, type(node).__name__))
    return fragment


def is_string(node: ast.stmt) -> bool:
    """A string as a statement: the module's docstring, or the description of the constant above."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def add_string(fragment: Fragment, chunk: str, place: int) -> None:
    """File a string statement: first in the text it is the docstring, else it belongs to the definition above."""
    if place == 0 or not fragment.definitions:
        fragment.docstring = chunk
    else:
        above = fragment.definitions.pop()
        fragment.definitions.append(Definition(above.name, f"{above.text}\n{chunk}", above.kind))


def defined_name(node: ast.stmt) -> str | None:
    """The name that a definition binds; None for any other statement."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


def read_import(node: ast.Import | ast.ImportFrom) -> list[Import]:
    """The names that an import binds; imports between modules of the subject and __future__ are left out."""
    if isinstance(node, ast.Import):
        return [Import(a.asname or a.name.partition(".")[0], a.name, None) for a in node.names]
    if node.level or node.module == "__future__":
        return []
    return [Import(a.asname or a.name, node.module or "", a.name) for a in node.names]


def free_names(text: str) -> set[str]:
    """Global names that a definition refers to, annotations included; ``__all__`` refers to what it lists."""
    if text.startswith("__all__ = "):
        return set(ast.literal_eval(text.removeprefix("__all__ = ")))
    found: set[str] = set()
    collect_globals(symtable.symtable(text, "<definition>", "exec"), found, top=True)
    return found


def collect_globals(table: symtable.SymbolTable, found: set[str], top: bool = False) -> None:
    """Add the names that a scope and the scopes inside it take from the module."""
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() or (top and not symbol.is_assigned())):
            found.add(symbol.get_name())
    for child in table.get_children():
        collect_globals(child, found)


def line_of(text: str, name: str) -> int:
    """Line (from 1) of the first use of a name in a text."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and node.id == name:
            return node.lineno
    return 1
