"""Experiments of the chapter on swapoff and hibernation: what the walk costs, where an image lies."""

from __future__ import annotations

from dataclasses import dataclass

from vswap_ref.display import ClusterMap, picture, table_html
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Ssd


@dataclass(frozen=True, slots=True)
class WalkRecord:
    """One swapoff: what was mapped, what was on the device, and what was read to bring it back."""

    processes: int
    mapped: int
    slots: int
    ptes: int

    def row(self) -> dict[str, object]:
        """As a row of a table."""
        return {
            "processes": self.processes,
            "pages mapped": self.mapped,
            "slots in use": self.slots,
            "page-table entries read": self.ptes,
            "read per slot": round(self.ptes / max(1, self.slots), 1),
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())

    def _repr_html_(self) -> str:
        return table_html([self.row()]) + walk_bars(self)


def walk_bars(record: WalkRecord) -> str:
    """Slots in use and page-table entries read, as two bars of one scale."""
    parts = (("slots in use", record.slots, "#e0912f"), ("entries read", record.ptes, "#3a66c4"))
    longest = max(1, record.slots, record.ptes)
    bars = "".join(
        f"<text x='0' y='{15 + 24 * line}' fill='currentColor' font-size='13'>{name}</text>"
        f"<rect x='110' y='{2 + 24 * line}' width='{max(1.0, 500 * nr / longest):.1f}' height='18' fill='{colour}'/>"
        for line, (name, nr, colour) in enumerate(parts)
    )
    alt = f"{record.slots} slots in use, {record.ptes} page-table entries read"
    return picture(bars, alt, 620, 50)


def walk(mapped_mib: int = 16, swapped_pages: int = 64, processes: int = 2) -> WalkRecord:
    """Processes touch all of their memory and swap ``swapped_pages`` out between them; then the device is switched off.

    Each process maps ``mapped_mib`` MiB and swaps at least one page.
    """
    kernel = kernel_class(0)(ram=(processes * mapped_mib + 8) << 20, swap=[Ssd("64M")], cpus=1)
    heaps = [kernel.spawn(f"app {number}").mmap(mapped_mib << 20) for number in range(processes)]
    for heap in heaps:
        for page in range(heap.pages):
            heap.touch(page, write=True)
        share = max(1, min(heap.pages, swapped_pages // processes))
        heap.process.madvise(heap, "pageout", 0, share * PAGE_SIZE)
    kernel.drain()
    slots = kernel.swaps().rows[0]["Used"] // PAGE_SIZE
    kernel.swapoff(0)
    return WalkRecord(processes, sum(heap.pages for heap in heaps), slots, kernel.system.swap.ptes_visited)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A device with an image of memory among swapped-out pages."""

    pages: int
    runs: int
    intact: bool
    clusters: ClusterMap

    def __repr__(self) -> str:
        return (
            f"{self.pages} pages saved in {self.runs} runs of slots; slots: {self.clusters.counts()}; "
            f"image intact after reclaim: {self.intact}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.clusters._repr_html_()}"


def hibernate(pages: int = 300, every: int = 3) -> ImageRecord:
    """Swap 600 pages out, free every n-th slot (0: none), save ``pages`` pages of memory, then reclaim hard."""
    kernel = kernel_class(0)(ram="16M", swap=[Ssd("8M")], cpus=1)
    app = kernel.spawn("app")
    pieces = [app.mmap(PAGE_SIZE) for _ in range(600)]
    heap = app.mmap(600 * PAGE_SIZE)
    for number, piece in enumerate(pieces, 1):
        piece[0:4] = number.to_bytes(4, "little")
        heap.write_page(number - 1, number.to_bytes(4, "little") * (PAGE_SIZE // 4))
        app.madvise(piece, "pageout")
    kernel.drain()
    kernel.reclaim(600 * PAGE_SIZE // 2)
    for piece in pieces[::every] if every else ():
        piece.munmap()
    with kernel.hibernate(min(pages, kernel.system.memory.used)) as image:
        saved = image.read()
        app.madvise(heap, "pageout", 0, 200 * PAGE_SIZE)
        kernel.drain()
        kernel.reclaim("4M")
        runs = len(kernel.system.power.swsusp_extents)
        return ImageRecord(image.pages, runs, image.read() == saved, kernel.clusters(0))
