"""The literate engine: notebooks that define a series of versions of one package.

A text notebook (``notebooks/*.md``) mixes prose, experiments and *export cells*.  An export cell begins with
``%%patch mm/x.py``; each top-level function, class or constant in it, on lines of its own, defines or replaces that
name in that module, ``del name`` removes it, ``--after name`` gives its place.  ``%patch --delete MODULE``,
``--move mm/a.py:name mm/b.py`` and ``--rename old new`` list mechanical changes, one a line.  A rename follows in code,
docstrings and comments.

``series.toml`` orders the notebooks into stages, and the modules from bottom to top, floor by floor.  A stage's table
has ``id``, ``title``, ``notebooks``, and if needed ``parent`` (default: the stage before), ``above = { "vswap/lookup" =
"types" }`` (from this stage on mm/vswap/lookup.py stands right above types) and ``diffstat = "3 files, 10 insertions,
4 deletions"`` (the kernel patch's own, which ``%seal`` shows beside the model's).  A floor may name a module that a
stage has not yet, or no more.

* ``weave`` turns the cells of a stage into ordinary modules.  Cells import the standard library, NumPy and
  ``vswap_ref.machine`` only; imports between modules are written by ``weave``, which knows where every name lives.
  An unknown name, a name defined twice, or an import from above is an error with notebook, cell and line.
* ``stitch`` carries edits made in the woven package back into the cells that own the definitions, in whichever stage;
  a later rename is undone in them.  All stages are woven in memory first: nothing is written if one cannot be.
* ``at(k)`` loads any stage as real modules, beside all others.
* In a running notebook ``%stage K NOTEBOOK`` loads stage K without this notebook's own cells.  Every ``%%patch`` cell
  changes that live stage at once; ``live.Kernel`` boots it; ``%seal`` asserts that it equals the woven stage.

Modules, bottom to top: notebook (cells), source (definitions), tree (what cells do), weave, series (stages),
stitch, stages (importing), live_stage, magics.  Executing notebooks, and the commands, are in ``vswap_ref.workshop``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .notebook import SeriesError
from .stages import at

if TYPE_CHECKING:
    from .live_stage import live
    from .magics import load_ipython_extension

__all__ = ["SeriesError", "at", "live", "load_ipython_extension"]

_HOMES = {"live": "live_stage", "load_ipython_extension": "magics"}  # loaded when first used


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
