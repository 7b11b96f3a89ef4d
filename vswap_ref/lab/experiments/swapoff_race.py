"""A page fault races with swapoff: every order of their steps, with one protection or with none.

The steps are calls of the model's own functions, on a kernel of its own for each order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from vswap_ref.display import picture, table_html
from vswap_ref.machine import PAGE_SIZE, Ssd
from vswap_ref.series import at

CONTENT = b"precious" * (PAGE_SIZE // 8)
FREED = "touched freed metadata"


class World:
    """One run: a kernel with one swapped-out page; what the fault has found, what it holds, how it ends."""

    def __init__(self, kernel: Any, stage: Any) -> None:
        self.s, self.stage = kernel.system, stage
        self.vma = kernel.processes[0].mappings[0].vma
        self.si = self.s.swap.info[0]
        self.task, self.outcome = "", ""
        self.entry = 0
        self.folio: Any = None
        self.s.locks.lockdep.current = lambda: self.task

    def call(self, module: str, function: str, *args: Any) -> Any:
        """Call a function of the model."""
        return getattr(self.stage.module(module), function)(self.s, *args)


Steps = Generator[str, None, None]
"""A task: yields the name of its next step, and does it when it is resumed."""


def is_swapped(w: World) -> bool:
    """Read the page-table entry.  False if the page is back: then there is nothing to do."""
    pte = w.stage.module("pagetable").ptep_get(w.vma.mm, w.vma.start)
    w.entry = w.stage.module("types").pte_to_swp_entry(pte)
    swapped = bool(w.stage.module("types").is_swap_pte(pte))
    w.outcome = "" if swapped else "page is back"
    return swapped


def use_metadata(w: World) -> None:
    """Look the entry up in the swap cache, and its count in the swap map."""
    try:
        found = w.call("swap_cache", "swap_cache_get_folio", w.entry)
        w.call("swap_map", "__swap_count", w.entry)
    except IndexError:
        w.outcome = FREED
    else:
        w.outcome = "safe"
        if found is not None:
            w.call("folio", "folio_put", found)


def pin(w: World) -> bool:
    """Pin the entry; if that fails the fault is tried again."""
    pinned = bool(w.call("swap_device", "tryget_swap_entry", w.entry)[0])
    w.outcome = "" if pinned else "fault retried"
    return pinned


def unpin(w: World) -> None:
    """Give the pin back."""
    w.call("swap_device", "put_swap_entry", w.entry, w.si)


def unprotected(w: World) -> Steps:
    """Read the entry, use it."""
    yield "read PTE"
    if is_swapped(w):
        yield "use entry"
        use_metadata(w)


def pinned(w: World) -> Steps:
    """Pin the entry before it is used."""
    yield "read PTE"
    if is_swapped(w):
        yield "pin"
        if pin(w):
            yield "use entry"
            use_metadata(w)
            yield "unpin"
            unpin(w)


def inside(w: World, lock: Any, name: str) -> Steps:
    """Read and use the entry inside a lock or a read section."""
    yield f"{name} lock"
    with lock:
        yield "read PTE"
        if is_swapped(w):
            yield "use entry"
            use_metadata(w)
        yield f"{name} unlock"


def folio_locked(w: World) -> Steps:
    """Pin only until a locked folio is in the swap cache; then that protects the entry."""
    yield "read PTE"
    if not is_swapped(w):
        return
    yield "pin"
    if not pin(w):
        return
    yield "add folio, unpin"
    w.folio, allocated = w.call("swap_read", "__read_swap_cache_async", w.entry, w.vma.mm.memcg)
    unpin(w)
    if not allocated:
        w.outcome = "fault retried"
        return
    yield "use entry"
    use_metadata(w)
    yield "unlock folio"
    w.call("page_io", "swap_read_folio", w.folio)
    w.call("folio", "folio_put", w.folio)


FAULTS: dict[str, Callable[[World], Steps]] = {
    "none": unprotected,
    "pin": pinned,
    "RCU": lambda w: inside(w, w.s.rcu.read, "rcu"),
    "page-table lock": lambda w: inside(w, w.vma.mm.ptl, "ptl"),
    "folio lock": folio_locked,
}
"""The fault with each protection."""


def swapoff(w: World) -> Steps:
    """The part of swapoff that matters here."""
    yield "bring back"
    w.call("swap_device", "del_from_avail_list", w.si, True)
    w.call("swapoff", "try_to_unuse", w.si)
    yield "kill users"
    w.si.users.kill()
    yield "wait"
    w.s.rcu.synchronize()
    yield "free"
    w.call("swapoff", "retire_swap_info", w.si)


def can_run(w: World, step: str) -> bool:
    """Bringing back needs the page-table lock and the folio's lock; the wait ends without readers and pins."""
    if step == "bring back":
        return not w.vma.mm.ptl.locked() and not (w.folio is not None and w.folio.locked)
    return step != "wait" or (not w.s.rcu.read.depth and w.si.users.is_zero)


