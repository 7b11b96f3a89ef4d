"""Run tasks on one kernel in many orders: every order within a bound, or as many random ones as there are seeds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html import escape
from itertools import groupby
from textwrap import shorten
from types import CodeType
from typing import TYPE_CHECKING, Any

from vswap_ref.display import table_html
from vswap_ref.machine import Exploration, ScheduleError, Scheduler, at_random, follow, parse_schedule, switch_point
from vswap_ref.machine import Task as RunningTask

from .paging import with_progress

if TYPE_CHECKING:
    from vswap_ref.kernel import Kernel

Task = Callable[[Any], object]
"""What a task does with the kernel (or with whatever the factory has made)."""

LANES = ("#3f6fb0", "#c8453c", "#2e9e5b", "#9a8fd8")
"""One colour a task."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that went wrong: its schedule, the exception, and what every task did, switch point by switch point."""

    schedule: str
    error: BaseException
    trace: list[tuple[str, str]]

    @property
    def segments(self) -> list[tuple[str, int, str]]:
        """Who ran: (task, switch points, the last one of them)."""
        runs = [(task, [label for _, label in run]) for task, run in groupby(self.trace, key=lambda step: step[0])]
        return [(task, len(labels), labels[-1]) for task, labels in runs]

    def __repr__(self) -> str:
        text = shorten(re.sub(" at 0x[0-9a-f]+", "", str(self.error)), 160)
        return f"schedule={self.schedule!r}: {type(self.error).__name__}: {text}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{timeline(self.segments)}"


def timeline(segments: list[tuple[str, int, str]]) -> str:
    """A lane for each task: how far it came each time that it ran."""
    x, boxes = 0, ""
    for task, _, label in segments:
        label = f"{task}: {label}"
        width, lane = max(60, 7 * len(label)) + 8, ord(task) - ord("a")
        colour, y = LANES[lane % len(LANES)], 24 * lane
        boxes += f"<rect x='{x}' y='{y}' width='{width - 4}' height='20' rx='3' fill='{colour}55' stroke='{colour}'/>"
        boxes += f"<text x='{x + 4}' y='{y + 14}' font-size='11' fill='currentColor'>{escape(label)}</text>"
        x += width
    height = 24 * (1 + max((ord(task) - ord("a") for task, _, _ in segments), default=0))
    alt = "; ".join(f"{task} runs {nr} steps up to {label}" for task, nr, label in segments)
    return (
        f"<svg role='img' aria-label='{escape(alt, quote=True)}' viewBox='0 0 {x} {height}' width='{x}'>{boxes}</svg>"
    )


@dataclass(slots=True)
class Interleavings:
    """What happened in all runs.

    complete: no schedule within the bound is left.  outcomes: how many runs ended in which way, and the first schedule
    that did.  locks: by class, how often a task wanted a lock of it, and how often it found it taken.
    """

    how: str
    runs: int = 0
    steps: int = 0
    complete: bool = False
    failures: list[Failure] = field(default_factory=list)
    outcomes: Counter[Any] = field(default_factory=Counter)
    first: dict[Any, str] = field(default_factory=dict)
    acquisitions: Counter[str] = field(default_factory=Counter)
    contentions: Counter[str] = field(default_factory=Counter)
    by_lock: Counter[str] = field(default_factory=Counter)

    @property
    def failure(self) -> Failure | None:
        """The first run that went wrong, one with the fewest preemptions; None if all went well."""
        return self.failures[0] if self.failures else None

    def locks(self) -> list[dict[str, Any]]:
        """Tidy rows, a class of locks each, the most contended first."""
        order = sorted(self.acquisitions, key=lambda name: (-self.contentions[name], name))
        return [
            {"lock": name, "acquisitions": self.acquisitions[name], "contentions": self.contentions[name]}
            for name in order
        ]

    def count_locks(self, kernel: Kernel) -> None:
        """Add what the locks of a kernel have counted."""
        for name, stat in kernel.locks.lockdep.stat.items():
            if stat.acquisitions:
                self.acquisitions[name] += stat.acquisitions
                self.contentions[name] += stat.contentions
                for number, nr in stat.where.items():
                    self.by_lock[f"{name}#{number}"] += nr

    def __repr__(self) -> str:
        end = "" if self.complete else ", not all"
        bad = f"; {len(self.failures)} failed, first {self.failure!r}" if self.failures else "; none failed"
        ends = "".join(f"; {outcome} {nr}" for outcome, nr in sorted(self.outcomes.items(), key=str))
        return f"{self.runs} schedules ({self.how}{end}){bad}{ends}"

    def _repr_html_(self) -> str:
        rows = [
            {"outcome": str(o), "runs": nr, "for example": self.first[o]}
            for o, nr in sorted(self.outcomes.items(), key=str)
        ]
        failed = self.failure._repr_html_() if self.failure is not None else ""
        head = f"{self.runs} schedules ({self.how}{'' if self.complete else ', not all'}), {len(self.failures)} failed."
        return f"<p>{escape(head)}</p>{failed}{table_html(rows) if rows else ''}{table_html(self.locks())}"


