"""Access traces: which pages a program touched, in order, and whether it wrote."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vswap_ref.display import picture

from .corpus import data_path

PICTURE_COLUMNS, PICTURE_ROWS = 160, 60


@dataclass(frozen=True, slots=True, eq=False)
class AccessTrace:
    """``page``: uint32 page numbers from 0; ``write``: bool, a store; in order of time."""

    name: str
    page: npt.NDArray[np.uint32]
    write: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.page)

    @property
    def pages(self) -> int:
        """Highest page number plus one: the size of the mapping that the trace needs."""
        return int(self.page.max()) + 1

    @property
    def footprint(self) -> int:
        """Number of different pages."""
        return len(np.unique(self.page))

    def __repr__(self) -> str:
        share = 100 * self.write.mean()
        return f"<AccessTrace {self.name}: {len(self):,} accesses to {self.footprint:,} pages, {share:.0f} % stores>"

    def _repr_html_(self) -> str:
        return f"<div>{repr(self)[1:-1]}</div>{trace_svg(self)}"


def trace_svg(trace: AccessTrace) -> str:
    """Time to the right, page number downward; a dot where something was accessed."""
    x = np.arange(len(trace), dtype=np.int64) * PICTURE_COLUMNS // len(trace)
    y = trace.page.astype(np.int64) * PICTURE_ROWS // trace.pages
    cells = np.unique(y * PICTURE_COLUMNS + x)
    dots = "".join(
        f"<rect x='{c % PICTURE_COLUMNS * 4}' y='{c // PICTURE_COLUMNS * 4}' width='4' height='4'/>" for c in cells
    )
    alt = f"pages accessed over time in the trace {trace.name}: time to the right, page number downward"
    return picture(f"<g fill='currentColor'>{dots}</g>", alt, PICTURE_COLUMNS * 4, PICTURE_ROWS * 4)


def traces() -> dict[str, dict[str, Any]]:
    """What ships: name -> job, events, pages."""
    return dict(json.loads(data_path("access", "manifest.json").read_text(encoding="utf-8")))


def load_trace(source: str | Path | AccessTrace) -> AccessTrace:
    """A trace that ships, by name, or from a file: .npz with ``page`` and ``write``, or text lines ``r 12``, ``w 7``.

    ValueError naming file, line and what is legal; FileNotFoundError.
    """
    if isinstance(source, AccessTrace):
        return source
    if str(source) in traces():
        return read_npz(data_path("access", f"{source}.npz"))
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}, and no trace of that name ships; there are {', '.join(traces())}")
    return read_npz(path) if path.suffix == ".npz" else read_text(path)


def read_npz(path: Path) -> AccessTrace:
    """The NumPy form."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: no .npz file, which is a zip archive of arrays")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            page, write = arrays["page"], arrays["write"]
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path}: expected an .npz file with arrays page and write: {error}") from None
    return checked(path, page, write)


def checked(path: Path, page: npt.NDArray[Any], write: npt.NDArray[Any]) -> AccessTrace:
    """A trace from arrays that make sense."""
    if page.ndim != 1 or page.shape != write.shape or not len(page):
        raise ValueError(f"{path}: page and write must be one-dimensional, of equal length and not empty")
    if page.dtype.kind not in "ui" or page.min() < 0 or page.max() >= 1 << 32:
        raise ValueError(f"{path}: page must hold integers from 0 to 2**32 - 1")
    return AccessTrace(path.stem, page.astype(np.uint32), write.astype(bool))


def read_text(path: Path) -> AccessTrace:
    """The text form: one access a line, ``r PAGE`` or ``w PAGE``; ``#`` begins a comment."""
    pages: list[int] = []
    writes: list[bool] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or words[0] not in ("r", "w") or not words[1].isdecimal():
            raise ValueError(f"{path}, line {number}: {line!r}: expected 'r PAGE' or 'w PAGE'")
        pages.append(int(words[1]))
        writes.append(words[0] == "w")
    return checked(path, np.array(pages, np.int64), np.array(writes, bool))
