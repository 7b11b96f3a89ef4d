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
from types import ModuleType
from typing import Any

from .notebook import Cell, SeriesError
from .series import Series
from .source import free_names
from .stages import PACKAGE, ROOT, dotted
from .tree import Change, Tree, apply_cells, symbols, texts
from .weave import module_needs

KERNEL = PACKAGE / "kernel.py"
LAZY_ANNOTATIONS = annotations.compiler_flag
Key = tuple[str, str]
"""(module path, name)."""


class StaleKernelError(RuntimeError):
    """This kernel was booted before one of its classes or constants was replaced."""


class StaleKernel:
    """What a kernel becomes when a class under it is replaced: any use says so."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__hash__", "__eq__", "__weakref__"):
            return object.__getattribute__(self, name)
        raise StaleKernelError("a class of this kernel was replaced after it was booted: boot a new Kernel")


class LiveStage:
    """A stage under construction; without a notebook, a complete one in which changes can be tried."""

    def __init__(self, series: Series, stage_id: str, notebook: str | None = None) -> None:
        self.series, self.stage, self.notebook = series, series.stage(stage_id), notebook or f"scratch-{stage_id}"
        if notebook is not None and notebook not in self.stage.notebooks:
            raise SeriesError(f"{notebook!r} is no notebook of stage {stage_id}: {', '.join(self.stage.notebooks)}")
        self.package = f"{ROOT}.live_{self.notebook.replace('-', '_')}"
        self.tree: Tree = {}
        self.changes: list[Change] = []
        self._kernel: ModuleType | None = None
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{self.package}.")]:
            del sys.modules[name]
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
        self._become(apply_cells(before, [cell])[0])
        try:
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
            found |= {name: user for name, user in wanted.items() if name not in vars(self._module(path))}
        return found

    @property
    def kernel(self) -> ModuleType:
        """The face on this stage.  SeriesError while definitions are missing, naming them."""
        if missing := self.missing:
            names = ", ".join(f"{name} (needed by {user})" for name, user in sorted(missing.items()))
            raise SeriesError(f"this stage is not complete yet, run the %%patch cells first; missing: {names}")
        if self._kernel is None:
            self._kernel = module_of(f"{self.package}.kernel")
            self._kernel.__file__, self._kernel.__package__ = str(KERNEL), self.package
            exec(compile(KERNEL.read_text(encoding="utf-8"), str(KERNEL), "exec"), self._kernel.__dict__)
        return self._kernel

    @property
    def Kernel(self) -> Any:
        """Boots this stage."""
        return self.kernel.Kernel

    def module(self, name: str) -> ModuleType:
        """A module of the live stage, e.g. "zswap"."""
        return module_of(f"{self.package}.mm.{name}")

    def _module(self, path: str) -> ModuleType:
        """The module of a path, made if missing."""
        return module_of(f"{self.package}.{dotted(path)}")

    def _become(self, tree: Tree) -> None:
        """Bring the running modules from the present tree to another one."""
        homes, old, new = symbols(tree), texts(self.tree), texts(tree)
        gone = old.keys() - new.keys()
        changed = with_dependents({key for key in new if old.get(key) != new[key]}, gone, new)
        if any(self.tree[path].definitions[name].is_state for path, name in gone | (changed & old.keys())):
            self._mark_stale()
        for path, name in gone | changed:
            vars(self._module(path)).pop(name, None)
        for path in self.tree.keys() - tree.keys():
            forget(self._module(path).__name__)
        self.tree = tree
        left = [key for key in new if key[1] not in vars(self._module(key[0]))]
        while True:  # a definition that misses a name waits for another round, as long as that helps
            self._link(homes)
            waiting, left = left, [key for key in left if not self._execute(*key)]
            if left == waiting:
                break

    def _mark_stale(self) -> None:
        """Kernels booted so far must not be used any more."""
        if self._kernel is not None:
            for kernel in list(self._kernel.booted):
                kernel.__class__ = StaleKernel
            forget(self._kernel.__name__)
            self._kernel = None

    def _execute(self, path: str, name: str) -> bool:
        """Execute one definition in its module; False if it has to wait for a name."""
        text, file = self.tree[path].definitions[name].text, f"<live {path}:{name}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        try:
            exec(compile(text, file, "exec", LAZY_ANNOTATIONS), vars(self._module(path)))
        except NameError:
            return False
        return True

    def _link(self, homes: dict[str, str]) -> None:
        """Bind in every module exactly the names that its definitions use, as far as they exist."""
        for path, module in self.tree.items():
            namespace = vars(self._module(path))
            for name in [name for name in namespace if name not in module.definitions and not name.endswith("__")]:
                del namespace[name]
            for need in module_needs(module, homes):
                home = vars(self._module(need.home)) if need.home else {}
                if need.name in home:
                    namespace[need.name] = home[need.name]
                elif need.name in module.imports:
                    exec(module.imports[need.name], namespace)


def module_of(name: str) -> ModuleType:
    """The module of a dotted name; it and its packages are made, and bound in each other, if missing."""
    if name not in sys.modules:
        module = sys.modules[name] = ModuleType(name)
        module.__path__ = []
        parent, _, short = name.rpartition(".")
        setattr(module_of(parent), short, module)
    return sys.modules[name]


def forget(name: str) -> None:
    """Take a module out of its package."""
    parent, _, short = name.rpartition(".")
    delattr(sys.modules[parent], short)
    del sys.modules[name]


def with_dependents(changed: set[Key], gone: Set[Key], new: dict[Key, str]) -> set[Key]:
    """The changed definitions, and all that were made from a changed or gone one: subclasses, tables, defaults."""
    names = {name for _, name in changed | gone}
    while more := {key for key in new.keys() - changed if free_names(new[key], eager=True) & names}:
        changed, names = changed | more, names | {name for _, name in more}
    return changed


class Live:
    """The live stage as a running notebook sees it: ``from vswap_ref.series import live``."""

    def __init__(self) -> None:
        self.current: LiveStage | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.current is None:
            raise SeriesError("no live stage: begin the notebook with %load_ext vswap_ref.series and %stage K NOTEBOOK")
        return getattr(self.current, name)


live = Live()
