"""Experiments of the chapter on the life of an entry: who frees whom, in which order locks nest, how many are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vswap_ref.display import Table, escape, picture, table_html
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, LockdepError, Pmem, Ssd
from vswap_ref.series import at

from .calls import record_calls

TEXT = b"the same words on every page    " * (PAGE_SIZE // 32)
STEPS = {
    "swap_slots_put_map_nr": "physical",
    "swap_slot_put_locked": "physical",
    "swap_slot_free_nr": "physical",
    "swap_slots_put_map": "physical",
    "swap_slots_free": "physical",
    "swap_range_free": "physical",
    "vswap_free_nr_any_cache_only": "virtual",
    "vswap_put_count": "virtual",
    "vswap_free": "virtual",
    "release_backing": "virtual",
    "release_vswap_slot": "virtual",
    "vswap_cluster_put": "virtual",
    "vswap_rmap_set": "other",
    "zswap_entry_free": "other",
    "mem_cgroup_uncharge_swap": "other",
    "mem_cgroup_uncharge_swap_by_id": "other",
}
"""Functions that are worth to be shown, and whose they are."""
SIDES = {"virtual": "#1f9bb5", "physical": "#c8453c", "other": "#777777"}


def machine(stage: int | str, pages: int, **options: Any) -> Any:
    """A kernel and a mapping of a cgroup's process, whose pages all hold text."""
    kernel = kernel_class(stage)(ram="8M", swap=[Ssd("16M")], zswap="lz4", cpus=1, **options)
    heap = kernel.spawn("app", kernel.cgroup("job")).mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap.write_page(page, TEXT)
    return kernel, heap


@dataclass(frozen=True, slots=True)
class Chain:
    """Who called whom when the last user of a compressed page went: (depth, function, side, locks of both layers)."""

    stage: str
    calls: list[tuple[int, str, str, tuple[str, ...]]]

    def order(self) -> list[str]:
        """The sides in the order in which they come in."""
        sides = [side for _, _, side, _ in self.calls if side != "other"]
        return [side for number, side in enumerate(sides) if not number or sides[number - 1] != side]

    def __repr__(self) -> str:
        lines = [f"stage {self.stage}"]
        for depth, name, _, held in self.calls:
            lines.append(f"{'  ' * depth}{name}".ljust(48) + " ".join(held))
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        parts = []
        for line, (depth, name, side, held) in enumerate(self.calls):
            x, y = 22 * depth, 24 * line
            parts.append(
                f"<rect x='{x}' y='{y}' width='6' height='20' fill='{SIDES[side]}'/>"
                f"<text x='{x + 12}' y='{y + 15}' font-size='13' fill='currentColor'>{escape(name)}</text>"
                f"<text x='400' y='{y + 15}' font-size='12' fill='currentColor'>{' + '.join(held) or 'no lock'}</text>"
            )
        svg = picture("".join(parts), repr(self).replace("\n", "; "), 560, 24 * len(self.calls))
        head = "Blue: virtual layer; red: physical layer; grey: others. On the right: locks of both layers held."
        return f"<p>Stage {escape(self.stage)}. {head}</p>{svg}"


def who_frees_whom(stage: int | str = 13) -> Chain:
    """Unmap the only user of a page in zswap, and note who calls whom."""
    kernel, heap = machine(stage, 1, locks="validated")
    heap.process.madvise(heap, "pageout")
    shown: list[tuple[int, str, str, tuple[str, ...]]] = []
    levels: list[int] = []
    for call in record_calls(stage, kernel, heap.munmap):
        if call.name in STEPS:
            while levels and levels[-1] >= call.depth:
                levels.pop()
            held = tuple(name for name in call.held if name in ("vswap_cluster", "ci"))
            shown.append((len(levels), call.name, STEPS[call.name], held))
            levels.append(call.depth)
    return Chain(str(stage), shown)


