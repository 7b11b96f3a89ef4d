"""Which functions of a kernel a piece of work calls, in which order, how deep, and under which locks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

from vswap_ref.series import at

from .zswap_trees import functions, module_name


class Call(NamedTuple):
    """A call: how deep it is, function, module, classes of the locks that are held at its begin."""

    depth: int
    name: str
    module: str
    held: tuple[str, ...]


@cache
def functions_by_name(stage: str) -> dict[str, FunctionType]:
    """All functions of a stage."""
    return {f.__name__: f for f in functions(at(stage)) if isinstance(f, FunctionType)}


def record_calls(stage: int | str, kernel: Any, work: Callable[[], object]) -> list[Call]:
    """The calls of a stage's functions while something works with a kernel of it, whose locks are validated."""
    known: dict[CodeType, FunctionType] = {f.__code__: f for f in functions_by_name(str(stage)).values()}
    calls: list[Call] = []
    depth = 0

    def note(frame: FrameType, event: str, _arg: object) -> None:
        nonlocal depth
        function = known.get(frame.f_code)
        if function is None:
            return
        if event == "call":
            held = tuple(lock.name for lock in kernel.locks.lockdep.task.held)
            calls.append(Call(depth, function.__name__, module_name(function), held))
            depth += 1
        elif event == "return":
            depth -= 1

    previous = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(previous)
    return calls
