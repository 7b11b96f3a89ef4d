"""The state that a trace describes, rebuilt from its changes line by line."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .reader import Operation, TraceError
from .shape import CPUS, is_int, is_slot

CLUSTER = 512


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
    """A virtual cluster: its header's figures, its allocated slots by index, zswap's copies by index (09 to 13).

    ``alloc`` is the bitmap in runs [start, n].
    """

    order: int = 0
    count: int = 0
    ref: int = 0
    cached: int = 0
    full: int = 0
    alloc: list[list[int]] = field(default_factory=list)
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
    pcpu: dict[int, dict[int, int]] = field(default_factory=lambda: {cpu: {} for cpu in range(CPUS)})
    iter: dict[int, int | None] = field(default_factory=lambda: dict.fromkeys(range(CPUS), -1))
    """CPU -> cluster that it remembers for look-ups (22); -1: none."""
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
        if operation.op == "state":
            self.forget()
        try:
            if len({change["id"] for change in changes["clusters"]}) < len(changes["clusters"]):
                raise ValueError("a cluster is named twice")
            for change in changes["clusters"]:
                self.apply_cluster(change)
            for name in ("pcpu", "partial", "folios", "memcgs", "phys"):
                for key, value in changes.get(name, {}).items():
                    self.apply_part(name, int(key), value)
            self.used = changes.get("used", self.used)
            self.alloc_reject = changes.get("alloc_reject", self.alloc_reject)
            self.held = changes.get("held", {"locks": 0, "irqs_off": 0})
            if self.held.keys() != {"locks", "irqs_off"}:
                raise ValueError(f"held: {self.held}")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise TraceError(f"line {operation.line}, {operation}: malformed state: {error!r}") from None
        if operation.op == "env.folio_gone":
            for i in range(operation.args.get("each", 1)):
                self.folios.pop(operation.args["id"] + i, None)

    def forget(self) -> None:
        """A complete state follows, which has to name every CPU."""
        for part in (self.clusters, self.partial, self.folios, self.memcgs, self.phys):
            part.clear()
        self.pcpu, self.iter = {cpu: {} for cpu in range(CPUS)}, dict.fromkeys(range(CPUS))

    def apply_part(self, name: str, key: int, value: Any) -> None:
        """Take over what became of one CPU, list, folio, cgroup or device."""
        if name == "pcpu":
            if key not in self.pcpu or value.keys() != {"iter", "alloc"}:
                raise ValueError(f"cpu {key}: {value}")
            self.iter[key] = value["iter"]
            self.pcpu[key] = {int(order): cluster for order, cluster in value["alloc"].items()}
        elif name == "partial" and key not in range(10):
            raise ValueError(f"list of order {key}")
        else:
            getattr(self, name)[key] = value

    def apply_cluster(self, change: dict[str, Any]) -> None:
        """Take over a cluster's figures and its changed slots."""
        if change.keys() == {"id", "gone"}:
            del self.clusters[change["id"]]
            return
        unknown = change.keys() - {*FIGURES, "id", "crc", "alloc", "slots", "zswap"}
        if unknown or not is_int(change["id"]):
            raise ValueError(f"cluster {change['id']!r} with unknown {sorted(unknown)}")
        cluster = self.clusters.setdefault(change["id"], Cluster())
        for name in FIGURES:
            setattr(cluster, name, change[name])
        cluster.alloc = [list(run) for run in change["alloc"]]
        end = 0
        for start, nr, kind, *rest in change["slots"]:
            for i in indices(start, nr, end):
                if kind == "free" and not rest:
                    del cluster.slots[i]
                else:
                    cluster.slots[i] = slot_of_run(kind, rest, i - start)
            end = start + nr
        cluster.zswap = {}
        for start, nr, first in change.get("zswap", []):
            cluster.zswap |= {i: first + i - start for i in indices(start, nr, max(cluster.zswap, default=-1) + 1)}
        if digest(cluster.slots) != change["crc"]:
            raise ValueError(f"checksum of cluster {change['id']}: {digest(cluster.slots)}, not {change['crc']}")


FIGURES = ("order", "count", "ref", "cached", "full")
"""What the header of a cluster says."""


def indices(start: int, nr: int, after: int) -> range:
    """The indices of a run of slots; ValueError unless there are some, of a cluster, from ``after`` on."""
    if not after <= start < start + nr <= CLUSTER:
        raise ValueError(f"slots [{start}, {nr}]: expected some from {after} to {CLUSTER - 1}")
    return range(start, start + nr)


def slot_of_run(kind: str, rest: list[Any], i: int) -> Slot:
    """Slot ``i`` of a run of alike slots."""
    backing, cache, count, in_swapcache, memcgid = rest
    if kind not in ("S", "C", "F", "0"):
        raise ValueError(f"kind {kind!r}")
    if not (is_slot(backing) if kind == "S" else is_int(backing) if kind == "C" else backing is None):
        raise ValueError(f"kind {kind} with backing {backing}")
    text = "-"
    if kind == "S":
        text = f"{backing[0]}.{backing[1] + i}"
    elif kind == "C":
        text = str(backing + i)
    return Slot(kind, text, cache or "-", count, in_swapcache, memcgid)
