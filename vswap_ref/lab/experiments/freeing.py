"""Experiments of the chapter on the life of an entry: who frees whom, in which order locks nest, how many are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vswap_ref.display import Table, escape, picture, table_html
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, LockdepError, Ssd
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
        found = stage.module("pagetable").swap_pte_batch(kernel.system, table, 0, 512, *more)
        assert found == 512
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
