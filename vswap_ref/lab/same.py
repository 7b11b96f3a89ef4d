"""Two stages side by side: ``compare(before, after)`` plays one workload on both and compares every step.

What is compared: what each operation returns or raises, the requests to devices with the data, counters, requests for
memory, locks and look-ups, virtual time, and every field of every structure of the kernel again and again.  Names of
functions do not count.  A comparison that never reaches what a patch changed proves nothing: every function that the
patch added or replaced must have been executed.  A patch may be *meant* to change something: ``INTENDED`` names it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import zip_longest
from types import FunctionType, ModuleType
from typing import Any

from vswap_ref.display import table_html
from vswap_ref.series import at
from vswap_ref.series.live_stage import Live, LiveStage
from vswap_ref.series.stages import LoadedStage, checkout_series

from .defects import image_pages
from .same_workload import BREAKS, WORLDS, Step, play

INTENDED: dict[str, dict[str, str]] = {
    "1": {
        "SwapClusterInfo.table": "the words of the swap table are not used any more",
        "SwapState.cache": "the tree is new",
        "SwapCache.xa": "the folios and shadows are in it",
        "swap_cache_node": "its nodes are allocated",
        "xa_load": "a look-up reads the tree, not a cluster's table",
        "cache_lock": "a store takes the tree's lock",
        "ci_lock": "and not the cluster's",
    },
    "6": {
        "device pins": "virtual-address readahead pins every neighbour, on the target's own device too",
        "device unpins": "and lets it go",
    },
    "7": {"KernelDirs.debugfs": "an empty directory"},
    "8": {
        "ZswapState.trees": "the trees of 16,384 slots each are gone",
        "ZswapState.tree": "one tree holds all",
        "kvzalloc_zswap_trees": "swapon allocates no trees",
        "xa_node": "the one tree shares nodes, and is deep if there is a second device",
        "xa_lock": "a freed slot takes its lock if anything is compressed anywhere",
    },
}
"""Stage -> name of what its patch changes on purpose -> why.  All else has to be the same."""

ASPECTS = ("results", "device requests", "counters", "requests for memory", "locks, look-ups", "time", "state")
VISIBLE = ("results", "device requests", "counters", "time")
"""What users of a kernel can see, whatever it is made of."""
SHOWN = 8
"""Differences that are written out; the first one matters most."""

Names = set[str]
Also = Callable[[Any], object]


@dataclass(slots=True)
class Changed:
    """The functions in which two stages differ: what to execute in the one before, and in the one after."""

    before: Names = field(default_factory=set)
    after: Names = field(default_factory=set)


class Coverage:
    """Which of some functions are entered: ``missing`` has the names of the others.

    A function that is watched has a stub for its code, which notes the call and gives the function its own code back.
    So watching costs nothing from the second call on, whoever holds the function.
    """

    def __init__(self, functions: Iterable[FunctionType]) -> None:
        self.codes = {function: function.__code__ for function in functions}
        self.missing = {function.__name__ for function in self.codes}

    def of(self, program: Callable[[], Any]) -> Any:
        """Run a program; its result."""
        for function in self.codes:
            self.watch(function)
        try:
            return program()
        finally:
            for function, code in self.codes.items():
                function.__code__ = code
                del function.__globals__[hook_of(function)]

    def watch(self, function: FunctionType) -> None:
        """Give a function its stub."""

        def entered(*arguments: Any, **options: Any) -> Any:
            self.missing.discard(function.__name__)
            function.__code__ = self.codes[function]
            return function(*arguments, **options)

        function.__globals__[hook_of(function)] = entered
        made: dict[str, FunctionType] = {}
        exec(f"def stub(*arguments, **options): return {hook_of(function)}(*arguments, **options)", made)
        function.__code__ = made["stub"].__code__


def hook_of(function: FunctionType) -> str:
    """The name by which a function's stub finds what notes its call."""
    return f"__entered_{id(function)}__"


def functions_named(stage: LoadedStage, names: frozenset[str]) -> list[FunctionType]:
    """The functions of a stage's ``mm`` with these names, without their decorators."""
    own = [vars(module)[name] for module in stage.modules() for name in names & defined_in(module)]
    return [inspect.unwrap(function) for function in own]


