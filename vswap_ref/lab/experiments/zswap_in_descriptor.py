"""Experiments of the chapter on zswap in the descriptor: bytes, locks, a late writeback, a page with two places."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from vswap_ref.display import Figure, OneRow, Table, picture, table_html
from vswap_ref.kernel import Kernel, Mapping
from vswap_ref.lab.paging import kernel_class, stage_name
from vswap_ref.machine import PAGE_SIZE, Ssd
from vswap_ref.series import at

from .before_after import BEFORE_COLOUR, SHARES, Crossing

CLUSTER = 512
INDEX_STRUCTURES = ("vswap descriptors", "vswap clusters", "zswap trees")
SPREADS = {"in a row": (64, SHARES), "scattered": (4, (0, 1, 1.6, 50, 100))}
"""How the compressed pages lie -> clusters to fill, shares to try; at 1.6 % each leaf of a tree has a page."""


@dataclass(frozen=True, slots=True)
class IndexBytes(OneRow):
    """A full device, a share of it in zswap: bytes of descriptors, cluster headers and tree nodes for a slot."""

    stage: str
    percent: float
    slots: int
    structures: dict[str, int]

    @property
    def a_slot(self) -> float:
        """Bytes for a slot in use."""
        return sum(self.structures.values()) / self.slots

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        parts = {name: Figure(f"{size / self.slots:.2f}") for name, size in self.structures.items()}
        return {
            "stage": self.stage,
            "in zswap": Figure(f"{self.percent} %"),
            **parts,
            "sum": Figure(f"{self.a_slot:.2f}"),
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())


@cache
def index_bytes(stage: int | str | None = None, percent: float = 50, spread: str = "in a row") -> IndexBytes:
    """Fill a device with pages, ``percent`` of them in zswap, the others on the device, and read the ledger.

    spread: the compressed pages are "in a row", or "scattered" evenly among the others.
    """
    if spread not in SPREADS:
        raise ValueError(f"spread={spread!r}: expected one of {', '.join(SPREADS)}")
    size = CLUSTER * SPREADS[spread][0] * PAGE_SIZE
    slots = size // PAGE_SIZE - 1
    kernel = kernel_class(stage)(ram="256M", swap=[Ssd(size, contentless=True)], zswap="lz4", cpus=1)
    device_only = kernel.cgroup("device only", zswap_max=0)
    tasks = {True: kernel.spawn("compressed"), False: kernel.spawn("on the device", device_only)}
    for compressed, pages in runs(slots, percent, spread):
        tasks[compressed].mmap_swapped(pages * PAGE_SIZE)
    ledger = kernel.memory()
    known = {row[0] for row in ledger.rows}
    structures = {name: ledger[name][1] if name in known else 0 for name in INDEX_STRUCTURES}
    return IndexBytes(stage_name(stage), percent, slots, structures)


def runs(slots: int, percent: float, spread: str) -> Iterator[tuple[bool, int]]:
    """Runs of pages, (compressed, length), that make the share."""
    if spread == "in a row":
        compressed = int((slots + 1) * percent // 100)
        yield from (
            (kind, pages) for kind, pages in ((True, min(compressed, slots)), (False, slots - compressed)) if pages > 0
        )
    else:
        yield from ((i * percent // 100 != (i + 1) * percent // 100, 1) for i in range(slots))


def break_even(spread: str = "in a row", stages: Sequence[int] = (10, 11)) -> Crossing:
    """``index_bytes`` of two stages for several shares."""
    percents = SPREADS.get(spread, (0, SHARES))[1]
    before, after = ([index_bytes(stage, percent, spread).a_slot for percent in percents] for stage in stages)
    return Crossing(f"compressed pages {spread}", "in zswap", ("tree", "descriptor"), percents, before, after)


@dataclass(frozen=True, slots=True)
class FreeLocks:
    """Slots freed, and the locks that this took."""

    stage: str
    zswap: str
    slots: int
    cluster: int
    tree: int
    found: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "stage": self.stage,
            "zswap": self.zswap,
            "slots": self.slots,
            "cluster locks": self.cluster,
            "a slot": Figure(f"{self.cluster / self.slots:.2f}"),
            "tree locks": self.tree,
            "copies found": self.found,
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())

    def _repr_html_(self) -> str:
        width = 120 * self.cluster / self.slots
        bar = f"<rect width='{width:.0f}' height='14' fill='{BEFORE_COLOUR}'/>"
        bar += "".join(f"<line x1='{x}' x2='{x}' y1='0' y2='20' stroke='currentColor'/>" for x in (120, 240, 360))
        alt = f"{self.cluster} cluster locks for {self.slots} slots; lines at one, two, three a slot"
        return picture(bar, alt, 480, 20) + table_html([self.row()])


ZSWAP_USE = ("never on", "one page of somebody else", "all of the pages")


def freeing_locks(stage: int | str | None = None, slots: int = 4096, zswap: str = "never on") -> FreeLocks:
    """Free the slots of a process, whole clusters of 512 each, by swap_free_nr: what the page tables cost is left out.

    zswap: "never on", or holds "one page of somebody else", or "all of the pages".
    """
    if slots % CLUSTER or slots <= 0:
        raise ValueError(f"slots={slots!r}: expected a positive multiple of {CLUSTER}")
    codec = None if zswap == ZSWAP_USE[0] else "lz4"
    size = (slots + 2 * CLUSTER) * PAGE_SIZE
    kernel = kernel_class(stage)(ram=4 * size, swap=[Ssd(size, contentless=True)], zswap=codec, cpus=1)
    device_only = kernel.cgroup("device only", zswap_max=None if zswap == ZSWAP_USE[2] else 0)
    heap = kernel.spawn("app", device_only).mmap_swapped(slots * PAGE_SIZE)
    if codec:
        kernel.spawn("other").mmap_swapped(PAGE_SIZE)
    free = at(stage_name(stage)).find("swap_free_nr")
    entries = [entry_of(kernel, heap, page, stage) for page in range(0, slots, CLUSTER)]
    before, erased = kernel.cost.snapshot(), tree_erasures(kernel)
    for entry in entries:
        free(kernel.system, entry, CLUSTER)
    cost = kernel.cost.since(before)
    tree = tree_erasures(kernel) - erased
    return FreeLocks(stage_name(stage), zswap, slots, cost["cl_lock"], tree, cost.get("zswap_free", 0))


def tree_erasures(kernel: Kernel) -> int:
    """How often something was taken out of zswap's tree, each time under its lock."""
    return int(kernel.system.cost.get("zswap_tree_erase", 0))