def interleave(
    kernel: Callable[[], Any] | Kernel,
    tasks: Sequence[Task],
    seeds: Iterable[int] | None = None,
    exhaustive: bool = False,
    preemptions: int | None = 2,
    schedule: str | None = None,
    after: Callable[[Any], object] | None = None,
    cpus: Sequence[int] | None = None,
    lines: Iterable[Callable[..., object]] = (),
    limit: int = 10_000,
    keep_going: bool = False,
    progress: bool = False,
) -> Interleavings:
    """Run 1 to 26 tasks on one kernel in many orders, each run on a kernel of its own.

    kernel: makes one with ``locks="scheduled"``, or something that has it as ``.kernel``; or a kernel, to be copied
    for every run.  tasks: functions of what was made.  A task runs on one CPU (``cpus``; else they take turns),
    whatever process it acts for, and changes places with others at lock operations, RCU sections and grace periods,
    allocations and device I/O only; with ``lines`` also before every line of these functions.

    Give one of: ``seeds``, a random schedule each; ``exhaustive``, all schedules that stop tasks at most
    ``preemptions`` times (None: any number), at most ``limit`` of them; ``schedule``, the text of one to run again.

    after: called with what was made when all tasks have ended and ``check()`` is content; what it returns is counted as
    the outcome.  An exception of a task or of these, and a deadlock, is a failure: it ends the search, unless
    ``keep_going``.  ValueError for a schedule that does not fit, and for other locks.
    """
    if sum((seeds is not None, exhaustive, schedule is not None)) != 1:
        raise ValueError("expected one of seeds, exhaustive=True and schedule")
    if not 1 <= len(tasks) <= 26:
        raise ValueError(f"tasks: expected 1 to 26, got {len(tasks)}")
    make = kernel if callable(kernel) else kernel.copy
    setting = Setting(make, tasks, cpus, after, [function.__code__ for function in lines])
    if exhaustive:
        bound = "any number of preemptions" if preemptions is None else f"at most {preemptions} preemptions"
        return search(setting, Interleavings(f"exhaustive, {bound}"), preemptions, limit, keep_going, progress)
    if schedule is not None:
        choosers, how = [follow(parse_schedule(schedule))], f"schedule {schedule!r}"
    else:
        chosen = list(seeds or ())
        choosers, how = [at_random(seed) for seed in chosen], f"seeds {chosen[0]} to {chosen[-1]}" if chosen else "none"
    record = Interleavings(how)
    for choose in with_progress(iter(choosers), len(choosers), progress, " schedules"):
        setting.run(choose, record)
        if record.failures and not keep_going:
            return record
    record.complete = True
    return record


