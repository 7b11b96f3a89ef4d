"""A deterministic scheduler: tasks that run one at a time and change places only at switch points.

A task is a thread that waits for its baton, so ordinary code can be stopped in the middle of a call.  Whoever holds
the baton decides at every switch point who goes on; a *schedule* is the sequence of these decisions.  It is written
as a short text, ``a12b5a3``: task a from switch point to switch point 12 times, then b 5 times, and so on; what is
left out at the end follows the default, which goes on with the same task as long as it can.

The code under test calls ``switch_point``, ``wait_until`` and ``relax``.  In a thread that is no task the first does
nothing, and the other two say that nobody can help.
"""

from __future__ import annotations

import random
import re
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from string import ascii_lowercase
from types import CodeType, FrameType
from typing import Any

Chooser = Callable[[Sequence[int]], int]
"""Picks one of the tasks that can run, the default first."""


class DeadlockError(RuntimeError):
    """No task can go on; the message says who waits for what, and who holds it."""


class LivelockError(RuntimeError):
    """The tasks run and run, and do not come to an end."""


class ScheduleError(ValueError):
    """A choice cannot be made: the schedule is one of other tasks."""


class Killed(BaseException):
    """Unwinds a task whose run is over.  Never caught by the code under test."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who could run at a switch point (the default first), and who did.

    ``goes_on``: the default is to go on with the same task, so any other choice preempts it.
    """

    options: tuple[int, ...]
    chosen: int
    goes_on: bool

    @property
    def preempts(self) -> bool:
        """A task was stopped that could have gone on."""
        return self.goes_on and self.chosen != self.options[0]


class Task(threading.Thread):
    """A function that a scheduler runs on a CPU (None: on one of its own).

    ``held``: what it holds, by name.  ``atomic``: spin locks among that; nothing else runs on its CPU meanwhile.
    """

    def __init__(self, scheduler: Scheduler, number: int, body: Callable[[], object], cpu: int | None) -> None:
        super().__init__(daemon=True)
        self.scheduler = scheduler
        self.number = number
        self.letter = ascii_lowercase[number]
        self.body = body
        self.cpu = cpu
        self.held: list[str] = []
        self.atomic = 0
        self.waits: Callable[[], bool] | None = None
        self.waits_for = ""
        self.spins = False
        self.relaxes = False
        self.finished = False
        self.baton = threading.Lock()
        self.baton.acquire()

    def run(self) -> None:
        """Wait for the baton, run the body, pass the baton on."""
        self.baton.acquire()
        scheduler = self.scheduler
        try:
            if not scheduler.over:
                if scheduler.lines:
                    sys.settrace(scheduler.trace_calls)
                self.body()
        except Killed:
            pass
        except BaseException as error:
            scheduler.finish(error)
        sys.settrace(None)
        self.finished = True
        scheduler.leave(self)

    @property
    def ready(self) -> bool:
        """It has not ended, and what it waits for is there."""
        return not self.finished and (self.waits is None or self.waits())

    @property
    def keeps_cpu(self) -> bool:
        """It is in an atomic section, and does not sleep there."""
        return self.atomic > 0 and not self.finished and not self.relaxes and (self.waits is None or self.spins)

    def __repr__(self) -> str:
        state = f"waits for {self.waits_for}" if self.waits else "has ended" if self.finished else "can run"
        return f"{self.letter} {state}" + (f", holds {', '.join(self.held)}" if self.held else "")


