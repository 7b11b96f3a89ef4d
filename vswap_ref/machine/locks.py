"""Locks by class, in kinds with one interface.

``plain`` locks are bare ``threading`` locks: fast.  ``validated`` locks check every acquisition as lockdep does: the
order in which classes nest must have no cycle, a task must not take a class twice, a class that interrupt handlers
take must never be taken with interrupts on.  ``scheduled`` locks are switch points of a deterministic scheduler (see
``schedule``), and count how often they were found taken.  ``KINDS`` has room for more: a kind is a function that
makes a lock.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from .schedule import current_task, running, switch_point, wait_until
from .section import UnmarkedSection


class LockdepError(RuntimeError):
    """A lock was used in a way that can deadlock; the message shows the chain of classes."""


class Task:
    """What a task is doing: the locks that it holds, in order, and the state of interrupts on its CPU."""

    __slots__ = ("held", "in_interrupt", "irqs_off")

    def __init__(self, in_interrupt: bool = False) -> None:
        self.held: list[Any] = []
        self.irqs_off = 0
        self.in_interrupt = in_interrupt


class Lockdep:
    """What validated locks have seen: which class was taken inside which, in interrupts, with interrupts on.

    ``current`` tells tasks apart: threads, until a scheduler puts its own function there.
    """

    def __init__(self, current: Callable[[], Hashable] = threading.get_ident) -> None:
        self.current = current
        self.tasks: dict[Hashable, Task] = {}
        self.inside: dict[str, set[str]] = {}
        self.used_in_irq: set[str] = set()
        self.used_with_irqs_on: set[str] = set()
        self.stat: dict[str, LockStat] = {}

    @property
    def task(self) -> Task:
        """The current task."""
        return self.tasks.setdefault(self.current(), Task())

    def path(self, start: str, goal: str) -> list[str] | None:
        """Classes from ``start`` to ``goal`` along recorded nestings, or None."""
        stack, seen = [[start]], {start}
        while stack:
            chain = stack.pop()
            if chain[-1] == goal:
                return chain
            for following in sorted(self.inside.get(chain[-1], ())):
                if following not in seen:
                    seen.add(following)
                    stack.append([*chain, following])
        return None

    def check(self, lock: ValidatedLock) -> None:
        """Raise LockdepError if taking ``lock`` now can deadlock; record the nesting otherwise."""
        task = self.task
        for holder in task.held:
            self.check_order(holder, lock)
        for holder in task.held:
            self.inside.setdefault(holder.name, set()).add(lock.name)
        self.mark(lock.name, task)

    def check_order(self, holder: ValidatedLock, lock: ValidatedLock) -> None:
        """LockdepError if ``lock`` may not be taken while ``holder`` is held."""
        if holder.name == lock.name:
            raise LockdepError(f"possible recursive locking: {lock.name} taken while {holder.name} is held")
        chain = self.path(lock.name, holder.name)
        if chain is not None:
            raise LockdepError(
                f"possible circular locking: {lock.name} wanted while {holder.name} is held, "
                f"but it was seen before that {' -> '.join(chain)} nest in this order"
            )

    def mark(self, name: str, task: Task) -> None:
        """Record in which state of interrupts a class is taken.

        LockdepError if an interrupt that comes at the wrong moment can wait for the task that it has interrupted.
        """
        if task.in_interrupt:
            self.used_in_irq.add(name)
        elif not task.irqs_off:
            self.used_with_irqs_on.add(name)
        if name in self.used_in_irq and name in self.used_with_irqs_on:
            raise LockdepError(
                f"inconsistent lock state: {name} is taken by an interrupt handler, and elsewhere with interrupts on"
            )
        for safe in sorted(self.used_in_irq):
            for unsafe in sorted(self.used_with_irqs_on):
                chain = self.path(safe, unsafe)
                if chain is not None:
                    raise LockdepError(
                        f"irq-unsafe lock inside an irq-safe one: {' -> '.join(chain)} nest, {safe} is taken by an "
                        f"interrupt handler, {unsafe} with interrupts on"
                    )


class IrqsOff:
    """A section with interrupts off on the task's CPU; sections nest."""

    def __init__(self, lockdep: Lockdep) -> None:
        self.lockdep = lockdep

    def __enter__(self) -> None:
        self.lockdep.task.irqs_off += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lockdep.task.irqs_off -= 1