def entry_of(kernel: Kernel, heap: Mapping, page: int, stage: int | str | None) -> int:
    """The swap entry in a mapping's page table; 0 if the page is in memory."""
    find = at(stage_name(stage)).find
    pte = find("ptep_get")(heap.process.mm, heap.vma.start + page)
    return int(find("pte_to_swp_entry")(pte)) if find("is_swap_pte")(pte) else 0


MEANWHILE = ("nothing", "the slot is freed", "the slot is used again")


@dataclass(frozen=True, slots=True)
class StaleWriteback(OneRow):
    """What a writeback did that had stopped after it noted the entry."""

    meanwhile: str
    result: str
    written: int
    owner_reads: str
    stored_pages: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "meanwhile": self.meanwhile,
            "writeback returns": self.result,
            "pages written": self.written,
            "compressed after": self.stored_pages,
            "the slot's owner reads": self.owner_reads,
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name}: {value}" for name, value in self.row().items())


def stale_writeback(meanwhile: str = "nothing", stage: int | str | None = None) -> StaleWriteback:
    """The shrinker copies a page's entry and lets go of the list; then ``meanwhile`` happens; then it goes on."""
    if meanwhile not in MEANWHILE:
        raise ValueError(f"meanwhile={meanwhile!r}: expected one of {', '.join(MEANWHILE)}")
    kernel = kernel_class(stage)(ram="2M", swap=[Ssd("1M")], zswap="lz4", cpus=1, page_cluster=0)
    find = at(stage_name(stage)).find
    owner = swap_out(kernel, "first")
    swpentry = entry_of(kernel, owner, 0, stage)
    zentry = find("zswap_entry_load")(kernel.system, swpentry)
    if meanwhile != MEANWHILE[0]:
        owner.munmap()
    if meanwhile == MEANWHILE[2]:
        owner = swap_out(kernel, "second")
        assert entry_of(kernel, owner, 0, stage) == swpentry
    err = find("zswap_writeback_entry")(kernel.system, zentry, swpentry)
    kernel.drain()
    written, stored = kernel.vmstat["zswpwb"], kernel.zswap_debugfs()["stored_pages"]
    reads = owner.read_page(0)[:6].decode().strip() if owner.mapped else "(nobody)"
    kernel.check()
    return StaleWriteback(meanwhile, "-" + errno.errorcode[-err] if err else "0", written, reads, stored)


