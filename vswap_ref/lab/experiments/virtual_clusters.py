"""Experiments of the chapter on virtual slots: clusters from birth to death, first values, fragments, costs, bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from vswap_ref.display import OneRow, Table, escape, picture, table_html
from vswap_ref.lab.paging import kernel_class
from vswap_ref.lab.stepper import stepper_html
from vswap_ref.machine import PAGE_SIZE, Ssd
from vswap_ref.series import at

CLUSTER = 512
STATES = {"cached": "#2e9e5b", "partial": "#e0912f", "full": "#c8453c", "on no list": "#888888"}
"""Where allocation finds a cluster -> the colour of its slots."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The virtual clusters of a kernel after a step of their story."""

    step: int
    what: str
    clusters: list[dict[str, Any]]
    bits: list[bytes]

    def cluster(self, number: int) -> dict[str, Any]:
        """The row of a cluster; an empty one if it does not exist."""
        return next((row for row in self.clusters if row["cluster"] == number), {})

    def __repr__(self) -> str:
        states = "; ".join(f"{row['cluster']}: {row['count']} {row['state']}" for row in self.clusters)
        return f"{self.step}. {self.what}: {states or 'no cluster'}"

    def _repr_html_(self) -> str:
        drawing = picture(self.strips(), repr(self), 610, 20 * len(self.clusters) + 1)
        return f"<p>{self.step}. {escape(self.what)}</p>{drawing}{table_html(self.clusters)}"

    def strips(self) -> str:
        """The clusters, a bar each."""
        rows = zip(self.clusters, self.bits, strict=True)
        return "".join(self.strip(line, row, bits) for line, (row, bits) in enumerate(rows))

    @staticmethod
    def strip(line: int, row: dict[str, Any], bits: bytes) -> str:
        """A cluster as a bar of 512 slots, those in use in the colour of its state."""
        y, colour = 20 * line, STATES[row["state"].partition(" by ")[0]]
        frame = f"<rect x='95' y='{y}' width='512' height='14' fill='{colour}22' stroke='{colour}'/>"
        label = f"<text x='0' y='{y + 12}' font-size='12' fill='currentColor'>cluster {row['cluster']}</text>"
        used = "".join(
            f"<rect x='{95 + first}' y='{y}' width='{max(2, end - first)}' height='14' fill='{colour}'/>"
            for first, end in runs(bits)
        )
        return frame + label + used


def runs(bits: bytes) -> Iterator[tuple[int, int]]:
    """(first, end) of each run of set bits, one byte a bit."""
    end = 0
    while (first := bits.find(1, end)) >= 0:
        end = bits.find(0, first) if 0 in bits[first:] else len(bits)
        yield first, end


def look(kernel: Any, step: int, what: str) -> Scene:
    """The clusters as they are now, by id."""
    v = kernel.system.vswap
    owners = {c: number for number, cpu in enumerate(v.percpu) for c in cpu.clusters if c is not None}
    rows, bits = [], []
    for number, c in v.cluster_map.items():
        listed = "partial" if c in v.partial_lists[c.order] else "full" if c.full else "on no list"
        state = f"cached by CPU {owners[c]}" if c in owners else listed
        rows.append({"cluster": number, "order": c.order, "count": c.count, "refcnt": c.refcnt, "state": state})
        bits.append(bytes(c.bitmap.bits))
    return Scene(step, what, rows, bits)


