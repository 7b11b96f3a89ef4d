"""The states of a swap entry, generated from the code: a tiny kernel is taken through everything that can happen.

Breadth first, each operation is tried in every state of the tiny kernel that is new.  Between operations the entries
are *at rest*.  While an operation runs they are looked at wherever another task could: at every switch point of the
scheduler, unless their cluster is locked.  Whatever is seen there and never at rest is *transient*.

``data/transitions.csv`` says what may be seen; ``explore`` what is.
"""

from __future__ import annotations

import csv
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, NamedTuple

from vswap_ref.machine import PAGE_SIZE, Exploration, Pmem, Scheduler, Ssd, follow
from vswap_ref.machine import Task as RunningTask
from vswap_ref.machine.schedule import Chooser
from vswap_ref.series import at

from .corpus import data_path
from .schedules import watched

STAGE = 14
BACKINGS = "SZCF"
"""Letters of enum swap_type, in its order: a slot, zeros, a compressed copy, the folio."""

OPERATIONS = (
    "folio_alloc_swap",
    "swap_duplicate_nr",
    "vswap_free_nr_any_cache_only",
    "swapcache_prepare",
    "swapcache_clear",
    "swap_cache_add_folio",
    "swap_cache_del_folio",
    "__vswap_remove_mapping",
    "folio_free_swap",
    "swap_zeromap_folio_set",
    "vswap_prepare_writeout",
    "vswap_store_folio",
    "zswap_entry_store",
    "vswap_alloc_swap_slot",
)
"""The functions of the layer that change a descriptor, each under one hold of the cluster's lock."""


class State(NamedTuple):
    """What a descriptor says: its backing (a letter; "-": free), pinned or not, 0, 1 or 2+ users, folio or not."""

    backing: str
    in_swapcache: int
    swap_count: str
    word: str

    def __str__(self) -> str:
        pin = "pinned" if self.in_swapcache else "-"
        return "free" if self == FREE else f"{self.backing} {pin} {self.swap_count} {self.word}"


FREE = State("-", 0, "0", "none")


class Edge(NamedTuple):
    """A function of the layer takes an entry from a state to the next."""

    state: State
    operation: str
    following: State


def describe(type_: int, pinned: int, count: int, word: int) -> State:
    """The state of an allocated descriptor."""
    return State(BACKINGS[type_], pinned, str(count) if count < 2 else "2+", "folio" if word and not word & 1 else "none")


# --- watching ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Sight:
    """How a state was first seen: the operations up to there, the switch point, the kernel function that ran."""

    path: tuple[str, ...]
    where: str

    def __repr__(self) -> str:
        return " > ".join(self.path) + (f" @ {self.where}" if self.where else "")


@dataclass(slots=True)
class Sightings:
    """All states that were seen, at rest and at switch points, and all steps from one to the next."""

    rest: dict[State, Sight] = field(default_factory=dict)
    passing: dict[State, Sight] = field(default_factory=dict)
    edges: dict[Edge, Sight] = field(default_factory=dict)
    taken: int = 0
    schedules: int = 0
    kernels: int = 0

    @property
    def transient(self) -> dict[State, Sight]:
        """What is seen at switch points only."""
        return {state: sight for state, sight in self.passing.items() if state not in self.rest}


class Watch:
    """Looks at all descriptors of a kernel whose clusters are not locked, and notes what has changed."""

    def __init__(self, kernel: Any, path: tuple[str, ...], seen: Sightings) -> None:
        self.kernel, self.path, self.seen = kernel, path, seen
        self.known = dict(self.raw({}))

    def raw(self, before: dict[int, tuple[int, ...]]) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Virtual slot -> (type, slot, word, count, pin) of every allocated slot; as ``before`` if locked."""
        for number, cluster in self.kernel.system.vswap.cluster_map.items():
            if cluster.lock.locked():
                yield from ((entry, fields) for entry, fields in before.items() if entry >> 9 == number)
                continue
            desc, index = cluster.desc, cluster.bitmap.bits.find(1)
            while index >= 0:
                columns = (desc.type, desc.in_swapcache, desc.swap_count, desc.swap_cache, desc.slot)
                yield number << 9 | index, tuple(column[index] for column in columns)
                index = cluster.bitmap.bits.find(1, index + 1)

    def look(self, label: str) -> None:
        """A switch point."""
        now = dict(self.raw(self.known))
        if now == self.known:
            return
        operation = running_operation()
        for entry in sorted(self.known.keys() | now.keys()):
            was, is_ = self.known.get(entry), now.get(entry)
            if was != is_:
                edge = Edge(describe(*was[:4]) if was else FREE, operation, describe(*is_[:4]) if is_ else FREE)
                sight = Sight(self.path, f"{operation}, {label}")
                self.seen.edges.setdefault(edge, sight)
                self.seen.passing.setdefault(edge.following, sight)
        self.known = now

    def rest(self) -> None:
        """The operation has ended."""
        self.look("the end")
        for fields in self.known.values():
            self.seen.rest.setdefault(describe(*fields[:4]), Sight(self.path, ""))


def running_operation() -> str:
    """The innermost function of the layer on the stack."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_name not in OPERATIONS:
        frame = frame.f_back
    return frame.f_code.co_name if frame is not None else "?"