class Interrupt:
    """An interrupt handler: what the interrupted task holds stays held, but it is not the handler that holds it."""

    def __init__(self, lockdep: Lockdep) -> None:
        self.lockdep = lockdep
        self.interrupted: dict[Hashable, list[Task]] = {}

    def __enter__(self) -> None:
        lockdep = self.lockdep
        self.interrupted.setdefault(lockdep.current(), []).append(lockdep.task)
        lockdep.tasks[lockdep.current()] = Task(in_interrupt=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        current = self.lockdep.current()
        held = self.lockdep.task.held
        self.lockdep.tasks[current] = self.interrupted[current].pop()
        if held and error is None:
            raise LockdepError(f"interrupt handler leaves with {', '.join(lock.name for lock in held)}")


class ValidatedLock:
    """A lock that reports its acquisitions to a Lockdep."""

    __slots__ = ("_lock", "lockdep", "name")

    def __init__(self, name: str, lockdep: Lockdep) -> None:
        self.name = name
        self.lockdep = lockdep
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock.  A trylock that succeeds is held; it cannot deadlock in order, only by an interrupt."""
        if blocking:
            self.lockdep.check(self)
        if not self._lock.acquire(blocking=blocking):
            return False
        task = self.lockdep.task
        task.held.append(self)
        if not blocking:
            self.lockdep.mark(self.name, task)
        return True

    def release(self) -> None:
        """Drop the lock; LockdepError if this task does not hold it."""
        held = self.lockdep.task.held
        if self not in held:
            raise LockdepError(f"{self.name} released but not held")
        held.remove(self)
        self._lock.release()

    def locked(self) -> bool:
        """True while somebody holds it."""
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@dataclass(slots=True)
class LockStat:
    """What happened to a class of scheduled locks (/proc/lock_stat).

    made: locks of the class.  acquisitions: times that a task of a scheduler wanted one of them.  contentions: times
    that it found it taken; ``where`` splits these by the number of the lock in its class.
    """

    made: int = 0
    acquisitions: int = 0
    contentions: int = 0
    where: Counter[int] = field(default_factory=Counter)


class ScheduledLock:
    """A lock whose acquisition and release are switch points.

    Others may run before it is taken, before it is dropped (so they can find it taken) and afterwards.
    """

    __slots__ = ("lockdep", "name", "number", "owner", "stat")

    def __init__(self, name: str, lockdep: Lockdep) -> None:
        self.name = name
        self.lockdep = lockdep
        self.stat = lockdep.stat.setdefault(name, LockStat())
        self.number = self.stat.made
        self.stat.made += 1
        self.owner: str | None = None

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock.  Outside of a scheduler's run a lock that is taken stays so: AssertionError."""
        task = running()
        switch_point(f"lock {self}")
        if task is not None:
            self.count()
            task.atomic += blocking
        if self.owner is not None and not blocking:
            return False
        wait_until(self.is_free, f"{self}, held by {self.owner}", spins=True)
        self.owner = task.letter if task is not None else "the caller"
        if task is not None:
            task.atomic += not blocking
            task.held.append(str(self))
        self.lockdep.task.held.append(self)
        return True

    def count(self) -> None:
        """Somebody wants the lock."""
        self.stat.acquisitions += 1
        if self.owner is not None:
            self.stat.contentions += 1
            self.stat.where[self.number] += 1

    def release(self) -> None:
        """Drop the lock; LockdepError if this task does not hold it."""
        held = self.lockdep.task.held
        if self not in held:
            raise LockdepError(f"{self.name} released but not held")
        switch_point(f"hold {self}")
        held.remove(self)
        self.owner = None
        task = running()
        if task is not None:
            task.atomic -= 1
            task.held.remove(str(self))
        switch_point(f"unlock {self}")

    def is_free(self) -> bool:
        """Nobody holds it."""
        return self.owner is None

    def locked(self) -> bool:
        """True while somebody holds it."""
        return self.owner is not None

    __enter__ = acquire

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"{self.name}#{self.number}"


KINDS: dict[str, Callable[[str, Lockdep], Any]] = {
    "plain": lambda name, lockdep: threading.Lock(),
    "validated": ValidatedLock,
    "scheduled": ScheduledLock,
}
"""How locks of each kind are made, from the name of the class and the validator."""


class Locks:
    """Makes locks of one kind: "plain", "validated" or "scheduled".

    ``with irqs_off:`` interrupts are off (local_irq_disable; around ``with lock`` it is spin_lock_irq).
    ``with interrupt:`` an interrupt handler runs.
    """

    def __init__(self, kind: str = "plain") -> None:
        if kind not in KINDS:
            raise ValueError(f"locks={kind!r}: expected one of {', '.join(KINDS)}")
        self.kind = kind
        self.lockdep = Lockdep(current_task) if kind == "scheduled" else Lockdep()
        plain = kind == "plain"
        self.irqs_off: Any = UnmarkedSection() if plain else IrqsOff(self.lockdep)
        self.interrupt: Any = UnmarkedSection() if plain else Interrupt(self.lockdep)

    def spinlock(self, name: str) -> Any:
        """A new lock of the class ``name``."""
        return KINDS[self.kind](name, self.lockdep)

    def local_lock(self, name: str) -> Any:
        """A per-CPU lock (local_lock_t)."""
        return self.spinlock(name)

    def assert_held(self, lock: Any) -> None:
        """lockdep_assert_held: LockdepError unless ``lock`` is held: by this task, unless locks are plain."""
        held = lock.locked() if self.kind == "plain" else lock in self.lockdep.task.held
        if not held:
            raise LockdepError(f"{getattr(lock, 'name', 'lock')} must be held here")

    def assert_none_held(self) -> None:
        """LockdepError if a lock that is not plain is still held, by any task."""
        held = [lock.name for task in self.lockdep.tasks.values() for lock in task.held]
        if held:
            raise LockdepError(f"still held: {', '.join(held)}")
