"""Read-copy-update: read sections, grace periods, and callbacks that wait for them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any

from .schedule import current_task, switch_point, wait_until
from .section import UnmarkedSection


class Rcu:
    """``with rcu.read:`` marks a read section; ``call`` defers a function until ``synchronize``."""

    def __init__(self, kind: str = "plain") -> None:
        self.read: Any = UnmarkedSection() if kind == "plain" else ReadSections()
        self._callbacks: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    @property
    def pending(self) -> int:
        """Callbacks that wait for a grace period."""
        return len(self._callbacks)

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Run ``function(*args)`` after the next grace period (call_rcu)."""
        self._callbacks.append((function, args))

    def synchronize(self) -> None:
        """Wait for a grace period and run the callbacks.  RuntimeError inside a read section: it would never end."""
        if isinstance(self.read, ReadSections):
            self.read.wait_for_readers()
        callbacks, self._callbacks = self._callbacks, []
        for function, args in callbacks:
            function(*args)


class ReadSections:
    """Nestable read sections: for every task that is in one its depth, and the number of the section.

    Sections are numbered as they begin; the ends of one are switch points of a scheduler.
    """

    __slots__ = ("begun", "last", "nesting")

    def __init__(self) -> None:
        self.nesting: dict[Hashable, int] = {}
        self.begun: dict[Hashable, int] = {}
        self.last = 0

    @property
    def depth(self) -> int:
        """The depths of all tasks."""
        return sum(self.nesting.values())

    def wait_for_readers(self) -> None:
        """Wait until the sections that are open now have ended; later ones may go on."""
        if current_task() in self.nesting:
            raise RuntimeError("synchronize_rcu inside an RCU read section")
        switch_point("synchronize_rcu")
        old = set(self.begun.values())
        wait_until(lambda: old.isdisjoint(self.begun.values()), "the end of RCU read sections")

    def __enter__(self) -> None:
        switch_point("rcu_read_lock")
        task = current_task()
        if task not in self.nesting:
            self.last += 1
            self.begun[task] = self.last
        self.nesting[task] = self.nesting.get(task, 0) + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        switch_point("rcu_read_unlock")
        task = current_task()
        self.nesting[task] -= 1
        if not self.nesting[task]:
            del self.nesting[task], self.begun[task]
