"""The live stage of a notebook: running a ``%%patch`` cell changes it at once.

It begins as the notebook's stage without the notebook's own definitions.  Modules are executed definition by
definition; every name is bound in each module that uses it, so that replacing one replaces it everywhere.
"""

from __future__ import annotations

import importlib
import linecache
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import SeriesError
from .notebook import Cell
from .series import Series
from .source import Definition, Import, free_names
from .stages import PACKAGE, ROOT, install
from .tree import Change, Tree, apply_cell, symbols


class StaleKernelError(RuntimeError):
    """This kernel was booted before one of its classes was replaced."""


class StaleKernel:
    """What a kernel becomes when a class under it is replaced: any use says so."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__hash__", "__eq__", "__weakref__"):
            return object.__getattribute__(self, name)
        raise StaleKernelError("a class of this kernel was replaced after it was booted: boot a new Kernel")


class LiveStage:
    """A stage under construction."""

    def __init__(self, series: Series, stage_id: str, notebook: str) -> None:
        stage = series.stage(stage_id)
        if notebook not in stage.notebooks:
            raise SeriesError(f"{notebook!r} is no notebook of stage {stage_id}: {', '.join(stage.notebooks)}")
        self.series, self.stage, self.notebook = series, stage, notebook
        self.package = f"{ROOT}.live_{notebook.replace('-', '_')}"
        self.tree: Tree = series.tree(stage_id, without=notebook)
        self.changes: list[Change] = []
        self.missing: dict[tuple[str, str], str] = {}
        self._kernel: ModuleType | None = None
        self._make_packages()
        for path in self.tree:
            self._module(path)
        self._execute_all()

    def apply(self, cell: Cell) -> list[Change]:
        """Run an export cell: change the sources and the running system."""
        changes = apply_cell(self.tree, cell)
        symbols(self.tree)
        self.changes += changes
        for change in changes:
            self._run_change(change)
        self._retry_missing()
        if any(self._is_state(change) for change in changes if change.verb == "replaced"):
            self._mark_stale()
        return changes

    @property
    def kernel(self) -> ModuleType:
        """The face on this stage.  SeriesError while definitions are missing, naming them."""
        if self.missing:
            names = ", ".join(sorted({f"{name} (needed by {key[1]})" for key, name in self.missing.items()}))
            raise SeriesError(f"this stage is not complete yet, run the %%patch cells first; missing: {names}")
        if self._kernel is None:
            self._kernel = self._load_kernel()
        return self._kernel

    @property
    def Kernel(self) -> Any:
        """Boots this stage."""
        return self.kernel.Kernel

    def module(self, name: str) -> ModuleType:
        """A module of the live stage, e.g. "zswap"."""
        return sys.modules[f"{self.package}.mm.{name}"]

    def _make_packages(self) -> None:
        """The packages above the modules; an earlier live stage of this notebook is forgotten."""
        install()
        for name in [name for name in sys.modules if name.startswith(self.package)]:
            del sys.modules[name]
        for name in (self.package, f"{self.package}.mm"):
            package = ModuleType(name)
            package.__path__ = []
            sys.modules[name] = package

    def _module(self, path: str) -> ModuleType:
        """The module of a path, made if missing."""
        name = f"{self.package}.{path.removesuffix('.py').replace('/', '.')}"
        if name not in sys.modules:
            module = ModuleType(name, self.tree[path].docstring)
            module.__file__ = f"<live {path}>"
            sys.modules[name] = module
            parent, _, short = name.rpartition(".")
            setattr(sys.modules[parent], short, module)
        return sys.modules[name]

    def _execute_all(self) -> None:
        """Execute every definition, lower floors first, so that few have to wait."""
        order = {f"mm/{name}.py": n for n, names in enumerate(self.series.floors) for name in names}
        for path in sorted(self.tree, key=lambda path: order.get(path, 0)):
            for owned in self.tree[path].definitions.values():
                self._execute(path, owned.definition)
        self._retry_missing()

    def _execute(self, path: str, definition: Definition) -> None:
        """Execute one definition in its module and bind it where it is used; note what it misses."""
        module = self._module(path)
        missing = self._bind_needs(path, definition)
        file = f"<live {path}:{definition.name}>"
        text = "from __future__ import annotations\n" + definition.text + "\n"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        try:
            exec(compile(text, file, "exec"), module.__dict__)
        except NameError as error:
            self.missing[(path, definition.name)] = error.name or str(error)
            return
        if missing:
            self.missing[(path, definition.name)] = missing
        self._bind_everywhere(definition.name, getattr(module, definition.name))

    def _bind_needs(self, path: str, definition: Definition) -> str | None:
        """Give a module the imported and neighbouring names that a definition uses; returns one that is missing."""
        missing = None
        namespace = self._module(path).__dict__
        homes = symbols(self.tree)
        for name in free_names(definition.text):
            if name in self.tree[path].imports:
                namespace[name] = resolve_import(self.tree[path].imports[name])
            elif name in homes and homes[name] != path and hasattr(self._module(homes[name]), name):
                namespace[name] = getattr(self._module(homes[name]), name)
            elif name not in namespace and name not in homes and not is_builtin(name):
                missing = name
        return missing

    def _bind_everywhere(self, name: str, value: object) -> None:
        """Rebind a name in every other module whose definitions use it."""
        for path, module in self.tree.items():
            if name in module.definitions or name == "__all__":
                continue
            if any(name in owned.definition.text for owned in module.definitions.values()):
                self._module(path).__dict__[name] = value

    def _retry_missing(self) -> None:
        """Execute what had to wait, as long as that helps; then note names that functions still miss."""
        before = -1
        while self.missing and len(self.missing) != before:
            before = len(self.missing)
            for path, name in list(self.missing):
                if path in self.tree and name in self.tree[path].definitions:
                    self.missing.pop((path, name))
                    self._execute(path, self.tree[path].definitions[name].definition)
                else:
                    self.missing.pop((path, name))

    def _run_change(self, change: Change) -> None:
        """Bring the running system up to date with one change."""
        if change.module in self.tree and change.name in self.tree[change.module].definitions:
            self._execute(change.module, self.tree[change.module].definitions[change.name].definition)
        elif change.verb == "removed":
            name = f"{self.package}.{change.module.removesuffix('.py').replace('/', '.')}"
            if name in sys.modules:
                sys.modules[name].__dict__.pop(change.name, None)

    def _is_state(self, change: Change) -> bool:
        """True if a change replaces a class or a constant, under which old objects are of the wrong shape."""
        return self.tree[change.module].definitions[change.name].definition.kind != "FunctionDef"

    def _mark_stale(self) -> None:
        """Kernels booted so far must not be used any more."""
        if self._kernel is not None:
            for kernel in list(self._kernel.booted):
                kernel.__class__ = StaleKernel
            self._kernel = None

    def _load_kernel(self) -> ModuleType:
        """The face's text, executed on top of this stage."""
        path = PACKAGE / "kernel.py"
        module = ModuleType(f"{self.package}.kernel")
        module.__file__, module.__package__ = str(path), self.package
        sys.modules[module.__name__] = module
        exec(compile(Path(path).read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
        return module


def is_builtin(name: str) -> bool:
    """True for names that are always there."""
    from .weave import BUILTINS

    return name in BUILTINS


def resolve_import(item: Import) -> object:
    """The object that an import binds."""
    module = importlib.import_module(item.module)
    if item.name is not None:
        return getattr(module, item.name)
    return module if item.local != item.module.partition(".")[0] else importlib.import_module(item.local)


class Live:
    """The live stage of this session, as notebooks see it: ``from vswap_ref.series import live``."""

    def __init__(self) -> None:
        self.current: LiveStage | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.current is None:
            raise SeriesError("no live stage: begin the notebook with %load_ext vswap_ref.series and %stage K NOTEBOOK")
        return getattr(self.current, name)


live = Live()
