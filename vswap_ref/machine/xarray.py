"""The kernel's XArray: a sparse array of objects that is a tree of 64-way nodes.

Values live in a dict, so that a look-up is fast; beside it the nodes that the kernel's tree would have are counted
exactly, level by level, because their bytes and their failing allocations are what users of the tree pay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

from .faults import Faults

T = TypeVar("T")
XA_CHUNK_SHIFT = 6
XA_NODE_BYTES = 576


class XArray(Generic[T]):
    """Index (>= 0) -> object.  Without nodes for a lone entry at index 0, like the kernel's.

    ``faults`` and ``site`` name the fault-injection site that a new node asks; if it fails, ``store`` raises
    MemoryError and nothing has changed.  ``zero_free`` false: to ``alloc`` index 0 is not free before something has
    been stored: an array with XA_FLAGS_TRACK_FREE whose first mark nobody has set.
    """

    __slots__ = ("_children", "_faults", "_height", "_site", "_values", "_zero_free", "load")

    load: Callable[[int], T | None]
    """The object at an index, or None: the dict's own ``get``, for nothing is called more often."""

    def __init__(self, faults: Faults | None = None, site: str = "xa_node", zero_free: bool = True) -> None:
        self._values: dict[int, T] = {}
        self.load = self._loader()
        self._children: dict[tuple[int, int], int] = {}
        self._height = 0
        self._faults = faults
        self._site = site
        self._zero_free = zero_free

    def __getstate__(self) -> object:
        """Without ``load``, which a copy makes from its own dict."""
        attributes, slots = cast("tuple[dict[str, Any] | None, dict[str, Any]]", super().__getstate__())
        return attributes, {name: value for name, value in slots.items() if name != "load"}

    def __setstate__(self, state: tuple[dict[str, Any] | None, dict[str, Any]]) -> None:
        attributes, slots = state
        for name, value in {**(attributes or {}), **slots}.items():
            setattr(self, name, value)
        self.load = self._loader()

    def _loader(self) -> Callable[[int], T | None]:
        """What ``load`` is, once the dict is there."""
        return self._values.get

    def store(self, index: int, value: T | None) -> T | None:
        """Put an object at an index; returns the one it replaces.  Storing None erases."""
        if value is None:
            return self.__erase(index)
        old = self._values.get(index)
        if old is None:
            self._get_nodes(index)
            self._insert(index)
            self._zero_free = True
        self._values[index] = value
        return old

    def store_range(self, first: int, nr: int, value: T | None) -> None:
        """Put one object (None: erase) at ``nr`` neighbouring indices: as ``nr`` stores, but a leaf at a time.

        The kernel's xa_store_range would make one multi-index entry of them; this is what single stores make.
        MemoryError if a node cannot be had, then nothing has changed.
        """
        stop = first + nr
        if value is not None:
            self._get_nodes(first, nr)
        while first < stop:
            leaf = range(first, min(stop, (first >> XA_CHUNK_SHIFT) + 1 << XA_CHUNK_SHIFT))
            present = self._values.keys() & leaf
            first = leaf.stop
            if value is not None:
                if len(present) < len(leaf):
                    self._insert(leaf.stop - 1, len(leaf) - len(present))
                self._values.update(dict.fromkeys(leaf, value))
            elif present:
                for index in present:
                    del self._values[index]
                self._remove(leaf.start, len(present))

    def erase(self, index: int) -> T | None:
        """Remove and return the object at an index, or None."""
        old = self._values.pop(index, None)
        if old is not None:
            self._remove(index)
        return old

    def cmpxchg(self, index: int, expected: T | None, value: T | None) -> T | None:
        """Replace the object if it equals ``expected``; returns what was there."""
        old = self._values.get(index)
        if old == expected:
            self.__store(index, value)
        return old

    def alloc(self, value: T, low: int, high: int) -> int:
        """Store at the lowest free index in [low, high]; OverflowError (-EBUSY) if there is none."""
        for index in range(low if self._zero_free else max(low, 1), high + 1):
            if index not in self._values:
                self.__store(index, value)
                return index
        raise OverflowError(f"no free index in [{low}, {high}]")

    __store, __erase = store, erase  # inside the class these are meant, whatever a subclass makes of its own

    def items(self) -> Iterator[tuple[int, T]]:
        """(index, object) in order of index."""
        for index in sorted(self._values):
            yield index, self._values[index]

    def __contains__(self, index: int) -> bool:
        return index in self._values

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._values))

    def __len__(self) -> int:
        return len(self._values)

    @property
    def empty(self) -> bool:
        """No object at all (xa_empty)."""
        return not self._values

    @property
    def height(self) -> int:
        """Levels of nodes: what a look-up passes."""
        return self._height

    @property
    def nodes(self) -> int:
        """64-way nodes that the tree has."""
        return len(self._children)

    @property
    def nbytes(self) -> int:
        """Bytes of these nodes, 576 each."""
        return XA_NODE_BYTES * len(self._children)

    def missing_nodes(self, first: int, nr: int = 1) -> int:
        """How many nodes the tree lacks for objects at ``nr`` neighbouring indices (xas_create_range makes them)."""
        last = first + nr - 1
        levels = levels_for(last)
        if nr == 1 and levels <= self._height and (1, first >> XA_CHUNK_SHIFT) in self._children:
            return 0
        height = max(self._height, levels)
        spine = {(level, 0) for level in range(self._height + 1, height + 1)} if self._values else set()
        rows = ((level, XA_CHUNK_SHIFT * level) for level in range(1, height + 1))
        paths = {(level, index) for level, shift in rows for index in range(first >> shift, (last >> shift) + 1)}
        return len((spine | paths) - self._children.keys())

    def _get_nodes(self, first: int, nr: int = 1) -> None:
        """Ask the fault site for each node that the range lacks; MemoryError if one cannot be had."""
        if self._faults is None:
            return
        lacking = self.missing_nodes(first, nr)
        if lacking and any(self._faults.should_fail(self._site) for _ in range(lacking)):
            raise MemoryError("no memory for an XArray node")

    def _insert(self, index: int, nr: int = 1) -> None:
        """Count the nodes on the way to ``nr`` new indices of a leaf up to ``index``; a tree too low grows upward."""
        height = levels_for(index)
        if height > self._height:
            if self._values:
                self._children.update(((level, 0), 1) for level in range(self._height + 1, height + 1))
            self._height = height
        for level in range(1, self._height + 1):
            node = (level, index >> XA_CHUNK_SHIFT * level)
            count = self._children.get(node, 0)
            self._children[node] = count + nr
            if count:
                break
            nr = 1

    def _remove(self, index: int, nr: int = 1) -> None:
        """Count ``nr`` indices of a leaf off, and the nodes that lost their last child; then shrink from the top."""
        for level in range(1, self._height + 1):
            node = (level, index >> XA_CHUNK_SHIFT * level)
            self._children[node] = left = self._children[node] - nr
            if left:
                if level < self._height:
                    return
                break
            del self._children[node]
            nr = 1
        self._shrink()

    def _shrink(self) -> None:
        """A top node whose only child is the first one goes away; so does the last node of a lone index 0."""
        if not self._values:
            self._height = 0
            return
        while self._height:
            top = (self._height, 0)
            first_only = self._children[top] == 1 and (
                (self._height - 1, 0) in self._children if self._height > 1 else 0 in self._values
            )
            if not first_only:
                return
            del self._children[top]
            self._height -= 1


def levels_for(index: int) -> int:
    """Height of a tree that reaches ``index``: 0 for index 0, one level for each 6 bits."""
    return -(-index.bit_length() // XA_CHUNK_SHIFT)
