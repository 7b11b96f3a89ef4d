"""The experiment of the chapter on memory: what fork shares, and what a write copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vswap_ref.display import picture, table_html
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE

PAGES = 128


@dataclass(frozen=True, slots=True)
class ForkRecord:
    """Pages that the processes see together, page frames in use, and copies made by writing."""

    children: int
    written_percent: int
    seen: int
    frames: int
    copies: int

    def rows(self) -> list[dict[str, Any]]:
        """One row a figure."""
        return [
            {"what": "pages that all processes see together", "pages": self.seen},
            {"what": "page frames in use", "pages": self.frames},
            {"what": "of these copied on write", "pages": self.copies},
        ]

    def __repr__(self) -> str:
        return (
            f"{self.children} children, each writes {self.written_percent} %: {self.seen} pages seen, "
            f"{self.frames} frames in use, {self.copies} copied"
        )

    def _repr_html_(self) -> str:
        scale = 512 / self.seen
        alt = f"{self.frames} page frames hold {self.seen} pages of {self.children + 1} processes"
        parts = ((0, 512.0, "#88888844"), (0, self.frames * scale, "#2e9e5b"), (PAGES, self.copies * scale, "#e0912f"))
        bars = "".join(
            f"<rect x='{first * scale:.0f}' width='{width:.0f}' height='14' fill='{colour}'/>"
            for first, width, colour in parts
        )
        return table_html(self.rows()) + picture(bars, alt, 512, 16)


def fork_and_write(children: int = 3, written_percent: int = 25) -> ForkRecord:
    """A parent with 128 pages forks; each child writes a share of them."""
    kernel = kernel_class(0)(ram="16M")
    parent = kernel.spawn("parent")
    heap = parent.mmap(PAGES * PAGE_SIZE)
    for page in range(PAGES):
        heap.touch(page, write=True)
    family = [parent, *(parent.fork() for _ in range(children))]
    for child in family[1:]:
        for page in range(PAGES * written_percent // 100):
            child.mappings[0].touch(page, write=True)
    frames = kernel.system.memory.used
    return ForkRecord(children, written_percent, sum(p.rss for p in family) // PAGE_SIZE, frames, frames - PAGES)