@dataclass(frozen=True, slots=True)
class Order:
    """One order of the steps: (task, step) one after the other, how the fault ended, whether swapoff had to wait."""

    steps: tuple[tuple[str, str], ...]
    outcome: str
    waited: bool

    def __repr__(self) -> str:
        return " | ".join(step if task == "swapoff" else step.upper() for task, step in self.steps)


def run_order(w: World, fault: Steps, choices: list[str]) -> tuple[Order, list[str]]:
    """Run the tasks' steps in the order of ``choices``, then always the first task that can go on.

    Also returns, for each step, the task that could have run instead, or "".
    """
    tasks = {"fault": fault, "swapoff": swapoff(w)}
    following = {task: next(steps) for task, steps in tasks.items()}
    done: list[tuple[str, str]] = []
    others: list[str] = []
    waited = False
    while following:
        ready = [task for task, step in following.items() if can_run(w, step)]
        waited |= "swapoff" in following and "swapoff" not in ready
        w.task = choices[len(done)] if len(done) < len(choices) else ready[0]
        others.append(next((other for other in ready if other != w.task), ""))
        done.append((w.task, following.pop(w.task)))
        step = next(tasks[w.task], "")
        if step:
            following[w.task] = step
    return Order(tuple(done), w.outcome, waited), others


@dataclass(frozen=True, slots=True)
class Race:
    """All orders of a fault's and of swapoff's steps."""

    protection: str
    orders: list[Order]

    @property
    def outcomes(self) -> dict[str, int]:
        """How many orders ended in which way, and in how many swapoff had to wait."""
        return dict(sorted(Counter(order.outcome for order in self.orders).items()))

    @property
    def waits(self) -> int:
        """Orders in which swapoff had to wait for the fault."""
        return sum(order.waited for order in self.orders)

    def first(self, outcome: str) -> Order:
        """The first order that ended in this way."""
        return next(order for order in self.orders if order.outcome == outcome)

    def __repr__(self) -> str:
        ends = ", ".join(f"{outcome} {nr}" for outcome, nr in self.outcomes.items())
        return f"{self.protection}: {len(self.orders)} orders: {ends}; swapoff waits in {self.waits}"

    def _repr_html_(self) -> str:
        rows = [{"protection": self.protection, "orders": len(self.orders), **self.outcomes, "waits": self.waits}]
        lines = "".join(timeline(self.first(outcome)) for outcome in self.outcomes)
        return table_html(rows) + lines


def timeline(order: Order) -> str:
    """Two lanes: what the fault does above, what swapoff does below."""
    boxes = ""
    for place, (task, step) in enumerate(order.steps):
        bad = step == "use entry" and order.outcome == FREED
        colour = "#c8453c" if bad else "#3f6fb0" if task == "fault" else "#888888"
        x, y = place * 96, 0 if task == "fault" else 26
        boxes += f"<rect x='{x}' y='{y}' width='92' height='22' rx='3' fill='{colour}55' stroke='{colour}'/>"
        boxes += f"<text x='{x + 4}' y='{y + 15}' font-size='10' fill='currentColor'>{step}</text>"
    svg = picture(boxes, f"{order!r}: {order.outcome}", len(order.steps) * 96, 50)
    return f"<p>The fault above, swapoff below: {order.outcome}</p>{svg}"


def race(protection: str = "none", stage: int | str = 3) -> Race:
    """Run every order of a fault with one protection ("none": without any) and of swapoff."""
    loaded = at(stage)
    kernel = loaded.Kernel(ram="512K", swap=[Ssd("256K")], zswap=None, locks="validated", page_cluster=0)
    heap = kernel.spawn("app").mmap(PAGE_SIZE)
    heap.write_page(0, CONTENT)
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim("64K")
    orders: list[Order] = []
    pending: list[list[str]] = [[]]
    while pending:
        choices = pending.pop()
        world = World(kernel.copy(), loaded)
        order, others = run_order(world, FAULTS[protection](world), choices)
        orders.append(order)
        taken = [task for task, _ in order.steps]
        pending += [[*taken[:place], others[place]] for place in range(len(choices), len(taken)) if others[place]]
    return Race(protection, sorted(orders, key=lambda order: order.steps))