class WatchedScheduler(Scheduler):
    """A scheduler that looks at every switch point, before it decides who goes on."""

    look: Callable[[str], None]

    def point(self, task: RunningTask, label: str) -> None:
        """A switch point of the running task."""
        self.look(label)
        super().point(task, label)


def run_tasks(
    kernel: Any, tasks: Sequence[Callable[[], object]], choose: Chooser, path: tuple[str, ...], seen: Sightings
) -> Scheduler:
    """Run tasks on a kernel in one order, watched; an error that a program may get ends its task only."""
    loaded = sys.modules[type(kernel).__module__]

    def enter(task: RunningTask) -> None:
        kernel.system.cpu = task.number

    def body(task: Callable[[], object]) -> None:
        try:
            task()
        except (OSError, loaded.OutOfMemory):
            return

    scheduler = WatchedScheduler(
        [partial(body, task) for task in tasks], choose, list(range(len(tasks))), enter
    )
    watch = Watch(kernel, path, seen)
    scheduler.look = watch.look
    with watched(kernel):
        error = scheduler.run()
    if error is not None:
        raise error
    watch.rest()
    kernel.check()
    return scheduler


# --- the tiny kernel ---------------------------------------------------------------------------------------------------

Operation = Callable[[Any], object]
"""Something that can happen to a kernel."""


def on_page(process: int, action: Callable[[Any, Any], object]) -> Operation:
    """An operation of a process on its page."""

    def operation(k: Any) -> None:
        page = k.processes[process].mappings[0]
        action(page.process, page)

    return operation