def search(
    setting: Setting, record: Interleavings, bound: int | None, limit: int, keep_going: bool, progress: bool
) -> Interleavings:
    """Run every schedule within the bound, those with the fewest preemptions first."""
    exploration = Exploration(bound)
    for choices in with_progress(iter(exploration), limit, progress, " schedules"):
        exploration.add(setting.run(follow(choices), record).decisions)
        if record.runs == limit or (record.failures and not keep_going):
            break
    record.complete = not exploration.known
    return record


@dataclass(slots=True)
class Setting:
    """What all runs have in common."""

    make: Callable[[], Any]
    tasks: Sequence[Task]
    cpus: Sequence[int] | None
    after: Callable[[Any], object] | None
    lines: list[CodeType]

    def run(self, choose: Callable[[Sequence[int]], int], record: Interleavings) -> Scheduler:
        """One run, entered into the record."""
        world = self.make()
        kernel = getattr(world, "kernel", world)
        if kernel.locks.kind != "scheduled":
            raise ValueError(f"kernel: has {kernel.locks.kind} locks; boot it with locks='scheduled'")
        scheduler = self.scheduler(kernel, [partial(task, world) for task in self.tasks], choose)
        with watched(kernel):
            error = scheduler.run()
        if isinstance(error, ScheduleError):
            raise error
        if error is None:
            error = self.look(kernel, world, record, scheduler.schedule)
        if error is not None:
            record.failures.append(Failure(scheduler.schedule, error, scheduler.trace))
        record.runs += 1
        record.steps += len(scheduler.decisions)
        record.count_locks(kernel)
        return scheduler

    def scheduler(
        self, kernel: Kernel, bodies: list[Callable[[], object]], choose: Callable[[Sequence[int]], int]
    ) -> Scheduler:
        """Puts each task on its CPU; ValueError for a CPU that is not online."""
        online = kernel.online_cpus
        cpus = self.cpus or [online[number % len(online)] for number in range(len(bodies))]
        if len(cpus) != len(bodies) or not set(cpus) <= set(online):
            raise ValueError(f"cpus={cpus!r}: expected {len(bodies)} of the CPUs {online}")

        def enter(task: RunningTask) -> None:
            kernel.system.cpu = task.cpu if task.cpu in online else online[0]
            for process in kernel.processes:
                process.cpu = kernel.system.cpu

        return Scheduler(bodies, choose, cpus, enter, self.lines)

    def look(self, kernel: Kernel, world: Any, record: Interleavings, schedule: str) -> Exception | None:
        """Check the kernel after a run, and note its outcome; the exception if something is wrong."""
        try:
            kernel.check()
            kernel.locks.assert_none_held()
            outcome = self.after(world) if self.after is not None else None
        except Exception as error:
            return error
        if outcome is not None:
            record.outcomes[outcome] += 1
            record.first.setdefault(outcome, schedule)
        return None


@contextmanager
def watched(kernel: Kernel) -> Iterator[None]:
    """Allocations and device I/O are switch points, for the length of a run.  Checks wait for its end."""
    devices = list({id(device.backing): device.backing for device in kernel.devices.values()}.values())
    for device in devices:
        for request in ("read", "read_into", "write", "discard"):
            before(device, request, f"{request.split('_')[0]} {device.name}")
    before(kernel.faults, "should_fail", "")
    debug, kernel.system.config.debug = kernel.system.config.debug, False
    cpus = [(process, process.cpu) for process in kernel.processes]
    try:
        yield
    finally:
        kernel.system.config.debug = debug
        for process, cpu in cpus:
            process.cpu = cpu
        for device in devices:
            for request in ("read", "read_into", "write", "discard"):
                del device.__dict__[request]
        del kernel.faults.__dict__["should_fail"]


def before(thing: object, method: str, label: str) -> None:
    """Make calls of a method switch points: labelled as given, or by what is asked for."""
    original = getattr(thing, method)

    def call(what: Any, *args: Any) -> Any:
        switch_point(f"{label} page {what}" if label else f"allocate {what}")
        return original(what, *args)

    setattr(thing, method, call)