def defined_in(module: ModuleType) -> Names:
    """The functions and classes that a module defines."""
    return {name for name, item in vars(module).items() if getattr(item, "__module__", "") == module.__name__}


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that two runs do not agree on: what, in which step, the values."""

    aspect: str
    name: str
    step: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.step}: {self.name}: {self.before} | {self.after}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One workload on two stages: how much was compared, what is different, and what is meant to be."""

    stages: tuple[str, str]
    steps: int
    compared: dict[str, int]
    found: list[Difference]
    intended: dict[str, str]
    executed: tuple[str, ...]

    @property
    def names(self) -> Names:
        """Names of what is different."""
        return {difference.name for difference in self.found}

    @property
    def same(self) -> bool:
        """Exactly what is meant to be different is different."""
        return self.names == self.intended.keys()

    @property
    def surprises(self) -> list[Difference]:
        """Differences that nobody intended, in order."""
        return [difference for difference in self.found if difference.name not in self.intended]

    def rows(self) -> list[dict[str, Any]]:
        """One row an aspect: how many values were compared, and the verdict."""
        return [
            {"compared": aspect, "values": values, "verdict": self.verdict(aspect)}
            for aspect, values in self.compared.items()
        ]

    def verdict(self, aspect: str) -> str:
        """Equal; or what is different as intended; or how much is not, and where that begins."""
        found = [difference for difference in self.found if difference.aspect == aspect]
        wrong = [difference for difference in found if difference.name not in self.intended]
        if wrong:
            return f"{len(wrong)} DIFFERENT, first in step {wrong[0]}"
        names = sorted({difference.name for difference in found})
        return "equal" if not names else "equal but for " + ", ".join(names)

    def summary(self) -> str:
        """One line."""
        verdict = "the same" if self.same and not self.intended else "as intended" if self.same else "NOT the same"
        return f"{self.stages[0]} and {self.stages[1]}, {self.steps:,} operations: {verdict}"

    def notes(self) -> Iterator[str]:
        """What was executed; what is meant to be different, and why."""
        if self.executed:
            yield f"executed, of what the patch changed: all {len(self.executed)} functions"
        for name, why in self.intended.items():
            yield f"intended: {name}: {why}" + ("" if name in self.names else " - BUT IT IS THE SAME")

    def __repr__(self) -> str:
        lines = [f"  {row['compared']:<20}{row['values']:>9,}  {row['verdict']}" for row in self.rows()]
        return "\n".join([self.summary(), *lines, *(f"  {note}" for note in self.notes())])

    def report(self) -> str:
        """The table, and the first differences that nobody intended."""
        return "\n".join([repr(self), *(f"    {difference}" for difference in self.surprises[:SHOWN])])

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{note}</li>" for note in self.notes())
        return f"<p>{self.summary()}</p>{table_html(self.rows())}<ul>{notes}</ul>"


def compare(
    before: int | str,
    after: int | str | LiveStage | Live,
    *,
    unreachable: Collection[str] = (),
    also: Also | None = None,
    seed: int = 0,
    nr_steps: int = 150,
    worlds: Iterable[str] = tuple(WORLDS),
    only: Collection[str] = ASPECTS,
) -> Comparison:
    """Play the workload on two stages.

    ``only``: the aspects that are compared.  If these are not all, such as VISIBLE, no difference is meant to be.
    ``after`` may be a live stage, with a change that was only tried.  ``unreachable`` names functions that no operation
    of the face can reach (say why where you call this); one that is reached after all is an error in a ``--deep`` run:
    watching costs time.  ``also(stage)`` runs more, for functions without a caller; what it returns is compared too.
    Allocations fail at the sites that both stages have.  AssertionError if the workload does not execute a function
    that the patches between the stages changed, or breaks the stage before.
    """
    tried = not isinstance(after, int | str)
    stages: list[Any] = [at(before), at(after) if isinstance(after, int | str) else after]
    ids = str(before), stages[1].stage.id if tried else str(after)
    changed = changed_functions(*ids)
    image = min(image_pages(stage, 8) for stage in ids)
    settings = seed, nr_steps, tuple(worlds), frozenset(common_sites(*ids)), image
    wants = changed.before, changed.after
    runs = [run_of(stage, wanted, unreachable, also, settings) for stage, wanted in zip(stages, wants, strict=True)]
    for stage, wanted, run in zip(stages, wants, runs, strict=True):
        if not tried:
            assert_covered(stage, wanted, wanted - run.executed, unreachable)
    broken = next((step for step in runs[0].steps if step.operation == BREAKS), None)
    assert broken is None, f"stage {before} breaks: {broken} -> {broken.result if broken else ''}"
    names = f"stage {ids[0]}", f"stage {ids[1]}" + " as changed here" * tried
    executed = () if tried else tuple(sorted(changed.after))
    intended = intended_between(*ids) if set(only) == set(ASPECTS) else {}
    return compare_runs(runs[0].steps, runs[1].steps, names, intended, executed, only)


@dataclass(frozen=True, slots=True)
class Run:
    """The workload on a stage: its steps, and which of the watched functions were executed."""

    steps: list[Step]
    executed: frozenset[str]


def run_of(stage: Any, wanted: Names, unreachable: Collection[str], also: Also | None, settings: Any) -> Run:
    """The workload on a stage as it is, watched, or on a live stage."""
    if not isinstance(stage, LoadedStage):
        return Run(steps_of(stage, also, *settings), frozenset())
    skipped = set() if os.environ.get("VSWAP_DEEP") else set(unreachable)
    return played(stage.id, frozenset((wanted | neighbourhood(stage.id)) - skipped), also, *settings)


