"""Experiments of the chapter on shared memory: who pays for pages that two share, and readahead by slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vswap_ref.display import PageMap, picture, table_html, table_text
from vswap_ref.kernel import Mapping
from vswap_ref.lab.experiments.reclaim import DEVICES
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Ssd

PAGES = 256


@dataclass(frozen=True, slots=True)
class Payers:
    """A shared object after both used it: pages charged by cgroup, major faults by process, where its pages are."""

    owner_touches: int
    owner_limit: int
    rows: list[dict[str, Any]]
    where: PageMap

    def row(self) -> dict[str, Any]:
        """As a row of a table: what each of the two pays and waits for."""
        owner, guest = self.rows
        return {
            "owner touches": self.owner_touches,
            "may have": self.owner_limit,
            "owner's memory": owner["memory"],
            "owner's swap": owner["swap"],
            "times at its limit": owner["times at its limit"],
            "guest's memory": guest["memory"],
            "guest's swap": guest["swap"],
            "guest's major faults": guest["major faults"],
        }

    def __repr__(self) -> str:
        return f"owner touches {self.owner_touches}, may have {self.owner_limit}:\n{table_text(self.rows)}"

    def _repr_html_(self) -> str:
        return table_html(self.rows) + self.where._repr_html_()


def who_pays(owner_touches: int = 256, owner_limit: int = 64) -> Payers:
    """An object of 256 pages: the owner writes the first pages, the guest the others; then the guest reads all, twice.

    The owner's cgroup may have ``owner_limit`` pages of memory, the guest's as many as it likes.
    """
    kernel = kernel_class(0)(ram="16M", swap=[Ssd("16M")])
    owner = kernel.spawn("owner", kernel.cgroup("owner", memory_max=owner_limit * PAGE_SIZE))
    guest = kernel.spawn("guest", kernel.cgroup("guest"))
    shm = kernel.shmem(PAGES * PAGE_SIZE, name="shared")
    mine, theirs = owner.mmap(shm), guest.mmap(shm)
    for page in range(PAGES):
        (mine if page < owner_touches else theirs)[page * PAGE_SIZE] = 1 + page % 255
    for page in [*range(PAGES)] * 2:
        theirs.touch(page)
    kernel.drain()
    rows = [
        {
            "cgroup": process.name,
            "memory": process.cgroup.memory_current // PAGE_SIZE,
            "swap": process.cgroup.swap_current // PAGE_SIZE,
            "times at its limit": process.cgroup.events.get("max", 0),
            "major faults": process.cgroup.memcg.stat["pgmajfault"],
        }
        for process in (owner, guest)
    ]
    return Payers(owner_touches, owner_limit, rows, shm.where())


@dataclass(frozen=True, slots=True)
class SlotOrder:
    """Reading swapped-out pages in address order whose slots are in another order."""

    memory: str
    device: str
    stride: int
    major_faults: int
    read: int
    hits: int
    written: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "memory": self.memory,
            "device": self.device,
            "stride": self.stride,
            "major faults": self.major_faults,
            "pages read": self.read,
            "readahead hits": self.hits,
            "written again": self.written,
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())

    def _repr_html_(self) -> str:
        bars = "".join(
            f"<rect x='0' y='{y}' width='{nr / 8:.0f}' height='16' fill='{colour}'/>"
            f"<text x='{nr / 8 + 6:.0f}' y='{y + 13}' fill='currentColor' font-size='12'>{nr} {text}</text>"
            for y, nr, colour, text in (
                (0, self.read, "#88888888", "pages read"),
                (22, self.hits, "#2e9e5b", "readahead hits"),
                (44, self.major_faults, "#c8453c", "major faults"),
            )
        )
        alt = f"{self.read} pages read, {self.hits} readahead hits, {self.major_faults} major faults for 512 pages"
        return table_html([self.row()]) + picture(bars, alt, 680, 64)


def slot_order(memory: str = "shared", stride: int = 1, device: str = "ssd") -> SlotOrder:
    """Swap 512 pages out so that neighbouring slots hold pages ``stride`` apart, then read them in address order.

    The reader may have 64 pages of memory, so what is read too early is gone before it is used.
    """
    kernel = kernel_class(0)(ram="16M", swap=[DEVICES[device]("16M")])
    group = kernel.cgroup("reader")
    process = kernel.spawn("reader", group)
    heap = process.mmap(kernel.shmem("2M") if memory == "shared" else "2M")
    fill(heap)
    for first in range(stride):
        for page in range(first, heap.pages, stride):
            process.madvise(heap, "pageout", page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
    kernel.drain()
    kernel.reclaim("4M")
    group.memory_max = 64 * PAGE_SIZE
    before = kernel.vmstat.snapshot()
    for page in range(heap.pages):
        heap.touch(page)
    kernel.drain()
    moved = kernel.vmstat.since(before)
    names = ("pgmajfault", "pswpin", "swap_ra_hit", "pswpout")
    return SlotOrder(memory, device, stride, *(moved.get(name, 0) for name in names))


def fill(heap: Mapping) -> None:
    """Make every page different and not zero."""
    for page in range(heap.pages):
        heap[page * PAGE_SIZE : page * PAGE_SIZE + 4] = (page + 1).to_bytes(4, "little")
