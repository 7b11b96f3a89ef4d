"""Locks by class, in kinds with one interface.

``plain`` locks are bare ``threading`` locks: fast.  ``validated`` locks check every acquisition as lockdep does: the
order in which classes nest must have no cycle, a task must not take a class twice.  A third kind, switching tasks at
every acquisition, has its place in ``KINDS``.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any


class LockdepError(RuntimeError):
    """A lock was used in a way that can deadlock; the message shows the chain of classes."""


class Lockdep:
    """What validated locks have seen: who holds what, and which class was taken inside which."""

    def __init__(self) -> None:
        self.held: list[ValidatedLock] = []
        self.inside: dict[str, set[str]] = {}

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
        for holder in self.held:
            if holder.name == lock.name:
                raise LockdepError(f"possible recursive locking: {lock.name} taken while {holder.name} is held")
            chain = self.path(lock.name, holder.name)
            if chain is not None:
                raise LockdepError(
                    f"possible circular locking: {lock.name} wanted while {holder.name} is held, "
                    f"but it was seen before that {' -> '.join(chain)} nest in this order"
                )
        for holder in self.held:
            self.inside.setdefault(holder.name, set()).add(lock.name)


class ValidatedLock:
    """A lock that reports its acquisitions to a Lockdep."""

    __slots__ = ("_lock", "lockdep", "name")

    def __init__(self, name: str, lockdep: Lockdep) -> None:
        self.name = name
        self.lockdep = lockdep
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock.  A trylock that succeeds is held, but cannot deadlock and is not checked."""
        if blocking:
            self.lockdep.check(self)
        if not self._lock.acquire(blocking=blocking):
            return False
        self.lockdep.held.append(self)
        return True

    def release(self) -> None:
        """Drop the lock; LockdepError if it is not held."""
        if self not in self.lockdep.held:
            raise LockdepError(f"{self.name} released but not held")
        self.lockdep.held.remove(self)
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


class Locks:
    """Makes locks of one kind: "plain" or "validated"."""

    KINDS = ("plain", "validated")

    def __init__(self, kind: str = "plain") -> None:
        if kind not in self.KINDS:
            raise ValueError(f"locks={kind!r}: expected one of {', '.join(self.KINDS)}")
        self.kind = kind
        self.lockdep = Lockdep()

    def spinlock(self, name: str) -> Any:
        """A new lock of the class ``name``."""
        if self.kind == "plain":
            return threading.Lock()
        return ValidatedLock(name, self.lockdep)

    def local_lock(self, name: str) -> Any:
        """A per-CPU lock (local_lock_t)."""
        return self.spinlock(name)

    def assert_held(self, lock: Any) -> None:
        """lockdep_assert_held: LockdepError unless ``lock`` is held."""
        if not lock.locked():
            raise LockdepError(f"{getattr(lock, 'name', 'lock')} must be held here")

    def assert_none_held(self) -> None:
        """LockdepError if a validated lock is still held."""
        if self.lockdep.held:
            raise LockdepError(f"still held: {', '.join(lock.name for lock in self.lockdep.held)}")