def text_page(text: str) -> bytes:
    """A page that starts with a text and compresses well."""
    return text.encode().ljust(8).ljust(PAGE_SIZE, b".")


def swap_out(kernel: Kernel, text: str) -> Mapping:
    """A process's page with a text, swapped out."""
    heap = kernel.spawn(text).mmap(PAGE_SIZE)
    heap.write_page(0, text_page(text))
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    return heap


@dataclass(frozen=True, slots=True)
class TwoPlaces:
    """The words of one descriptor, and what lies on the device, step by step."""

    steps: Sequence[dict[str, Any]]

    def __repr__(self) -> str:
        return repr(Table("", self.steps))

    def _repr_html_(self) -> str:
        return table_html(self.steps)


class Watch:
    """One page on its way, and what is known about it after each step."""

    def __init__(self, stage: int | str | None) -> None:
        self.ssd = Ssd("1M")
        self.kernel = kernel_class(stage)(ram="2M", swap=[self.ssd], zswap="lz4", cpus=1, page_cluster=0)
        self.stage, self.find = stage, at(stage_name(stage)).find
        self.heap = self.kernel.spawn("app").mmap(PAGE_SIZE)
        self.steps: list[dict[str, Any]] = []
        self.entry, self.slot = 0, 0

    def pageout(self) -> None:
        """Swap the page out."""
        self.heap.process.madvise(self.heap, "pageout")
        self.kernel.drain()
        self.entry = entry_of(self.kernel, self.heap, 0, self.stage)

    def allocate(self) -> None:
        """Give the page its slots, and do nothing else yet."""
        s = self.kernel.system
        folio = s.memory.mem_map[self.find("pte_pfn")(self.find("ptep_get")(self.heap.process.mm, self.heap.vma.start))]
        folio.locked = True
        err = self.find("folio_alloc_swap")(s, folio)
        assert err == 0
        folio.locked = False
        self.entry = folio.swap

    def note(self, event: str) -> None:
        """A row: the words of the descriptor, and the device at the page's slot."""
        desc = self.kernel.system.vswap.cluster_map.load(self.entry >> 9).desc if self.allocated() else None
        index = self.entry & (CLUSTER - 1)
        if desc is not None:
            self.slot = desc.slot[index]
        zeromap = self.kernel.system.swap.info[0].zeromap
        assert zeromap is not None
        text = self.ssd.read(self.slot)[:8].rstrip().decode().strip("\0")
        self.steps.append(
            {
                "event": event,
                "slot": "-" if desc is None else desc.slot[index],
                "zswap_entry": "-" if desc is None else ("set" if desc.zswap_entry[index] else "0"),
                "zero bit": int(zeromap.test(self.slot)),
                "on the device": text or "(never written)",
            }
        )

    def allocated(self) -> bool:
        """The virtual slot is in use."""
        cluster = self.kernel.system.vswap.cluster_map.load(self.entry >> 9)
        return cluster is not None and cluster.bitmap.test(self.entry & (CLUSTER - 1))


def two_places(stage: int | str | None = None) -> TwoPlaces:
    """The life of a page that zswap accepts, writes back, finds to be zero, and rejects."""
    watch = Watch(stage)
    kernel, heap = watch.kernel, watch.heap
    heap.write_page(0, text_page("one"))
    watch.allocate()
    watch.note("allocated")
    watch.pageout()
    watch.note("accepted by zswap")
    heap.touch(0)
    watch.note("read again")
    watch.pageout()
    watch.note("accepted again")
    zentry = watch.find("zswap_entry_load")(kernel.system, watch.entry)
    watch.find("zswap_writeback_entry")(kernel.system, zentry, watch.entry)
    kernel.drain()
    watch.note("written back")
    heap.write_page(0, bytes(PAGE_SIZE))
    watch.pageout()
    watch.note("zeros")
    heap.write_page(0, text_page("two"))
    kernel.set_zswap(enabled=False)
    watch.pageout()
    watch.note("zswap is off")
    heap.munmap()
    watch.note("freed")
    return TwoPlaces(watch.steps)
