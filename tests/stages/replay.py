"""Two stages side by side: ``assert_same(before, after)`` plays one workload on both and compares every step.

A comparison that never reaches what a patch changed proves nothing: every function that the patch added or replaced
must have been executed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import zip_longest
from types import FrameType
from typing import Any

from workload import WORLDS, Step, play

from vswap_ref.lab.defects import image_pages
from vswap_ref.series import at
from vswap_ref.series.stages import ROOT, LoadedStage, checkout_series

SHOWN = 8
"""Differences that are written out; the first one matters most."""

Names = set[str]
Also = Callable[[LoadedStage], object]


@dataclass(slots=True)
class Changed:
    """The functions in which two stages differ: what to execute in the one before, and in the one after."""

    before: Names = field(default_factory=set)
    after: Names = field(default_factory=set)


class Coverage:
    """Which of some functions of a stage's ``mm`` are entered; looks no further when all of them were."""

    def __init__(self, stage: LoadedStage, wanted: Collection[str]) -> None:
        self.package = f"{ROOT}.s{stage.id}.mm."
        self.missing = set(wanted)

    def enter(self, frame: FrameType, event: str, argument: Any) -> None:
        """A function is called (a trace function for ``sys.settrace``)."""
        name = frame.f_code.co_name
        if name in self.missing and frame.f_globals.get("__name__", "").startswith(self.package):
            self.missing.discard(name)
            if not self.missing:
                sys.settrace(None)

    def of(self, function: Callable[[], Any]) -> Any:
        """Run a function; its result."""
        outer = sys.gettrace()
        sys.settrace(self.enter if self.missing else outer)
        try:
            return function()
        finally:
            sys.settrace(outer)


def changed_functions(before: int | str, after: int | str) -> Changed:
    """The functions that the patches between two stages add, replace, move, rename or remove."""
    series, found = checkout_series(), Changed()
    passed = {stage.id for stage in series.lineage(before)}
    if str(before) not in {stage.id for stage in series.lineage(after)}:
        raise ValueError(f"before={before!r}: stage {after} is not built on it")
    for stage in series.lineage(after):
        for change in series.build(stage.id)[1] if stage.id not in passed else ():
            old = change.source if change.verb == "renamed" else change.name
            found.before |= {old} if change.verb != "added" else set()
            found.after |= {change.name} if change.verb != "removed" else set()
    return Changed(found.before & functions(str(before)), found.after & functions(str(after)))


@cache
def functions(stage: str) -> frozenset[str]:
    """Names of all functions of a stage."""
    modules = checkout_series().tree(stage).values()
    return frozenset(
        name for module in modules for name, item in module.definitions.items() if item.kind == "FunctionDef"
    )


def assert_same(
    before: int | str,
    after: int | str,
    *,
    unreachable: Collection[str] = (),
    also: Also | None = None,
    seed: int = 0,
    nr_steps: int = 150,
    worlds: Iterable[str] = tuple(WORLDS),
) -> None:
    """AssertionError, with the first steps that differ, unless a workload cannot tell two stages apart.

    It also fails if the workload does not execute a function that the patches between the stages changed.
    ``unreachable`` names those that no operation of the face can reach (say why where you call this); one that is
    reached after all is an error in a ``--deep`` run: watching costs time.  ``also(stage)`` runs more, for functions
    without a caller; what it returns is compared too.  Allocations fail at the sites that both stages have.
    """
    changed, sites = changed_functions(before, after), common_sites(before, after)
    image = min(image_pages(stage, 8) for stage in (before, after))
    skipped = set() if os.environ.get("VSWAP_DEEP") else set(unreachable)
    steps: list[list[Step]] = []
    extras: list[object] = []
    for stage, wanted in ((at(before), changed.before), (at(after), changed.after)):
        coverage = Coverage(stage, wanted - skipped)
        steps.append(coverage.of(lambda stage=stage: play(stage, seed, nr_steps, worlds, sites, image)))
        if also is not None:
            extras.append(coverage.of(lambda stage=stage: also(stage)))
        assert_covered(stage, wanted - skipped, coverage.missing, unreachable)
    text = differences(*steps, names=(f"stage {before}", f"stage {after}"))
    assert not text, text
    assert not extras or extras[0] == extras[1], f"what `also` returns differs: {extras[0]!r}, {extras[1]!r}"


def common_sites(before: int | str, after: int | str) -> set[str]:
    """Sites of fault injection that both stages have."""
    first, second = (at(stage).Kernel().faults.docs.keys() for stage in (before, after))
    return set(first & second)


def assert_covered(stage: LoadedStage, wanted: Names, missing: Names, unreachable: Collection[str]) -> None:
    """Every wanted function was executed, those that cannot be reached excepted."""
    never = missing - set(unreachable)
    assert not never, f"{stage}: the workload does not execute {', '.join(sorted(never))}, which the patch changed"
    reached = (wanted & set(unreachable)) - missing
    assert not reached, f"{stage}: {', '.join(sorted(reached))} is reached: take it out of `unreachable`"


def differences(first: list[Step], second: list[Step], names: tuple[str, str]) -> str:
    """The steps in which two runs differ, to be read; empty if there are none."""
    pairs = [(number, a, b) for number, (a, b) in enumerate(zip_longest(first, second)) if a != b]
    if not pairs:
        return ""
    number = pairs[0][0]
    lines = [f"{len(pairs)} of {max(len(first), len(second))} steps differ between {names[0]} and {names[1]}"]
    lines += ["the steps before the first difference:"]
    lines += [
        f"    {index}: {first[index]} -> {cut(one_line(first[index].result))}"
        for index in range(max(0, number - 3), number)
    ]
    for number, a, b in pairs[:SHOWN]:
        lines += [f"step {number}: {a or b}", *(f"    {row}" for row in rows(a, b))]
    return "\n".join(lines)


def rows(a: Step | None, b: Step | None) -> Iterable[str]:
    """In what two steps differ, one line each."""
    if a is None or b is None:
        yield "only one of the two runs has this step"
        return
    if str(a) != str(b):
        yield f"operation: {a} | {b}"
    if a.result != b.result:
        yield from result_rows(a.result, b.result)
    for name in sorted(a.vmstat.keys() | b.vmstat.keys()):
        values = a.vmstat.get(name, 0), b.vmstat.get(name, 0)
        if values[0] != values[1]:
            yield f"{name}: {values[0]:+} | {values[1]:+}"
    if a.clock_ns != b.clock_ns:
        yield f"time: {a.clock_ns} ns | {b.clock_ns} ns"


def result_rows(a: str, b: str) -> Iterable[str]:
    """Results of one line as they are; of longer ones, the lines that differ."""
    for x, y in zip_longest(a.split("\n"), b.split("\n"), fillvalue=""):
        if x != y:
            start = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
            begin = max(0, start - 40) if max(len(x), len(y)) > 120 else 0
            yield f"result: {cut(x[begin:])} | {cut(y[begin:])}"


def cut(text: str, length: int = 120) -> str:
    """The beginning of a long text."""
    return text if len(text) <= length else f"{text[:length]} ..."


def one_line(text: str) -> str:
    """Lines joined."""
    return " / ".join(text.rstrip("\n").split("\n"))
