"""Experiments of the chapter on cgroup ids in the descriptor: bytes, batches, version 1, and three books that agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from vswap_ref.display import Figure, OneRow, Table, picture, table_html
from vswap_ref.kernel import Mapping
from vswap_ref.lab.metadata import metadata_table
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Ssd, parse_pages
from vswap_ref.machine.locks import LockdepError
from vswap_ref.series import at

from .before_after import AFTER_COLOUR, BEFORE_COLOUR, Crossing, label

CLUSTER = 512
BEFORE, AFTER = 11, 12
PERCENTS = (0, 10, 25, 50, 75, 100)


@cache
def id_bytes(size: str = "256M", percents: Sequence[int] = PERCENTS) -> Crossing:
    """Bytes of cgroup ids for a slot of a device, against the share of the device in use.

    Before: the array.  After: what the descriptors have become larger by.
    """
    slots = parse_pages(size, "size", least=CLUSTER)
    before, after = (metadata_table(size, stage, percents, ["swapfile"]).points for stage in (BEFORE, AFTER))
    grown = [
        new.ledger["vswap descriptors"][1] - old.ledger["vswap descriptors"][1]
        for old, new in zip(before, after, strict=True)
    ]
    array = [point.ledger["swap_cgroup"][1] / slots for point in before]
    title = f"bytes a slot of a device of {size}"
    return Crossing(title, "in use", ("array", "descriptors"), percents, array, [size / slots for size in grown])


@dataclass(frozen=True, slots=True)
class SparseUse:
    """A full device, freed but for a few slots of each virtual cluster: bytes of ids for a slot that is left."""

    kept: int
    slots: int
    array: int
    descriptors: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "slots left of 512": self.kept,
            "slots left": self.slots,
            "array: bytes a slot": Figure(f"{self.array / self.slots:,.1f}"),
            "descriptors: bytes a slot": Figure(f"{self.descriptors / self.slots:,.1f}"),
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.row().items())

    def _repr_html_(self) -> str:
        bars, scale = [], 360 / (8 * CLUSTER)
        for y, name, size, colour in (
            (0, "array", self.array, BEFORE_COLOUR),
            (22, "descriptors", self.descriptors, AFTER_COLOUR),
        ):
            bars.append(label(74, y + 13, name, "end"))
            bars.append(
                f"<rect x='80' y='{y}' width='{max(1, size / self.slots * scale):.0f}' height='16' fill='{colour}'/>"
            )
        alt = f"bytes of ids for a slot that is left: array {self.array / self.slots:.1f}, "
        return picture("".join(bars), f"{alt}descriptors {self.descriptors / self.slots:.1f}", 450, 40) + table_html(
            [self.row()]
        )


def sparse_use(kept: int = 1, clusters: int = 8) -> SparseUse:
    """Use a device of ``clusters`` clusters in full, then free all but ``kept`` slots of each virtual cluster."""
    if not 1 <= kept <= CLUSTER:
        raise ValueError(f"kept={kept!r}: expected an int from 1 to {CLUSTER}")
    size, ledgers = (clusters + 1) * CLUSTER * PAGE_SIZE, []
    for stage in (BEFORE, AFTER):
        kernel = kernel_class(stage)(ram="64M", swap=[Ssd(size, contentless=True)], cpus=1)
        heap = kernel.spawn("app").mmap_swapped(clusters * CLUSTER * PAGE_SIZE)
        for first in range(0, clusters * CLUSTER, CLUSTER):
            if kept < CLUSTER:
                heap.process.madvise(heap, "dontneed", (first + kept) * PAGE_SIZE, (first + CLUSTER) * PAGE_SIZE)
        slots = int(heap.process.swap) // PAGE_SIZE
        ledgers.append(kernel.memory())
    grown = ledgers[1]["vswap descriptors"][1] - ledgers[0]["vswap descriptors"][1]
    return SparseUse(kept, slots, ledgers[0]["swap_cgroup"][0], grown)


PATTERNS = ("7 7 7 7", "0 7 7 7", "7 7 7 0", "7 9 7 7", "0 0 0 0")


@dataclass(frozen=True, slots=True)
class BatchClear(OneRow):
    """A batch of slots with these ids is cleared: what is returned, and whether the kernel warns."""

    ids: str
    returned: int
    warns: bool

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {"ids": self.ids, "returned": self.returned, "warning": self.warns}

    def __repr__(self) -> str:
        return f"{self.ids}: returns {self.returned}{', and warns' if self.warns else ''}"


def batch_clear(ids: str = PATTERNS[0], stage: Any = None) -> BatchClear:
    """Give neighbouring slots these ids and clear them in one call.

    The model stops where the kernel warns and goes on: the value is then the last one of clearing the slots singly.
    """
    wanted = [int(word) for word in ids.split()]
    try:
        return BatchClear(ids, cleared(wanted, len(wanted), stage)[-1], False)
    except AssertionError:
        return BatchClear(ids, cleared(wanted, 1, stage)[-1], True)


def cleared(ids: Sequence[int], nr: int, stage: Any = None) -> list[int]:
    """Give neighbouring slots these ids, clear ``nr`` with each call, and return what the calls return."""
    stage = stage or at(AFTER)
    kernel, heap = swapped_out(stage, len(ids))
    first = first_entry(stage, heap)
    column = kernel.system.vswap.cluster_map.load(first // CLUSTER).desc.memcgid
    for number, memcgid in enumerate(ids, first % CLUSTER):
        column[number] = memcgid
    clear = find(stage, "swap_cgroup_clear")
    return [clear(kernel.system, first + number, nr) for number in range(0, len(ids), nr)]


def find(stage: Any, name: str) -> Any:
    """A function of a stage, or of a live one."""
    if hasattr(stage, "find"):
        return stage.find(name)
    path = next(path for path, module in stage.tree.items() if name in module.definitions)
    return getattr(stage.module(path.removeprefix("mm/").removesuffix(".py").replace("/", ".")), name)


def swapped_out(stage: Any, pages: int, **options: Any) -> tuple[Any, Mapping]:
    """A kernel of a stage and a cgroup's process with pages that are swapped out."""
    kernel = stage.Kernel(ram="2M", swap=[Ssd("1M")], cpus=1, **options)
    heap = kernel.spawn("app", kernel.cgroup("job")).mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap.write_page(page, b"text" * (PAGE_SIZE // 4))
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    return kernel, heap


def first_entry(stage: Any, heap: Mapping) -> int:
    """The swap entry of a mapping's first page."""
    return int(find(stage, "pte_to_swp_entry")(find(stage, "ptep_get")(heap.process.mm, heap.vma.start)))


@dataclass(frozen=True, slots=True)
class Version1(OneRow):
    """Reclaim of a page of a cgroup of version 1 with validated locks."""

    stage: int
    outcome: str
    memsw: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {"stage": self.stage, "reclaim": self.outcome, "memory + swap charged (pages)": self.memsw // PAGE_SIZE}

    def __repr__(self) -> str:
        return f"stage {self.stage}: {self.outcome}"


def version_1(stage: int = AFTER) -> Version1:
    """Swap a page out under cgroup version 1; a lock that would be waited for by its own holder is reported."""
    kernel = kernel_class(stage)(ram="2M", swap=[Ssd("1M")], cpus=1, memcg="v1", locks="validated")
    group = kernel.cgroup("job")
    heap = kernel.spawn("app", group).mmap(PAGE_SIZE)
    heap.write_page(0, b"text" * (PAGE_SIZE // 4))
    try:
        heap.process.madvise(heap, "pageout")
        kernel.drain()
        kernel.reclaim("64K")
    except LockdepError as error:
        return Version1(stage, f"blocked: {error}", group.memsw_current)
    kernel.check()
    return Version1(stage, "ok", group.memsw_current)


def three_books(stage: int = AFTER) -> Table:
    """Who is charged, in several books: a parent with 3 pages in swap, its child with 5, one with 2 that is deleted.

    "ids": slots that record the cgroup.  "MEMCG_SWAP": its own counter.  "usage": its charge and its children's.
    """
    kernel = kernel_class(stage)(ram="2M", swap=[Ssd("1M")], cpus=1)
    parent = kernel.cgroup("parent")
    groups = [parent, kernel.cgroup("child", parent), kernel.cgroup("deleted", parent)]
    for group, pages in zip(groups, (3, 5, 2), strict=True):
        process = kernel.spawn(group.name, group)
        heap = process.mmap(pages * PAGE_SIZE)
        for page in range(pages):
            heap.write_page(page, b"text" * (PAGE_SIZE // 4))
        process.madvise(heap, "pageout")
        kernel.drain()
        if group.name == "deleted":
            process.move(parent)
            group.delete()
    kernel.check()
    ids = [i for _, c in kernel.system.vswap.cluster_map.items() for i in c.desc.memcgid.tolist() if i]
    rows = [
        {
            "cgroup": group.name,
            "ids": ids.count(group.memcg.id),
            "MEMCG_SWAP": group.memcg.nr_swap,
            "references of the id": group.memcg.id_refs,
            "usage": group.memcg.swap.usage,
        }
        for group in groups
    ]
    return Table("books", rows)
