"""The first experiment: push pages out and see where they are, and what the disk has to do with it."""

from __future__ import annotations

from dataclasses import dataclass

from vswap_ref.display import PageMap
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Ssd

PAGES = 400


@dataclass(frozen=True, slots=True)
class FirstSteps:
    """Where 400 pages are after some were pushed out; slots in use and pages written to the device."""

    places: PageMap
    slots: int
    written: int

    def __repr__(self) -> str:
        return f"{self.places.counts()}, {self.slots} slots in use, {self.written} pages written to the device"

    def _repr_html_(self) -> str:
        figures = f"<p><b>{self.slots}</b> slots in use, <b>{self.written}</b> pages written to the device</p>"
        return self.places._repr_html_() + figures


def first_steps(ram: str = "8M", zswap: str = "lz4", pushed_out: int = 300) -> FirstSteps:
    """Write 400 pages, every fourth of them zero, and push the first ``pushed_out`` out of memory."""
    kernel = kernel_class(0)(ram=ram, swap=[Ssd("32M")], zswap=zswap)
    heap = kernel.spawn("app").mmap(PAGES * PAGE_SIZE)
    for page in range(PAGES):
        heap.write_page(page, f"page {page:04d} ".encode() * 409 + bytes(6) if page % 4 else bytes(PAGE_SIZE))
    heap.process.madvise(heap, "pageout", 0, pushed_out * PAGE_SIZE)
    kernel.drain()
    used = kernel.swaps().rows[0]["Used"] // PAGE_SIZE
    return FirstSteps(heap.where(), used, kernel.vmstat["pswpout"])