class Story:
    """A kernel whose clusters go through all that can happen to them, step by step."""

    def __init__(self, cpus: int, stage: int | str) -> None:
        self.stage = at(stage)
        self.kernel = self.stage.Kernel(ram="16M", swap=[Ssd("32M")], cpus=cpus, page_cluster=0)
        self.apps = [self.kernel.spawn(f"app{cpu}", cpu=cpu) for cpu in range(cpus)]
        self.heaps: list[Any] = []
        self.last = cpus - 1
        self.steps: list[tuple[str, Callable[[], Scene | None]]] = [
            ("boot", lambda: None),
            ("each CPU swaps a page out", self.first_pages),
            ("CPU 0 swaps out 511 more", lambda: self.swap_out(0, CLUSTER - 1)),
            ("CPU 0 wants one more; look inside", self.in_transit),
            ("it has it", lambda: None),
            ("100 pages of the full cluster are freed", self.free_some),
            (f"CPU {self.last} dies", lambda: self.kernel.cpu_offline(self.last)),
            ("CPU 0 uses its cluster up, and goes on", lambda: self.swap_out(0, CLUSTER)),
            ("a folio of 512 pages goes out", self.swap_out_large),
            ("the dead CPU's page is freed", lambda: self.heaps[self.last].munmap()),
            ("all is freed", self.free_all),
        ]

    def swap_out(self, cpu: int, pages: int) -> None:
        """A mapping of so many pages, written and pushed out by a CPU."""
        heap = self.apps[cpu].mmap(pages * PAGE_SIZE)
        for page in range(pages):
            heap.write_page(page, b"page" * (PAGE_SIZE // 4))
        heap.process.madvise(heap, "pageout")
        self.kernel.drain()
        self.kernel.reclaim(pages * PAGE_SIZE)
        self.heaps.append(heap)

    def first_pages(self) -> None:
        """A page on each CPU."""
        for cpu in range(len(self.apps)):
            self.swap_out(cpu, 1)

    def in_transit(self) -> Scene | None:
        """Swap a page out, and look when the new cluster is in the map and no CPU has it."""
        allocation, seen = self.stage.module("vswap.allocation"), []
        go_on = allocation.vswap_cache_cluster

        def stop(*args: Any) -> None:
            seen.append(look(self.kernel, 0, ""))
            go_on(*args)

        with patch.object(allocation, "vswap_cache_cluster", stop):
            self.swap_out(0, 1)
        return seen[0]

    def free_some(self) -> None:
        """100 pages in the middle of the first mapping of 511."""
        heap = self.heaps[len(self.apps)]
        heap.process.madvise(heap, "dontneed", 200 * PAGE_SIZE, 300 * PAGE_SIZE)

    def swap_out_large(self) -> None:
        """One folio of 512 pages."""
        self.heaps.append(self.apps[0].mmap_swapped(CLUSTER * PAGE_SIZE))

    def free_all(self) -> None:
        """End all processes."""
        for app in self.apps:
            app.exit()

    def tell(self, until: int) -> Iterator[Scene]:
        """A scene after each step."""
        for step, (what, action) in enumerate(self.steps[: until + 1]):
            inside = action()
            self.kernel.check()
            now = look(self.kernel, step, what)
            yield Scene(step, what, inside.clusters, inside.bits) if inside is not None else now


def cluster_life(step: int = 10, cpus: int = 2, stage: int | str = 9) -> Scene:
    """The virtual clusters after a step (0..10) of a story that shows each of their states."""
    return list(Story(cpus, stage).tell(step))[-1]


@dataclass(frozen=True, slots=True)
class Film:
    """The scenes of the story one after the other, boot left out; as text, a row a step and a column a cluster."""

    scenes: list[Scene]

    def __repr__(self) -> str:
        return repr(story_table(self.scenes))

    def _repr_html_(self) -> str:
        steps = [(scene.what, scene.strips()) for scene in self.scenes]
        height = 20 * max(len(scene.clusters) for scene in self.scenes) + 1
        alt = "; ".join(map(repr, self.scenes))
        film = stepper_html("cluster-life", "", steps, alt, 610, height)
        return film + story_table(self.scenes)._repr_html_()


def cluster_film(cpus: int = 2, stage: int | str = 9) -> Film:
    """The whole story."""
    return Film(list(Story(cpus, stage).tell(10))[1:])


def story_table(scenes: list[Scene]) -> Table:
    """A row a step, a column a cluster, with its count and its state."""
    numbers = sorted({row["cluster"] for scene in scenes for row in scene.clusters})
    cells = [
        {f"cluster {n}": " ".join(str(scene.cluster(n).get(key, "")) for key in ("count", "state")) for n in numbers}
        for scene in scenes
    ]
    return Table("", [{"step": f"{s.step}. {s.what}"} | row for s, row in zip(scenes, cells, strict=True)])


class Allocator:
    """A stage's allocator of virtual slots, called directly: nothing is linked to a device, nobody refers to a slot."""

    def __init__(self, stage: int | str = 9, cpus: int = 1) -> None:
        self.stage = at(stage)
        self.kernel = self.stage.Kernel(ram="4M", swap=[Ssd("1M")], cpus=cpus)
        self.s = self.kernel.system

    def alloc(self, order: int) -> int:
        """The first of the ``1 << order`` slots."""
        return int(self.stage.module("vswap.allocation").vswap_alloc(self.s, order))

    def free(self, entry: int) -> None:
        """Free a slot."""
        self.stage.module("vswap.free").vswap_free(self.s, entry, None)

    def state(self, number: int) -> str:
        """State of a cluster."""
        return str(look(self.kernel, 0, "").cluster(number).get("state", "gone"))

    def cluster(self, number: int) -> Any:
        """A cluster."""
        return self.s.vswap.cluster_map.load(number)


SEQUENCES = {"0 0 9 9 4": [0, 0, 9, 9, 4], "0 to 9": [*range(10)], "0 to 9, twice": [*range(10)] * 2}


def first_values(orders: str = "0 0 9 9 4", stage: int | str = 9) -> Table:
    """What a machine gives to its first folios after boot: value, cluster, index."""
    allocator = Allocator(stage)
    values = [(order, allocator.alloc(order)) for order in SEQUENCES[orders]]
    return Table(
        orders,
        [{"order": order, "value": str(v), "cluster": v // CLUSTER, "index": v % CLUSTER} for order, v in values],
    )


def cluster_zero(stage: int | str = 9) -> Table:
    """How many slots of cluster 0 each order can use; its state when they are used up, and after one more request."""
    rows = []
    for order in range(9):
        allocator, nr = Allocator(stage), 1 << order
        while (cluster := allocator.cluster(0)) is None or cluster.count < CLUSTER - nr:
            allocator.alloc(order)
        before = allocator.state(0)
        allocator.alloc(order)
        rows.append({"order": order, "slots": cluster.count, "used up": before, "asked again": allocator.state(0)})
    return Table("cluster 0", rows)


@dataclass(frozen=True, slots=True)
class Fragments(OneRow):
    """What freeing pages of the folios in a full cluster is good for."""

    pages: int
    which: str
    count: int
    state: str
    gained: int
    state_after: str

    def row(self) -> dict[str, object]:
        """As a row of a table."""
        return {
            "freed": self.pages,
            "which": self.which,
            "count": self.count,
            "state": self.state,
            "folios that find a place": self.gained,
            "state after": self.state_after,
        }

    def __repr__(self) -> str:
        return (
            f"{self.pages} pages freed, {self.which}: count {self.count}, {self.state}; "
            f"{self.gained} folios find a place, then {self.state_after}"
        )


def fragments(pages: int = 32, which: str = "some of each folio", order: int = 4, stage: int | str = 9) -> Fragments:
    """Fill a cluster with folios, free ``pages`` slots of them, then ask for folios of the same order."""
    allocator, nr = Allocator(stage), 1 << order
    folios = [allocator.alloc(order) for _ in range(CLUSTER // nr)]
    number = folios[0] // CLUSTER
    slots = [folio + page for folio in folios for page in range(nr)]
    if which == "some of each folio":
        slots = [folio + page for page in range(nr) for folio in folios]
    for slot in slots[:pages]:
        allocator.free(slot)
    count, state, gained = allocator.cluster(number).count, allocator.state(number), 0
    while allocator.alloc(order) // CLUSTER == number:
        gained += 1
    return Fragments(pages, which, count, state, gained, allocator.state(number))


@dataclass(frozen=True, slots=True)
class Stranded:
    """Pages, each swapped out by another CPU, and the clusters that they keep."""

    pages: int
    cpus_die: bool
    clusters: int
    descriptor_bytes: int
    cached: int

    def __repr__(self) -> str:
        how = "the CPU dies after each" if self.cpus_die else "on one CPU that stays"
        return (
            f"{self.pages} pages, {how}: {self.clusters} clusters, {self.cached} of them cached, "
            f"{self.descriptor_bytes:,} bytes of descriptors"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>"


def stranded(pages: int = 50, cpus_die: bool = True, stage: int | str = 9) -> Stranded:
    """Swap out ``pages`` pages one by one, each on a CPU of its own that then dies, or all on CPU 0."""
    kernel = kernel_class(stage)(ram="4M", swap=[Ssd("4M")], cpus=pages + 1)
    for number in range(pages):
        cpu = number + 1 if cpus_die else 0
        app = kernel.spawn(f"app{number}", cpu=cpu)
        heap = app.mmap(PAGE_SIZE)
        heap.write_page(0, b"page" * (PAGE_SIZE // 4))
        app.madvise(heap, "pageout")
        if cpus_die:
            kernel.cpu_offline(cpu)
    kernel.drain()
    kernel.check()
    rows = look(kernel, 0, "").clusters
    cached = sum("cached" in row["state"] for row in rows)
    return Stranded(pages, cpus_die, len(rows), kernel.memory()["vswap descriptors"][1], cached)


FREE_NAMES = ("cl_lock", "cache_lock", "ci_lock", "memcg_uncharge_calls", "phys_free_calls")


@dataclass(frozen=True, slots=True)
class FreeCost:
    """Primitive operations that it takes to free the slots of a folio."""

    stage: str
    path: str
    pages: int
    costs: dict[str, int]

    def row(self) -> dict[str, object]:
        """As a row of a table."""
        return {"stage": self.stage, "path": self.path, "pages": self.pages} | self.costs

    def __repr__(self) -> str:
        return f"stage {self.stage}, {self.path}, {self.pages} pages: {self.costs}"

    def _repr_html_(self) -> str:
        top, bars = max(1, *self.costs.values()), ""
        for line, (name, number) in enumerate(self.costs.items()):
            text = f"<text x='{{}}' y='{22 * line + 13}' font-size='12' fill='currentColor'>{{}}</text>"
            bars += f"<rect x='160' y='{22 * line}' height='16' width='{320 * number / top:.0f}' fill='#c8453c'/>"
            bars += text.format(0, name) + text.format(166 + round(320 * number / top), f"{number:,}")
        return f"<p>stage {self.stage}, {self.path}, {self.pages} pages</p>" + picture(bars, repr(self), 560, 110)


def free_cost(path: str = "swap_free_nr", pages: int = 512, stage: int | str = 9) -> FreeCost:
    """Free what a mapping has in swap: by one call for all its entries, or by "unmapping" it."""
    loaded = at(stage)
    kernel = loaded.Kernel(ram="8M", swap=[Ssd("8M")], cpus=1)
    heap = kernel.spawn("app").mmap_swapped(pages * PAGE_SIZE)
    pte = loaded.module("pagetable").ptep_get(heap.process.mm, heap.vma.start)
    entry = loaded.module("types").pte_to_swp_entry(pte)
    before = kernel.cost.snapshot()
    if path == "swap_free_nr":
        loaded.module("swap_map").swap_free_nr(kernel.system, entry, pages)
    else:
        heap.munmap()
    spent = kernel.cost.since(before)
    return FreeCost(str(stage), path, pages, {name: spent.get(name, 0) for name in FREE_NAMES})


LAYER = ("vswap cluster map", "vswap clusters", "vswap descriptors", "swap table", "swap cache")


@dataclass(frozen=True, slots=True)
class LayerMemory(OneRow):
    """Bytes of the structures that grow with use, and how many pages they serve."""

    stage: str
    layout: str
    pages: int
    bytes: dict[str, int]

    @property
    def per_page(self) -> float:
        """All of them, divided by the pages."""
        return sum(self.bytes.values()) / self.pages

    def row(self) -> dict[str, object]:
        """As a row of a table."""
        shares = {name: round(size / self.pages, 2) for name, size in self.bytes.items()}
        return (
            {"stage": self.stage, "layout": self.layout, "pages": self.pages}
            | shares
            | {"sum": round(self.per_page, 2)}
        )

    def __repr__(self) -> str:
        return ", ".join(f"{name}: {value}" for name, value in self.row().items())


def layer_memory(layout: str = "dense", stage: int | str = 9, size: str = "64M") -> LayerMemory:
    """Swap a mapping out in folios of 512 pages ("dense"), then free all but one page of each ("sparse")."""
    kernel = kernel_class(stage)(ram="64M", swap=[Ssd("66M", contentless=True)], cpus=1)
    app = kernel.spawn("app")
    heap = app.mmap_swapped(size)
    if layout == "sparse":
        for first in range(0, heap.pages, CLUSTER):
            app.madvise(heap, "dontneed", (first + 1) * PAGE_SIZE, (first + CLUSTER) * PAGE_SIZE)
    kernel.check()
    ledger = {row[0]: row[3] for row in kernel.memory().rows}
    ledger["swap table"] -= CLUSTER * 8
    return LayerMemory(str(stage), layout, app.swap // PAGE_SIZE, {name: ledger.get(name, 0) for name in LAYER})
