"""The states of a swap entry, and the functions of the virtual layer that take it from one to the next.

``table()`` is what may be (``data/transitions.csv``), a ``Transitions`` record what an exploration has seen.  Between
operations entries are *at rest*; what is seen while an operation runs and never at rest is *transient*.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, replace
from functools import cache
from html import escape
from typing import NamedTuple

from vswap_ref.display import table_html

from .corpus import data_path
from .transition_graph import graph_svg, legend_html

KINDS = {"S": "on a device", "Z": "a page of zeros", "C": "compressed in zswap", "F": "in its folio alone"}
"""What is behind an entry, by the letter of the table."""

OPERATIONS = (
    "folio_alloc_swap",
    "swap_duplicate_nr",
    "vswap_free_nr_any_cache_only",
    "swapcache_prepare",
    "swapcache_clear",
    "swap_cache_add_folio",
    "swap_cache_del_folio",
    "__vswap_remove_mapping",
    "folio_free_swap",
    "swap_zeromap_folio_set",
    "vswap_prepare_writeout",
    "vswap_store_folio",
    "zswap_entry_store",
    "vswap_alloc_swap_slot",
)
"""The functions of the layer that change a descriptor, each under one hold of the cluster's lock."""


class State(NamedTuple):
    """What a descriptor says: its backing (a letter; "-": free), pinned or not, 0, 1 or 2+ users, folio or none."""

    backing: str
    in_swapcache: int
    swap_count: str
    word: str

    def __str__(self) -> str:
        return "free" if self == FREE else " ".join(map(str, self))


FREE = State("-", 0, "0", "none")


def parse(text: str) -> State:
    """A state from its text: "free", or the four columns.  ValueError for a state that the table does not have."""
    parts = text.split()
    state = FREE if text == "free" or len(parts) != 4 else State(parts[0], int(parts[1]), parts[2], parts[3])
    if str(state) != text:
        raise ValueError(f"state={text!r}: expected 'free' or four columns, such as 'C 1 2+ folio'")
    return state


class Step(NamedTuple):
    """A function of the layer takes an entry from a state to the next."""

    state: State
    operation: str
    following: State


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of a state: at rest, transient or never, its meaning, and the legal steps."""

    state: State
    kind: str
    meaning: str
    steps: tuple[Step, ...]


@cache
def table() -> dict[State, Row]:
    """``data/transitions.csv``, by state."""
    with data_path("transitions.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    rows: dict[State, Row] = {}
    for line in lines:
        state = State(line["backing"], int(line["in_swapcache"]), line["swap_count"], line["word"])
        row = rows.setdefault(state, Row(state, line["class"], line["meaning"], ()))
        if line["operation"]:
            step = Step(state, line["operation"], parse(line["next"]))
            rows[state] = replace(row, steps=(*row.steps, step))
    return rows


@dataclass(slots=True)
class Sight:
    """How something was first seen: kernel and operations up to there, switch point, and the order of two tasks."""

    path: tuple[str, ...]
    point: str = ""
    schedule: str = ""

    def __repr__(self) -> str:
        return "; ".join(self.path) + (f" (at: {self.point})" if self.point else "")


@dataclass(slots=True)
class Transitions:
    """What an exploration has seen: states at rest, states at switch points, steps; and how much was tried.

    kernels: abstract states of the tiny kernels.  tried: operations run in them.  schedules: orders of two operations.
    """

    rest: dict[State, Sight] = field(default_factory=dict)
    passing: dict[State, Sight] = field(default_factory=dict)
    steps: dict[Step, Sight] = field(default_factory=dict)
    kernels: int = 0
    tried: int = 0
    schedules: int = 0

    @property
    def transient(self) -> dict[State, Sight]:
        """What was seen at switch points and never at rest."""
        return {state: sight for state, sight in self.passing.items() if state not in self.rest}

    def differences(self) -> list[str]:
        """Where the table and what was seen disagree: states both ways, and steps that the table does not allow."""
        found = []
        for kind, seen in (("at rest", self.rest), ("transient", self.transient)):
            listed = {state for state, row in table().items() if row.kind == kind}
            found += [f"{state}: {kind} in the table, not seen so" for state in sorted(listed - seen.keys())]
            found += [
                f"{state}: seen {kind}, not so in the table: {seen[state]}" for state in sorted(seen.keys() - listed)
            ]
        legal = {step for row in table().values() for step in row.steps}
        for step in sorted(self.steps.keys() - legal):
            found.append(f"{step.state} -> {step.following} by {step.operation}: not in the table: {self.steps[step]}")
        return found

    def untaken(self) -> list[dict[str, str]]:
        """Steps that the table allows, and no operation took."""
        return [
            {"state": str(step.state), "operation": step.operation, "next": str(step.following)}
            for row in table().values()
            for step in row.steps
            if step not in self.steps
        ]

    def __repr__(self) -> str:
        legal = sum(len(row.steps) for row in table().values())
        return (
            f"{len(self.rest)} states at rest, {len(self.transient)} transient, {len(self.steps)} of {legal} steps; "
            f"{self.tried} operations in {self.kernels} states of tiny kernels, {self.schedules} orders of two; "
            f"{len(self.differences())} differences from the table"
        )

    def _repr_html_(self) -> str:
        wrong = table_html([{"difference": line} for line in self.differences()]) if self.differences() else ""
        return f"<p>{escape(repr(self))}</p>{graph_svg(self.rest, self.transient, self.steps)}{legend_html()}{wrong}"


def rows(kind: str = "at rest") -> list[dict[str, str]]:
    """The table's states of one class, with their meanings."""
    return [
        {"state": str(row.state), "backing": KINDS.get(row.state.backing, "-"), "meaning": row.meaning}
        for row in table().values()
        if row.kind == kind
    ]
