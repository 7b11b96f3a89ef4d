"""Experiments of the chapter on the old design's costs: size and use of a device, and use that is spread thinly."""

from __future__ import annotations

import random
from dataclasses import dataclass

from vswap_ref.display import Ledger
from vswap_ref.lab.metadata import metadata_table
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Ssd

SPREAD_SLOTS = 2048


@dataclass(frozen=True, slots=True)
class CostRecord:
    """The ledger of a device at a share of use."""

    size: str
    percent: int
    pages_in: str
    entries: int
    ledger: Ledger

    def __repr__(self) -> str:
        parts = ", ".join(f"{exact:,} {when}" for when, (_, exact) in self.ledger.paid().items())
        return (
            f"{self.size}, {self.percent} % used, pages in {self.pages_in}: {self.ledger.letter:,} bytes; exact {parts}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self.entries:,} entries</p>{self.ledger._repr_html_()}"


def device_cost(size: str = "256M", percent: int = 50, pages_in: str = "zswap") -> CostRecord:
    """Fill a device to a share of its slots and read the ledger."""
    (point,) = metadata_table(size, stage=0, percents=[percent], backends=[pages_in]).points
    return CostRecord(size, percent, pages_in, point.entries, point.ledger)


@dataclass(frozen=True, slots=True)
class SpreadRecord:
    """What is left of a full device after a share of its slots was freed: dynamic bytes for each live entry."""

    freed_percent: int
    order: str
    entries: int
    tables: int
    ledger: Ledger

    @property
    def bytes_per_entry(self) -> float:
        """Swap tables and tree nodes, divided by the entries that are left."""
        return (self.ledger["swap table"][1] + self.ledger["zswap trees"][1]) / self.entries

    @property
    def letter_per_entry(self) -> float:
        """The same as the letter counts it."""
        return (self.ledger["swap table"][0] + self.ledger["zswap trees"][0]) / self.entries

    def __repr__(self) -> str:
        return (
            f"{self.freed_percent} % freed, {self.order}: {self.entries} entries in {self.tables} tables, "
            f"{self.bytes_per_entry:.1f} bytes an entry (letter: {self.letter_per_entry:.1f})"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.ledger._repr_html_()}"


def spread(freed_percent: int = 90, order: str = "random", zswap: bool = True, seed: int = 0) -> SpreadRecord:
    """Fill a device of 4 clusters page by page, then free a share: the oldest slots first, or in random order."""
    kernel = kernel_class(0)(ram="64M", swap=[Ssd(SPREAD_SLOTS * PAGE_SIZE)], zswap="lz4" if zswap else None, cpus=1)
    app = kernel.spawn("app")
    pieces = [app.mmap_swapped(PAGE_SIZE) for _ in range(SPREAD_SLOTS - 1)]
    if order == "random":
        random.Random(seed).shuffle(pieces)
    for piece in pieces[: len(pieces) * freed_percent // 100]:
        piece.munmap()
    kernel.check()
    tables = sum(row["list"] != "free" for row in kernel.clusters().rows)
    return SpreadRecord(freed_percent, order, app.swap // PAGE_SIZE, tables, kernel.memory())