class Scheduler:
    """One run of some tasks.

    choose: makes the decisions.  cpus: the tasks' CPUs.  enter: called with a task before it goes on.  lines: code
    whose every line is a switch point, for races inside of a function.  max_steps: decisions before it is a livelock.
    """

    def __init__(
        self,
        bodies: Sequence[Callable[[], object]],
        choose: Chooser,
        cpus: Sequence[int | None] | None = None,
        enter: Callable[[Task], None] | None = None,
        lines: Iterable[CodeType] = (),
        max_steps: int = 20_000,
    ) -> None:
        self.tasks = [Task(self, i, body, cpus[i] if cpus else None) for i, body in enumerate(bodies)]
        self.choose = choose
        self.enter = enter
        self.lines = frozenset(lines)
        self.max_steps = max_steps
        self.decisions: list[Decision] = []
        self.trace: list[tuple[str, str]] = []
        self.error: BaseException | None = None
        self.over = False
        self.done = threading.Lock()

    def run(self) -> BaseException | None:
        """Run the tasks to their ends; returns the first exception, which ends all of them."""
        self.done.acquire()
        for task in self.tasks:
            task.start()
        self.pass_baton(None)
        self.done.acquire()
        self.over = True
        for task in self.tasks:
            if task.is_alive() and task.baton.locked():
                task.baton.release()
            task.join()
        return self.error

    @property
    def schedule(self) -> str:
        """The decisions as a text, without the end of it that is the default anyway."""
        decisions = self.decisions
        last = max((i for i, made in enumerate(decisions) if made.chosen != made.options[0]), default=0)
        return format_schedule(made.chosen for made in decisions[: last + 1])

    def point(self, task: Task, label: str) -> None:
        """A switch point of the running task."""
        if not self.over:
            self.trace.append((task.letter, label))
            self.switch(task)

    def switch(self, task: Task) -> None:
        """Decide who goes on; returns when ``task`` does."""
        for other in self.tasks:
            other.relaxes &= other is task
        following = self.decide(task)
        if following is not task:
            self.hand_over(following)
            task.baton.acquire()
            if self.over:
                raise Killed

    def decide(self, current: Task | None) -> Task | None:
        """Who goes on; None if nobody can, then the run is over."""
        options = self.options(current)
        if not options or len(self.decisions) >= self.max_steps:
            self.give_up()
            return None
        try:
            chosen = self.choose(options)
        except ScheduleError as error:
            self.finish(error)
            return None
        self.decisions.append(Decision(options, chosen, current is not None and current.number == options[0]))
        return self.tasks[chosen]

    def options(self, current: Task | None) -> tuple[int, ...]:
        """The tasks that can run.

        First the current one.  A task that relaxes lets the others go first; one whose CPU is in an atomic section of
        another task cannot run.
        """
        keepers: dict[int | None, Task] = {task.cpu: task for task in self.tasks if task.keeps_cpu}
        keepers.pop(None, None)
        ready = [task for task in self.tasks if task.ready and keepers.get(task.cpu, task) is task]
        eager = [task for task in ready if not task.relaxes] or ready
        return tuple(task.number for task in sorted(eager, key=lambda task: (task is not current, task.number)))

    def give_up(self) -> None:
        """Nobody can go on, or it takes too long."""
        alive = [task for task in self.tasks if not task.finished]
        if not alive:
            self.finish(None)
            return
        state = "; ".join(map(repr, alive))
        stuck = all(task.waits is not None for task in alive)
        self.finish(DeadlockError(state) if stuck else LivelockError(f"{self.max_steps} steps: {state}"))

    def finish(self, error: BaseException | None) -> None:
        """The run is over; an error counts if it is the first."""
        if not self.over:
            self.over = True
            self.error = error

    def hand_over(self, following: Task | None) -> None:
        """Give the baton to a task; None: to whoever started the run."""
        if following is None:
            self.done.release()
            return
        if self.enter is not None:
            self.enter(following)
        following.baton.release()

    def pass_baton(self, task: Task | None) -> None:
        """The one that runs has ended, or has not begun: give the baton to the next."""
        self.hand_over(self.decide(task))

    def leave(self, task: Task) -> None:
        """A task has ended.  After the run is over the baton goes back to whoever started it, once."""
        if not self.over:
            self.pass_baton(task)
        elif self.done.locked():
            self.done.release()

    def trace_calls(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Trace function of the tasks' threads: look at the lines of the chosen functions only."""
        return self.trace_lines if frame.f_code in self.lines else None

    def trace_lines(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Every line is a switch point, named by its number within the function."""
        if event == "line":
            code = frame.f_code
            task = running()
            assert task is not None
            self.point(task, f"{code.co_name}:{frame.f_lineno - code.co_firstlineno}")
        return self.trace_lines


def running() -> Task | None:
    """The task that calls; None in a thread that is none."""
    thread = threading.current_thread()
    return thread if isinstance(thread, Task) else None


def current_task() -> Hashable:
    """The task that calls, by its letter; else the thread."""
    task = running()
    return task.letter if task is not None else threading.get_ident()


def switch_point(label: str) -> None:
    """Here another task may go on."""
    task = running()
    if task is not None:
        task.scheduler.point(task, label)


def wait_until(ready: Callable[[], bool], what: str, spins: bool = False) -> None:
    """Let others run until ``ready()``.  A task that ``spins`` keeps its CPU meanwhile.

    AssertionError in a thread that is no task, if it is not ready at once: no one else can make it so.
    """
    if ready():
        return
    task = running()
    assert task is not None, f"waiting for {what}: there is no other task that could end this"
    if task.scheduler.over:
        raise Killed
    task.waits, task.waits_for, task.spins = ready, what, spins
    task.scheduler.trace.append((task.letter, f"waits for {what}"))
    task.scheduler.switch(task)
    task.waits = None


def relax(what: str) -> bool:
    """Let another task take a step, before something is tried again.  False if there is none that could."""
    task = running()
    if task is None or task.scheduler.over or all(other.finished for other in task.scheduler.tasks if other != task):
        return False
    task.relaxes = True
    task.scheduler.point(task, f"tries again: {what}")
    task.relaxes = False
    return True


def format_schedule(choices: Iterable[int]) -> str:
    """Task numbers as a text: 0, 0, 1 is a2b1."""
    return "".join(f"{ascii_lowercase[task]}{len(list(run))}" for task, run in groupby(choices))


def parse_schedule(text: str) -> list[int]:
    """The opposite of format_schedule.  ValueError for any other text."""
    if not re.fullmatch(r"([a-z][1-9][0-9]*)*", text):
        raise ValueError(f"schedule={text!r}: expected letters of tasks and numbers of steps, such as 'a12b5'")
    return [
        task for letter, nr in re.findall(r"([a-z])(\d+)", text) for task in [ascii_lowercase.index(letter)] * int(nr)
    ]


def at_random(seed: int) -> Chooser:
    """At every point each task that can run is as likely as the others: processors of the same speed."""
    rng = random.Random(seed)
    return lambda options: rng.choice(sorted(options))


def follow(choices: Sequence[int]) -> Chooser:
    """Make these choices, then the default ones.  ScheduleError at a choice that cannot be made."""
    given = iter(enumerate(choices))

    def choose(options: Sequence[int]) -> int:
        step, task = next(given, (0, options[0]))
        if task not in options:
            can = ", ".join(ascii_lowercase[option] for option in options)
            raise ScheduleError(
                f"schedule does not fit: at step {step} task {ascii_lowercase[task]} cannot run, only {can}"
            )
        return task

    return choose


class Exploration:
    """All schedules in which at most ``preemptions`` times a task is stopped that could have gone on (None: any).

    Iterate over the choices to make, run them, and ``add`` the decisions that were made; each schedule comes once,
    those with the fewest preemptions first.
    """

    def __init__(self, preemptions: int | None) -> None:
        self.bound = preemptions
        self.pending: list[list[list[int]]] = [[[]]]
        self.prefix: list[int] = []

    def __iter__(self) -> Iterator[list[int]]:
        while any(self.pending):
            level = next(level for level in self.pending if level)
            self.prefix = level.pop()
            yield self.prefix

    @property
    def known(self) -> int:
        """Schedules that are known and have not run yet; running them may bring more."""
        return sum(map(len, self.pending))

    def add(self, decisions: Sequence[Decision]) -> None:
        """Note where the run that has just ended could have gone another way."""
        used = 0
        chosen = [made.chosen for made in decisions]
        for place, made in enumerate(decisions):
            cost = used + made.goes_on
            if place >= len(self.prefix) and (self.bound is None or cost <= self.bound):
                self.pending += [[] for _ in range(cost + 1 - len(self.pending))]
                self.pending[cost] += [[*chosen[:place], other] for other in made.options[1:]]
            used += made.preempts
