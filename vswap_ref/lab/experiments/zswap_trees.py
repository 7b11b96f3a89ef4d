"""Experiments of the chapters on how zswap finds a page: who locks which tree, how many nodes, how deep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import FunctionType

from vswap_ref.display import Table, picture
from vswap_ref.kernel import Kernel, Thp
from vswap_ref.lab.metadata import metadata_table
from vswap_ref.lab.paging import kernel_class, stage_name
from vswap_ref.machine import PAGE_SIZE, Ssd, XArray, parse_pages
from vswap_ref.series.stages import LoadedStage

from .before_after import Crossing
from .lock_partitioning import WORDS, Meetings, meet

BLOCK = 1 << 14
"""Slots that share a tree as long as there are many: 64 MiB."""
CLUSTER = 512
NODE_BYTES = 576


def functions(stage: LoadedStage) -> Iterator[FunctionType]:
    """All functions of a stage, in order of module and place."""
    for path in sorted(stage.sources()):
        name = path.removeprefix("mm/").removesuffix(".py")
        if path.startswith("mm/") and name != "__init__":
            module = stage.module(name.replace("/", "."))
            yield from (f for f in vars(module).values() if getattr(f, "__module__", "") == module.__name__)


def callers(stage: LoadedStage, name: str) -> Table:
    """The functions of a stage that use a name, and their modules."""
    users = [f for f in functions(stage) if isinstance(f, FunctionType) and name in f.__code__.co_names]
    return Table(f"{name}, stage {stage.id}", [{"function": f.__name__, "module": module_name(f)} for f in users])


def module_name(function: FunctionType) -> str:
    """A function's module without package and stage."""
    return function.__module__.rpartition(".mm.")[2]