@dataclass(frozen=True, slots=True)
class LockOrder:
    """Which classes of locks were taken inside which, in a workload that touches all of them."""

    stage: str
    inside: dict[str, list[str]]
    tried: str

    def nests(self, outer: str, inner: str) -> bool:
        """``inner`` was taken while ``outer`` was held."""
        return inner in self.inside.get(outer, [])

    def __repr__(self) -> str:
        lines = [f"{outer} -> {', '.join(inner)}" for outer, inner in self.inside.items()]
        return "\n".join([f"stage {self.stage}", *lines])

    def _repr_html_(self) -> str:
        rows = [{"held": outer, "taken inside": ", ".join(inner)} for outer, inner in self.inside.items()]
        return f"<p>Stage {escape(self.stage)}</p>{table_html(rows)}"


def lock_order(stage: int | str = 13) -> LockOrder:
    """Swap out, fork, fault, exit and swapoff with validated locks; then try the two layers in both orders."""
    kernel, heap = machine(stage, 64, locks="validated")
    heap.process.madvise(heap, "pageout")
    kernel.reclaim("256K")
    child = heap.process.fork()
    for page in range(8):
        heap.touch(page, write=page % 2 == 0)
    child.exit()
    heap.munmap()
    inside = {outer: sorted(inner) for outer, inner in sorted(kernel.locks.lockdep.inside.items())}
    return LockOrder(str(stage), inside, against_the_order(kernel))


def against_the_order(kernel: Any) -> str:
    """Take the lock of a virtual cluster while one of a physical cluster is held, and see what the validator says."""
    ci = kernel.system.swap.info[0].cluster_info[0].lock
    cluster = kernel.locks.spinlock("vswap_cluster")
    try:
        with ci, cluster:
            return "no complaint"
    except LockdepError as error:
        return str(error)


PATHS = ("swap-out of a page to zswap", "zap of 512: batch the PTEs", "zap of 512: free the entries")


@dataclass(frozen=True, slots=True)
class LocksTaken:
    """Locks that one path took, of virtual and of physical clusters."""

    stage: str
    path: str
    virtual: int
    physical: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {"stage": self.stage, "path": self.path, "virtual": self.virtual, "physical": self.physical}

    def __repr__(self) -> str:
        return f"stage {self.stage}, {self.path}: {self.virtual} virtual, {self.physical} physical locks"

    def _repr_html_(self) -> str:
        longest, parts = max(self.virtual, self.physical, 1), []
        for line, (name, nr) in enumerate((("virtual", self.virtual), ("physical", self.physical))):
            colour, width = SIDES[name], 380 * nr / longest
            parts.append(
                f"<text y='{24 * line + 14}' font-size='13' fill='currentColor'>{name}</text>"
                f"<rect x='70' y='{24 * line}' width='{width:.0f}' height='18' fill='{colour}'/>"
                f"<text x='{76 + width:.0f}' y='{24 * line + 14}' font-size='13' fill='currentColor'>{nr:,}</text>"
            )
        return f"<p>{escape(repr(self))}</p>{picture(''.join(parts), repr(self), 520, 48)}"


def locks_taken(stage: int | str = 13, path: str = PATHS[0]) -> LocksTaken:
    """Count the cluster locks of a path: order-0 pages, one user each, a group of cgroup v2, zswap."""
    if path not in PATHS:
        raise ValueError(f"path={path!r}: expected one of {', '.join(PATHS)}")
    if path == PATHS[0]:
        kernel, heap = machine(stage, 2)
        heap.process.madvise(heap, "pageout", 0, PAGE_SIZE)
        before = kernel.cost.snapshot()
        heap.process.madvise(heap, "pageout", PAGE_SIZE, 2 * PAGE_SIZE)
    else:
        kernel, heap = machine(stage, 1)
        app = kernel.spawn("large", kernel.cgroup("large"))
        for size in ("2M", "2M"):
            app.mmap_swapped(size)
        before = kernel.cost.snapshot()
        zap(at(stage), kernel, app, batch=path == PATHS[1])
    taken = kernel.cost.since(before)
    return LocksTaken(str(stage), path, taken.get("cl_lock", 0), taken.get("ci_lock", 0))


