"""Crossings between names and places: who crosses, and what becomes of one that is forgotten."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vswap_ref.display import OneRow, escape, picture, table_text
from vswap_ref.machine import PAGE_SIZE, Disk
from vswap_ref.series import at

from .physical import BRIDGES, bridge_callers, without_bridges
from .zswap_trees import functions, module_name

PAGES = 32


@dataclass(frozen=True, slots=True)
class Forgotten(OneRow):
    """A function that leaves out its crossings: what a small program on such a kernel comes to."""

    stage: str
    function: str
    device: str
    crossing: str
    step: str
    error: str

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "stage": self.stage,
            "function": self.function,
            "device": self.device,
            "left out": self.crossing,
            "noticed": self.step or "never",
            "as": self.error or "-",
        }

    def __repr__(self) -> str:
        noticed = f"{self.step}: {self.error}" if self.step else "nobody notices"
        return f"stage {self.stage}, {self.function} without {self.crossing}: {noticed}"


def forget(function: str = "swap_free_nr", stage: int | str = 9, device: str = "1M") -> Forgotten:
    """Leave the crossings out of one function of a stage, and run a small program that is checked step by step.

    device: the size of its disk; the first virtual slots have numbers from 512 on, so 1M ends before them.
    ValueError if the function does not cross at this stage.
    """
    loaded = at(stage)
    homes = {name: module for callers in bridge_callers(stage).values() for module, _, name in map(split, callers)}
    if function not in homes:
        raise ValueError(f"function={function!r}: does not cross at stage {stage}; expected one of {sorted(homes)}")
    module = loaded.module(homes[function].replace("/", "."))
    crossing = " and ".join(bridge for bridge in BRIDGES if bridge in inspect.getsource(getattr(module, function)))
    step = "boot"
    with without_crossing(module, function):
        try:
            for step, action in program(loaded, device):  # noqa: B007
                action()
        except Exception as error:
            return Forgotten(str(stage), function, device, crossing, step, describe(error))
    return Forgotten(str(stage), function, device, crossing, "", "")


LOOKERS = ("check:", "views:", "access:swap_location")
"""Callers of the bridges that are not the kernel's: what looks at it from outside."""
HIDDEN, PROGRAM, CHECKER = "#88888855", "#e0912f", "#c8453c"


@dataclass(frozen=True, slots=True)
class Sweep:
    """``forget`` for every function that crosses at both of two stages."""

    stages: tuple[str, str]
    found: dict[str, tuple[Forgotten, Forgotten]]

    def noticed(self, column: int) -> int:
        """How many forgotten crossings were noticed at the first (0) or second (1) stage."""
        return sum(bool(pair[column].step) for pair in self.found.values())

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.noticed(i)} noticed at stage {stage}" for i, stage in enumerate(self.stages))
        seen = [repr(after) for _, after in self.found.values() if after.step]
        return "\n".join([f"{len(self.found)} functions forget to cross, one at a time: {counts}", *seen])

    def _repr_html_(self) -> str:
        parts = [text(250 + 40 * i, 12, stage) for i, stage in enumerate(self.stages)]
        for y, (name, pair) in enumerate(self.found.items(), 1):
            parts.append(text(0, 18 * y + 13, name))
            parts += [cell(250 + 40 * i, 18 * y, one) for i, one in enumerate(pair)]
            parts.append(text(340, 18 * y + 13, f"{pair[1].step}: {pair[1].error}" if pair[1].step else ""))
        svg = picture("".join(parts), repr(self), 760, 18 * len(self.found) + 20)
        counts = repr(self).partition("\n")[0]
        return f"<p>{counts}.</p>{svg}{key({'never': HIDDEN, 'by the program': PROGRAM, 'by the checker': CHECKER})}"


def text(x: int, y: int, words: str) -> str:
    """Words in a figure."""
    return f"<text x='{x}' y='{y}' fill='currentColor' font-size='12'>{escape(words)}</text>"


