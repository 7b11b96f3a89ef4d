"""Replaying a trace on a stage, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any

from vswap_ref.series import at
from vswap_ref.series.stages import stages

from .compare import Difference, cluster_view, differences
from .events import cost_differences, note_counters, snapshot
from .expected import Cluster, Expected
from .neighbours import standins
from .operations import execute
from .reader import Operation, Trace, TraceError, read_trace
from .world import CLUSTER, World, new_world, replaced

SHOWN = 12
"""Differences and slots that a report writes out."""

EXCLUDED = {
    "arguments and CPUs of operations": "they say what to do; what comes of it is compared",
    "which slots the allocator finds, which allocations fail, which slots the swap map frees together (9 to 12)": "not "
    "decided in mm/vswap.c: taken from the trace, and all that follows from it is compared",
    "swap map (9 to 12), swap_cgroup (9 to 11), zswap's tree (9, 10), swap cache (9)": "outside mm/vswap.c at these "
    "levels; on both sides plain tables stand in for them, without locks",
    "devices, memory cgroups, zswap's objects, folios": "always outside; on both sides stand-ins, whose counters are "
    "compared",
    "freeing the memory of a cluster that could not be created": "Python collects it, there is no call",
    "events of devices, cgroups and zswap (in the field cost)": "their stand-ins do not count; the calls are compared",
    "locks of the map of clusters when it has no memory": "the kernel tries a second time, the model once",
    "RCU sections where a failed physical allocation is undone (13)": "the kernel lacks one there; the model has none "
    "either, but counts it with the look-up",
    "operations inside another operation (hooks)": "the model's operations are atomic; such files are refused",
}
"""What a replay does not compare, and why."""

LONG = 200
"""Operations from which on progress is shown."""

Progress = Callable[[list[Operation]], Iterable[Operation]]


@dataclass(slots=True)
class Replay:
    """What came of a replay: all operations agreed, or ``operation`` is the first that differs, and how."""

    trace: Trace
    stage: str
    done: int = 0
    operation: Operation | None = None
    differences: list[Difference] = field(default_factory=list)
    picture: list[str] = field(default_factory=list)
    """The clusters concerned, as the trace and as the model has them."""

    @property
    def agrees(self) -> bool:
        """The model did what the recorded code did."""
        return self.operation is None

    def row(self) -> dict[str, Any]:
        """The outcome as plain data."""
        row = {"file": str(self.trace.path), "level": self.trace.level, "stage": self.stage, "agrees": self.agrees}
        row |= {"operations": len(self.trace.operations), "done": self.done}
        if self.operation is not None:
            row |= {"operation": self.operation.number, "line": self.operation.line, "op": self.operation.op}
            row |= {"args": self.operation.args}
            fields = [{"field": d.field, "expected": str(d.expected), "got": str(d.got)} for d in self.differences]
            row |= {"differences": fields, "clusters": self.picture}
        return row

    def __str__(self) -> str:
        name = f"{self.trace.path}: level {self.trace.level} on stage {self.stage}"
        if self.operation is None:
            return f"{name}: {self.done:,} operations agree"
        lines = [f"{name}: differs", f"  line {self.operation.line}, {self.operation}"]
        lines += [f"    {difference}" for difference in self.differences[:SHOWN]]
        hidden = len(self.differences) - SHOWN
        lines += [f"    and {hidden} more"] if hidden > 0 else []
        return "\n".join([*lines, *(f"  {line}" for line in self.picture)])


def replay(path: str | Path, stage: int | str | None = None, progress: Progress = iter) -> Replay:
    """Replay a trace on a stage (default: that of its level), up to the first operation that differs.

    ValueError (TraceError) for a file that is no trace or is damaged, or a stage that does not exist.
    """
    trace = read_trace(path)
    if stage is None and str(trace.level) not in stages():
        raise ValueError(f"{path}: recorded at level {trace.level}, for which there is no stage: choose one (--stage)")
    chosen = at(trace.level if stage is None else stage)
    outcome = Replay(trace, chosen.id)
    if "mm/vswap/lookup.py" not in chosen.paths:
        raise ValueError(f"stage={chosen.id!r}: expected a stage that has virtual slots")
    world = new_world(chosen, trace.level)
    try:
        with replaced(world, standins(world)):
            play_all(world, outcome, progress)
    except TraceError as error:
        raise TraceError(f"{path}, {error}") from None
    return outcome


def play_all(world: World, outcome: Replay, progress: Progress) -> None:
    """Do the operations of a trace, up to the first that differs."""
    expected, prints = Expected(), dict[int, bytes]()
    for operation in progress(outcome.trace.operations):
        found = play(world, expected, operation, prints)
        if found:
            outcome.operation, outcome.differences = operation, found
            outcome.picture = picture(world, expected, found)
            return
        outcome.done += 1
    if operation.op != "state":
        raise TraceError(f"line {operation.line}: the file ends here, without a complete state: is it truncated?")


def with_progress(operations: list[Operation]) -> Iterable[Operation]:
    """The operations behind a progress bar, if there are many, stderr is a terminal and tqdm is there."""
    if len(operations) < LONG or not sys.stderr.isatty():
        return operations
    try:
        tqdm = import_module("tqdm")
    except ImportError:
        return operations
    bar: Iterable[Operation] = tqdm.tqdm(operations, unit="op", leave=False)
    return bar


def play(world: World, expected: Expected, operation: Operation, prints: dict[int, bytes]) -> list[Difference]:
    """Do one operation in the model and in the trace's state, and compare."""
    before = snapshot(world)
    try:
        result = execute(world, operation)
        note_counters(world, before)
        expected.apply(operation)
        found = list(differences(world, expected, operation, result, touched(world, operation, prints)))
        return found + list(cost_differences(world, operation, before))
    except TraceError:
        raise
    except Exception as error:
        return [Difference("the model", "no error", error_text(error))]