def zap(stage: Any, kernel: Any, app: Any, batch: bool) -> None:
    """The two halves of unmapping 512 swapped pages: find out that they are one run, and free it."""
    table = [pte for _, ptes in sorted(app.mm.pgd.items()) for pte in ptes if pte]
    if batch:
        more = (True,) if int(stage.id) >= 13 else ()
        assert stage.module("pagetable").swap_pte_batch(kernel.system, table, 0, 512, *more) == 512
    else:
        module = stage.module("slot_reclaim" if int(stage.id) < 13 else "vswap.swap_cache")
        module.free_swap_and_cache_nr(kernel.system, stage.module("types").pte_to_swp_entry(table[0]), 512)


def lock_ledger() -> Table:
    """All paths at stages 12, 13 and 14."""
    rows: list[dict[str, Any]] = []
    for path in PATHS:
        taken = [locks_taken(stage, path) for stage in (12, 13, 14)]
        rows.append({"path": path} | {f"stage {one.stage}": f"{one.virtual:,} / {one.physical:,}" for one in taken})
    return Table("locks of virtual / physical clusters", rows)


@dataclass(frozen=True, slots=True)
class Storm:
    """One swapped-out page and everybody who has it: where the count is, and pages that it needs beside."""

    stage: str
    users: int
    count: str
    pages: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {"stage": self.stage, "users": self.users, "count": self.count, "extra pages": self.pages}

    def __repr__(self) -> str:
        return f"stage {self.stage}: {self.users:,} users, count {self.count}, {self.pages} extra pages"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"


def fork_storm(users: int = 63, stage: int | str = 13) -> Storm:
    """Swap a page out and fork until ``users`` processes have it."""
    loaded = at(stage)
    kernel = loaded.Kernel(ram="64M", swap=[Pmem("4M")], page_cluster=0, cpus=1)
    app = kernel.spawn("app")
    heap = app.mmap(PAGE_SIZE)
    heap[0:6] = b"shared"
    app.madvise(heap, "pageout")
    for _ in range(users - 1):
        app.fork()
    si: Any = kernel.system.swap.info[0]
    if int(loaded.id) >= 13:
        (cluster,) = (cluster for _, cluster in kernel.system.vswap.cluster_map.items())
        return Storm(str(stage), users, str(max(cluster.desc.swap_count)), 0)
    levels = si.continuation.get(0, [])
    digits = [si.swap_map[1] & 63, *(level[1] & 127 for level in levels)]
    return Storm(str(stage), users, " + ".join(map(weighed, range(3), digits)), len(levels))


def weighed(level: int, digit: int) -> str:
    """A digit of a continued count with its weight."""
    return str(digit) + ("", " * 63", " * 63 * 128")[level]


FILLS = {"the cache's alone": True, "fresh": False}


@dataclass(frozen=True, slots=True)
class Scan:
    """Slots that only folios in the cache hold, and an allocator that wants four of them."""

    stage: str
    fill: int
    kind: str
    marked: int
    candidate: bool
    freed: int
    slots: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        asked = "yes" if self.candidate else "no"
        names = {"stage": self.stage, "in use, %": self.fill, "slots are": self.kind, "marked": self.marked}
        return names | {"scan asks for reclaim": asked, "slots freed": self.freed}

    def __repr__(self) -> str:
        said = f"the scan asks for reclaim, {self.freed} slots freed" if self.candidate else "the scan refuses"
        return f"stage {self.stage}, {self.fill} % in use, {self.kind}, {self.marked} slots marked: {said}"

    def _repr_html_(self) -> str:
        width = 480 * self.fill / 100
        gone = 480 * self.freed / self.slots
        colour = "#1f9bb5" if self.marked else "#9a8fd8"
        bars = (
            f"<rect width='480' height='20' fill='#88888833'/><rect width='{width:.0f}' height='20' fill='{colour}'/>"
            f"<rect width='{gone:.1f}' height='20' fill='#2e9e5b'/>"
            "<line x1='240' x2='240' y1='0' y2='24' stroke='currentColor' stroke-dasharray='3'/>"
        )
        return f"<p>{escape(repr(self))}. Green: freed; dashed: half.</p>{picture(bars, repr(self), 480, 24)}"


