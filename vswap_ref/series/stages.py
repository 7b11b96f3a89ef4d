"""Stages as importable packages: ``vswap_ref._stages.s13.mm.zswap`` and the like.

A stage is a folder of ordinary Python: its modules, and a copy of the face.  In a checkout all of them are made from
the notebooks, and made again when those change; a wheel carries them inside the package.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from functools import cache, cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from .notebook import SeriesError

PACKAGE = Path(__file__).parent.parent
CHECKOUT = PACKAGE.parent
BUILD = CHECKOUT / "_build" / "stages"
FACE = "kernel.py"


def notebooks_root() -> Path | None:
    """The notebooks of a checkout; None in an installed wheel."""
    root = CHECKOUT / "notebooks"
    return root if (root / "series.toml").exists() else None


def sources_key(root: Path) -> str:
    """Checksum of everything that the stages' sources depend on: the notebooks, the face, and the engine."""
    engine = sorted(Path(__file__).parent.glob("*.py"))
    files = [root / "series.toml", *sorted(root.glob("*.md")), PACKAGE / FACE, *engine]
    return f"{zlib.crc32(b''.join(path.name.encode() + path.read_bytes() for path in files)):08x}"


def write_stages(root: Path, folder: Path) -> dict[str, str]:
    """Write each stage of the series in ``root`` as a package s0, s1, ... in ``folder``; returns stage -> title."""
    key = sources_key(root)
    series = series_of(root, key)
    face = {"__init__.py": "", FACE: (PACKAGE / FACE).read_text(encoding="utf-8")}
    for stage, texts in series.weave_all().items():
        write_texts(folder / f"s{stage}", texts | face)
    titles = {stage.id: stage.title for stage in series.stages.values()}
    (folder / "titles.json").write_text(json.dumps(titles, indent=1), encoding="utf-8")
    (folder / "key").write_text(key, encoding="utf-8")
    return titles


def differing(folder: Path, texts: Mapping[str, str]) -> list[str]:
    """Paths of the modules in a folder that differ from these texts, or should not exist."""
    wanted = {path: text.encode() for path, text in texts.items()}
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.py")}
    return sorted(path for path in {*wanted, *found} if wanted.get(path) != found.get(path))


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[str]:
    """Let a folder have these modules, path -> text, and no others; returns the paths where it had not."""
    changed = differing(folder, texts)
    for path in changed:
        if path in texts:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(texts[path], encoding="utf-8")
        else:
            (folder / path).unlink(missing_ok=True)
    return changed


@cache
def stage_files() -> tuple[Path, dict[str, str]]:
    """(folder of all stages, stage -> title): stored in a wheel; made from a checkout's notebooks if they changed."""
    root = notebooks_root()
    folder = PACKAGE / "_stages" if root is None else BUILD
    key = folder / "key"
    if root is not None and not (key.exists() and key.read_text(encoding="utf-8") == sources_key(root)):
        return folder, write_stages(root, folder)
    return folder, json.loads((folder / "titles.json").read_text(encoding="utf-8"))


def stages() -> dict[str, str]:
    """Stage -> title."""
    return stage_files()[1]


def main_line() -> list[str]:
    """The stages with a number, in order; the others are variants."""
    return [stage for stage in stages() if stage.isdigit()]


def latest() -> str:
    """The last stage of the main line."""
    return main_line()[-1]


class LoadedStage:
    """A loaded stage: ``.Kernel`` boots it, ``.kernel`` is its face, ``.id`` and ``.title`` name it."""

    def __init__(self, stage_id: str) -> None:
        self.id, self.title = stage_id, stages()[stage_id]
        self.package, self.folder = f"vswap_ref._stages.s{stage_id}", stage_files()[0] / f"s{stage_id}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        kernel = import_module(f"{self.package}.kernel")
        return kernel if name == "kernel" else getattr(kernel, name)

    @cached_property
    def paths(self) -> list[str]:
        """Its files, such as "mm/zswap.py", in order."""
        return sorted(file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*.py"))

    def module(self, name: str) -> ModuleType:
        """A module of the stage, e.g. "zswap"."""
        return import_module(f"{self.package}.mm.{name}")

    def modules(self) -> list[ModuleType]:
        """All modules of the stage's ``mm``."""
        names = [path[3:-3].replace("/", ".") for path in self.paths if path.startswith("mm/")]
        return [self.module(name) for name in names if not name.endswith("__init__")]

    def find(self, name: str) -> Any:
        """What a name stands for anywhere in the stage's ``mm``: names are unique.  AttributeError if there is none."""
        for module in self.modules():
            if name in vars(module):
                return vars(module)[name]
        raise AttributeError(f"stage {self.id} has no {name!r} in mm/")

    def sources(self) -> dict[str, str]:
        """Path -> text of the stage's modules and its face: a package that can be written to a folder."""
        return {path: (self.folder / path).read_text(encoding="utf-8") for path in self.paths}

    def __repr__(self) -> str:
        return f"<stage {self.id}: {self.title}>"


def at(stage_id: int | str) -> LoadedStage:
    """Stage ``stage_id`` of the series: 0 is Linux 6.19, k is that with the first k patches.

    Raises ValueError listing the stages that exist.
    """
    if str(stage_id) not in stages():
        raise ValueError(f"stage={stage_id!r}: expected one of {', '.join(stages())}")
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
