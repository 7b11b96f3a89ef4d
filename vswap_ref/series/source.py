"""Splitting a cell into its top-level definitions, and finding what a definition needs from outside."""

from __future__ import annotations

import ast
import re
import symtable
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache

from .notebook import Cell, SeriesError

DOC = "__doc__"
"""The name under which a module's docstring is kept among its definitions."""
ALLOWED = re.compile(r"(numpy|vswap_ref\.machine)(\.|$)")
LOOPS = ("listcomp", "setcomp", "dictcomp", "genexpr")


@dataclass(frozen=True, slots=True)
class Definition:
    """A top-level function, class or constant: its name, its text (comments above and a string below included), the
    kind of its syntax node, the cell and the line of its body where it begins, and the renames since it was written.
    """

    name: str
    text: str
    kind: str
    cell: Cell
    line: int
    renames: tuple[tuple[str, str], ...] = ()

    @property
    def where(self) -> str:
        """For messages."""
        return self.cell.at(self.line)

    def use_of(self, name: str) -> str:
        """For messages: where it uses a name."""
        nodes = [node for node in ast.walk(ast.parse(self.text)) if isinstance(node, ast.Name) and node.id == name]
        return self.cell.at(self.line + min([node.lineno for node in nodes], default=1) - 1)

    @property
    def is_state(self) -> bool:
        """True if objects of a running kernel may be made from it: a class or a constant."""
        return self.kind != "FunctionDef" and self.name != DOC

    def renamed(self, old: str, new: str) -> Definition:
        """With every use of a word replaced, in code and in text; itself if there is none."""
        text = substitute(self.text, [(old, new)]) if old in self.text else self.text
        if text == self.text:
            return self
        name = new if self.name == old else self.name
        return replace(self, name=name, text=text, renames=(*self.renames, (old, new)))

    def as_written(self, text: str) -> str:
        """A later text of this definition with the names that its cell uses.  SeriesError if that is ambiguous."""
        written = substitute(text, [(new, old) for old, new in reversed(self.renames)])
        if substitute(written, self.renames) != text:
            renames = ", ".join(f"{old} to {new}" for old, new in self.renames)
            raise SeriesError(f"{self.where}: {self.name} may not use a name that is renamed later ({renames})")
        return written


def substitute(text: str, renames: Iterable[tuple[str, str]]) -> str:
    """Replace words, one rename after the other."""
    for old, new in renames:
        text = re.sub(rf"\b{old}\b", new, text)
    return text


@dataclass(slots=True)
class Module:
    """A module, or what a cell says of one: local name -> import, definitions in order, names that it takes away."""

    imports: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, Definition] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)


def split(cell: Cell) -> Module:
    """What a cell says.  SeriesError for a syntax error, and for a statement that is no definition, or not alone."""
    try:
        body = ast.parse(cell.source).body
    except SyntaxError as error:
        raise SeriesError(f"{cell.at((error.lineno or 1) + 1)}: {error.msg}") from None
    found, lines, end = Module(), cell.source.split("\n"), 0
    for node in body:
        if node.lineno <= end:
            raise SeriesError(f"{cell.at(end + 1)}: two statements on one line; write one a line")
        begin = next(number for number in range(end, len(lines)) if lines[number].strip())
        end = node.end_lineno or node.lineno
        read_statement(found, node, cell, begin + 2, "\n".join(lines[begin:end]))
    return found


def read_statement(found: Module, node: ast.stmt, cell: Cell, line: int, text: str) -> None:
    """Add one statement, whose text begins at a line of the cell's body."""
    match node:
        case ast.ImportFrom(module=module, level=level) if level or module == "__future__":
            pass  # weave writes it, as all imports between modules of the subject
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            head = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
            for alias in names:
                add_import(found, f"{head}import {ast.unparse(alias)}", cell.at(node.lineno + 1))
        case ast.Delete(targets=targets):
            found.deleted += [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.Expr(value=ast.Constant(value=str())) if found.definitions:
            name, above = found.definitions.popitem()
            found.definitions[name] = replace(above, text=f"{above.text}\n{text}")
        case ast.Expr(value=ast.Constant(value=str())):
            found.definitions[DOC] = Definition(DOC, text, "Expr", cell, line)
        case (
            ast.FunctionDef(name=name)
            | ast.ClassDef(name=name)
            | ast.AnnAssign(target=ast.Name(id=name))
            | ast.Assign(targets=[ast.Name(id=name)])
        ):
            if name in found.definitions:
                raise SeriesError(f"{cell.at(line)}: {name} was defined before in {found.definitions[name].where}")
            found.definitions[name] = Definition(name, text, type(node).__name__, cell, line)
        case _:
            raise SeriesError(f"{cell.at(node.lineno + 1)}: only definitions may stand in an exported cell")


def add_import(found: Module, statement: str, where: str) -> None:
    """Add an import of one name.  SeriesError if that is not of the standard library, NumPy or the machine."""
    module, last = statement.split()[1], statement.split()[-1]
    if module.partition(".")[0] not in sys.stdlib_module_names and not ALLOWED.match(module):
        raise SeriesError(f"{where}: imports {module}; allowed: standard library, numpy, vswap_ref.machine")
    found.imports[last.partition(".")[0]] = statement


@cache
def free_names(text: str, eager: bool = False) -> frozenset[str]:
    """Global names that a definition refers to, annotations included; ``__all__`` refers to what it lists.

    eager: only those that are looked up when it is executed, not when a function in it is called.
    """
    if text.startswith("__all__ = ") and not eager:
        return frozenset(ast.literal_eval(text.removeprefix("__all__ = ")))
    lazy_annotations = "from __future__ import annotations\n" * eager
    top = symtable.symtable(lazy_annotations + text, "<definition>", "exec")
    found: set[str] = set()
    tables = [top]
    for table in tables:  # grows on the way
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or (table is top and not symbol.is_assigned())):
                found.add(symbol.get_name())
        inner = table.get_children()
        tables += [it for it in inner if not eager or it.get_type() == "class" or it.get_name() in LOOPS]
    return frozenset(found)
