"""Read-copy-update, as far as one thread needs it: read sections, and callbacks that wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any


class Rcu:
    """``with rcu.read:`` marks a read section; ``call`` defers a function until ``synchronize``."""

    def __init__(self, kind: str = "plain") -> None:
        self.read: Any = threading.RLock() if kind == "plain" else ReadSections()
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
        if isinstance(self.read, ReadSections) and self.read.depth:
            raise RuntimeError("synchronize_rcu inside an RCU read section")
        callbacks, self._callbacks = self._callbacks, []
        for function, args in callbacks:
            function(*args)


class ReadSections:
    """A nestable read section that counts its depth."""

    __slots__ = ("depth",)

    def __init__(self) -> None:
        self.depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.depth -= 1