def scan(fill: int = 60, kind: str = "the cache's alone", stage: int | str = 13) -> Scan:
    """Fill a device of 2,048 slots to a share with folios of 16 pages that nobody maps, then scan the first four.

    kind: "fresh" folios were never mapped; "the cache's alone" had a user, who has gone.
    """
    if kind not in FILLS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(FILLS)}")
    from .lifecycle import Rig

    rig = Rig(stage, size="8M")
    rig.kernel = rig.stage.Kernel(ram="16M", swap=[Ssd("8M")], cpus=1)
    rig.s = rig.kernel.system
    si, slots = rig.s.swap.info[0], 2048
    for _ in range(slots * fill // 100 // 16):
        folio = rig.folio(4)
        assert not rig.call("folio_alloc_swap", folio)
        if FILLS[kind]:
            for page in range(16):
                assert not rig.call("swap_duplicate", folio.swap + page)
            rig.call("swap_free_nr", folio.swap, 16)
        folio.locked = False
    offset = next(index for index in range(0, slots, 512) if si.swap_map[index + 16] and not index % 512 and index)
    marked = sum(rig.functions["swap_cache_only"](si, i) for i in range(1, slots)) if int(rig.stage.id) >= 13 else 0
    used = sum(map(bool, si.swap_map))
    _, candidate = rig.call("cluster_scan_range", si, offset, 4)
    if candidate:
        ci = rig.functions["swap_cluster_lock"](rig.s, si, offset)
        assert rig.call("cluster_reclaim_range", si, ci, offset, 4)
        rig.functions["swap_cluster_unlock"](ci)
    return Scan(str(stage), fill, kind, marked, candidate, used - sum(map(bool, si.swap_map)), slots)


@dataclass(frozen=True, slots=True)
class StormFigure:
    """Extra pages over the number of users, before and after."""

    storms: list[tuple[Storm, Storm]]

    def rows(self) -> list[dict[str, Any]]:
        """A row a number of users."""
        return [
            {"users": old.users, "count at 12": old.count, "pages": old.pages, "count at 13": new.count, "pages then": new.pages}
            for old, new in self.storms
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{old!r}; stage {new.stage}: count {new.count}" for old, new in self.storms)

    def _repr_html_(self) -> str:
        parts, top = ["<line x1='40' x2='520' y1='100' y2='100' stroke='currentColor'/>"], 2
        step = 480 / len(self.storms)
        for column, pair in enumerate(self.storms):
            for storm, colour, shift in zip(pair, ("#c8453c", "#1f9bb5"), (0.12, 0.5), strict=True):
                height, x = 2 + 76 * storm.pages / top, 40 + step * (column + shift)
                box = f"width='{step * 0.36:.0f}' height='{height:.0f}' fill='{colour}'"
                parts.append(f"<rect x='{x:.0f}' y='{100 - height:.0f}' {box}/>")
            label = f"<text x='{40 + step * (column + 0.5):.0f}' y='116' font-size='12' text-anchor='middle'"
            parts.append(f"{label} fill='currentColor'>{pair[0].users:,}</text>")
        for pages in range(top + 1):
            parts.append(f"<text x='24' y='{104 - 38 * pages}' font-size='12' fill='currentColor'>{pages}</text>")
        note = "<p>Extra pages (up) for a number of users (across). Red: stage 12; blue: stage 13, none.</p>"
        return f"{note}{picture(''.join(parts), repr(self).replace(chr(10), '; '), 530, 122)}{table_html(self.rows())}"


def storm_figure(users: list[int]) -> StormFigure:
    """fork_storm at stages 12 and 13 for several numbers of users."""
    return StormFigure([(fork_storm(nr, 12), fork_storm(nr, 13)) for nr in users])
