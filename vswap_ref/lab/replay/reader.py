"""Reading ``vswap-trace-1`` files: one JSON object a line, plain or gzip.

The first line is the header, a line with "note" speaks to humans, every other one is an operation with what it
returned, what it did to the world outside, and what it changed.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .effects import Effect, in_order, sums
from .shape import CPUS, STATE, check_line, is_int

FORMAT = "vswap-trace-1"
LEVELS = range(9, 23)
"""Patches after which the recorded file exists."""

INTERLEAVED = "operations inside another operation (interleaving) cannot be replayed: the model's operations are atomic"


class TraceError(ValueError):
    """A file that is no trace, or a damaged one; the message names file, line and what was expected."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A line of a trace: operation ``number`` with its arguments, its result, its effects and the state's changes.

    ``calls`` are calls to the outside in their order, ``counters`` says by how much statistics moved.  ``cost`` counts
    locks and other events (0 if absent); None if the operation is none of the kernel's.
    """

    line: int
    number: int
    cpu: int
    op: str
    args: dict[str, Any]
    ret: Any
    calls: list[Effect]
    counters: dict[str, int]
    cost: dict[str, int] | None
    changes: dict[str, Any]

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.args.items())
        return f"operation {self.number}: {self.op}({arguments}) on cpu {self.cpu}"


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace file: the level (patch) at which it was recorded, what it is about, and its operations."""

    path: Path
    level: int
    title: str
    operations: list[Operation]


def read_trace(path: str | Path) -> Trace:
    """Read a trace.  TraceError if it is none, OSError if it cannot be read."""
    path = Path(path)
    lines = numbered_lines(path)
    first = next(lines, None)
    if first is None:
        raise TraceError(f"{path}: empty; expected a trace in the format {FORMAT}")
    level, title = header(path, first[1])
    operations: list[Operation] = []
    for number, line in lines:
        if line.keys() != {"note"}:
            operations.append(operation(path, number, line, len(operations)))
    if not operations:
        raise TraceError(f"{path}, line 1: expected operations after the header")
    return Trace(path, level, title, operations)


def numbered_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the line, its object) of each line that is not empty."""
    for number, text in enumerate(read_text(path).split("\n"), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TraceError(f"{path}, line {number}: no JSON: {error}") from None
        if not isinstance(line, dict):
            raise TraceError(f"{path}, line {number}: expected a JSON object, got {text[:40]!r}")
        yield number, line


def read_text(path: Path) -> str:
    """The text of a file, unpacked if it is gzip by its first bytes."""
    data = path.read_bytes()
    try:
        return (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TraceError(f"{path}: damaged gzip file: {error}") from None
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: no text: {error}") from None


def header(path: Path, line: dict[str, Any]) -> tuple[int, str]:
    """(level, title) from the first line; the level of the whole series if it names none."""
    if line.get("format") != FORMAT:
        raise TraceError(f"{path}, line 1: format {line.get('format')!r}: expected a header with {FORMAT!r}")
    level = line.get("level", LEVELS[-1])
    if not is_int(level, LEVELS):
        raise TraceError(f"{path}, line 1: level {level!r}: expected a patch from {LEVELS[0]} to {LEVELS[-1]}")
    title = line.get("doc") or f"random operations, seed {line.get('seed')}"
    return level, str(title)


FIELDS: dict[str, tuple[type, str]] = {
    "i": (int, "an integer"),
    "cpu": (int, "an integer"),
    "op": (str, "a name"),
    "args": (dict, "an object"),
    "fx": (list, "a list"),
    "clusters": (list, "a list"),
}


def operation(path: Path, number: int, line: dict[str, Any], count: int) -> Operation:
    """The operation in a line, ``count`` others before it.  TraceError naming what is missing or cannot be."""
    place = f"{path}, line {number}"
    for name, (kind, text) in FIELDS.items():
        if not isinstance(line.get(name), kind):
            raise TraceError(f"{place}: field {name!r} is {line.get(name)!r}: expected {text}")
    if line.get("nested") or line["op"] == "env.hook":
        raise TraceError(f"{place}: {INTERLEAVED}")
    if not is_int(line["cpu"], range(CPUS)):
        raise TraceError(f"{place}: cpu {line['cpu']}: expected a number below {CPUS}")
    if not is_int(line["i"]) or line["i"] != count:
        raise TraceError(f"{place}: operation {line['i']}: expected number {count}; lines are missing or doubled")
    try:
        check_line(line)
    except ValueError as error:
        raise TraceError(f"{place}, operation {count}, {line['op']}: {error}") from None
    fixed = number, line["i"], line["cpu"], line["op"], line["args"], line["ret"]
    changes = {name: line[name] for name in STATE if name in line}
    return Operation(*fixed, in_order(line["fx"]), sums(line["fx"]), line.get("cost"), changes)
