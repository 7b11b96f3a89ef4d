"""A place that is looked up before its lock is taken: a page fault, and a thread that frees the entry meanwhile.

From patch 9 to 12 the functions of the swap map take an entry, look its place up in the virtual layer, and lock the
place's cluster then.  Between the two the place can become somebody else's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from vswap_ref.display import OneRow
from vswap_ref.lab.paging import kernel_class
from vswap_ref.lab.schedules import Failure, interleave
from vswap_ref.machine import PAGE_SIZE, Ssd

TEXT, OTHER = b"mine" * (PAGE_SIZE // 4), b"else" * (PAGE_SIZE // 4)
NEVER = "nothing: it waits for a swap-in that nobody is at"


def crowded(stage: int | str) -> Any:
    """A device with two slots, both in use; a third process waits on CPU 1 with a page in memory."""
    kernel = kernel_class(stage)(ram="1M", swap=[Ssd("12K")], cpus=2, locks="scheduled", page_cluster=0)
    for name in ("app", "filler"):
        heap = kernel.spawn(name, cpu=0).mmap(PAGE_SIZE)
        heap.write_page(0, TEXT)
        heap.process.madvise(heap, "pageout")
        kernel.drain()
        kernel.reclaim(PAGE_SIZE)
    kernel.spawn("other", cpu=1).mmap(PAGE_SIZE).write_page(0, OTHER)
    return kernel


def fault(kernel: Any) -> None:
    """Task a: touch the page that is in swap."""
    kernel.processes[0].mappings[0].touch(0)


def reuse(kernel: Any) -> None:
    """Task b: another thread drops that page; its slot is the only one for somebody else's page, which leaves."""
    app, filler, other = kernel.processes
    app.madvise(app.mappings[0], "dontneed")
    other.madvise(other.mappings[0], "pageout")
    kernel.drain()
    filler.mappings[0].munmap()
    kernel.reclaim(4 * PAGE_SIZE)


@dataclass(frozen=True, slots=True)
class StalePlace(OneRow):
    """All orders with one preemption: how many, how many went wrong, the first of these, what became of the page.

    ``reads``: what the other process reads after the first order that went wrong, or after the first order.
    """

    stage: str
    orders: int
    wrong: int
    reads: str
    failure: Failure | None

    def row(self) -> dict[str, Any]:
        """The outcome as plain data."""
        first = f"{self.failure.schedule!r}: {type(self.failure.error).__name__}" if self.failure is not None else "-"
        return {"stage": self.stage, "orders": self.orders, "wrong": self.wrong, "first": first, "reads": self.reads}


def stale_place(stage: int | str = 9) -> StalePlace:
    """Run a fault and the reuse of its place in every order that stops one of them once, and read the other's page."""
    tasks, name = [fault, reuse], str(stage)
    record = interleave(partial(crowded, stage), tasks, exhaustive=True, preemptions=1, keep_going=True)
    assert record.complete
    kernel = crowded(stage)
    interleave(lambda: kernel, tasks, schedule=record.failure.schedule if record.failure is not None else "a1")
    return StalePlace(name, record.runs, len(record.failures), read(kernel), record.failure)


def read(kernel: Any) -> str:
    """What the third process reads.  The kernel would wait for ever, tick by tick; the model ends with an error."""
    heap = kernel.processes[2].mappings[0]
    try:
        return bytes(heap[0:4]).decode()
    except MemoryError:
        return NEVER
