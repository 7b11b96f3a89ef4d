"""The index of kernel functions: what 6.19's swap subsystem and mm/vswap.c have, and where the model has it.

``data/functions`` lists them: ``baseline.csv`` those of 6.19, ``vswap.csv`` those of mm/vswap.c.  All that can be
derived is taken from the sources of a stage, from the notebooks, and from a recorded run of the tests.
"""

from __future__ import annotations

import ast
import csv
import difflib
import json
import subprocess
import sys
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vswap_ref.series import SeriesError
from vswap_ref.series.stages import CHECKOUT, at, checkout_series, latest, main_line

from .corpus import data_path

VSWAP_GROUP = "virtual swap"
"""The group of the functions of mm/vswap.c."""

RECORDED_TESTS = (
    "tests/model/test_*.py",
    "tests/experiments/test_*.py",
    "tests/stages/test_patch_*.py",
    "tests/lab/test_run.py",
    "tests/lab/test_trace.py",
)
"""Files whose tests are recorded: they look at functions, or at what few of them do."""


@dataclass(frozen=True, slots=True)
class KernelFunction:
    """A row of baseline.csv or vswap.csv: a function of the kernel; their README explains the fields.

    The same name may be in both: patches take functions from other files to mm/vswap.c.
    """

    name: str
    file: str
    group: str
    baseline: str
    contract: str
    model: str
    simplified: str
    reason: str
    since: str = ""
    until: str = ""

    @property
    def model_name(self) -> str:
        """Its name in the model."""
        return self.model or self.name

    @property
    def key(self) -> str:
        """Under which its tests are recorded: a function of mm/vswap.c can have a namesake in another file."""
        return f"vswap/{self.name}" if self.since else self.name


@dataclass(frozen=True, slots=True)
class Home:
    """A function in the sources of a stage; notebook and heading are empty where there are no notebooks."""

    module: str
    signature: str
    summary: str
    notebook: str = ""
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A function of the kernel, its home in the model (or None), and tests that run it."""

    function: KernelFunction
    home: Home | None
    tests: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {**asdict(self.function), "home": asdict(self.home) if self.home else None, "tests": list(self.tests)}


def baseline_path() -> Path:
    """The list of functions."""
    return data_path("functions", "baseline.csv")


def kernel_functions() -> list[KernelFunction]:
    """All functions of both lists, in their order."""
    return [*baseline_functions(), *vswap_functions()]


@cache
def vswap_functions() -> tuple[KernelFunction, ...]:
    """The functions that mm/vswap.c has at some stage, in the order of the file."""
    fixed = {"file": "mm/vswap.c", "group": VSWAP_GROUP, "baseline": "", "model": ""}
    with data_path("functions", "vswap.csv").open(encoding="utf-8", newline="") as file:
        return tuple(KernelFunction(**fixed, **row) for row in csv.DictReader(file))


def baseline_functions() -> list[KernelFunction]:
    """The functions of Linux 6.19, in the order of their list."""
    with baseline_path().open(encoding="utf-8", newline="") as file:
        return [KernelFunction(**row) for row in csv.DictReader(file)]


def exercised() -> dict[str, list[str]]:
    """Key of a function of the lists -> tests that ran it when that was last recorded."""
    return dict(json.loads(data_path("functions", "exercised.json").read_text(encoding="utf-8")))


@cache
def stage_definitions(stage: str) -> dict[str, Home]:
    """Every function in the sources of a stage.  ValueError listing the stages that exist."""
    sources = at(stage).sources()
    places = notebook_places(stage)
    return {
        name: Home(module, *head, *places.get(name, ("", "")))
        for module, text in sources.items()
        for name, head in heads_in(text).items()
    }


@cache
def heads_in(module: str) -> dict[str, tuple[str, str]]:
    """Function -> (signature, summary), of a module's text: most modules are the same at many stages."""
    functions = [node for node in ast.parse(module).body if isinstance(node, ast.FunctionDef)]
    return {node.name: (signature(node), (ast.get_docstring(node) or "").partition("\n")[0]) for node in functions}


def signature(node: ast.FunctionDef) -> str:
    """A function's parameters and result, as written."""
    result = ast.unparse(node.returns) if node.returns else "None"
    return f"({ast.unparse(node.args)}) -> {result}"


