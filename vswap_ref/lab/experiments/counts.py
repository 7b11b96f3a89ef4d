"""Experiments of the chapter on the swap map: what functions do to a byte, how far it counts, and failing to count."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

import vswap_ref
from vswap_ref.display import picture, table_html
from vswap_ref.kernel import Kernel, Process
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Pmem, Ssd

MAX, BAD, HAS_CACHE, CONTINUED, SHMEM = 0x3E, 0x3F, 0x40, 0x80, 0xBF
STATES = {
    "free": (0, False),
    "bad": (BAD, False),
    "claimed": (0, True),
    "1 user": (1, False),
    "1 user, cached": (1, True),
    "62 users": (62, False),
    "62 users, cached": (62, True),
    "63 users": (63, False),
    "shmem": (SHMEM, False),
    "shmem, cached": (SHMEM, True),
}
"""State -> (users, cached); BAD and SHMEM stand for themselves."""
FUNCTIONS = ("swap_duplicate", "swapcache_prepare", "swapcache_clear", "swap_free", "swap_shmem_alloc")


def describe(byte: int) -> str:
    """What a byte of the swap map says."""
    if byte & ~HAS_CACHE == BAD:
        return "bad"
    if byte & ~HAS_CACHE == SHMEM:
        words = ["shmem"]
    else:
        words = [f"digit {byte & BAD}"] if byte & BAD or not byte & HAS_CACHE or byte & CONTINUED else []
        words += ["continued"] if byte & CONTINUED else []
    words += ["cached"] if byte & HAS_CACHE else []
    return ", ".join(words) if byte else "free"


def bits_svg(byte: int) -> str:
    """The eight bits of a byte as squares: continued, cached, six of the count."""
    cells = []
    for place in range(8):
        bit = byte >> (7 - place) & 1
        colour = ("#e0912f", "#1f9bb5")[place] if place < 2 else "#9a8fd8"
        style = f"fill='{colour if bit else 'none'}' stroke='{colour}' stroke-width='2'"
        cells.append(f"<rect x='{1 + 22 * place}' y='1' width='20' height='20' {style}/>")
    return picture("".join(cells), f"byte 0x{byte:02x}: {describe(byte)}", 180, 22)


@dataclass(frozen=True, slots=True)
class Transition:
    """A function was called on a slot in a state: the byte before and after, and what the function answered."""

    state: str
    function: str
    before: int
    after: int
    answer: str

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "state": self.state,
            "byte": f"0x{self.before:02x}",
            "function": self.function,
            "answer": self.answer,
            "byte then": f"0x{self.after:02x}",
            "it says": describe(self.after),
        }

    def __repr__(self) -> str:
        return f"{self.function} on {self.state}: 0x{self.before:02x} -> 0x{self.after:02x}, {self.answer}"

    def _repr_html_(self) -> str:
        arrow = "<span style='padding:0 1em'>&rarr;</span>"
        return f"<p>{bits_svg(self.before)}{arrow}{bits_svg(self.after)}</p>{table_html([self.row()])}"


def transition(state: str = "1 user", function: str = "swap_duplicate") -> Transition:
    """Bring a slot into a state through the kernel's own functions, then call one more function on it."""
    slot = SlotUnderTest(state)
    before = slot.byte
    answer = slot.answer(function)
    return Transition(state, function, before, slot.byte, answer)


class SlotUnderTest:
    """A slot of the second device of a kernel of stage 0, brought into one of STATES.

    The second, because there even the header has an entry that is not 0.
    """

    def __init__(self, state: str) -> None:
        users, cached = STATES[state]
        self.stage = vswap_ref.at(0)
        devices = [Ssd("1M", name="/dev/first"), Ssd("1M", name="/dev/second")]
        self.system = self.stage.Kernel(ram="1M", swap=devices, cpus=1).system
        self.si = self.system.swap.info[1]
        self.offset = 1
        if state == "bad":
            self.offset = 0
        if state in ("free", "bad"):
            return
        allocate = self.stage.module("swap_alloc").cluster_alloc_swap_entry
        self.offset = allocate(self.system, self.si, 0, HAS_CACHE)
        if users == SHMEM:
            self.call("swap_shmem_alloc")
            users = 0
        for _ in range(users):
            self.call("swap_duplicate")
        if not cached:
            self.call("swapcache_clear")

    @property
    def byte(self) -> int:
        """The slot's byte."""
        return int(self.si.swap_map[self.offset])

    def call(self, function: str) -> Any:
        """Call a function of the swap map on this one slot."""
        entry = self.stage.module("types").swp_entry(1, self.offset)
        arguments = {
            "swap_duplicate": (entry,),
            "swapcache_prepare": (entry, 1),
            "swapcache_clear": (self.si, entry, 1),
            "swap_free": (entry,),
            "swap_shmem_alloc": (entry, 1),
        }[function]
        return getattr(self.stage.module("swap_map"), function)(self.system, *arguments)

    def answer(self, function: str) -> str:
        """What a function answers, in words."""
        try:
            result = self.call(function)
        except AssertionError:
            return "a bug in the caller"
        if result is None:
            return "-"
        return f"-{errno.errorcode[-result]}" if result < 0 else str(result)


