"""The state that a trace describes, rebuilt from its changes line by line."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .reader import Operation, TraceError


class Slot(NamedTuple):
    """An allocated virtual slot as traces describe it.

    ``kind``: F folio, S slot of a device, C compressed, 0 zeros; ``backing``: "type.offset", an id of zswap's, or "-";
    ``cache``: "f<folio>", "s<shadow>" or "-".
    """

    kind: str
    backing: str
    cache: str
    swap_count: int
    in_swapcache: int
    memcgid: int

    def __str__(self) -> str:
        return f"{self[0]}:{self[1]}:{self[2]}:{self[3]}:{self[4]}:{self[5]}"


@dataclass(slots=True)
class Cluster:
    """A virtual cluster: its header's figures, its allocated slots by index, zswap's copies by index (09 to 13)."""

    order: int = 0
    count: int = 0
    ref: int = 0
    cached: int = 0
    full: int = 0
    slots: dict[int, Slot] = field(default_factory=dict)
    zswap: dict[int, int] = field(default_factory=dict)


def digest(slots: dict[int, Slot]) -> str:
    """The checksum of a cluster's allocated slots."""
    text = "".join(f"{index}:{slots[index]}\n" for index in sorted(slots))
    return f"{zlib.crc32(text.encode()):08x}"


@dataclass(slots=True)
class Expected:
    """Everything that a trace has said so far."""

    clusters: dict[int, Cluster] = field(default_factory=dict)
    pcpu: dict[int, dict[int, int]] = field(default_factory=lambda: {cpu: {} for cpu in range(4)})
    partial: dict[int, list[int]] = field(default_factory=dict)
    used: int = 0
    alloc_reject: int = 0
    folios: dict[int, dict[str, Any]] = field(default_factory=dict)
    memcgs: dict[int, dict[str, int]] = field(default_factory=dict)
    phys: dict[int, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)

    def apply(self, operation: Operation) -> None:
        """Take over what an operation changed.  TraceError if a checksum of the trace itself is wrong."""
        changes = operation.changes
        try:
            for change in changes["clusters"]:
                self.apply_cluster(change, complete=operation.op == "state")
            for cpu, hints in changes.get("pcpu", {}).items():
                self.pcpu[int(cpu)] = {int(order): cluster for order, cluster in hints["alloc"].items()}
            self.partial |= {int(order): clusters for order, clusters in changes.get("partial", {}).items()}
            for name in ("folios", "memcgs", "phys"):
                getattr(self, name).update((int(key), value) for key, value in changes.get(name, {}).items())
            self.used = changes.get("used", self.used)
            self.alloc_reject = changes.get("alloc_reject", self.alloc_reject)
            self.held = {"locks": 0, "irqs_off": 0} | changes.get("held", {})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TraceError(f"line {operation.line}, {operation}: malformed state: {error!r}") from None
        if operation.op == "env.folio_gone":
            self.folios.pop(operation.args["id"], None)

    def apply_cluster(self, change: dict[str, Any], complete: bool) -> None:
        """Take over a cluster's figures and its changed slots (all of them, if complete)."""
        if change.get("gone"):
            del self.clusters[change["id"]]
            return
        cluster = self.clusters.setdefault(change["id"], Cluster())
        for name in ("order", "count", "ref", "cached", "full"):
            setattr(cluster, name, change[name])
        if complete:
            cluster.slots.clear()
        for start, nr, kind, *rest in change["slots"]:
            for i in range(nr):
                if kind == "free":
                    del cluster.slots[start + i]
                else:
                    cluster.slots[start + i] = slot_of_run(kind, rest, i)
        runs = change.get("zswap", [])
        cluster.zswap = {start + i: first + i for start, nr, first in runs for i in range(nr)}
        if digest(cluster.slots) != change["crc"]:
            raise ValueError(f"checksum of cluster {change['id']}: {digest(cluster.slots)}, not {change['crc']}")


def slot_of_run(kind: str, rest: list[Any], i: int) -> Slot:
    """Slot ``i`` of a run of alike slots."""
    backing, cache, count, in_swapcache, memcgid = rest
    text = "-"
    if kind == "S":
        text = f"{backing[0]}.{backing[1] + i}"
    elif kind == "C":
        text = str(backing + i)
    return Slot(kind, text, cache or "-", count, in_swapcache, memcgid)
