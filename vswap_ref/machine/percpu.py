"""Per-CPU reference counts: a reference that can be switched off."""

from __future__ import annotations


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
