"""How a structure lies in memory: its fields with their offsets, and the holes between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vswap_ref.display import COLOURS, LEDGER_COLOURS, escape, picture, table_html, table_text

HOLE = "(hole)"


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a structure in the order of their offsets: (offset, bytes, name); fields of a union share a part."""

    name: str
    parts: list[tuple[int, int, str]]
    size: int

    @property
    def holes(self) -> int:
        """Bytes that no field uses."""
        return sum(size for _, size, name in self.parts if name == HOLE)

    def rows(self) -> list[dict[str, Any]]:
        """A row a part."""
        return [{"offset": offset, "bytes": size, "field": name} for offset, size, name in self.parts]

    def __repr__(self) -> str:
        return f"{table_text(self.rows())}\n{self.name}: {self.size} bytes, {self.holes} of them in holes"

    def _repr_html_(self) -> str:
        width, parts = 20 * self.size, []
        for number, (offset, size, name) in enumerate(self.parts):
            colour = COLOURS["hole"] if name == HOLE else LEDGER_COLOURS[number % len(LEDGER_COLOURS)]
            parts.append(
                f"<rect x='{20 * offset}' width='{20 * size - 1}' height='18' fill='{colour}'>"
                f"<title>{escape(name)}</title></rect>"
            )
        bar = picture("".join(parts), f"{self.name}, a square a byte: " + self.text(), width, 18)
        total = f"<p>{self.name}: {self.size} bytes, {self.holes} of them in holes</p>"
        return f"{bar}{table_html(self.rows())}{total}"

    def text(self) -> str:
        """The parts in a line."""
        return ", ".join(f"{name} {size} at {offset}" for offset, size, name in self.parts)


def pahole(dtype: np.dtype[Any], name: str = "swp_desc") -> Layout:
    """The layout of a structured dtype.  Fields that share bytes are one part, a union: "slot | zswap_entry"."""
    if dtype.fields is None:
        raise ValueError(f"dtype {dtype} has no fields: give a structured one")
    parts: list[tuple[int, int, str]] = []
    end = 0
    for field, (kind, offset, *_) in sorted(dtype.fields.items(), key=lambda item: item[1][1]):
        if offset < end:
            first, size, names = parts[-1]
            end = max(end, offset + kind.itemsize)
            parts[-1] = (first, max(size, end - first), f"{names} | {field}")
            continue
        if offset > end:
            parts.append((end, offset - end, HOLE))
        parts.append((offset, kind.itemsize, field))
        end = offset + kind.itemsize
    if end < dtype.itemsize:
        parts.append((end, dtype.itemsize - end, HOLE))
    return Layout(name, parts, dtype.itemsize)
