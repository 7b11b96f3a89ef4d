"""Handles: small integers that stand for objects, for structures that keep words instead of references."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Arena(Generic[T]):
    """Handle (>= 1) <-> object.  A freed handle is the next one given out; 0 never stands for anything.

    All operations take constant time.  A handle that is not in use is a KeyError.
    """

    __slots__ = ("_free", "_objects")

    def __init__(self) -> None:
        self._objects: list[T | None] = [None]
        self._free: list[int] = []

    def alloc(self, obj: T) -> int:
        """A handle for an object, which must not be None."""
        if obj is None:
            raise ValueError("obj=None: expected an object")
        if self._free:
            handle = self._free.pop()
            self._objects[handle] = obj
        else:
            handle = len(self._objects)
            self._objects.append(obj)
        return handle

    def free(self, handle: int) -> T:
        """Give a handle back; returns its object."""
        obj = self[handle]
        self._objects[handle] = None
        self._free.append(handle)
        return obj

    def free_all(self, handles: list[int]) -> list[T]:
        """Give handles back, one after the other; returns their objects."""
        objects = [self._objects[handle] for handle in handles]
        for handle in handles:
            self._objects[handle] = None
        self._free += handles
        return cast("list[T]", objects)

    def __getitem__(self, handle: int) -> T:
        obj = self._objects[handle] if 0 < handle < len(self._objects) else None
        if obj is None:
            raise KeyError(f"handle {handle!r} is not in use")
        return obj

    @property
    def live(self) -> int:
        """Objects that have a handle."""
        return len(self._objects) - 1 - len(self._free)
