"""Experiments of the patch that puts the swap cache in one tree: its memory, its lock, its depth, its new failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from vswap_ref.display import picture, table_html
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Ssd, parse_pages
from vswap_ref.machine.locks import KINDS, Lockdep, ValidatedLock
from vswap_ref.series import at

CLUSTER = 512
TEXT = b"some words that compress well   " * (PAGE_SIZE // 32)


@dataclass(frozen=True, slots=True)
class CacheMemory:
    """Bytes of swap tables and of the tree's nodes for the slots in use, the header's cluster left out."""

    layout: str
    stage: str
    slots: int
    tables: int
    nodes: int

    @property
    def node_bytes(self) -> int:
        """576 bytes a node."""
        return 576 * self.nodes

    @property
    def bytes_per_slot(self) -> float:
        """Tables and nodes, divided by the slots."""
        return (self.tables + self.node_bytes) / self.slots

    def __repr__(self) -> str:
        return (
            f"stage {self.stage}, {self.layout}: {self.slots:,} slots, tables {self.tables:,} bytes, "
            f"{self.nodes:,} nodes {self.node_bytes:,} bytes: {self.bytes_per_slot:,.1f} a slot"
        )

    def _repr_html_(self) -> str:
        scale = 480 / max(1, self.tables + self.node_bytes)
        alt = f"tables {self.tables} bytes, nodes {self.node_bytes} bytes"
        bars = (
            f"<rect width='{self.tables * scale:.0f}' height='18' fill='#888888'/>"
            f"<rect x='{self.tables * scale:.0f}' width='{self.node_bytes * scale:.0f}' height='18' fill='#e0912f'/>"
        )
        return f"<p>{self!r}</p>{picture(bars, alt, 480, 20)}<p>grey: tables, orange: nodes</p>"


def cache_memory(layout: str = "dense", size: str = "130M", stage: int | str = 1) -> CacheMemory:
    """Swap a device full ("dense"), or leave one slot in use in each cluster but the header's ("sparse")."""
    pages = parse_pages(size, "size", least=2 * CLUSTER)
    kernel = kernel_class(stage)(ram="64M", swap=[Ssd(pages * PAGE_SIZE, contentless=True)], cpus=1)
    app = kernel.spawn("app")
    heap = app.mmap_swapped((pages - CLUSTER) * PAGE_SIZE)
    if layout == "dense":
        app.mmap_swapped((CLUSTER - 1) * PAGE_SIZE)
    else:
        for first in range(0, heap.pages, CLUSTER):
            app.madvise(heap, "dontneed", (first + 1) * PAGE_SIZE, (first + CLUSTER) * PAGE_SIZE)
    header = 0 if layout == "dense" else CLUSTER * 8
    tables = kernel.memory()["swap table"][1] - header
    nodes = kernel.memory()["swap cache"][1] // 576 if str(stage) != "0" else 0
    return CacheMemory(layout, str(stage), app.swap // PAGE_SIZE, tables, nodes)


class RecordedLock(ValidatedLock):
    """A lock that notes each acquisition in ``log``."""

    log: ClassVar[list[RecordedLock]] = []

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock, and note it."""
        self.log.append(self)
        return super().acquire(blocking)


def recorded_lock(name: str, lockdep: Lockdep) -> RecordedLock:
    """How a kernel with ``locks="recorded"`` makes its locks."""
    return RecordedLock(name, lockdep)


KINDS["recorded"] = recorded_lock


@dataclass(frozen=True, slots=True)
class Waits:
    """CPUs that do the same at the same time: how often each class of locks is taken, and waited for."""

    stage: str
    path: str
    cpus: int
    taken: dict[str, int]
    waits: dict[str, int]

    def rows(self) -> list[dict[str, Any]]:
        """One row a class that protects slots or the cache."""
        return [
            {"lock": name, "taken": self.taken[name], "waits": self.waits.get(name, 0)} for name in sorted(self.taken)
        ]

    def __repr__(self) -> str:
        rows = ", ".join(f"{row['lock']} taken {row['taken']}, waits {row['waits']}" for row in self.rows())
        return f"stage {self.stage}, {self.path}, {self.cpus} CPUs: {rows}"

    def _repr_html_(self) -> str:
        return f"<p>{self.cpus} CPUs, {self.path}</p>{table_html(self.rows())}"


def lock_waits(cpus: int = 4, path: str = "swap out", stage: int | str = 1, pages: int = 16) -> Waits:
    """Each CPU swaps out, or frees, ``pages`` pages in a cluster of its own.

    The locks that each really takes are recorded; then all play their lists at once, in steps: a lock is held for one
    step, whoever wants it meanwhile waits.
    """
    kernel = kernel_class(stage)(ram="64M", swap=[Ssd("64M")], cpus=cpus, locks="recorded")
    heaps = [cpu_with_cluster(kernel, cpu).mmap(pages * PAGE_SIZE) for cpu in range(cpus)]
    lists = [recorded(partial(write_and_swap_out, kernel, heap)) for heap in heaps]
    if path == "free":
        lists = [recorded(heap.munmap) for heap in heaps]
    mine = [[lock for lock in locks if lock.name in ("ci", "swap_cache")] for locks in lists]
    taken = Counter(lock.name for locks in mine for lock in locks)
    return Waits(str(stage), path, cpus, dict(taken), play(mine))


def cpu_with_cluster(kernel: Any, cpu: int) -> Any:
    """A process on a CPU that has swapped a page out: the CPU has a cluster of its own now."""
    app = kernel.spawn(f"app {cpu}", cpu=cpu)
    write_and_swap_out(kernel, app.mmap(PAGE_SIZE))
    return app


def write_and_swap_out(kernel: Any, mapping: Any) -> None:
    """Write a mapping, push it out, and let reclaim free its pages: nobody else has any in memory."""
    for page in range(mapping.pages):
        mapping.write_page(page, TEXT)
    mapping.process.madvise(mapping, "pageout")
    kernel.drain()
    kernel.reclaim(mapping.pages * PAGE_SIZE)


def recorded(action: Callable[[], object]) -> list[RecordedLock]:
    """The locks that an action takes, in order."""
    RecordedLock.log.clear()
    action()
    return RecordedLock.log.copy()


def play(lists: list[list[RecordedLock]]) -> dict[str, int]:
    """Let all go through their lists at once; returns the steps that were spent waiting, by class of lock.

    In a step every CPU takes the next lock of its list, unless another has it in this step.  Who goes first turns
    from step to step.
    """
    at, waits, turn = [0] * len(lists), Counter[str](), 0
    while any(place < len(locks) for place, locks in zip(at, lists, strict=True)):
        held: set[int] = set()
        for cpu in (*range(turn, len(lists)), *range(turn)):
            if at[cpu] < len(lists[cpu]):
                lock = lists[cpu][at[cpu]]
                if id(lock) in held:
                    waits[lock.name] += 1
                else:
                    held.add(id(lock))
                    at[cpu] += 1
        turn = (turn + 1) % len(lists)
    return dict(waits)


@dataclass(frozen=True, slots=True)
class Depth:
    """Levels of the tree that every look-up passes, step by step."""

    rows: list[dict[str, Any]]

    def __repr__(self) -> str:
        return "\n".join(f"{row['step']:<44}{row['levels']:>3} levels, {row['nodes']} nodes" for row in self.rows)

    def _repr_html_(self) -> str:
        return table_html(self.rows)


def depth(size: str = "1G", devices: int = 2) -> Depth:
    """Fill a device, then swap a page to each of the others, then free those pages again."""
    swap = [Ssd(size, contentless=True), *(Ssd("1M") for _ in range(1, devices))]
    kernel = kernel_class(1)(ram="64M", swap=swap[:1], cpus=1)
    xa, rows = kernel.system.swap.cache.xa, []

    def note(step: str) -> None:
        rows.append({"step": step, "levels": xa.height, "nodes": xa.nodes})

    app = kernel.spawn("app")
    app.mmap_swapped((parse_pages(size, "size", least=2 * CLUSTER) - 1) * PAGE_SIZE)
    note(f"a device of {size}, full")
    pieces = []
    for number, device in enumerate(swap[1:], 1):
        kernel.swapon(device)
        pieces.append(app.mmap_swapped(PAGE_SIZE))
        note(f"one page on device {number}")
    for number in range(devices - 1, 0, -1):
        pieces.pop().munmap()
        note(f"the page on device {number} is freed")
    return Depth(rows)


@dataclass(frozen=True, slots=True)
class Famine:
    """Pages that should have gone out while nodes were short; what the counters say before and after."""

    stage: str
    failures: int
    pages: int
    lost: int
    free_before: int
    free_after: int

    def __repr__(self) -> str:
        return (
            f"stage {self.stage}, {self.failures} requests fail: {self.lost} of {self.pages} swap-outs lost, "
            f"free slots {self.free_before} before, {self.free_after} after all is freed"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>"


def famine(failures: int = 2, stage: int | str = 1, pages: int = 256) -> Famine:
    """Push pages out while ``failures`` requests for a node in a row fail, beginning with the first."""
    kernel = kernel_class(stage)(ram="16M", swap=[Ssd("8M")], cpus=1)
    app = kernel.spawn("app")
    heap = app.mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap.write_page(page, TEXT)
    before = kernel.meminfo()["SwapFree"] // PAGE_SIZE
    if failures and "swap_cache_node" in kernel.faults.docs:
        kernel.faults.fail("swap_cache_node", times=failures)
    app.madvise(heap, "pageout")
    kernel.drain()
    lost = pages - app.swap // PAGE_SIZE
    kernel.check()
    heap.munmap()
    kernel.check()
    return Famine(str(stage), failures, pages, lost, before, kernel.meminfo()["SwapFree"] // PAGE_SIZE)


def large_folio(stage: Any, kernel: Any) -> Any:
    """A locked folio of four pages, swap-backed, with one reference."""
    folio = stage.module("folio").folio_alloc(kernel.system, 2)
    stage.module("folio").folio_lock(folio)
    folio.swapbacked = folio.uptodate = True
    return folio


def shadow_of_a_range(stage_id: int | str = 1) -> int:
    """Leave the shadows of evictions 1, 2, 3, 4 in four slots, add a folio there; which eviction is returned?"""
    stage = at(stage_id)
    kernel = stage.Kernel(ram="4M", swap=[Ssd("8M")], cpus=1)
    s, cache, workingset = kernel.system, stage.module("swap_cache"), stage.module("workingset")
    folio = large_folio(stage, kernel)
    err = stage.module("swap_alloc").folio_alloc_swap(s, folio)
    assert err == 0
    entry, shadows = folio.swap, [workingset.pack_shadow(1, eviction, False) for eviction in range(1, 5)]
    if stage_id == 0:
        cluster = s.swap.info[0].cluster_info[entry // CLUSTER]
        cache.__swap_cache_del_folio(s, cluster, folio, entry, 0)
        for page, value in enumerate(shadows):
            cluster.table[entry % CLUSTER + page] = value
        shadow = cache.swap_cache_add_folio(s, folio, entry)
    else:
        cache.__swap_cache_del_folio(s, folio, entry, None)
        for page, value in enumerate(shadows):
            s.swap.cache.xa.store(entry + page, value)
        _, shadow = cache.swap_cache_add_folio(s, folio, entry)
    return int(workingset.unpack_shadow(shadow)[1])


def pin_dropped_first() -> str:
    """Drop the pin of a folio while the tree still has it: what is left of the entry, and what the checker says."""
    stage = at(1)
    kernel = stage.Kernel(ram="4M", swap=[Ssd("8M")], cpus=1)
    folio = large_folio(stage, kernel)
    s = kernel.system
    err = stage.module("swap_alloc").folio_alloc_swap(s, folio)
    assert err == 0
    stage.module("swap_map").put_swap_folio(s, folio, folio.swap)
    left = stage.module("swap_cache").swap_cache_peek(s, folio.swap)
    try:
        stage.module("check").check_swap_cache(s)
    except stage.InvariantError as error:
        return f"entry: {left}; {error}"
    return f"entry: {left}; the checker is content"
