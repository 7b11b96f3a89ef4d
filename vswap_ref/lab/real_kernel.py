"""The workload whose counters were recorded on a real kernel (data/real-kernel), run on the model.

The program maps memory, fills it in address order with a mix of contents, then touches it in a pattern.  Its random
numbers are those of workload.c, so that both see the same accesses.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import vswap_ref
from vswap_ref.machine import PAGE_SIZE, BlockDevice, Disk, Ssd, SwapFile, Zram

from .corpus import data_path

WORDS = ("device", "pattern", "mix")
"""Columns of the file that are not numbers."""
WORD = (1 << 64) - 1
PAGES_PER_MB = 256
WORDS_PER_PAGE = 512
FILL_NS = {"z": 300, "r": 1_000, "t": 20_000}
"""What filling a page costs the program itself (ns), by kind of content; measured."""

ACCESS_NS = 50
"""What an access costs the program itself (ns)."""

UNMODELLED_CHARGE = 100
"""Pages of the limit that go to the stack, kernel memory and charges parked on another CPU."""

JUDGED = (
    "workingset_refault_anon",
    "pswpin",
    "pswpout",
    "pgmajfault",
    "thp_swpout",
    "thp_swpout_fallback",
    "swap_ra",
    "swap_ra_hit",
    "swpin_zero",
    "swpout_zero",
    "zswpin",
    "zswpout",
)


class VirtualDisk(Ssd):
    """The recording machine's disk: a virtual one that reports itself as rotating, but has nothing that rotates.

    Latency and bandwidth were measured on that machine with direct I/O of 4, 32 and 128 KiB.
    """

    kind = "virtual-disk"
    rotational = True
    read_latency_ns = 37_000
    write_latency_ns = 38_000
    page_transfer_ns = 1_100
    queue_depth = 128


DEVICES: dict[str, Callable[[], BlockDevice]] = {
    "disk": lambda: SwapFile("1G", on=VirtualDisk("1G")),
    "rotating": lambda: SwapFile("1G", on=Disk("1G")),
    "zram": lambda: Zram("1G"),
}
"""``disk`` is the recording machine's, ``rotating`` what it claims to be."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One scenario: sizes in MiB, passes over the memory, access pattern, share of content kinds."""

    device: str
    limit_mb: int
    mb: int
    passes: int
    pattern: str
    writes: int
    mix: str
    thp: int
    seed: int
    zswap: int

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise ValueError(f"device={self.device!r}: expected one of {', '.join(DEVICES)}")
        if self.pattern not in ("seq", "rand", "hot"):
            raise ValueError(f"pattern={self.pattern!r}: expected seq, rand or hot")
        if not self.mix or set(self.mix) - set("zrt"):
            raise ValueError(f"mix={self.mix!r}: expected letters z (zero), r (random), t (text)")
        if min(self.limit_mb, self.mb, self.passes) < 1:
            raise ValueError(f"limit_mb={self.limit_mb}, mb={self.mb}, passes={self.passes}: expected numbers >= 1")

    def __str__(self) -> str:
        writes = " with writes" if self.writes else ""
        extras = (" THP" if self.thp else "") + (" zswap" if self.zswap else "")
        return f"{self.device} {self.limit_mb}/{self.mb} MiB {self.pattern} x{self.passes}{writes} {self.mix}{extras}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One counter: the model's value, the mean of the kernel's repetitions, and what deviation is allowed."""

    counter: str
    model: int
    kernel: float
    allowed: float | None
    """None: printed, not judged."""

    @property
    def ok(self) -> bool:
        """Within tolerance."""
        return self.allowed is None or abs(self.model - self.kernel) <= self.allowed


def xorshift(state: int) -> int:
    """The next 64-bit word of workload.c's generator."""
    state ^= state << 13 & WORD
    state ^= state >> 7
    return state ^ (state << 17 & WORD)


def xorshift_jump(state: int, steps: int) -> int:
    """The state ``steps`` words later: the generator is linear over GF(2), so a power of its matrix gets there."""
    columns = [xorshift(1 << bit) for bit in range(64)]
    while steps:
        if steps & 1:
            state = times(columns, state)
        columns = [times(columns, column) for column in columns]
        steps >>= 1
    return state


def times(columns: list[int], vector: int) -> int:
    """Matrix times vector over GF(2); a column is a 64-bit word."""
    result = 0
    while vector:
        low = vector & -vector
        result ^= columns[low.bit_length() - 1]
        vector ^= low
    return result


def first_state(seed: int) -> int:
    """The generator's state for a seed."""
    return seed * 2654435761 + 88172645463325252 & WORD


def contents(workload: Workload) -> Iterator[bytes]:
    """Content of each page.  Random pages are as incompressible as the original's, not the same bytes."""
    randbytes = random.Random(workload.seed).randbytes
    for page in range(workload.mb * PAGES_PER_MB):
        kind = workload.mix[page % len(workload.mix)]
        if kind == "z":
            yield bytes(PAGE_SIZE)
        elif kind == "r":
            yield randbytes(PAGE_SIZE)
        else:
            records = b"".join(b"page%06d %03d\n\0" % (page, number) for number in range(7))
            yield (records * 37)[:PAGE_SIZE]


