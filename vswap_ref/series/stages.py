"""Stages as importable packages: ``vswap_ref._stages.s13.mm.zswap`` and the like.

Stage sources are real files: each distinct text once, in the folder of the first stage that has it; a manifest tells
which file is which module of which stage.  In a checkout they are made from the notebooks and made again when those
change; a wheel carries them inside the package.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from .notebook import SeriesError

PACKAGE = Path(__file__).parent.parent
CHECKOUT = PACKAGE.parent
ROOT = "vswap_ref._stages"


def dotted(path: str) -> str:
    """The name of a module in its package, from a path such as "mm/zswap.py"."""
    return path.removesuffix(".py").replace("/", ".")


def notebooks_root() -> Path | None:
    """The notebooks of a checkout; None in an installed wheel."""
    root = CHECKOUT / "notebooks"
    return root if (root / "series.toml").exists() else None


def sources_key(root: Path) -> str:
    """Checksum of everything that the stages' sources depend on: the notebooks, and the engine."""
    checksum = 0
    for path in (root / "series.toml", *sorted(root.glob("*.md")), *sorted(Path(__file__).parent.glob("*.py"))):
        checksum = zlib.crc32(path.name.encode() + path.read_bytes(), checksum)
    return f"{checksum:08x}"


def write_stages(root: Path, folder: Path) -> dict[str, Any]:
    """Write the sources of all stages of the series in ``root`` to ``folder``; returns the manifest."""
    from .series import Series

    series = Series(root)
    manifest: dict[str, Any] = {"key": sources_key(root), "stages": {}}
    known: dict[tuple[str, str], str] = {}
    for stage, texts in series.weave_all().items():
        files = {path: known.setdefault((path, text), f"s{stage}/{path}") for path, text in texts.items()}
        manifest["stages"][stage] = {"title": series.stages[stage].title, "modules": files}
    write_texts(folder, {file: text for (_, text), file in known.items()})
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write files, path -> text; those that have their text already are left alone."""
    for path, text in texts.items():
        target = folder / path
        if not target.exists() or target.read_bytes() != text.encode():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")


def stages_cache() -> Path:
    """Folder for generated stage sources: in the checkout's _build, or the user's cache if that cannot be written."""
    build = CHECKOUT / "_build"
    if os.access(build if build.exists() else CHECKOUT, os.W_OK):
        return build / "stages"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vswap_ref" / "stages"


@cache
def stage_files() -> tuple[dict[str, Any], Path]:
    """(manifest, folder of its files): stored in a wheel; made from a checkout's notebooks when they have changed."""
    root = notebooks_root()
    folder = PACKAGE / "_stages" if root is None else stages_cache()
    manifest: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if root is not None and manifest.get("key") != sources_key(root):
        manifest = write_stages(root, folder)
    return manifest, folder


def stages() -> dict[str, dict[str, Any]]:
    """Stage -> {"title": ..., "modules": {path: file}}."""
    return dict(stage_files()[0]["stages"])


def main_line() -> list[str]:
    """The stages with a number, in order; the others are variants."""
    return [stage for stage in stages() if stage.isdigit()]


def latest() -> str:
    """The last stage of the main line."""
    return main_line()[-1]


def stage_file(stage: str, path: str) -> Path | None:
    """The file of a module such as "mm/zswap.py" at a stage, or None; "kernel.py" is the same at all."""
    if path == "kernel.py":
        return PACKAGE / path
    manifest, folder = stage_files()
    file = manifest["stages"].get(stage, {"modules": {}})["modules"].get(path)
    return folder / file if file is not None else None


class StageFinder:
    """Finds the modules below vswap_ref._stages (a meta path finder)."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for the root, a stage, its copy of the face, or one of its modules."""
        if not f"{fullname}.".startswith(f"{ROOT}."):
            return None
        stage, *names = fullname[len(ROOT) + 1 :].split(".")
        if not names:
            known = not stage or stage[1:] in stages()
            return ModuleSpec(fullname, None, is_package=True) if known else None
        module = "/".join(names)
        file = stage_file(stage[1:], f"{module}.py")
        if file is not None:
            return spec_from_file_location(fullname, file)
        spec = spec_from_file_location(fullname, stage_file(stage[1:], f"{module}/__init__.py"))
        if spec is not None:
            spec.submodule_search_locations = []  # this finder knows what is in it; its folder may be an older stage's
        return spec


def install() -> None:
    """Make stages importable (once)."""
    if not any(isinstance(finder, StageFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, StageFinder())


class LoadedStage:
    """A loaded stage: ``.Kernel`` boots it, ``.mm`` and ``.kernel`` are its modules, ``.id`` and ``.title`` name it."""

    def __init__(self, stage_id: str) -> None:
        self.id = stage_id
        self.title: str = stages()[stage_id]["title"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("kernel", "mm"):
            return importlib.import_module(f"{ROOT}.s{self.id}.{name}")
        return getattr(importlib.import_module(f"{ROOT}.s{self.id}.kernel"), name)

    def module(self, name: str) -> ModuleType:
        """A module of the stage, e.g. "zswap"."""
        return importlib.import_module(f"{ROOT}.s{self.id}.mm.{name}")

    def modules(self) -> list[ModuleType]:
        """All modules of the stage's ``mm``."""
        names = [dotted(path.removeprefix("mm/")) for path in stages()[self.id]["modules"]]
        return [self.module(name) for name in names if not name.endswith("__init__")]

    def find(self, name: str) -> Any:
        """What a name stands for anywhere in the stage's ``mm``: names are unique.  AttributeError if there is none."""
        for module in self.modules():
            if name in vars(module):
                return vars(module)[name]
        raise AttributeError(f"stage {self.id} has no {name!r} in mm/")

    def sources(self) -> dict[str, str]:
        """Path -> text of the stage's modules and its face: a package that can be written to a folder."""
        files = {path: stage_file(self.id, path) for path in (*stages()[self.id]["modules"], "kernel.py")}
        return {path: file.read_text(encoding="utf-8") for path, file in files.items() if file} | {"__init__.py": ""}

    def __repr__(self) -> str:
        return f"<stage {self.id}: {self.title}>"


def at(stage_id: int | str) -> LoadedStage:
    """Stage ``stage_id`` of the series: 0 is Linux 6.19, k is that with the first k patches.

    Raises ValueError listing the stages that exist.
    """
    known = stages()
    if str(stage_id) not in known:
        raise ValueError(f"stage={stage_id!r}: expected one of {', '.join(known)}")
    return LoadedStage(str(stage_id))


def checkout_series() -> Any:
    """The series of this checkout as it is now.  SeriesError in an installed wheel, which has no notebooks."""
    root = notebooks_root()
    if root is None:
        raise SeriesError("this needs a checkout with notebooks/; an installed package has none")
    return series_of(root, sources_key(root))


@lru_cache(maxsize=2)
def series_of(root: Path, key: str) -> Any:
    """The series of a folder whose files have a checksum: the same one until they change."""
    from .series import Series

    return Series(root)
