"""All that a kernel keeps, as plain text by name: ``describe(system)`` walks every structure that can be reached.

Structures are followed wherever they are; names of classes of the model are in the keys, names of functions are not.
What is compared elsewhere (counters, costs, requests for memory) and what only serves the simulation (locks, hooks) is
left out.
"""

from __future__ import annotations

import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from vswap_ref.machine import Bitmap, XArray

PLAIN = (int, float, str, type(None), range)
LEFT_OUT = {"Faults", "Hooks", "Locks", "Rcu", "Lockdep", "Config", "Codec", "ValidatedLock", "IrqsOff"}
COMPARED_ELSEWHERE = {"cost", "vmstat"}
NAMED: dict[str, Callable[[Any], str]] = {
    "Folio": lambda folio: f"folio {folio.pfn}",
    "Memcg": lambda group: f"cgroup {group.id}",
    "SwapInfo": lambda si: f"device {si.type}",
    "ZswapEntry": lambda zswap: f"zswap entry {zswap.swpentry:#x}",
    "ShmemInode": lambda inode: f"shared {inode.name}",
}
"""Class -> the name of one of its objects; all others are called after the place where they are found first."""


def describe(system: Any) -> dict[str, str]:
    """ "Class.field of object" -> value, for every object that can be reached from a ``System``."""
    walk = Walk()
    walk.name(system, "system")
    for number, mm in enumerate(system.mms):
        walk.name(mm, f"address space {number}")
    while walk.queue:
        walk.visit(walk.queue.popleft())
    return walk.values


class Walk:
    """The objects that were met, and what their fields hold."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.taken: set[str] = set()
        self.queue: deque[Any] = deque()
        self.values: dict[str, str] = {}

    def name(self, thing: Any, place: str) -> str:
        """The name of an object; a new one is to be visited."""
        if id(thing) not in self.names:
            kind = type(thing).__name__
            name = NAMED[kind](thing) if kind in NAMED else place
            while name in self.taken:
                name += "'"
            self.taken.add(name)
            self.names[id(thing)] = name
            self.queue.append(thing)
        return self.names[id(thing)]

    def visit(self, thing: Any) -> None:
        """Note the fields of an object."""
        name, kind = self.names[id(thing)], type(thing).__name__
        for field, value in attributes(thing):
            text = self.text(value, f"{name}.{field}")
            if text:
                self.values[f"{kind}.{field} of {name}"] = text

    def text(self, value: Any, place: str) -> str:
        """A value; of structures in it only the name.  Empty for what is left out."""
        if isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, bytes | bytearray | memoryview | array | np.ndarray):
            data = value if isinstance(value, bytes | bytearray) else value.tobytes()
            return f"{len(value)} values, checksum {zlib.crc32(data):08x}"
        if isinstance(value, Bitmap):
            return self.text(value.bits, place)
        if isinstance(value, XArray):
            return f"{value.nodes} nodes {self.text(dict(value.items()), place)}"
        if isinstance(value, dict):
            items = (f"{self.text(key, f'{place}[]')}: {self.text(it, f'{place}[]')}" for key, it in value.items())
            return "{" + ", ".join(items) + "}"
        if isinstance(value, list | tuple | deque):
            return "[" + ", ".join(self.text(item, f"{place}[{i}]") for i, item in enumerate(value)) + "]"
        return "" if is_left_out(value) else self.name(value, place)


def is_left_out(value: Any) -> bool:
    """Functions, locks, and what is compared elsewhere."""
    kind = type(value)
    return kind.__name__ in LEFT_OUT or callable(value) or kind.__module__.startswith(("_thread", "threading"))


def attributes(thing: Any) -> Iterable[tuple[str, Any]]:
    """The fields of a dataclass, or whatever attributes an object has."""
    if is_dataclass(thing):
        names = (field.name for field in fields(thing) if field.name not in COMPARED_ELSEWHERE)
        return [(name, getattr(thing, name)) for name in names]
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*((name, getattr(thing, name)) for name in slots), *getattr(thing, "__dict__", {}).items()]
