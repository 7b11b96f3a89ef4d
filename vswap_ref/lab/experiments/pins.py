"""How often one page fault pins a swap device: an experiment of the chapter on locking out swapoff."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vswap_ref.display import picture
from vswap_ref.machine import PAGE_SIZE, PercpuRef, Ssd
from vswap_ref.series import at

WINDOW = 8
TARGET = 8


class CountedRef(PercpuRef):
    """A device's reference counter that knows how often it was taken."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        super().__init__()
        self.live, self.taken = True, 0

    def tryget(self) -> bool:
        """Take a reference, and count."""
        self.taken += super().tryget()
        return self.live


@dataclass(frozen=True, slots=True)
class Pins:
    """Pins that one fault took on the device of its page and on the other one."""

    stage: int | str
    elsewhere: int
    here: int
    there: int
    left: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "stage": str(self.stage),
            "pages of the window elsewhere": self.elsewhere,
            "pins here": self.here,
            "pins there": self.there,
            "not given back": self.left,
        }

    def __repr__(self) -> str:
        return (
            f"stage {self.stage}, {self.elsewhere} of {WINDOW} pages on another device: "
            f"{self.here} + {self.there} pins, {self.left} not given back"
        )

    def _repr_html_(self) -> str:
        cells = [(n < WINDOW - self.elsewhere, n) for n in range(WINDOW)]
        pages = "".join(
            f"<rect x='{n * 30}' width='26' height='20' fill='{'#3f6fb0' if home else '#e0912f'}'/>"
            for home, n in cells
        )
        pins = "".join(
            f"<circle cx='{13 + n * 30}' cy='34' r='6' fill='{'#3f6fb0' if n < self.here else '#e0912f'}'/>"
            for n in range(self.here + self.there)
        )
        svg = picture(pages + pins, repr(self), 400, 44)
        return f"<p>{self!r}. Squares: pages of the window; dots: pins.</p>{svg}"


def fault_pins(elsewhere: int = 0, stage: int | str = 3) -> Pins:
    """One fault with a readahead window of 8 swapped-out pages, some of them on a second device; count its pins."""
    kernel = at(stage).Kernel(ram="4M", swap=[Ssd("4M", name="first")], page_cluster=3)
    app = kernel.spawn("app")
    heap = app.mmap(16 * PAGE_SIZE)
    for page in range(heap.pages):
        heap[page * PAGE_SIZE] = page + 1
    neighbours = [page for page in range(TARGET + 4, TARGET - 4, -1) if page != TARGET]
    foreign = neighbours[:elsewhere]
    for page in set(range(heap.pages)) - set(foreign):
        app.madvise(heap, "pageout", page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
    kernel.swapon(Ssd("4M", name="second"), priority=5)
    app.cpu = 1  # this CPU has no hint to the first device yet
    for page in foreign:
        app.madvise(heap, "pageout", page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
    kernel.drain()
    kernel.reclaim("1M")
    counters = [CountedRef(), CountedRef()]
    for si, counter in zip(kernel.system.swap.info, counters, strict=True):
        si.users = counter
    heap.touch(TARGET)
    here, there = counters
    return Pins(stage, elsewhere, here.taken, there.taken, here.count + there.count)
