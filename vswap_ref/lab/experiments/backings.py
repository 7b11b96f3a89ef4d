"""Experiments of the chapter on decoupling: what a slot is backed by, one page through all backings, mixed ranges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import vswap_ref
from vswap_ref.display import COLOURS, OneRow, Table, escape, picture, table_html
from vswap_ref.lab.stepper import stepper_html
from vswap_ref.machine import PAGE_SIZE, Ssd

BACKINGS = ("device", "zeros", "zswap", "folio")
"""The kinds of backing in the order of their numbers."""
STORE_COLOURS = {"device": "swapfile", "zeros": "zero", "zswap": "zswap", "folio": "swapcache"}
TEXT = b"compressible    " * (PAGE_SIZE // 16)
ZEROS = bytes(PAGE_SIZE)
RANGE = 16


# --- three kinds of pages ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ThreeKinds(OneRow):
    """Zero pages, compressible ones, and pages of a group without zswap, all swapped out: what they take."""

    stage: str
    zero: int
    compressible: int
    other: int
    entries: int
    slots: int
    stored: int
    charged: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        names = ("stage", "entries", "slots", "stored", "charged")
        titles = ("stage", "virtual slots", "device slots", "zswap objects", "pages charged")
        return dict(zip(titles, (getattr(self, name) for name in names), strict=True))

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())


def three_kinds(stage: int | str = 14, zero: int = 20, compressible: int = 30, other: int = 10) -> ThreeKinds:
    """Swap out pages of three kinds; the ``other`` ones are of a cgroup with zswap.max = 0."""
    kernel = vswap_ref.at(stage).Kernel(ram="16M", swap=[Ssd("8M")], zswap="lz4", cpus=1)
    group = kernel.cgroup("app")
    plain = kernel.cgroup("without", parent=group, zswap_max=0)
    for cgroup, nr, content in ((group, zero, ZEROS), (group, compressible, TEXT), (plain, other, TEXT)):
        if nr:
            heap = kernel.spawn("app", cgroup=cgroup).mmap(nr * PAGE_SIZE)
            for page in range(nr):
                heap.write_page(page, content)
            heap.process.madvise(heap, "pageout")
    kernel.drain()
    slots = sum(row["Used"] for row in kernel.swaps().rows) // PAGE_SIZE
    entries, stored = kernel.debugfs()["vswap"]["used"], kernel.zswap_debugfs()["stored_pages"]
    charged = group.swap_current // PAGE_SIZE
    return ThreeKinds(str(stage), zero, compressible, other, entries, slots, stored, charged)


@dataclass(frozen=True, slots=True)
class KindsBeside:
    """The same three kinds of pages at some stages."""

    records: list[ThreeKinds]

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.records))

    def _repr_html_(self) -> str:
        names = [name for name in self.records[0].row() if name != "stage"]
        most = max(1, *(record.row()[name] for record in self.records for name in names))
        parts, y = [], 0
        for name in names:
            parts.append(f"<text x='0' y='{y + 15}' fill='currentColor' font-size='13'>{name}</text>")
            for record, colour in zip(self.records, ("#88888888", "#3f6fb0"), strict=False):
                value = record.row()[name]
                width = 380 * value / most
                parts.append(f"<rect x='120' y='{y}' width='{width:.1f}' height='14' fill='{colour}'/>")
                parts.append(f"<text x='{125 + width:.0f}' y='{y + 12}' fill='currentColor' font-size='12'>")
                parts.append(f"{value}, stage {record.stage}</text>")
                y += 16
            y += 8
        return picture("".join(parts), "; ".join(map(repr, self.records)), 640, y) + table_html(
            [record.row() for record in self.records]
        )


def kinds_beside(zero: int = 20, compressible: int = 30, other: int = 10) -> KindsBeside:
    """three_kinds before and after the patch."""
    return KindsBeside([three_kinds(stage, zero, compressible, other) for stage in (13, 14)])


# --- one page through all backings ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """A page after a step: what its page-table entry says, its virtual slot's backing, what is used where."""

    step: str
    pte: str
    """A swap entry as a number, or "mapped"."""
    backing: str
    """One of BACKINGS, or "-" without a virtual slot."""
    count: int
    cached: bool
    slots: int
    stored: int