def accesses(workload: Workload) -> Iterator[tuple[int, int]]:
    """(page, byte to increment in it; 0 = only read) of every access after filling."""
    pages = workload.mb * PAGES_PER_MB
    fill = sum(workload.mix[page % len(workload.mix)] == "r" for page in range(pages)) * WORDS_PER_PAGE
    state = xorshift_jump(first_state(workload.seed), fill)
    for turn in range(workload.passes):
        for position in range(pages):
            page, among = position, pages
            if workload.pattern == "hot":
                state = xorshift(state)
                among = pages // 10 if state % 10 < 9 else pages
            if workload.pattern != "seq":
                state = xorshift(state)
                page = state % among
            byte = 0
            if workload.writes:
                state = xorshift(state)
                byte = (16 + turn % 8) * (state % 2)
            yield page, byte


def run_workload(workload: Workload, stage: str | int = 0, memcg: str = "v1") -> dict[str, int]:
    """Run a workload on the model and return the counters of /proc/vmstat.

    The limit holds folios only; page tables and what else a real task is charged for are taken off it.  The
    compressor (lzo on the recording machine) decides sizes, not counters.
    """
    pages = workload.mb * PAGES_PER_MB
    zswap = "lz4" if workload.zswap else None
    kernel = vswap_ref.at(stage).Kernel(
        ram="4G", swap=[DEVICES[workload.device]()], zswap=zswap, memcg=memcg, thp="madvise"
    )
    limit = workload.limit_mb * PAGES_PER_MB - UNMODELLED_CHARGE - pages // 512
    group = kernel.cgroup("workload", memory_max=limit * PAGE_SIZE)
    heap = kernel.spawn("workload", cgroup=group).mmap(pages * PAGE_SIZE)
    heap.process.madvise(heap, "hugepage" if workload.thp else "nohugepage")
    for page, content in enumerate(contents(workload)):
        kernel.clock.advance(FILL_NS[workload.mix[page % len(workload.mix)]])
        heap.write_page(page, content)
    for page, byte in accesses(workload):
        kernel.clock.advance(ACCESS_NS)
        heap.touch(page)
        if byte:
            place = page * PAGE_SIZE + byte
            heap[place : place + 1] = bytes(((heap.read_page(page)[byte] + 1) % 256,))
    return dict(kernel.vmstat)


def load_counters(path: str | Path | None = None) -> dict[Workload, list[dict[str, int]]]:
    """Workloads of a CSV file (None: the one that ships) with the counters of each repetition.

    ValueError naming a column that is missing.
    """
    path = data_path("real-kernel/counters.csv") if path is None else path
    recorded: dict[Workload, list[dict[str, int]]] = {}
    names = [field.name for field in fields(Workload)]
    with Path(path).open(newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in names if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: no column {', '.join(missing)}")
        for row in reader:
            values: list[Any] = [
                row[name] if name in ("device", "pattern", "mix") else int(row[name]) for name in names
            ]
            counters = {name: int(row[name]) for name in row if name not in (*names, "rep") and row[name]}
            recorded.setdefault(Workload(*values), []).append(counters)
    return recorded


def allowed_deviation(workload: Workload, counter: str, runs: list[dict[str, int]]) -> float | None:
    """How far the model may be from the mean of the repetitions; None if the counter is not judged.

    1 % in sequential and THP runs, 4 % in others (6 % for pswpout of random access without writes), and 100 events
    of other tasks; three times the kernel's own spread where that is more.
    """
    if counter not in JUDGED:
        return None
    values = [run[counter] for run in runs]
    mean = sum(values) / len(values)
    if counter.startswith("swap_ra") and workload.pattern != "seq":
        refaults = sum(run["workingset_refault_anon"] for run in runs) / len(runs)
        return max(mean, refaults * (0.04 if workload.pattern == "hot" else 0.015) - mean)
    share = 0.01 if workload.pattern == "seq" or workload.thp else 0.04
    if counter == "pswpout" and workload.pattern == "rand" and not workload.writes:
        share = 0.06
    return max(share * mean + 100, 3 * (max(values) - min(values)))


def compare_workload(workload: Workload, runs: list[dict[str, int]], stage: str | int = 0) -> list[Verdict]:
    """Run a workload on the model and set its counters beside the kernel's."""
    model = run_workload(workload, stage)
    return [
        Verdict(name, model.get(name, 0), sum(run[name] for run in runs) / len(runs), allowed)
        for name in runs[0]
        if all(name in run for run in runs)
        for allowed in (allowed_deviation(workload, name, runs),)
    ]


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain data."""
    row = {name: getattr(verdict, name) for name in ("counter", "model", "kernel", "allowed")}
    return {**row, "ok": verdict.ok}