@dataclass(frozen=True, slots=True)
class FolioStore:
    """A folio of 16 pages that zswap could not store whole: what was stored before, and what is left."""

    fails_at: int
    stored_before: int
    locks: int
    left: int
    written: int

    def __repr__(self) -> str:
        return (
            f"page {self.fails_at} of 16 fails: {self.stored_before} stored before, {self.locks} tree locks in all, "
            f"{self.left} left in zswap, {self.written} pages written to the device"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>"


def failing_store(fails_at: int = 8, stage: int | str | None = None) -> FolioStore:
    """Page out a folio of 64K; there is no memory for the zswap entry of its page number ``fails_at`` (1 to 16)."""
    kernel = kernel_class(stage)(ram="8M", swap=[Ssd("4M")], zswap="lz4", thp=Thp("never", {"64K": "always"}))
    heap = kernel.spawn("app").mmap("64K")
    for page in range(16):
        heap.write_page(page, bytes([page + 1]) * PAGE_SIZE)
    kernel.faults.fail("zswap_entry_cache_alloc", nth=fails_at)
    before = kernel.cost.snapshot()
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    cost, left = kernel.cost.since(before), kernel.zswap_debugfs()["stored_pages"]
    return FolioStore(fails_at, cost.get("zswap_free", 0), cost["xa_lock"], left, kernel.vmstat["pswpout"])


@dataclass(frozen=True, slots=True)
class Freed:
    """Slots freed, all of pages on the device, and what that cost: locks of zswap's trees taken."""

    stage: str
    pages: int
    compressed_page: str
    locks: int

    def __repr__(self) -> str:
        where = self.compressed_page
        return f"stage {self.stage}, a compressed page {where}: {self.pages:,} slots freed, {self.locks:,} tree locks"

    def _repr_html_(self) -> str:
        width = 420 * self.locks / max(1, self.pages)
        bars = (
            f"<rect width='420' height='16' fill='#88888844'/><rect width='{width:.0f}' height='16' fill='#c8453c'/>"
            f"<text x='426' y='13' fill='currentColor' font-size='12'>{self.locks:,}</text>"
        )
        return f"<p>{self!r}</p>{picture(bars, f'{self.locks} locks for {self.pages} slots', 520, 20)}"


def freeing(stage: int | str | None = None, pages: int = 512, compressed_page: str = "in the same block") -> Freed:
    """Free ``pages`` slots of a process whose cgroup may not use zswap, while one other page is compressed.

    compressed_page: where that page's slot is: "nowhere" (there is none), "in the same block" of 16,384 slots, "in
    another block" of the device, or "on another device".
    """
    if compressed_page not in PLACES:
        raise ValueError(f"compressed_page={compressed_page!r}: expected one of {', '.join(PLACES)}")
    size = (pages + 2 * BLOCK) * PAGE_SIZE
    kernel = kernel_class(stage)(ram="64M", swap=[Ssd(size, contentless=True)], zswap="lz4", cpus=1)
    device_only = kernel.cgroup("device only", zswap_max=0)
    app, other = kernel.spawn("app", device_only), kernel.spawn("other")
    if compressed_page == "on another device":
        kernel.swapon(Ssd(2 * PAGE_SIZE), priority=1)
    if compressed_page != "nowhere":
        other.mmap_swapped(PAGE_SIZE)
    if compressed_page == "in another block":
        kernel.spawn("rest of the block", device_only).mmap_swapped((BLOCK - 2) * PAGE_SIZE)
    app.mmap_swapped(pages * PAGE_SIZE)
    before = kernel.system.cost["zswap_tree_erase"]
    app.exit()
    locks = kernel.system.cost["zswap_tree_erase"] - before
    return Freed(stage_name(stage), pages, compressed_page, locks)


PLACES = ("nowhere", "in the same block", "in another block", "on another device")
"""Where the compressed page of ``freeing`` may be."""


@dataclass(frozen=True, slots=True)
class IndexSize:
    """What finding compressed pages costs on one device: nodes and bytes of the trees, bytes of their heads."""

    stage: str
    size: str
    percent: int
    entries: int
    nodes: int
    heads: int

    def __repr__(self) -> str:
        share = f", {self.nodes * NODE_BYTES / self.entries:.2f} bytes a page" if self.entries else ""
        return (
            f"stage {self.stage}, {self.size}, {self.percent} % used: {self.entries:,} pages, {self.nodes:,} nodes"
            f"{share}; heads {self.heads:,} bytes"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>"


def index_size(stage: int | str | None = None, size: str = "64M", percent: int = 100) -> IndexSize:
    """Fill a device with compressed pages to a share, and count the nodes that find them."""
    (point,) = metadata_table(size, stage, percents=[percent], backends=["zswap"]).points
    nodes = point.ledger["zswap trees"][1] // NODE_BYTES
    return IndexSize(stage_name(stage), size, percent, point.entries, nodes, point.ledger["zswap tree heads"][1])


def index_curve(size: str = "64M", stages: tuple[int, int] = (7, 8)) -> Crossing:
    """KiB of tree nodes and heads while a device fills with compressed pages, at two stages."""
    percents = (0, 1, 25, 50, 75, 100)
    kib = []
    for stage in stages:
        ledgers = [point.ledger for point in metadata_table(size, stage, percents, ["zswap"]).points]
        kib.append([sum(ledger[name][1] for name in ("zswap trees", "zswap tree heads")) / 1024 for ledger in ledgers])
    return Crossing(f"KiB that find compressed pages, {size}", "in use", ("a tree a block", "one tree"), percents, *kib)


def tree_levels(first: str = "32G", devices: int = 2) -> Table:
    """Levels of the one tree, each a step of every look-up, when the last page of a device is compressed, then others.

    The tree alone is asked; ``first``: size of device 0.
    """
    tree: XArray[str] = XArray()
    rows = []
    for device in range(devices):
        offset = parse_pages(first, "first", least=2) - 1 if device == 0 else 1
        tree.store(device << 58 | offset, "a page")
        rows.append({"a page on": f"device {device}", "levels of the one tree": tree.height})
    return Table("levels", rows)


def tree_nodes(kernel: Kernel) -> int:
    """Nodes of all trees of zswap."""
    return kernel.memory()["zswap trees"][1] // NODE_BYTES


def nodes_for_one_page(stage: int | str | None = None, device: int = 0) -> int:
    """Compress a single page whose slot is on a device: the nodes of its tree, each a step of a look-up."""
    kernel = kernel_class(stage)(ram="1M", zswap="lz4", cpus=1)
    for number in range(device + 1):
        kernel.swapon(Ssd("1M"), priority=number)
    kernel.spawn("app").mmap_swapped(PAGE_SIZE)
    return tree_nodes(kernel)


def scattered(stage: int | str | None = None, keep: int = 64, clusters: int = 4) -> float:
    """Fill a device page by page, free all but one in ``keep``: bytes of tree nodes for a page that is left."""
    kernel = kernel_class(stage)(ram="64M", swap=[Ssd(clusters * CLUSTER * PAGE_SIZE)], zswap="lz4", cpus=1)
    app = kernel.spawn("app")
    pieces = [app.mmap_swapped(PAGE_SIZE) for _ in range(clusters * CLUSTER - 1)]
    for number, piece in enumerate(pieces, 1):
        if number % keep:
            piece.munmap()
    return NODE_BYTES * tree_nodes(kernel) * PAGE_SIZE / int(app.swap)


def cpus_apart(stage: int | str | None, cpus: int, pages: int) -> Kernel:
    """A kernel with a process on each CPU, whose pages are compressed, in slots of a 64 MiB block of its own."""
    swap = [Ssd((cpus + 1) * BLOCK * PAGE_SIZE, contentless=True)]
    boot = kernel_class(stage)
    kernel: Kernel = boot(ram="8M", swap=swap, zswap="lz4", cpus=cpus + 1, locks="scheduled", page_cluster=0)
    device_only = kernel.cgroup("device only", zswap_max=0)
    apps = [kernel.spawn(f"app{cpu}", cpu=cpu) for cpu in range(cpus)]
    rest_of_block = kernel.spawn("rest of the block", device_only, cpu=cpus)
    for app in apps:
        heap = app.mmap(pages * PAGE_SIZE)
        for page in range(pages):
            heap.write_page(page, WORDS)
        app.madvise(heap, "pageout")
        rest_of_block.mmap_swapped((BLOCK - CLUSTER) * PAGE_SIZE)
    kernel.reclaim(cpus * pages * PAGE_SIZE)
    return kernel


@cache
def stores_at_once(stage: int | str | None = None, cpus: int = 2, rounds: int = 3, seeds: int = 8) -> Meetings:
    """Each CPU brings ``rounds`` pages of its own back from zswap and stores them again, all in different blocks.

    A random schedule for each of the seeds 0, 1, ...; kept, because each of them takes a while.
    """
    return meet(cpus_apart(stage, cpus, rounds), stage, cpus, rounds, tuple(range(seeds)))
