"""Which states of a swap entry the code can reach: a tiny kernel is taken through everything that can happen.

Breadth first, each operation is tried in every state of the tiny kernels that is new.  While one runs, all descriptors
are looked at wherever another task could look: at every switch point of the scheduler, unless their cluster is locked.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from vswap_ref.display import table_html
from vswap_ref.machine import Exploration, Scheduler, follow, parse_schedule
from vswap_ref.machine import Task as RunningTask
from vswap_ref.machine.schedule import Chooser

from .schedules import watched
from .tiny_kernel import FACE, WORLDS, after, boot, descriptors, fingerprint, pages, possible, state_of
from .transitions import FREE, OPERATIONS, Sight, State, Step, Transitions, parse, table

SSD = "own page, SSD, zswap"
ZEROS, TEXT = ("a writes zeros", "a pageout"), ("a writes text", "a pageout")
RACES: tuple[tuple[str, tuple[str, ...], tuple[str, str]], ...] = (
    (SSD, ZEROS, ("a willneed", "a dontneed")),
    (SSD, TEXT, ("a willneed", "a dontneed")),
    (SSD, TEXT, ("writeback", "a dontneed")),
    (SSD, (*TEXT, "spoil"), ("writeback", "a dontneed")),
    (SSD, TEXT[:1], ("a pageout", "a dontneed")),
    (SSD, ZEROS, ("a willneed", "fork")),
    (SSD, TEXT, ("a willneed", "fork")),
    (SSD, (*ZEROS, "fork"), ("a willneed", "b dontneed")),
    (SSD, (*TEXT, "fork"), ("a willneed", "b dontneed")),
    ("own page, pmem", TEXT, ("a willneed", "a dontneed")),
    ("own page, pmem", TEXT, ("a reads", "fork")),
    ("own page, pmem", (*TEXT, "fork"), ("a willneed", "b dontneed")),
)
"""Pairs of operations that are tried in every order within one preemption: (kernel, operations before, the two)."""

LATE_READER = ("shared page, SSD, zswap", TEXT, ("a reads", "b willneed"))
LATE_READER_PLAN = ((1, State("C", 0, "1", "none")), (0, State("F", 0, "1", "none")), (1, State("F", 1, "1", "none")))
"""b has read the entry and is late: a, swapping in, has the page in the page cache and the count not dropped yet."""


class Watch:
    """Looks at the descriptors of a kernel, and notes what has changed."""

    def __init__(self, kernel: Any, path: tuple[str, ...], seen: Transitions) -> None:
        self.kernel, self.path, self.seen = kernel, path, seen
        self.known = dict(descriptors(kernel))
        self.history: list[Step] = []
        self.sights: list[Sight] = []

    @property
    def states(self) -> set[State]:
        """The states of all entries, as they were at the last look."""
        return {state_of(fields) for fields in self.known.values()}

    def look(self, label: str) -> None:
        """A switch point."""
        now = dict(descriptors(self.kernel, self.known))
        if now != self.known:
            changed = [entry for entry in sorted({*self.known, *now}) if self.known.get(entry) != now.get(entry)]
            for entry in changed:
                was, is_ = self.known.get(entry), now.get(entry)
                self.note(state_of(was) if was else FREE, state_of(is_) if is_ else FREE, label)
            self.known = now

    def note(self, state: State, following: State, label: str) -> None:
        """An entry has gone from one state to another, or stayed with other fields."""
        step = Step(state, running_operation(), following)
        self.history.append(step)
        sight = Sight(self.path, f"{step.operation}, {label}")
        self.sights.append(sight)
        if state != following:
            self.seen.steps.setdefault(step, sight)
        if following != FREE:
            self.seen.passing.setdefault(following, sight)

    def end(self, schedule: str) -> None:
        """The operation has ended: everything is at rest."""
        self.look("the end")
        for sight in self.sights:
            sight.schedule = schedule
        for state in self.states:
            self.seen.rest.setdefault(state, Sight(self.path, schedule=schedule))


def running_operation() -> str:
    """The innermost function of the layer on the stack; "?" if there is none."""
    frame = sys._getframe(2)
    while frame.f_code.co_name not in OPERATIONS:
        if frame.f_back is None:
            return "?"
        frame = frame.f_back
    return frame.f_code.co_name


class WatchedScheduler(Scheduler):
    """A scheduler that looks at every switch point, before it decides who goes on."""

    look: Callable[[str], None]

    def point(self, task: RunningTask, label: str) -> None:
        """A switch point of the running task."""
        self.look(label)
        super().point(task, label)


def run_watched(watch: Watch, names: Sequence[str], choose: Chooser) -> Scheduler:
    """Run operations on the watch's kernel, each a task; an error that a program may get ends its task only."""
    kernel = watch.kernel
    errors = (OSError, sys.modules[type(kernel).__module__].OutOfMemory)

    def enter(task: RunningTask) -> None:
        kernel.system.cpu = task.number

    def body(operation: Callable[[Any], object]) -> None:
        try:
            operation(kernel)
        except errors:
            return

    bodies = [partial(body, FACE[name]) for name in names]
    scheduler = WatchedScheduler(bodies, choose, range(len(bodies)), enter)
    scheduler.look = watch.look
    with watched(kernel):
        error = scheduler.run()
    if error is not None:
        raise error
    watch.end(scheduler.schedule if len(names) > 1 else "")
    kernel.check()
    return scheduler