def cell(x: int, y: int, one: Forgotten) -> str:
    """Who noticed, as a colour; in which step shows when pointed at."""
    colour = HIDDEN if not one.step else CHECKER if one.step.startswith("check") else PROGRAM
    return f"<rect x='{x}' y='{y + 1}' width='30' height='15' fill='{colour}'><title>{escape(repr(one))}</title></rect>"


def key(colours: dict[str, str], begin: str = "") -> str:
    """What the colours mean."""
    spans = (f"<span style='color:{colour}'>\u25a0</span> {name}" for name, colour in colours.items())
    return f"<p>{begin}{', '.join(spans)}</p>"


def forget_each(device: str = "1M", stages: tuple[int, int] = (6, 9)) -> Sweep:
    """Let one function after the other forget its crossings, at two stages."""
    crossing = [{caller for callers in bridge_callers(stage).values() for caller in callers} for stage in stages]
    kernel = (caller for caller in sorted(crossing[0] & crossing[1]) if not caller.startswith(LOOKERS))
    names = sorted(caller.partition(":")[2] for caller in kernel)
    return Sweep(
        (str(stages[0]), str(stages[1])),
        {n: (forget(n, stages[0], device), forget(n, stages[1], device)) for n in names},
    )


PLACES = {
    "swp_slot_offset": "swp_offset",
    "swp_slot_type": "swp_type",
    "__swap_slot_to_info": "swp_swap_info",
    "_swap_info_get": "_swap_info_get",
    "swap_slot_tryget_swap_info": "get_swap_device",
    "swap_slots_put_cache": "swap_entries_put_cache",
    "swap_slot_free_nr": "swap_free_nr",
}
"""Function that is given a slot -> its name as long as it was given an entry."""
KINDS = {"hands its entry on": "#3f6fb0", "crosses first": "#c8453c", "has a slot": "#2e9e5b"}


@dataclass(frozen=True, slots=True)
class CallMap:
    """Function about places -> its callers before and after there are slots, each with what it does."""

    stages: tuple[str, str]
    callers: dict[str, tuple[dict[str, str], dict[str, str]]]

    def row(self, name: str) -> dict[str, Any]:
        """One function: how many callers of each kind after the patch, and callers before it."""
        before, after = self.callers[name]
        kinds = {kind: list(after.values()).count(kind) for kind in list(KINDS)[1:]}
        return {"given a slot": name, "called before": PLACES[name], "callers before": len(before)} | kinds

    def __repr__(self) -> str:
        return table_text([self.row(name) for name in self.callers])

    def _repr_html_(self) -> str:
        parts = [text(215, 12, f"called at stage {self.stages[0]}"), text(520, 12, f"and at stage {self.stages[1]}")]
        for y, (name, sides) in enumerate(self.callers.items(), 1):
            parts.append(text(0, 22 * y + 14, name))
            parts += [dots(215 + 305 * i, 22 * y + 10, side) for i, side in enumerate(sides)]
        svg = picture("".join(parts), f"callers as dots: {self!r}", 830, 22 * len(self.callers) + 24)
        return f"{svg}{key(KINDS, 'A dot is a caller: it ')}"


def dots(x: int, y: int, callers: dict[str, str]) -> str:
    """A dot a caller; its name shows when pointed at."""
    return "".join(
        f"<circle cx='{x + 6 + 11 * n}' cy='{y}' r='4.5' fill='{KINDS[kind]}'><title>{name} {kind}</title></circle>"
        for n, (name, kind) in enumerate(callers.items())
    )


def call_map(stages: tuple[int, int] = (5, 6)) -> CallMap:
    """Who calls the functions that are given a place, and how the caller came by it."""
    before, after = map(at, stages)
    return CallMap(
        (str(stages[0]), str(stages[1])),
        {new: (callers_of(before, old), callers_of(after, new)) for new, old in PLACES.items()},
    )


