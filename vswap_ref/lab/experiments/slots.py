"""Experiments of the chapter on devices and slots: the life of clusters, and counting beyond a byte."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from vswap_ref.display import ClusterMap, table_html
from vswap_ref.kernel import Kernel
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Disk, Ssd


@dataclass(frozen=True, slots=True)
class ClusterLife:
    """A device after slots were taken, some freed, and others taken again."""

    device: str
    every: int
    again: int
    clusters: ClusterMap

    def lists(self) -> dict[str, int]:
        """How many clusters are on which list."""
        return dict(sorted(Counter(row["list"] for row in self.clusters.rows).items()))

    def used(self) -> list[int]:
        """Slots in use, cluster by cluster."""
        return [row["count"] for row in self.clusters.rows]

    def __repr__(self) -> str:
        return f"{self.device}, one of {self.every} freed, {self.again} again: {self.lists()}, in use {self.used()}"

    def _repr_html_(self) -> str:
        return self.clusters._repr_html_()


def cluster_life(device: str = "ssd", every: int = 3, again: int = 0) -> ClusterLife:
    """Swap 1280 pages out to a device of 2048 slots, free every n-th, then swap ``again`` new pages out."""
    kernel = kernel_class(0)(ram="32M", swap=[{"ssd": Ssd, "disk": Disk}[device]("8M")], cpus=1)
    app = kernel.spawn("app")
    pieces = [app.mmap(PAGE_SIZE) for _ in range(1280)]
    push_out(kernel, pieces)
    for piece in pieces[::every]:
        piece.munmap()
    if again:
        push_out(kernel, [app.mmap(PAGE_SIZE) for _ in range(again)])
    return ClusterLife(device, every, again, kernel.clusters(0))


def push_out(kernel: Kernel, pieces: list[Any]) -> None:
    """Write one page into each mapping and swap it out, in order."""
    for number, piece in enumerate(pieces):
        piece[0:4] = number.to_bytes(4, "little")
        piece.process.madvise(piece, "pageout")
    kernel.drain()
    kernel.reclaim(len(pieces) * PAGE_SIZE)


@dataclass(frozen=True, slots=True)
class CountRecord:
    """The byte of one slot while processes that share it come and go."""

    rows: list[dict[str, Any]]

    def __repr__(self) -> str:
        return "\n".join(
            f"{r['users']:>4} users: byte {r['byte']}, continuation {r['continuation']}" for r in self.rows
        )

    def _repr_html_(self) -> str:
        return table_html(self.rows)


def count_users(most: int = 70, show_from: int = 60) -> CountRecord:
    """Fork until ``most`` processes share one swapped-out page; show the digits of its count from ``show_from`` on."""
    kernel = kernel_class(0)(ram="16M", swap=[Ssd("4M")], page_cluster=0)
    app = kernel.spawn("app")
    heap = app.mmap(PAGE_SIZE)
    heap[0] = 1
    app.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("256K")
    rows = []
    for users in range(1, most + 1):
        if users > 1:
            app.fork()
        si: Any = kernel.system.swap.info[0]
        digits = [level[1] for level in si.continuation.get(0, [])]
        if users >= show_from:
            rows.append({"users": users, "byte": f"0x{si.swap_map[1]:02x}", "continuation": str(digits)})
    kernel.check()
    return CountRecord(rows)
