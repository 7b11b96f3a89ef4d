"""The virtual clock: nanoseconds that pass only where the model says so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Clock:
    """Virtual time in ``ns`` since boot."""

    ns: int = 0

    def advance(self, ns: int) -> None:
        """Let ``ns`` nanoseconds pass (never negative)."""
        self.ns += ns
