"""Stages as importable packages: ``vswap_ref._stages.s13.mm.zswap`` and the like.

Stage sources are real files: each distinct text once, in the folder of the first stage that has it; a manifest tells
which file is which module of which stage.  In a checkout they are made from the notebooks and made again when those
change; a wheel carries them inside the package.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import zlib
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import SeriesError

PACKAGE = Path(__file__).parent.parent
CHECKOUT = PACKAGE.parent
ROOT = "vswap_ref._stages"


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
    from .weave import weave_tree

    series = Series(root)
    manifest: dict[str, Any] = {"key": sources_key(root), "latest": series.latest, "stages": {}}
    known: dict[tuple[str, str], str] = {}
    for stage in series.stages.values():
        files: dict[str, str] = {}
        for path, text in weave_tree(series.tree(stage.id), series.floors).items():
            file = known.setdefault((path, text), f"s{stage.id}/{path}")
            target = folder / file
            if file.startswith(f"s{stage.id}/"):
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists() or target.read_text(encoding="utf-8") != text:
                    target.write_text(text, encoding="utf-8")
            files[path] = file
        manifest["stages"][stage.id] = {"title": stage.title, "modules": files}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


class StageStore:
    """Where the stages' files are, read or written when first needed."""

    def __init__(self) -> None:
        self.folder = PACKAGE / "_stages"
        self._manifest: dict[str, Any] | None = None

    @property
    def manifest(self) -> dict[str, Any]:
        """Stage -> module -> file; made from the notebooks if they have changed."""
        if self._manifest is None:
            self._manifest = self._load()
        return self._manifest

    def _load(self) -> dict[str, Any]:
        root = notebooks_root()
        if root is None:
            return dict(json.loads((self.folder / "manifest.json").read_text(encoding="utf-8")))
        self.folder = stages_cache()
        try:
            manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
            if manifest["key"] == sources_key(root):
                return dict(manifest)
        except (OSError, ValueError, KeyError):
            pass
        self.folder.mkdir(parents=True, exist_ok=True)
        return write_stages(root, self.folder)

    def file(self, stage: str, module: str) -> Path | None:
        """The file of a module of a stage, e.g. ("13", "mm/zswap.py")."""
        file = self.manifest["stages"].get(stage, {}).get("modules", {}).get(module)
        return self.folder / file if file else None


def stages_cache() -> Path:
    """Folder for generated stage sources: in the checkout's _build, or the user's cache if that cannot be written."""
    build = CHECKOUT / "_build"
    if os.access(build if build.exists() else CHECKOUT, os.W_OK):
        return build / "stages"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vswap_ref" / "stages"


store = StageStore()


class StageFinder:
    """Finds the modules below vswap_ref._stages (a meta path finder)."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for the root, a stage, its copy of the face, or one of its modules."""
        if fullname != ROOT and not fullname.startswith(ROOT + "."):
            return None
        parts = fullname[len(ROOT) + 1 :].split(".") if fullname != ROOT else []
        if len(parts) < 2:
            known = not parts or parts[0][1:] in store.manifest["stages"]
            return ModuleSpec(fullname, None, is_package=True) if known else None
        stage, module = parts[0][1:], "/".join(parts[1:])
        if module == "kernel":
            return importlib.util.spec_from_file_location(fullname, PACKAGE / "kernel.py")
        file = store.file(stage, f"{module}.py")
        if file is not None:
            return importlib.util.spec_from_file_location(fullname, file)
        file = store.file(stage, f"{module}/__init__.py")
        if file is None:
            return None
        return importlib.util.spec_from_file_location(fullname, file, submodule_search_locations=[str(file.parent)])


def install() -> None:
    """Make stages importable (once)."""
    if not any(isinstance(finder, StageFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, StageFinder())


class LoadedStage:
    """A loaded stage: ``.Kernel`` boots it, ``.mm`` and ``.kernel`` are its modules, ``.id`` and ``.title`` name it."""

    def __init__(self, stage_id: str) -> None:
        self.id = stage_id
        self.title: str = store.manifest["stages"][stage_id]["title"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("kernel", "mm"):
            return importlib.import_module(f"{ROOT}.s{self.id}.{name}")
        return getattr(importlib.import_module(f"{ROOT}.s{self.id}.kernel"), name)

    def module(self, name: str) -> ModuleType:
        """A module of the stage, e.g. "zswap"."""
        return importlib.import_module(f"{ROOT}.s{self.id}.mm.{name}")

    def __repr__(self) -> str:
        return f"<stage {self.id}: {self.title}>"


def at(stage_id: int | str) -> LoadedStage:
    """Stage ``stage_id`` of the series: 0 is Linux 6.19, k is that with the first k patches.

    Raises ValueError listing the stages that exist.
    """
    install()
    known = store.manifest["stages"]
    if str(stage_id) not in known:
        raise ValueError(f"stage={stage_id!r}: expected one of {', '.join(known)}")
    return LoadedStage(str(stage_id))


def checkout_series() -> Any:
    """The series of this checkout.  SeriesError in an installed wheel, which has no notebooks."""
    from .series import Series

    root = notebooks_root()
    if root is None:
        raise SeriesError("this needs a checkout with notebooks/; an installed package has none")
    return Series(root)