def explore_world(world: str, seen: Transitions) -> None:
    """Try every operation in every state of a tiny kernel, breadth first; where it has two pages it ends."""
    start = boot(world)
    known = {fingerprint(start)}
    queue: deque[tuple[Any, tuple[str, ...]]] = deque([(start, (world,))])
    while queue:
        kernel, path = queue.popleft()
        for name in possible(kernel, world):
            twin, way = kernel.copy(), (*path, name)
            run_watched(Watch(twin, way, seen), [name], follow([]))
            seen.tried += 1
            if (mark := fingerprint(twin)) not in known:
                known.add(mark)
                if pages(twin) < 2:
                    queue.append((twin, way))
    seen.kernels += len(known)


def explore_race(world: str, path: tuple[str, ...], pair: tuple[str, str], seen: Transitions) -> None:
    """Two operations at once, in every order within one preemption."""
    start = after(world, path)
    exploration = Exploration(preemptions=1)
    for choices in exploration:
        watch = Watch(start.copy(), (world, *path, " | ".join(pair)), seen)
        exploration.add(run_watched(watch, pair, follow(choices)).decisions)
        seen.schedules += 1


def steer(watch: Watch, plan: Sequence[tuple[int, State]]) -> Chooser:
    """Let each task of a plan run, a step at least, until an entry is in a state; then the first as long as it can."""
    left, moved = deque(plan), False

    def choose(options: Sequence[int]) -> int:
        nonlocal moved
        if moved and left and left[0][1] in watch.states:
            left.popleft()
        moved = True
        return left[0][0] if left and left[0][0] in options else min(options)

    return choose


def explore_late_reader(seen: Transitions) -> None:
    """The one race that needs three preemptions, in the order that matters."""
    world, path, pair = LATE_READER
    watch = Watch(after(world, path), (world, *path, " | ".join(pair)), seen)
    run_watched(watch, pair, steer(watch, LATE_READER_PLAN))
    seen.schedules += 1


def explore_states(worlds: Sequence[str] = tuple(WORLDS), races: bool = True) -> Transitions:
    """Everything that the code can do to an entry: all operations in all states of these kernels, then the races."""
    seen = Transitions({FREE: Sight(("boot",))})
    for world in worlds:
        explore_world(world, seen)
    if races:
        for race in RACES:
            explore_race(*race, seen)
        explore_late_reader(seen)
    return seen


@cache
def explored() -> Transitions:
    """``explore_states()``, once."""
    return explore_states()


# --- the way to a state ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Route:
    """How an entry comes to a state: the kernel, and each operation with the steps that it takes there."""

    state: State
    sight: Sight
    steps: tuple[tuple[str, Step], ...]

    def __repr__(self) -> str:
        return f"{self.state} ({table()[self.state].kind}): {self.sight!r}"

    def _repr_html_(self) -> str:
        row = table()[self.state]
        rows = [
            {"operation": name, "function": step.operation, "from": str(step.state), "to": str(step.following)}
            for name, step in self.steps
        ]
        head = f"<p><b>{self.state}</b>, {row.kind}: {row.meaning}. Kernel: {self.sight.path[0]}.</p>"
        return head + (table_html(rows) if rows else "")


def route(state: str) -> Route:
    """The shortest way to a state, run again.  ValueError for a state that the table does not have, or has as never."""
    wanted = parse(state)
    seen = explored()
    sight = seen.rest.get(wanted) or seen.passing.get(wanted)
    if sight is None:
        raise ValueError(f"state={state!r}: never seen; expected one that is at rest or transient")
    if wanted == FREE:
        return Route(wanted, sight, ())
    world, *names = sight.path
    kernel, steps = boot(world), []
    for name in names:
        watch = Watch(kernel, (), Transitions())
        choose = follow(parse_schedule(sight.schedule)) if " | " in name else follow([])
        run_watched(watch, name.split(" | "), choose)
        steps += [(name, step) for step in watch.history]
    reached = [number for number, (_, step) in enumerate(steps) if step.following == wanted]
    end = reached[-1] if wanted in seen.rest else reached[0]
    return Route(wanted, sight, tuple(steps[: end + 1]))