def error_text(error: Exception) -> str:
    """An error of the model and where it was raised."""
    frame = extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} in {frame.name}, {Path(frame.filename).name} line {frame.lineno}"


def touched(world: World, operation: Operation, prints: dict[int, bytes]) -> set[int]:
    """Clusters to compare: those whose bytes in the model are not what they were, and those of the arguments.

    What stand-ins keep of a cluster is not in its bytes.
    """
    now = {id_: fingerprint(cluster) for id_, cluster in world.s.vswap.cluster_map.items()}
    found = {id_ for id_, data in now.items() if data != prints.get(id_)}
    prints.clear()
    prints.update(now)
    return found | {entry // CLUSTER for entry in entries_of(world, operation.args)}


def entries_of(world: World, args: dict[str, Any]) -> set[int]:
    """First and last entry that the arguments of an operation name, or the folio that is taken over."""
    found = {args[name] for name in ("entry", "entry1", "entry2") if name in args}
    found |= {entry + args.get("nr", args.get("each", 1)) - 1 for entry in found}
    return found | {world.folios[args["new"]].swap} if "new" in args else found


def fingerprint(cluster: Any) -> bytes:
    """Everything that a cluster consists of."""
    figures = cluster.order, cluster.count, cluster.refcnt, cluster.cached, cluster.full
    array: bytes = cluster.desc.array.tobytes()
    return repr(figures).encode() + bytes(cluster.bitmap.bits) + array


def picture(world: World, expected: Expected, found: list[Difference]) -> list[str]:
    """The clusters that differ, from both sides."""
    ids = {int(d.field.split()[1].rstrip(":")) for d in found if d.field.startswith("cluster ")}
    lines = []
    for id_ in sorted(ids):
        cluster = world.s.vswap.cluster_map.load(id_)
        lines += [f"cluster {id_} in the trace: {cluster_text(expected.clusters[id_])}"]
        lines += [f"cluster {id_} in the model: {cluster_text(cluster_view(world, cluster))}"]
    return lines


def cluster_text(cluster: Cluster) -> str:
    """A cluster in one line: its figures and its slots in runs."""
    figures = f"order {cluster.order}, {cluster.count} slots, {cluster.ref} references"
    flags = [name for name in ("cached", "full") if getattr(cluster, name)]
    return ", ".join([figures, *flags]) + "; allocated: " + (", ".join(slot_runs(sorted(cluster.slots))) or "none")


def slot_runs(indices: list[int]) -> list[str]:
    """Indices as ranges."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return [f"{first}-{last}" if first != last else f"{first}" for first, last in runs]