@dataclass(frozen=True, slots=True)
class Life:
    """One page through all its backings."""

    moments: list[Moment]

    @property
    def entries(self) -> list[str]:
        """The different values that the page-table entry had while the page was not mapped."""
        return sorted({moment.pte for moment in self.moments if moment.pte != "mapped"})

    @property
    def backings(self) -> list[str]:
        """The backings in the order in which they came, each once in a row."""
        names = [moment.backing for moment in self.moments]
        return [name for name, before in zip(names, ["", *names], strict=False) if name != before]

    def rows(self) -> list[dict[str, Any]]:
        """A row a step."""
        return [
            {
                "step": moment.step,
                "PTE": moment.pte,
                "backing": moment.backing,
                "count": moment.count,
                "in swap cache": moment.cached,
                "device slots": moment.slots,
                "zswap objects": moment.stored,
            }
            for moment in self.moments
        ]

    def __repr__(self) -> str:
        return repr(Table("", self.rows()))

    def _repr_html_(self) -> str:
        steps = [(moment.step, moment_svg(moment)) for moment in self.moments]
        alt = "one page: " + "; ".join(f"{m.step}: PTE {m.pte}, backing {m.backing}" for m in self.moments)
        return stepper_html("life-of-a-page", STILL, steps, alt, 700, 190) + table_html(self.rows())


def box(x: int, y: int, text: str, fill: str = "none", width: int = 130) -> str:
    """A box with a word in it."""
    return (
        f"<rect x='{x}' y='{y}' width='{width}' height='34' fill='{fill}' stroke='currentColor'/>"
        f"<text x='{x + 8}' y='{y + 22}' fill='currentColor' font-size='14'>{escape(text)}</text>"
    )


def store_y(backing: str) -> int:
    """Where a store's box is."""
    return 8 + 46 * ("folio", "zswap", "device", "zeros").index(backing)


STILL = "".join(
    [
        "<text x='10' y='16' fill='currentColor' font-size='12'>page table</text>",
        "<text x='250' y='16' fill='currentColor' font-size='12'>descriptor</text>",
        *(box(550, store_y(name), name) for name in BACKINGS),
    ]
)


def moment_svg(moment: Moment) -> str:
    """What of the picture belongs to one step."""
    parts = [box(10, 24, moment.pte if moment.pte == "mapped" else f"entry {moment.pte}", width=150)]
    if moment.backing != "-":
        y, colour = store_y(moment.backing), COLOURS[STORE_COLOURS[moment.backing]]
        cached = ", in the cache" if moment.cached else ""
        parts.append(box(250, 24, f"{moment.backing}, count {moment.count}{cached}", width=230))
        parts.append(box(550, y, moment.backing, colour + "88"))
        parts.append(f"<line x1='480' y1='41' x2='550' y2='{y + 17}' stroke='{colour}' stroke-width='4'/>")
    if moment.pte == "mapped":
        parts.append(
            f"<path d='M22 58 V182 H530 V{store_y('folio') + 17} H550' fill='none' stroke='#2e9e5b' stroke-width='2'/>"
        )
    else:
        parts.append("<line x1='160' y1='41' x2='250' y2='41' stroke='currentColor' stroke-width='2'/>")
    used = f"slots of devices: {moment.slots}, objects of zswap: {moment.stored}"
    parts.append(f"<text x='40' y='120' fill='currentColor' font-size='15' font-weight='bold'>{moment.step}</text>")
    parts.append(f"<text x='40' y='142' fill='currentColor' font-size='13'>{used}</text>")
    return "".join(parts)


class OnePage:
    """A page whose backing is followed."""

    def __init__(self, stage: int | str) -> None:
        self.stage = vswap_ref.at(stage)
        self.kernel = self.stage.Kernel(ram="4M", zswap="lz4", cpus=1, page_cluster=0)
        self.group = self.kernel.cgroup("app", zswap_max=0, zswap_writeback=False)
        self.app = self.kernel.spawn("app", cgroup=self.group)
        self.heap = self.app.mmap(PAGE_SIZE)
        self.moments: list[Moment] = []

    def look(self, step: str) -> None:
        """Note how things are."""
        kernel, types = self.kernel, self.stage.module("types")
        pte = self.stage.module("pagetable").ptep_get(self.app.mm, self.heap.vma.start)
        value = hex(types.pte_to_swp_entry(pte)) if types.is_swap_pte(pte) else "mapped"
        used = [
            (BACKINGS[cluster.desc.type[index]], cluster.desc.swap_count[index], cluster.desc.in_swapcache[index] == 1)
            for _, cluster in kernel.system.vswap.cluster_map.items()
            for index, bit in enumerate(cluster.bitmap.bits)
            if bit
        ]
        backing, count, cached = used[0] if used else ("-", 0, False)
        slots = sum(row["Used"] for row in kernel.swaps().rows) // PAGE_SIZE
        stored = kernel.zswap_debugfs()["stored_pages"]
        self.moments.append(Moment(step, value, backing, count, cached, slots, stored))
        kernel.check()

    def pushed_out(self) -> None:
        """Reclaim it, mapped or not."""
        self.app.madvise(self.heap, "pageout")
        self.kernel.drain()
        self.kernel.reclaim("64K")

    def written_back(self) -> None:
        """Close zswap's pool, and knock: another page makes the shrink worker run.  Then that page goes."""
        self.group.zswap_writeback = True
        self.kernel.set_zswap(max_pool_percent=0)
        other = self.app.mmap(PAGE_SIZE)
        other.write_page(0, TEXT)
        self.app.madvise(other, "pageout")
        self.kernel.drain()
        other.munmap()
        self.kernel.reclaim("64K")
        self.kernel.set_zswap(max_pool_percent=20)


