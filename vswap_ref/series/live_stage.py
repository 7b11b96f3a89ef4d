"""The live stage of a notebook: running a ``%%patch`` cell changes it at once.

It begins as the notebook's stage without the notebook's own cells.  After each cell whatever differs from the
definitions before is executed, in the module where it now lives, together with the constants and classes that were
made from it.  That goes in rounds: every module is given exactly the names that its definitions use, as far as they
exist; then each definition is executed that has what it needs.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator, Set
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from .notebook import Cell, SeriesError
from .series import Series
from .source import Definition, free_names
from .stages import PACKAGE
from .tree import Change, Key, Tree, apply_cells, definitions, symbols
from .weave import module_needs

LAZY_ANNOTATIONS = annotations.compiler_flag


class StaleKernel:
    """What a kernel becomes when a class or a constant under it is replaced: any use says so."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__hash__", "__eq__", "__weakref__"):
            return object.__getattribute__(self, name)
        raise SeriesError("a class of this kernel was replaced after it was booted: boot a new Kernel")


class LiveStage:
    """A stage under construction."""

    def __init__(self, series: Series, stage_id: str, notebook: str) -> None:
        self.series, self.stage, self.notebook = series, series.stage(stage_id), notebook
        if notebook not in self.stage.notebooks:
            raise SeriesError(f"{notebook!r} is no notebook of stage {stage_id}: {', '.join(self.stage.notebooks)}")
        self.package = f"vswap_ref._live.{notebook.replace('-', '_')}"
        self.tree: Tree = {}
        self.changes: list[Change] = []
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{self.package}.")]:
            del sys.modules[name]
        package, mm = ModuleType(self.package), ModuleType(f"{self.package}.mm")
        package.__path__, mm.__path__ = [str(PACKAGE)], []  # kernel.py is the one of the package, mm what the cells say
        sys.modules.update({package.__name__: package, mm.__name__: mm})
        self._become(series.build(stage_id, without=notebook)[0])

    def apply(self, cell: Cell) -> list[Change]:
        """Run an export cell: change the sources and the running system; if that fails, neither."""
        before = self.tree
        tree, changes = apply_cells(before, [cell])
        try:
            self._become(tree)
        except Exception:
            self._become(before)
            raise
        self.changes += changes
        return changes

    @contextmanager
    def planted(self, name: str, old: str, new: str) -> Iterator[LiveStage]:
        """A mistake for a while: in the definition of ``name``, the first ``old`` reads ``new``.  Then it is undone.

        SeriesError if there is no such definition, or no such text in it.
        """
        before, path = self.tree, symbols(self.tree).get(name)
        if path is None:
            raise SeriesError(f"name={name!r}: stage {self.stage.id} defines no such thing")
        text = before[path].definitions[name].text
        if old not in text:
            raise SeriesError(f"old={old!r}: {path}: {name} has no such text")
        cell = Cell(f"planted in {name}", 0, 1, f"%%patch {path}\n{text.replace(old, new, 1)}")
        try:
            self._become(apply_cells(before, [cell])[0])
            yield self
        finally:
            self._become(before)

    @property
    def missing(self) -> dict[str, str]:
        """Name that is not there yet -> a definition that needs it, or is it."""
        found, homes = dict[str, str](), symbols(self.tree)
        for path, module in self.tree.items():
            wanted = {name: name for name in module.definitions}
            wanted |= {need.name: need.user.name for need in module_needs(module, homes)}
            found |= {name: user for name, user in wanted.items() if name not in self._namespace(path)}
        return found

    @property
    def kernel(self) -> ModuleType:
        """The face on this stage.  SeriesError while definitions are missing, naming them."""
        if missing := self.missing:
            names = ", ".join(f"{name} (needed by {user})" for name, user in sorted(missing.items()))
            raise SeriesError(f"this stage is not complete yet, run the %%patch cells first; missing: {names}")
        return import_module(f"{self.package}.kernel")

    @property
    def Kernel(self) -> Any:
        """Boots this stage."""
        return self.kernel.Kernel

    def module(self, name: str) -> ModuleType:
        """A module of the live stage, e.g. "zswap"."""
        return import_module(f"{self.package}.mm.{name}")

    def _namespace(self, path: str) -> dict[str, Any]:
        """What the module with a path binds; it is made if missing."""
        name = f"{self.package}.{path.removesuffix('.py').replace('/', '.')}"
        return vars(sys.modules.setdefault(name, ModuleType(name)))

    def _become(self, tree: Tree) -> None:
        """Bring the running modules from the present tree to another one."""
        homes, old, new = symbols(tree), definitions(self.tree), definitions(tree)
        gone = old.keys() - new.keys()
        changed = {key for key in new if key not in old or old[key].text != new[key].text}
        changed = with_dependents(changed, gone, new)
        if any(old[key].is_state for key in gone | (changed & old.keys())):
            self._mark_stale()
        for path, name in gone | changed:
            self._namespace(path).pop(name, None)
        for path in self.tree.keys() - tree.keys():
            del sys.modules[self._namespace(path)["__name__"]]
        self.tree = tree
        before: list[Key] | None = None
        left = [key for key in new if key[1] not in self._namespace(key[0])]
        while left != before:  # a definition that misses a name waits for another round, as long as that helps
            self._link(homes)
            before, left = left, [key for key in left if not self._execute(*key, new[key].text)]

    def _mark_stale(self) -> None:
        """Kernels booted so far must not be used any more."""
        face = sys.modules.pop(f"{self.package}.kernel", None)
        for kernel in list(face.booted) if face else []:
            kernel.__class__ = StaleKernel

    def _execute(self, path: str, name: str, text: str) -> bool:
        """Execute one definition in its module; False if it has to wait for a name."""
        file = f"<live {path}:{name}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        try:
            exec(compile(text, file, "exec", LAZY_ANNOTATIONS), self._namespace(path))
        except NameError:
            return False
        return True

    def _link(self, homes: dict[str, str]) -> None:
        """Bind in every module exactly the names that its definitions use, as far as they exist."""
        for path, module in self.tree.items():
            namespace = self._namespace(path)
            for name in [name for name in namespace if name not in module.definitions and not name.endswith("__")]:
                del namespace[name]
            for name, _, home in module_needs(module, homes):
                if home and name in self._namespace(home):
                    namespace[name] = self._namespace(home)[name]
                elif name in module.imports:
                    exec(module.imports[name], namespace)


def with_dependents(changed: set[Key], gone: Set[Key], new: dict[Key, Definition]) -> set[Key]:
    """The changed definitions, and all that were made from a changed or gone one: subclasses, tables, defaults."""
    names = {name for _, name in changed | gone}
    while more := {key for key in new.keys() - changed if free_names(new[key].text, eager=True) & names}:
        changed, names = changed | more, names | {name for _, name in more}
    return changed


class Live:
    """The live stage as a running notebook sees it: ``from vswap_ref.series import live``."""

    def __init__(self) -> None:
        self.current: LiveStage | None = None

    def __getattr__(self, name: str) -> Any:
        if self.current is None:
            raise AttributeError("no live stage: begin with %load_ext vswap_ref.series and %stage K NOTEBOOK")
        return getattr(self.current, name)


live = Live()
