"""Experiments of the chapter on clusters: fragmentation, CPUs side by side, slots taken back, scattered files."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from vswap_ref.display import ClusterMap, OneRow, table_html
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Disk, Ssd, SwapFile

from .slots import push_out

SLOTS = 2048
ORDERS = (0, 1, 2, 3, 4, 6, 9)
PATTERNS: dict[str, Callable[[int], bool]] = {
    "random half": lambda slot: random.Random(slot).random() < 0.5,
    "random nine tenths": lambda slot: random.Random(slot).random() < 0.9,
    "every second": lambda slot: slot % 2 == 0,
    "16 of every 32": lambda slot: slot % 32 < 16,
    "the first half": lambda slot: slot < SLOTS // 2,
}
"""Which slots of a full device are freed."""


@dataclass(frozen=True, slots=True)
class Fragmentation:
    """A device that was full of single pages, some of which were freed."""

    pattern: str
    clusters: ClusterMap

    @property
    def free(self) -> int:
        """Slots free."""
        return self.clusters.counts().get("free", 0)

    def runs(self, order: int) -> int:
        """Aligned free runs of ``2**order`` slots."""
        return sum(row["runs"][order] for row in self.clusters.rows)

    def room(self, order: int) -> int:
        """Folios of this order for which the allocator would find slots: its clusters take part in the decision."""
        return sum(row["runs"][order] for row in self.clusters.rows if row["usable"][order])

    def rows(self) -> list[dict[str, object]]:
        """One row an order."""
        return [
            {
                "order": order,
                "pages": 1 << order,
                "free slots / pages": self.free >> order,
                "aligned runs": self.runs(order),
                "that the allocator takes": self.room(order),
            }
            for order in ORDERS
        ]

    def __repr__(self) -> str:
        rooms = ", ".join(f"{self.runs(order)}/{self.room(order)}" for order in ORDERS)
        return f"{self.pattern} freed, {self.free} slots free: runs/room by order {rooms}"

    def _repr_html_(self) -> str:
        return self.clusters._repr_html_() + table_html(self.rows())


def fragment(pattern: str = "random half") -> Fragmentation:
    """Fill 2048 slots with single pages, free those of a pattern, and ask what would still fit."""
    kernel = kernel_class(0)(ram="32M", swap=[Ssd(SLOTS * PAGE_SIZE)], cpus=1)
    app = kernel.spawn("app")
    pieces = [app.mmap(PAGE_SIZE) for _ in range(SLOTS - 1)]
    push_out(kernel, pieces)
    for slot, piece in enumerate(pieces, 1):
        if PATTERNS[pattern](slot):
            piece.munmap()
    return Fragmentation(pattern, kernel.clusters(0))


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Clusters in use after several CPUs have swapped in turns."""

    device: str
    cpus: int
    clusters: ClusterMap

    @property
    def used(self) -> list[int]:
        """Slots in use, cluster by cluster."""
        return [row["count"] for row in self.clusters.rows]

    def __repr__(self) -> str:
        return f"{self.device}, {self.cpus} CPUs: in use {self.used}"

    def _repr_html_(self) -> str:
        return self.clusters._repr_html_()


def side_by_side(device: str = "ssd", cpus: int = 2) -> SideBySide:
    """Processes on different CPUs swap out single pages in turns, 300 in all, to a device of eight clusters."""
    kernel = kernel_class(0)(ram="32M", swap=[{"ssd": Ssd, "disk": Disk}[device]("16M")], cpus=cpus)
    apps = [kernel.spawn(f"app {cpu}", cpu=cpu) for cpu in range(cpus)]
    push_out(kernel, [apps[number % cpus].mmap(PAGE_SIZE) for number in range(300)])
    return SideBySide(device, cpus, kernel.clusters(0))


@dataclass(frozen=True, slots=True)
class TakenBack:
    """How many pages a device of 1023 slots took although it kept slots for pages that are back in memory."""

    read_back: int
    kept: int
    placed: int
    taken_back: int
    clusters: ClusterMap

    def __repr__(self) -> str:
        return (
            f"{self.kept} slots kept for pages in memory; {self.placed} of 600 new pages got a slot, "
            f"{self.taken_back} slots were taken back for them"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.clusters._repr_html_()}"


def take_back(read_back: int = 100) -> TakenBack:
    """Swap 500 pages out, read some back (their slots are kept), then swap 600 new pages out: 1100 for 1023 slots."""
    kernel = kernel_class(0)(ram="32M", swap=[Ssd("4M")], cpus=1, page_cluster=0)
    app = kernel.spawn("app")
    old = [app.mmap(PAGE_SIZE) for _ in range(500)]
    push_out(kernel, old)
    for piece in old[:read_back]:
        piece.touch(0)
    kept = kernel.clusters(0).counts().get("cached", 0)
    new = [app.mmap(PAGE_SIZE) for _ in range(600)]
    for number, piece in enumerate(new):
        piece[0:4] = number.to_bytes(4, "little")
        app.madvise(piece, "pageout")
    kernel.drain()
    placed = sum(piece.where()[0] != "resident" for piece in new)
    taken = sum(piece.where()[0] == "resident" for piece in old)
    return TakenBack(read_back, kept, placed, taken, kernel.clusters(0))


@dataclass(frozen=True, slots=True)
class ScatteredFile(OneRow):
    """A swap file in some number of pieces on a rotating disk, and how long 512 pages took."""

    pieces: int
    extents: int
    write_ms: float
    read_ms: float

    def row(self) -> dict[str, object]:
        """As a row of a table."""
        return {
            "pieces": self.pieces,
            "extents": self.extents,
            "write, virtual ms": round(self.write_ms),
            "read, virtual ms": round(self.read_ms),
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())


def scatter(pieces: int = 16) -> ScatteredFile:
    """Put a file of 1024 pages on a disk in equal pieces, in mixed order; swap 512 pages out and in, in order."""
    disk = Disk("64M")
    length = 1024 // pieces
    places = list(range(pieces))
    random.Random(7).shuffle(places)
    file = SwapFile("4M", on=disk, fragments=[(place * (disk.pages // pieces), length) for place in places])
    kernel = kernel_class(0)(ram="32M", swap=[file])
    heap = kernel.spawn("app").mmap(512 * PAGE_SIZE)
    for page in range(heap.pages):
        heap.write_page(page, bytes((1 + page % 255,)) * PAGE_SIZE)
    begin = kernel.clock.ns
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("4M")
    written = kernel.clock.ns
    for page in range(heap.pages):
        heap.touch(page)
    extents = len(kernel.system.swap.info[0].swap_extents)
    return ScatteredFile(pieces, extents, (written - begin) / 1e6, (kernel.clock.ns - written) / 1e6)
