"""Handles: small integers that stand for objects, for structures that keep words instead of references."""

from __future__ import annotations

from typing import NoReturn, TypeVar

T = TypeVar("T")


class Arena(dict[int, T]):
    """Handle (>= 1) -> object.  A freed handle is the next one given out; 0 never stands for anything.

    All operations take constant time.  A handle that is not in use is a KeyError.
    """

    __slots__ = ("_free",)

    def __init__(self) -> None:
        super().__init__()
        self._free: list[int] = []

    def alloc(self, obj: T) -> int:
        """A handle for an object."""
        handle = self._free.pop() if self._free else len(self) + 1
        self[handle] = obj
        return handle

    def free(self, handle: int) -> T:
        """Give a handle back; returns its object."""
        obj = self[handle]
        del self[handle]
        self._free.append(handle)
        return obj

    def free_all(self, handles: list[int]) -> list[T]:
        """Give handles back, one after the other; returns their objects."""
        objects = list(map(self.pop, handles))
        self._free += handles
        return objects

    def __missing__(self, handle: int) -> NoReturn:
        raise KeyError(f"handle {handle!r} is not in use")
