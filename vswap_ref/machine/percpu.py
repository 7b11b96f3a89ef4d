"""What every CPU has of its own: objects, and reference counts that can be switched off."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PerCpu(list[T], Generic[T]):
    """One object for each CPU, made by ``make``: ``percpu[cpu]`` is per_cpu_ptr, at the speed of a list.

    The CPUs are those online at first.  Iterating visits all of them, ``online()`` only those still in ``online_cpus``,
    a collection that its owner keeps up to date.
    ``local_lock[cpu]`` keeps the CPU's object to one task at a time (local_lock_t).
    """

    def __init__(self, online_cpus: Collection[int], make: Callable[[], T], make_lock: Callable[[], Any]) -> None:
        super().__init__(make() for _ in online_cpus)
        self.online_cpus = online_cpus
        self.local_lock = [make_lock() for _ in online_cpus]

    def online(self) -> Iterator[tuple[int, T]]:
        """(cpu, object) of every CPU that is online now (for_each_online_cpu)."""
        for cpu, obj in enumerate(self):
            if cpu in self.online_cpus:
                yield cpu, obj


class PercpuRef:
    """A count that users take while it is live (struct percpu_ref, its per-CPU parts summed up).

    Dead at first.  After ``kill`` nobody gets a reference any more; the owner waits until it ``is_zero``.
    """

    __slots__ = ("count", "live")

    def __init__(self) -> None:
        self.live = False
        self.count = 0

    def tryget(self) -> bool:
        """Take a reference if live."""
        if self.live:
            self.count += 1
            return True
        return False

    def put(self) -> None:
        """Drop a reference."""
        if not self.count:
            raise RuntimeError("percpu_ref underflow")
        self.count -= 1

    def kill(self) -> None:
        """No new references from here on."""
        self.live = False

    def resurrect(self) -> None:
        """Live (again)."""
        self.live = True

    @property
    def is_zero(self) -> bool:
        """No reference is left."""
        return self.count == 0
