"""One lock for all, or one a cluster: how often do CPUs meet that swap different pages at the same time?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from vswap_ref.display import picture, table_html
from vswap_ref.lab.paging import kernel_class
from vswap_ref.lab.schedules import interleave
from vswap_ref.machine import PAGE_SIZE, Ssd

WORDS = b"the same words on every page    " * (PAGE_SIZE // 32)

PER_CPU = ("ptl", "percpu_swap_cluster", "percpu_vswap_cluster")
"""Classes with a lock for every process or CPU: tasks that have their own cannot meet there."""


@dataclass(frozen=True, slots=True)
class Meetings:
    """How often CPUs wanted the locks of each class, and found one taken, over all seeds."""

    stage: str
    cpus: int
    rounds: int
    seeds: tuple[int, ...]
    locks: list[dict[str, Any]]
    steps: int

    def of(self, name: str) -> dict[str, Any]:
        """The row of a class; zeros if nobody wanted it."""
        nothing = {"lock": name, "acquisitions": 0, "contentions": 0}
        return next((row for row in self.locks if row["lock"] == name), nothing)

    def share(self, name: str) -> float:
        """Contentions in a hundred acquisitions."""
        row = self.of(name)
        return 100 * row["contentions"] / row["acquisitions"] if row["acquisitions"] else 0.0

    def rows(self) -> list[dict[str, Any]]:
        """Tidy rows, the most contended class first."""
        return [{"stage": self.stage, **row, "in 100": round(self.share(row["lock"]), 1)} for row in self.locks]

    def __repr__(self) -> str:
        classes = ", ".join(
            f"{row['lock']} {row['contentions']}/{row['acquisitions']}" for row in self.locks if row["contentions"]
        )
        seeds = f"seeds {self.seeds[0]} to {self.seeds[-1]}"
        return f"stage {self.stage}, {self.cpus} CPUs, {seeds}: found taken: {classes or 'none'}"

    def _repr_html_(self) -> str:
        top = max((self.share(row["lock"]) for row in self.locks), default=0) or 1
        bars = "".join(
            f"<rect x='150' y='{22 * i}' height='16' width='{300 * self.share(row['lock']) / top:.0f}' fill='#c8453c'/>"
            f"<text x='0' y='{22 * i + 13}' font-size='12' fill='currentColor'>{row['lock']}</text>"
            f"<text x='456' y='{22 * i + 13}' font-size='12' fill='currentColor'>{self.share(row['lock']):.1f} %</text>"
            for i, row in enumerate(self.locks)
        )
        return f"<p>{self!r}</p>{picture(bars, repr(self), 520, 22 * len(self.locks))}{table_html(self.rows())}"


def machine(stage: int | str | None, cpus: int, pages: int) -> Any:
    """A kernel with a process on each CPU, whose pages are swapped out, in slots that its CPU has taken."""
    kernel = kernel_class(stage)(ram="4M", swap=[Ssd("16M")], cpus=cpus, locks="scheduled", page_cluster=0)
    for cpu in range(cpus):
        app = kernel.spawn(f"app{cpu}", cpu=cpu)
        heap = app.mmap(pages * PAGE_SIZE)
        for page in range(pages):
            heap.write_page(page, WORDS)
        app.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim(cpus * pages * PAGE_SIZE)
    return kernel


def work(number: int, rounds: int, kernel: Any) -> None:
    """One CPU's task: write to a page of its own, which faults it in, and push it out again."""
    app = kernel.processes[number]
    heap = app.mappings[0]
    for page in range(rounds):
        heap[page * PAGE_SIZE] = 1
        app.madvise(heap, "pageout", page * PAGE_SIZE, (page + 1) * PAGE_SIZE)


def lock_partitioning(
    stage: int | str | None = None, cpus: int = 2, rounds: int = 8, seeds: Iterable[int] = range(20)
) -> Meetings:
    """Each CPU swaps ``rounds`` pages of its own in and out; a random schedule for each seed.

    All processors run at the same speed: each is as likely as the others to take the next step, from one switch point
    to the next.  So the figures compare locks; they are no measurements of time.
    """
    return meet(machine(stage, cpus, rounds), stage, cpus, rounds, tuple(seeds))


def meet(kernel: Any, stage: int | str | None, cpus: int, rounds: int, seeds: tuple[int, ...]) -> Meetings:
    """Each CPU works on its own process of copies of a kernel, one copy and one random schedule for each seed."""
    tasks = [partial(work, cpu, rounds) for cpu in range(cpus)]
    record = interleave(kernel, tasks, seeds=seeds)
    if record.failure is not None:
        raise record.failure.error
    locks = [row for row in record.locks() if row["lock"] not in PER_CPU]
    name = str(stage) if stage is not None else "latest"
    return Meetings(name, cpus, rounds, seeds, locks, record.steps)