@dataclass(frozen=True, slots=True)
class CountRecord:
    """A page shared by many processes: the byte of its slot, and its digits on continuation pages, lowest first."""

    users: int
    byte: int
    digits: tuple[int, ...]
    pages: int
    counted: int

    @property
    def formula(self) -> str:
        """The mixed-radix number, written out."""
        value, text = "", str(self.byte & BAD)
        for level, digit in enumerate(self.digits):
            value = "63" + " * 128" * level
            text += f" + {digit & 127} * {value}"
        return text

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "users": self.users,
            "byte": f"0x{self.byte:02x}",
            "digits above": ", ".join(f"0x{digit:02x}" for digit in self.digits) or "-",
            "value": self.formula,
            "continuation pages": self.pages,
        }

    def __repr__(self) -> str:
        return "  ".join(f"{name} {value}" for name, value in self.row().items())

    def _repr_html_(self) -> str:
        squares = " ".join(map(bits_svg, (self.byte, *self.digits)))
        return f"<p>{squares}</p>{table_html([self.row()])}"


def shared_slot(users: int = 1, stage: int | str = 0) -> tuple[Kernel, Process]:
    """One page, swapped out to slot 1, of a process and its ``users - 1`` children."""
    kernel = kernel_class(stage)(ram="16M", swap=[Pmem("4M")], page_cluster=0, cpus=1)
    app = kernel.spawn("app")
    heap = app.mmap(PAGE_SIZE)
    heap[0:6] = b"shared"
    app.madvise(heap, "pageout")
    for _ in range(users - 1):
        app.fork()
    return kernel, app


def read_count(kernel: Kernel) -> CountRecord:
    """The digits of slot 1, and what they add up to."""
    si: Any = kernel.system.swap.info[0]
    levels = si.continuation.get(0, [])
    digits: list[int] = []
    byte = si.swap_map[1]
    total, weight, digit = byte & BAD, MAX + 1, byte
    while digit & CONTINUED:
        digit = levels[len(digits)][1]
        digits.append(digit)
        total += (digit & 127) * weight
        weight *= 128
    return CountRecord(len(kernel.processes), byte, tuple(digits), len(levels), total)


def fork_count(users: int = 63, exits: int = 0) -> CountRecord:
    """Fork until ``users`` processes share a swapped-out page, then let some exit."""
    kernel, app = shared_slot(users)
    for _ in range(min(exits, users - 1)):
        kernel.processes[-1].exit()
    assert app in kernel.processes
    return read_count(kernel)


@dataclass(frozen=True, slots=True)
class CountFailure:
    """A count that needs a continuation page and may not get one: (step, result, byte, pages) rows."""

    rows: list[dict[str, Any]]

    def __repr__(self) -> str:
        return "\n".join(f"{r['step']:<34}{r['result']:<10}{r['byte']:<7}{r['pages']}" for r in self.rows)

    def _repr_html_(self) -> str:
        return table_html(self.rows)


def fork_without_memory(users: int = 62, failures: int = 1) -> CountFailure:
    """``users`` processes share a page; the next allocations of a continuation page fail; one forks, and again."""
    kernel, app = shared_slot(users)
    rows = [failure_row(kernel, f"{users} processes", "")]
    fail_pages(kernel, failures)
    for step in ("fork", "fork again, with memory"):
        try:
            app.fork()
            result = "done"
        except OSError as error:
            result = f"-{errno.errorcode[error.errno or 0]}"
        rows.append(failure_row(kernel, step, result))
        kernel.faults.clear()
        kernel.check()
    return CountFailure(rows)


def unmap_without_memory(users: int = 70, failures: int = 100) -> CountFailure:
    """``users`` processes map a page in memory; it is to go out, whatever its age, without continuation pages."""
    stage = vswap_ref.at(0)
    kernel = stage.Kernel(ram="16M", swap=[Pmem("4M")], page_cluster=0, cpus=1)
    app = kernel.spawn("app")
    heap = app.mmap(PAGE_SIZE)
    heap[0:6] = b"shared"
    everyone = [app, *(app.fork() for _ in range(users - 1))]
    folios = kernel.system.memory.mem_map[1:]
    rows = []
    fail_pages(kernel, failures)
    for step in ("reclaim", "reclaim again, with memory"):
        stage.module("reclaim").reclaim_pages(kernel.system, folios)
        mapped = sum(process.rss > 0 for process in everyone)
        rows.append(failure_row(kernel, step, f"{mapped} mapped"))
        kernel.faults.clear()
        kernel.check()
    contents = {bytes(process.mappings[0][0:6]) for process in everyone}
    assert contents == {b"shared"}
    return CountFailure(rows)


def fail_pages(kernel: Kernel, failures: int) -> None:
    """Let the next allocations of a continuation page fail."""
    if failures:
        kernel.faults.fail("swap_continuation_alloc", times=failures)


def failure_row(kernel: Kernel, step: str, result: str) -> dict[str, Any]:
    """Slot 1 after a step."""
    count = read_count(kernel)
    return {"step": step, "result": result, "byte": f"0x{count.byte:02x}", "pages": count.pages}