def notebook_places(stage: str) -> dict[str, tuple[str, str]]:
    """Definition -> (notebook, heading above its cell); empty in an installed wheel, which has no notebooks."""
    try:
        series = checkout_series()
    except SeriesError:
        return {}
    lines: dict[str, list[str]] = {}
    places = {}
    for module in series.tree(stage).values():
        for name, definition in module.definitions.items():
            notebook = definition.cell.notebook
            if notebook not in lines:
                lines[notebook] = series.text(notebook).split("\n")
            places[name] = (notebook, last_heading(lines[notebook][: definition.cell.line]))
    return places


def last_heading(lines: list[str]) -> str:
    """The last heading of the second or third level in some lines of a notebook."""
    return next((line.lstrip("# ") for line in reversed(lines) if line.startswith(("## ", "### "))), "")


def function_index(stage: int | str | None = None) -> list[Entry]:
    """The whole index at a stage (None: the latest)."""
    homes = stage_definitions(latest() if stage is None else str(stage))
    tests = exercised()
    rows = kernel_functions()
    return [Entry(row, home_of(row, homes), tuple(tests.get(row.key, ()))) for row in rows]


def home_of(function: KernelFunction, homes: Mapping[str, Home]) -> Home | None:
    """Where a stage has a function: a namesake in another kernel file is not its home."""
    home = homes.get(function.model_name)
    if home is None or not any(function.name == row.name for row in vswap_functions()):
        return home
    return home if home.module.startswith("mm/vswap/") == bool(function.since) else None


def last_stage(function: KernelFunction) -> str:
    """The last stage of the main line that has a function; it must have a home at some stage."""
    return next(stage for stage in reversed(main_line()) if home_of(function, stage_definitions(stage)))


def find_functions(words: str, entries: list[Entry]) -> list[Entry]:
    """The function with this name, or all whose name contains it.  ValueError with close names if there is none."""
    exact = [entry for entry in entries if words in (entry.function.name, entry.function.model)]
    found = exact or [entry for entry in entries if words in entry.function.name]
    if not found:
        close = difflib.get_close_matches(words, [entry.function.name for entry in entries], 3)
        raise ValueError(
            f"no kernel function {words!r} in the list" + (f"; close: {', '.join(close)}" if close else "")
        )
    return found


def settle_rows() -> list[str]:
    """Take out of the list of 6.19 what stage 0 has overtaken; returns the names of such functions.

    A function with a home needs no reason, and one whose kernel name exists needs no other name.
    """
    homes = stage_definitions("0")
    rows = [asdict(row) for row in baseline_functions()]
    fields = [field for field in rows[0] if field not in ("since", "until")]
    settled = set()
    for row in rows:
        if row["model"] and row["name"] in homes:
            row["model"] = ""
            settled.add(row["name"])
        if row["reason"] and (row["model"] or row["name"]) in homes:
            row["reason"] = ""
            settled.add(row["name"])
    with baseline_path().open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, "", "ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return sorted(settled)


def choose_tests(
    calls: Mapping[str, Mapping[str, int]], named: Mapping[str, Set[str]], limit: int = 3
) -> dict[str, list[str]]:
    """For each function of the lists, by its key, the most specific of the tests that call it.

    ``calls``: test -> function of the model -> calls; those of mm/vswap have their folder before them, as in keys.
    ``named``: test -> names in its text.  First come tests that name the function, then those of whose calls it has
    the largest share.
    """
    total = {test: sum(counts.values()) for test, counts in calls.items()}
    chosen = {}
    for function in kernel_functions():
        called = function.key if function.since else function.model_name
        ranked = sorted(
            (function.model_name not in named.get(test, ()), -counts[called] / total[test], test)
            for test, counts in calls.items()
            if counts.get(called)
        )
        if ranked:
            chosen[function.key] = [test for _, _, test in ranked[:limit]]
    return chosen


def record() -> list[str]:
    """Run the tests and write which run which function; returns what was done, in lines.

    Tests that fail do not count.  SeriesError if they cannot be run.
    """
    checkout_series()
    settled = [f"{name}: is in the model now, under its own name" for name in settle_rows()]
    target = baseline_path().with_name("exercised.json")
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:nbval", "-m", "not slow", "--record-functions", str(target)]
    files = [str(file) for pattern in RECORDED_TESTS for file in sorted(CHECKOUT.glob(pattern))]
    command = [sys.executable, "-m", "pytest", *options, *files]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    if result.returncode > 1:
        raise SeriesError(f"the tests do not run, nothing was recorded:\n{result.stdout[-2000:]}")
    done = [*settled, result.stdout.strip().rpartition("\n")[2], f"{len(exercised())} functions are run by tests"]
    idle = [entry.function.key for entry in function_index() if entry.home and not entry.tests]
    return [*done, *(f"{name}: no test runs it" for name in idle)]
