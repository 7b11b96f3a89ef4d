"""Experiments of the chapter on the swap cache in the descriptor: CPUs that meet, a field's life, a stuck reclaim."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from vswap_ref.display import OneRow, Table
from vswap_ref.lab.experiments.lock_partitioning import PER_CPU, WORDS, Meetings
from vswap_ref.lab.paging import kernel_class
from vswap_ref.lab.schedules import interleave
from vswap_ref.machine import PAGE_SIZE, Ssd
from vswap_ref.machine.locks import LockdepError
from vswap_ref.series import at

TEXT = b"text" * (PAGE_SIZE // 4)


def push_out(kernel: Any, heap: Any) -> None:
    """Write a mapping's pages, swap them out, and let reclaim free them."""
    for page in range(heap.pages):
        heap.write_page(page, WORDS)
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim(heap.pages * PAGE_SIZE)


def swapped_out(stage: int | str, cpus: int, pages: int, clusters: str) -> Any:
    """A process on each CPU, its pages in swap: by that CPU, in its own cluster, or all by CPU 0, in one cluster."""
    kernel = kernel_class(stage)(ram="4M", swap=[Ssd("16M")], cpus=cpus, locks="scheduled", page_cluster=0)
    for cpu in range(cpus):
        app = kernel.spawn(f"app{cpu}", cpu=cpu if clusters == "one each" else 0)
        push_out(kernel, app.mmap(pages * PAGE_SIZE))
        app.cpu = cpu
    return kernel


def read_back(number: int, kernel: Any) -> None:
    """One CPU's task: read all pages of its process, in order."""
    heap = kernel.processes[number].mappings[0]
    for page in range(heap.pages):
        heap.touch(page)


def fault_in(
    clusters: str = "one each", stage: int | str = 10, cpus: int = 2, pages: int = 8, seeds: Iterable[int] = range(20)
) -> Meetings:
    """Each CPU faults its own pages in, a random schedule for each seed; ``clusters``: "one each" or "one for all".

    All processors run at the same speed, so the figures compare locks; they are no measurements of time.
    """
    numbers = tuple(seeds)
    tasks = [partial(read_back, cpu) for cpu in range(cpus)]
    record = interleave(partial(swapped_out, stage, cpus, pages, clusters), tasks, seeds=numbers)
    if record.failure is not None:
        raise record.failure.error
    locks = [row for row in record.locks() if row["lock"] not in PER_CPU]
    return Meetings(str(stage), cpus, pages, numbers, locks, record.steps)


class Field:
    """The first virtual slot of a machine, looked at in three ways."""

    def __init__(self, stage: int | str) -> None:
        self.stage = at(stage)
        self.kernel = self.stage.Kernel(ram="4M", swap=[Ssd("1M")], cpus=1, page_cluster=0)
        self.cache = self.stage.module("vswap.swap_cache")
        self.entry = 512

    def raw(self) -> int:
        """The word as it stands in the descriptor, whoever has the slot."""
        cluster = self.kernel.system.vswap.cluster_map.load(self.entry >> 9)
        return int(cluster.desc.swap_cache[self.entry & 511])

    def row(self, step: str) -> dict[str, Any]:
        """What the word holds, and what the two look-ups answer."""
        s, word = self.kernel.system, self.raw()
        folio = self.cache.swap_cache_get_folio(s, self.entry)
        if folio is not None:
            self.stage.module("folio").folio_put(s, folio)
        shadow = self.cache.swap_cache_get_shadow(s, self.entry)
        return {
            "step": step,
            "word": "nothing" if not word else "shadow" if word & 1 else f"folio {word >> 1}",
            "get_folio": "-" if folio is None else f"folio {folio.pfn}",
            "get_shadow": "-" if shadow is None else "shadow",
            "refaults": self.kernel.vmstat["workingset_refault_anon"],
        }

    def delete(self, folio: Any) -> None:
        """What a user of the cache does who has taken the folio over."""
        s, module = self.kernel.system, self.stage.module("folio")
        module.folio_lock(folio)
        self.cache.swap_cache_del_folio(s, folio)
        module.folio_unlock(folio)


def life_of_a_field(stage: int | str = 10) -> Table:
    """A page goes out, is evicted, shared by a fork, comes back, leaves the cache; then comes somebody else's page."""
    field = Field(stage)
    kernel, rows = field.kernel, []
    app, other = kernel.spawn("app"), kernel.spawn("other")
    heap, later = app.mmap(PAGE_SIZE), other.mmap(PAGE_SIZE)
    heap.write_page(0, TEXT)
    later.write_page(0, TEXT)
    app.madvise(heap, "pageout")
    rows.append(field.row("swap-out"))
    kernel.drain()
    kernel.reclaim(PAGE_SIZE)
    rows.append(field.row("reclaim"))
    child = app.fork()
    heap.touch(0)
    rows.append(field.row("swap-in by one process"))
    field.delete(field.cache.swap_cache_peek(kernel.system, field.entry))
    rows.append(field.row("swap_cache_del_folio"))
    app.exit()
    child.exit()
    rows.append(field.row("both processes end: freed"))
    other.madvise(later, "pageout")
    rows.append(field.row("next owner"))
    kernel.check()
    return Table("the life of a field", rows)


def refused(stage: int | str = 10) -> Table:
    """A folio whose cgroup may not swap: the word in its freed descriptor, and what look-ups see of it."""
    field = Field(stage)
    app = field.kernel.spawn("app", field.kernel.cgroup("group", swap_max=0))
    heap = app.mmap(PAGE_SIZE)
    heap.write_page(0, TEXT)
    app.madvise(heap, "pageout")
    row = field.row(f"swap-out refused, page {heap.where()[0]}")
    field.kernel.check()
    return Table("refused", [row])


@dataclass(frozen=True, slots=True)
class Verdict(OneRow):
    """Whether a page survives swap-out, reclaim and swap-in under a version of cgroups."""

    stage: str
    memcg: str
    outcome: str

    def row(self) -> dict[str, object]:
        """As a row of a table."""
        return {"stage": self.stage, "cgroups": self.memcg, "outcome": self.outcome}

    def __repr__(self) -> str:
        return f"stage {self.stage}, cgroups {self.memcg}: {self.outcome}"


def reclaim_under(memcg: str = "v1", stage: int | str = 10) -> Verdict:
    """Four pages go out, are reclaimed and read back, with locks that are validated."""
    kernel = kernel_class(stage)(ram="2M", swap=[Ssd("1M")], cpus=1, memcg=memcg, locks="validated")
    heap = kernel.spawn("app", kernel.cgroup("group")).mmap(4 * PAGE_SIZE)
    for page in range(4):
        heap.write_page(page, TEXT)
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    try:
        kernel.reclaim(4 * PAGE_SIZE)
    except LockdepError as error:
        return Verdict(str(stage), memcg, str(error).partition("\n")[0])
    alike = all(heap.read_page(page) == TEXT for page in range(4))
    kernel.check()
    return Verdict(str(stage), memcg, "works" if alike else "content lost")