def tasks_of(process: int) -> dict[str, Operation]:
    """What one process can do to the page."""
    name = "ab"[process]
    contents = {
        "zeros": bytes(PAGE_SIZE),
        "text": b"a page of text  " * (PAGE_SIZE // 16),
        "noise": random.Random(0).randbytes(PAGE_SIZE),
    }
    calls: dict[str, Callable[[Any, Any], object]] = {
        f"writes {what}": lambda _, page, data=data: page.write_page(0, data)  # type: ignore[misc]
        for what, data in contents.items()
    }
    calls["reads"] = lambda _, page: page.read_page(0)
    for advice in ("pageout", "willneed", "dontneed"):
        calls[advice] = lambda owner, page, advice=advice: owner.madvise(page, advice)  # type: ignore[misc]
    return {f"{name} {call}": on_page(process, action) for call, action in calls.items()}


def write_back(k: Any) -> None:
    """zswap writes its coldest page to the disk: it looks twice, because the first look is a second chance."""
    module = sys.modules[type(k.system).__module__.removesuffix("state") + "zswap_writeback"]
    for _ in range(2):
        module.shrink_memcg(k.system, k.system.memcg.root)


def spoil(k: Any) -> None:
    """What zswap has stored does not decompress any more."""
    for entry in k.system.memcg.root.zswap_lru:
        entry.object = SPOILT


def hibernate(k: Any) -> None:
    """An image is written, or given up; while there is one, the cache keeps its slots."""
    if k.image is not None and k.image.active:
        k.image.release()
    else:
        k.hibernate(pages=0)


SPOILT = b"\xff"
FACE: dict[str, Operation] = {
    **tasks_of(0),
    **tasks_of(1),
    "fork": lambda k: k.processes[0].fork("b"),
    "b exits": lambda k: k.processes[1].exit(),
    "reclaim": lambda k: k.reclaim("64K"),
    "I/O ends": lambda k: k.drain(),
    "writeback": write_back,
    "spoil": spoil,
    "swapoff": lambda k: k.swapoff(0),
    "hibernate": hibernate,
}
"""The operations that are tried in every state, by name."""


def boot(shared: bool, device: str, zswap: int) -> Any:
    """A kernel with one page: a process's own, or one of a shared object that two processes map.

    zswap: percent of memory that it may use; -1: there is none.
    """
    devices = {"ssd": [Ssd("64K")], "pmem": [Pmem("64K")], "none": []}[device]
    loaded = at(STAGE)
    pool = loaded.Zswap(max_pool_percent=zswap) if zswap >= 0 else None
    k = loaded.Kernel("256K", devices, pool, locks="scheduled", memcg=None, page_cluster=0)
    page = k.shmem(PAGE_SIZE) if shared else PAGE_SIZE
    for name in "ab"[: 1 + shared]:
        k.spawn(name).mmap(page)
    return k


WORLDS: dict[str, tuple[tuple[bool, str, int], set[str]]] = {
    "own page, SSD, zswap": ((False, "ssd", 20), {"fork", "writeback", "I/O ends", "spoil"}),
    "own page, SSD, zswap, no fork": ((False, "ssd", 20), {"writeback", "spoil", "hibernate", "swapoff"}),
    "own page, pmem": ((False, "pmem", -1), {"fork", "swapoff"}),
    "own page, full zswap": ((False, "none", 0), {"fork"}),
    "shared page, SSD, zswap": ((True, "ssd", 20), {"writeback", "I/O ends", "spoil"}),
    "shared page, pmem": ((True, "pmem", -1), {"swapoff"}),
    "shared page, full zswap": ((True, "none", 0), set()),
}
"""The tiny kernels, and what can happen to each beside what its processes do."""

EXTRAS = set.union(*(extras for _, extras in WORLDS.values()))


def possible(k: Any, extras: set[str]) -> list[str]:
    """The operations that make sense: with the second process or without, with a device or without."""
    absent = {"fork"} if len(k.processes) > 1 else {name for name in FACE if name.startswith("b ")}
    absent |= set() if k.devices else {"writeback", "hibernate", "swapoff"}
    return [name for name in FACE if name not in absent | EXTRAS - extras]


def fingerprint(k: Any) -> tuple[Any, ...]:
    """Two kernels with the same fingerprint go on in the same ways: the abstract state of the tiny kernel."""
    s = k.system
    ptes = sorted(bool(pte) + bool(pte & 1) for mm in s.mms for table in mm.pgd.values() for pte in table if pte)
    folios = sorted(
        (any(f.data), f.mapping is not None, f.swapcache, f.swapcache and (f.dirty, f.writeback, f.uptodate))
        for f in frames_in_use(s)
    )
    entries = sorted(describe(*fields[:4]) for fields in dict(Watch(k, (), Sightings()).known).values())
    spoilt = any(entry.object == SPOILT for entry in s.memcg.root.zswap_lru)
    return len(k.processes), *ptes, *folios, *entries, spoilt, len(k.devices), s.power.suspended_storage


def pages(k: Any) -> int:
    """Pages with a content: folios, and entries without one.  More than one after copy on write."""
    s, fields = k.system, dict(Watch(k, (), Sightings()).known).values()
    return len(frames_in_use(s)) + sum(describe(*one[:4]).word == "none" for one in fields)


def frames_in_use(s: Any) -> list[Any]:
    """The folios in memory, the shared zero page aside."""
    return [folio for folio in s.memory.mem_map[1:] if folio is not None]


# --- exploring ---------------------------------------------------------------------------------------------------------


def explore_world(world: str, seen: Sightings) -> None:
    """Try every operation in every state of a tiny kernel, breadth first; where it has two pages it ends."""
    setting, extras = WORLDS[world]
    start = boot(*setting)
    known, queue = {fingerprint(start)}, deque([(start, (world,))])
    while queue:
        kernel, path = queue.popleft()
        for name in possible(kernel, extras):
            twin, way = kernel.copy(), (*path, name)
            run_tasks(twin, [partial(FACE[name], twin)], follow([]), way, seen)
            seen.taken += 1
            if (mark := fingerprint(twin)) not in known:
                known.add(mark)
                if pages(twin) < 2:
                    queue.append((twin, way))
    seen.kernels += len(known)


SWAPPED_ZEROS = ("a writes zeros", "a pageout")
SWAPPED_TEXT = ("a writes text", "a pageout")
RACES: tuple[tuple[str, tuple[str, ...], tuple[str, str]], ...] = (
    ("own page, SSD, zswap", SWAPPED_ZEROS, ("a willneed", "a dontneed")),
    ("own page, SSD, zswap", SWAPPED_TEXT, ("a willneed", "a dontneed")),
    ("own page, SSD, zswap", SWAPPED_TEXT, ("writeback", "a dontneed")),
    ("own page, SSD, zswap", SWAPPED_TEXT[:1], ("a pageout", "a dontneed")),
)
"""Pairs of operations that are tried in every order within one preemption: (kernel, operations before, the two)."""


def after(world: str, path: Sequence[str]) -> Any:
    """A tiny kernel after some operations."""
    k = boot(*WORLDS[world][0])
    for name in path:
        FACE[name](k)
    return k


def explore_race(world: str, path: Sequence[str], pair: tuple[str, str], seen: Sightings) -> None:
    """Two operations at once, in every order within one preemption."""
    start = after(world, path)
    exploration = Exploration(preemptions=1)
    for choices in exploration:
        twin = start.copy()
        tasks = [partial(FACE[name], twin) for name in pair]
        scheduler = run_tasks(twin, tasks, follow(choices), (world, *path, " | ".join(pair)), seen)
        exploration.add(scheduler.decisions)
        seen.schedules += 1


# --- the table -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of a state, and which functions of the layer may take an entry to which next one."""

    state: State
    kind: str
    meaning: str
    steps: tuple[Edge, ...]


@cache
def table() -> dict[State, Row]:
    """``data/transitions.csv``, by state."""
    with data_path("transitions.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    rows: dict[State, Row] = {}
    for line in lines:
        state = State(line["backing"], int(line["in_swapcache"]), line["swap_count"], line["word"])
        row = rows.setdefault(state, Row(state, line["class"], line["meaning"], ()))
        if line["operation"]:
            step = Edge(state, line["operation"], parse(line["next"]))
            rows[state] = replace(row, steps=(*row.steps, step))
    return rows


def parse(text: str) -> State:
    """A state as the table writes it: "free", or the four columns."""
    if text == "free":
        return FREE
    backing, pinned, count, word = text.split()
    return State(backing, int(pinned), count, word)