@lru_cache(maxsize=4)
def played(stage_id: str, watched: frozenset[str], also: Also | None, *settings: Any) -> Run:
    """The workload on a stage as it is.  Kept, as a stage is the second of one comparison and the first of another."""
    stage = at(stage_id)
    coverage = Coverage(functions_named(stage, watched))
    steps = coverage.of(lambda: steps_of(stage, also, *settings))
    return Run(steps, watched - coverage.missing)


def steps_of(stage: Any, also: Also | None, *settings: Any) -> list[Step]:
    """The steps of the workload, and one more for what ``also`` returns."""
    steps = play(stage, *settings)
    if also is not None:
        steps.append(Step("directly", "also", repr(also(stage)), {}, 0))
    return steps


def neighbourhood(stage_id: str) -> Names:
    """What a stage has of the functions that its own patch, or one that builds on it, changes."""
    series = checkout_series()
    parent = series.stage(stage_id).parent
    own = changed_functions(parent, stage_id).after if parent else set()
    children = [stage.id for stage in series.stages.values() if stage.parent == stage_id]
    return own.union(*(changed_functions(stage_id, child).before for child in children))


def assert_same(before: int | str, after: int | str, **options: Any) -> Comparison:
    """AssertionError, with the first differences, unless ``compare`` finds two stages the same, intentions aside."""
    found = compare(before, after, **options)
    assert found.same, found.report()
    return found


def intended_between(before: str, after: str) -> dict[str, str]:
    """What the patches between two stages change on purpose."""
    series, names = checkout_series(), dict[str, str]()
    passed = {stage.id for stage in series.lineage(before)}
    for stage in series.lineage(after):
        names |= INTENDED.get(stage.id, {}) if stage.id not in passed else {}
    return names


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


def common_sites(before: int | str, after: int | str) -> Names:
    """Sites of fault injection that both stages have."""
    first, second = (at(stage).Kernel().faults.docs.keys() for stage in (before, after))
    return set(first & second)


def assert_covered(stage: LoadedStage, wanted: Names, missing: Names, unreachable: Collection[str]) -> None:
    """Every wanted function was executed, those that cannot be reached excepted."""
    never = missing - set(unreachable)
    assert not never, f"{stage}: the workload does not execute {', '.join(sorted(never))}, which the patch changed"
    reached = (wanted & set(unreachable)) - missing
    assert not reached, f"{stage}: {', '.join(sorted(reached))} is reached: take it out of `unreachable`"


def compare_runs(
    first: list[Step],
    second: list[Step],
    names: tuple[str, str],
    intended: dict[str, str] | None = None,
    executed: tuple[str, ...] = (),
    only: Collection[str] = ASPECTS,
) -> Comparison:
    """Compare two runs step by step."""
    compared, found = dict.fromkeys((aspect for aspect in ASPECTS if aspect in only), 0), list[Difference]()
    for number, (a, b) in enumerate(zip_longest(first, second)):
        seen = aspects(a)
        for aspect in compared:
            compared[aspect] += len(seen[aspect])
        if a != b:
            found += (unlike for unlike in differences(f"{number} {a or b}", a, b) if unlike.aspect in compared)
    return Comparison(names, max(len(first), len(second)), compared, found, intended or {}, executed)


def aspects(step: Step | None) -> dict[str, dict[str, Any]]:
    """What is compared of a step: for each aspect name -> value."""
    if step is None:
        return {aspect: {} for aspect in ASPECTS}
    values = (
        {"result": step.result, "operation": str(step)} if step.operation != "state" else {},
        {f"request {number}": request for number, request in enumerate(step.requests)},
        step.vmstat,
        step.allocations,
        step.cost,
        {"time": step.clock_ns},
        step.state,
    )
    return dict(zip(ASPECTS, values, strict=True))


def differences(step: str, a: Step | None, b: Step | None) -> Iterator[Difference]:
    """In what two steps differ.  A request is called "request"; of a structure's field the name is "Class.field"."""
    if a is None or b is None:
        missing = Difference("results", "only one of the two runs has this step", step, str(a), str(b))
        yield missing
        return
    for (aspect, one), two in zip(aspects(a).items(), aspects(b).values(), strict=True):
        default = "-" if aspect in ("results", "device requests", "state") else 0
        for key in dict.fromkeys((*one, *two)) if one != two else ():
            values = one.get(key, default), two.get(key, default)
            if values[0] != values[1]:
                name, _, thing = key.partition(" of ") if aspect == "state" else (key, "", "")
                where = f"{step}: {thing}" if thing else step
                name = "request" if aspect == "device requests" else name
                yield Difference(aspect, name, where, *excerpts(str(values[0]), str(values[1])))


def excerpts(a: str, b: str, length: int = 60) -> tuple[str, str]:
    """Two different texts, each cut to the part around their first difference."""
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    begin = max(0, start - length // 3) if max(len(a), len(b)) > length else 0
    return excerpt(a, begin, length), excerpt(b, begin, length)


def excerpt(text: str, begin: int, length: int) -> str:
    """A part of a text on one line, marked where something is left out."""
    middle = " / ".join(text[begin : begin + length].split("\n"))
    return "... " * (begin > 0) + middle + " ..." * (len(text) > begin + length)