def callers_of(loaded: Any, name: str) -> dict[str, str]:
    """The kernel's callers of a function, and what each of them hands on; the model's lookers are left out."""
    users = [f for f in functions(loaded) if name in getattr(f, "__code__", dots.__code__).co_names]
    kernel = [f for f in users if not f"{module_name(f)}:{f.__name__}".startswith(LOOKERS)]
    kinds = (
        ("crosses first", "has a slot") if BRIDGES[0] in vars(loaded.module("swap_map")) else (next(iter(KINDS)),) * 2
    )
    return {f.__name__: kinds[BRIDGES[0] not in f.__code__.co_names] for f in kernel}


def split(caller: str) -> tuple[str, str, str]:
    """(module, ":", function) of a caller of a bridge."""
    return caller.partition(":")


def describe(error: Exception) -> str:
    """An exception in a few words."""
    words = str(error).partition(":")[0].partition("\n")[0]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


@contextmanager
def without_crossing(module: Any, name: str) -> Iterator[None]:
    """A function of a stage uses names for places and places for names, until the end of the block."""
    function = getattr(module, name)
    text = without_bridges(inspect.getsource(function))
    namespace: dict[str, Any] = {}
    exec(compile(f"from __future__ import annotations\n{text}", "<forgetful>", "exec"), vars(module), namespace)
    code, function.__code__ = function.__code__, namespace[name].__code__
    try:
        yield
    finally:
        function.__code__ = code


def program(loaded: Any, device: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """A small program, step by step: pages go out, are shared, come back, are read, written, freed."""
    kernel = loaded.Kernel(ram="2M", swap=[Disk(device)], cpus=1)
    group = kernel.cgroup("group")
    app = kernel.spawn("app", group)
    heap, shared = app.mmap(PAGES * PAGE_SIZE), app.mmap(kernel.shmem(8 * PAGE_SIZE))
    data = {page: bytes([page + 1]) * PAGE_SIZE for page in range(PAGES)}
    children: list[Any] = []

    def write() -> None:
        for page, content in data.items():
            heap.write_page(page, content)
        for page in range(shared.pages):
            shared.write_page(page, data[page])

    def push_out() -> None:
        app.madvise(heap, "pageout")
        app.madvise(shared, "pageout")
        kernel.drain()
        kernel.reclaim("1M")
        assert "swapfile" in heap.where(), "no page is on the device"

    def read() -> None:
        for process in (app, *children):
            mine, common = process.mappings
            assert all(mine.read_page(page) == content for page, content in data.items()), "a page reads wrong"
            assert all(common.read_page(page) == data[page] for page in range(common.pages)), "a page reads wrong"

    steps: list[tuple[str, Callable[[], object]]] = [
        ("write", write),
        ("swap out", push_out),
        ("zeros out", lambda: zeros_out(kernel, app)),
        ("fork", lambda: children.append(app.fork())),
        ("read", read),
        ("swap out again", push_out),
        ("read again", read),
        ("write again", write),
        ("swap out once more", push_out),
        ("child exits", lambda: children.pop().exit()),
        ("free a half", lambda: app.madvise(heap, "dontneed", 0, PAGES // 2 * PAGE_SIZE)),
        ("swapoff", lambda: kernel.swapoff(0)),
        ("exit", app.exit),
    ]
    for name, action in steps:
        yield name, action
        yield f"check after: {name}", kernel.check


def zeros_out(kernel: Any, app: Any) -> None:
    """A mapping of zeros goes out, comes back, and goes."""
    zeros = app.mmap(4 * PAGE_SIZE)
    for page in range(zeros.pages):
        zeros.write_page(page, bytes([1]) * PAGE_SIZE)
        zeros.write_page(page, bytes(PAGE_SIZE))
    app.madvise(zeros, "pageout")
    kernel.drain()
    kernel.reclaim("1M")
    assert not any(zeros.read_page(page)[0] for page in range(zeros.pages)), "a page of zeros reads wrong"
    zeros.munmap()
