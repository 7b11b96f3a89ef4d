"""Experiments of the chapter on large folios: what they cost in memory, and what a fragmented device does to them."""

from __future__ import annotations

from dataclasses import dataclass

from vswap_ref.display import ClusterMap, picture
from vswap_ref.kernel import Thp
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Zram, parse_size

RUNS = {"slot": 1, "64K block": 16, "cluster": 512}
"""What is freed, every other one, and its slots."""
DEVICE_SLOTS = 2048
LARGE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class TouchRecord:
    """Touching every n-th page of 4 MiB: pages touched, faults taken, pages resident afterwards."""

    size: str
    every: int
    touched: int
    faults: int
    resident: int

    def __repr__(self) -> str:
        return (
            f"{self.size:>4} folios, one page of {self.every}: {self.touched} touched, {self.faults} faults, "
            f"{self.resident} resident"
        )

    def _repr_html_(self) -> str:
        alt = f"{self.touched} of {self.resident} resident pages were touched"
        bars = "".join(
            f"<rect width='{pages / 2:.0f}' height='14' y='{y}' fill='{colour}'/>"
            for y, pages, colour in ((0, self.resident, "#88888866"), (16, self.touched, "#2e9e5b"))
        )
        return f"<p>{self!r}</p>{picture(bars, alt, 512, 32)}<p>grey: resident, green: touched</p>"


def touch(size: str = "64K", every: int = 16) -> TouchRecord:
    """Write to every n-th page of 4 MiB with folios of one size ("4K": single pages)."""
    kernel = kernel_class(0)(ram="16M", thp=Thp("never", {} if size == "4K" else {size: "always"}))
    app = kernel.spawn("app")
    heap = app.mmap("4M")
    pages = range(0, heap.pages, every)
    for page in pages:
        heap.touch(page, write=True)
    return TouchRecord(size, every, len(pages), kernel.vmstat["pgfault"], app.rss // PAGE_SIZE)


@dataclass(frozen=True, slots=True)
class FragmentRecord:
    """Large folios swapped out to a half-empty device: how many left whole, how many were split."""

    size: str
    freed: str
    free_slots: int
    whole: int
    split: int
    clusters: ClusterMap
    """The device before the large folios came."""

    def __repr__(self) -> str:
        return (
            f"every other {self.freed} free ({self.free_slots} slots): of {self.whole + self.split} folios of "
            f"{self.size}, {self.whole} left whole, {self.split} were split"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p><p>The device before:</p>{self.clusters._repr_html_()}"


def fragmented(size: str = "64K", freed: str = "slot") -> FragmentRecord:
    """Fill 8 MiB of swap with single pages, free every other run of slots, then swap out 4 MiB of large folios."""
    thp = Thp("never", {size: "madvise"})
    kernel = kernel_class(0)(ram="32M", swap=[Zram(DEVICE_SLOTS * PAGE_SIZE)], cpus=1, thp=thp)
    app = kernel.spawn("app")
    small, large = app.mmap((DEVICE_SLOTS - 1) * PAGE_SIZE), app.mmap(LARGE_BYTES)
    for page in range(small.pages):
        small[page * PAGE_SIZE] = 1
    app.madvise(small, "pageout")
    run = RUNS[freed]
    for slot in range(run, DEVICE_SLOTS, 2 * run):
        app.madvise(small, "dontneed", (slot - 1) * PAGE_SIZE, (slot - 1 + run) * PAGE_SIZE)
    free, clusters = kernel.meminfo()["SwapFree"] // PAGE_SIZE, kernel.clusters()
    app.madvise(large, "hugepage")
    for start in range(0, LARGE_BYTES, parse_size(size)):
        large[start] = 1
    app.madvise(large, "pageout")
    row = next(row for row in kernel.thp_stats().rows if row["size"] == parse_size(size))
    return FragmentRecord(size, freed, free, row["swpout"], row["swpout_fallback"], clusters)