def life_of_a_page(stage: int | str = 14) -> Life:
    """Follow one page: refused by zswap, taken by it, written back to a device that came later, read, zeroed, read."""
    page = OnePage(stage)
    page.heap.write_page(0, TEXT)
    page.look("written")
    page.pushed_out()
    page.look("pushed out, refused")
    page.group.zswap_max = None
    page.pushed_out()
    page.look("zswap takes it")
    page.kernel.swapon(Ssd("1M"))
    page.written_back()
    page.look("written back")
    page.heap.touch(0)
    page.look("read")
    page.heap.write_page(0, ZEROS)
    page.pushed_out()
    page.look("zeroed, pushed out")
    page.heap.touch(0)
    page.look("read again")
    return Life(page.moments)


# --- mixed ranges --------------------------------------------------------------------------------------------------

MIXTURES: dict[str, Callable[[int], str]] = {
    "all on a device": lambda page: "S",
    "all zeros": lambda page: "Z",
    "all in zswap": lambda page: "C",
    "one page of zeros": lambda page: "Z" if page == 7 else "S",
    "the last one in zswap": lambda page: "C" if page == RANGE - 1 else "S",
    "alternating": lambda page: "SZ"[page % 2],
}
"""How 16 neighbours are backed."""
KIND_COLOURS = {"S": COLOURS["swapfile"], "Z": COLOURS["zero"], "C": COLOURS["zswap"]}


@dataclass(frozen=True, slots=True)
class Mixture:
    """16 neighbours in a page table: their backings, and how many are one batch to free, and to read."""

    mixture: str
    kinds: str
    entries: list[int]
    to_free: int
    to_read: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {"mixture": self.mixture, "kinds": self.kinds, "to free": self.to_free, "to read": self.to_read}

    def __repr__(self) -> str:
        return f"{self.kinds}: {self.to_free} to free, {self.to_read} to read ({self.mixture})"

    def _repr_html_(self) -> str:
        rects = "".join(
            f"<rect x='{22 * page}' width='20' height='20' fill='{KIND_COLOURS[kind]}'/>"
            for page, kind in enumerate(self.kinds)
        )
        frames = "".join(
            f"<rect x='0' y='{y}' width='{22 * nr - 2}' height='10' fill='#88888888'/>"
            f"<text x='{22 * RANGE + 6}' y='{y + 10}' font-size='12' fill='currentColor'>{what}: {nr}</text>"
            for y, nr, what in ((26, self.to_free, "to free"), (40, self.to_read, "to read"))
        )
        return picture(rects + frames, repr(self), 460, 54)


def mixture(mixture: str = "one page of zeros", stage: int | str = 14) -> Mixture:
    """Swap 16 neighbours out one by one, each to where the mixture says; ask how far a batch goes."""
    at = vswap_ref.at(stage)
    kernel = at.Kernel(ram="4M", swap=[Ssd("1M")], zswap="lz4", cpus=1, page_cluster=0)
    heap = kernel.spawn("app").mmap(RANGE * PAGE_SIZE)
    kinds = "".join(map(MIXTURES[mixture], range(RANGE)))
    for page, kind in enumerate(kinds):
        heap.write_page(page, ZEROS if kind == "Z" else TEXT)
        kernel.set_zswap(enabled=kind == "C")
        heap.process.madvise(heap, "pageout", page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
        kernel.drain()
        kernel.reclaim("64K")
    pagetable, types = at.module("pagetable"), at.module("types")
    pages = range(heap.vma.start, heap.vma.start + RANGE)
    table = [pagetable.ptep_get(heap.process.mm, addr) for addr in pages]
    batch = [pagetable.swap_pte_batch(kernel.system, table, 0, RANGE, free) for free in (True, False)]
    return Mixture(mixture, kinds, list(map(types.pte_to_swp_entry, table)), *batch)
