"""An XArray that brings its own lock, as the kernel's do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .faults import Faults
from .locks import Locks
from .rcu import Rcu
from .xarray import XArray

T = TypeVar("T")


class LockedXArray(XArray[T]):
    """An XArray whose changes take its lock ``xa_lock``, and whose look-ups are RCU read sections.

    name: the class of the lock.  ``empty`` is a hint that takes nothing (xa_empty); neither do ``in``, ``items``,
    ``len`` and the figures of its nodes, which look at it from outside.
    """

    __slots__ = ("_rcu", "xa_lock")

    def __init__(self, locks: Locks, rcu: Rcu, name: str, faults: Faults | None = None, site: str = "xa_node") -> None:
        super().__init__(faults, site)
        self._rcu = rcu
        self.xa_lock = locks.spinlock(name)

    def _loader(self) -> Callable[[int], T | None]:
        """The dict's ``get`` in an RCU read section (xa_load)."""
        return self._load

    def _load(self, index: int) -> T | None:
        with self._rcu.read:
            return self._values.get(index)

    def store(self, index: int, value: T | None) -> T | None:
        """Put an object at an index; returns the one it replaces (xa_store).  Storing None erases."""
        with self.xa_lock:
            return XArray.store(self, index, value)

    def store_range(self, first: int, nr: int, value: T | None) -> None:
        """Put one object (None: erase) at ``nr`` neighbouring indices, all of them under one hold of the lock."""
        with self.xa_lock:
            XArray.store_range(self, first, nr, value)

    def erase(self, index: int) -> T | None:
        """Remove and return the object at an index, or None (xa_erase)."""
        with self.xa_lock:
            return XArray.erase(self, index) if index in self._values else None

    def cmpxchg(self, index: int, expected: T | None, value: T | None) -> T | None:
        """Replace the object if it equals ``expected``; returns what was there (xa_cmpxchg)."""
        with self.xa_lock:
            return XArray.cmpxchg(self, index, expected, value)

    def alloc(self, value: T, low: int, high: int) -> int:
        """Store at the lowest free index in [low, high]; OverflowError (-EBUSY) if there is none (xa_alloc)."""
        with self.xa_lock:
            return XArray.alloc(self, value, low, high)
