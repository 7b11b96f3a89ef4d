"""Experiments of the chapter on the life of an entry: operations on one entry, and on several under one lock."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vswap_ref.display import Table, escape, table_html, table_text
from vswap_ref.lab.stepper import stepper_html
from vswap_ref.machine import Ssd
from vswap_ref.series import at

from .calls import functions_by_name, record_calls

PLAYER = Path(__file__).with_suffix(".js")
MOST_USERS = 3


class State(NamedTuple):
    """An entry: pinned for the cache, users, what its word holds ("fo", "sh" or "-"), is its slot marked."""

    pin: int
    users: int
    word: str
    marked: int

    def __str__(self) -> str:
        return f"P={self.pin} N={self.users} X={self.word} K={self.marked}" if self != FREE else "free"


FREE = State(0, 0, "", 0)


class Rig:
    """A kernel of a stage whose functions are called one by one."""

    def __init__(self, stage: int | str = 13, **options: Any) -> None:
        self.stage = at(stage)
        self.kernel = self.stage.Kernel(ram="16M", swap=[Ssd("8M")], cpus=1, **options)
        self.s: Any = self.kernel.system
        self.functions = functions_by_name(str(stage))

    def call(self, name: str, *args: Any) -> Any:
        """A function of the kernel, with the state first."""
        return self.functions[name](self.s, *args)

    def folio(self, order: int = 0) -> Any:
        """A locked folio that may be swapped out."""
        folio = self.call("folio_alloc", order)
        folio.swapbacked = folio.uptodate = folio.locked = True
        return folio

    def state(self, entry: int) -> State:
        """What an entry is like; takes no lock."""
        cluster = self.s.vswap.cluster_map.load(entry >> 9)
        if cluster is None or not cluster.bitmap.test(entry & 511):
            return FREE
        desc, index = cluster.desc, entry & 511
        word, slot = desc.swap_cache[index], desc.slot[index]
        marked = bool(slot) and self.functions["swap_cache_only"](self.s.swap.info[slot >> 58], slot & 0xFFFFFFFF)
        kind = "-" if not word else "sh" if word & 1 else "fo"
        return State(desc.in_swapcache[index], desc.swap_count[index], kind, int(marked))

    def evicted(self, order: int) -> int:
        """The first entry of a folio that was swapped out: one user for each page, no pin."""
        folio = self.folio(order)
        assert not self.call("folio_alloc_swap", folio)
        entry = int(folio.swap)
        assert not self.call("swap_duplicate_nr", entry, folio.nr_pages)
        self.call("swap_cache_del_folio", folio)
        return entry


class Entry:
    """One entry, 512, and the operations on it.  An operation is None where its caller may not use it."""

    number = 512

    def __init__(self) -> None:
        self.rig = Rig(locks="validated")
        self.cached: Any = None

    @property
    def state(self) -> State:
        """What the entry is like."""
        return self.rig.state(self.number)

    def do(self, name: str) -> str:
        """Do an operation, and say what it answered.  ValueError for one that its caller may not use now."""
        if name not in OPERATIONS:
            raise ValueError(f"operation {name!r}: expected one of {', '.join(OPERATIONS)}")
        legal, run = OPERATIONS[name]
        if not legal(self.state):
            raise ValueError(f"{name}: a caller's bug while the entry is {self.state}")
        answer = run(self)
        if self.state.word != "fo":
            self.cached = None
        if isinstance(answer, int) and not isinstance(answer, bool) and answer < 0 and "reclaim" not in name:
            return f"-{errno.errorcode[-answer]}"
        return "-" if answer is None else str(answer)

    def alloc(self) -> int:
        """A folio is given an entry; this is the first one that is free."""
        folio = self.rig.folio()
        err = int(self.rig.call("folio_alloc_swap", folio))
        assert folio.swap == self.number
        self.cached = folio
        return err

    def add(self) -> None:
        """Who has the pin puts a new folio into the cache."""
        self.cached = self.rig.folio()
        self.rig.call("swap_cache_add_folio", self.cached, self.number)

    def remove(self) -> None:
        """Reclaim takes the folio out and leaves a shadow."""
        self.rig.call("swap_cache_lock_irq", self.number)
        self.rig.call("__vswap_remove_mapping", self.cached, self.number, 77)

    def unlocked(self, name: str, *args: Any) -> Any:
        """Call a function that wants to lock the folio itself."""
        folio = self.cached
        if folio is not None:
            folio.locked = False
        answer = self.rig.call(name, *args)
        if folio is not None:
            folio.locked = True
        return answer


def simple(name: str, *more: int) -> Callable[[Entry], Any]:
    """A call with the entry and further arguments."""
    return lambda entry: entry.rig.call(name, entry.number, *more)


def with_folio(name: str) -> Callable[[Entry], Any]:
    """A call with the cached folio."""
    return lambda entry: entry.rig.call(name, entry.cached)


def anywhere(_state: State) -> bool:
    """May be called on any entry, even a free one."""
    return True


def cached(state: State) -> bool:
    """There is a folio."""
    return state.word == "fo"


def used(state: State) -> bool:
    """There is a user to take away."""
    return state.users > 0


OPERATIONS: dict[str, tuple[Callable[[State], bool], Callable[[Entry], Any]]] = {
    "folio_alloc_swap": (lambda state: state == FREE, Entry.alloc),
    "swap_duplicate": (anywhere, simple("swap_duplicate")),
    "swap_free": (used, simple("swap_free")),
    "free_swap_and_cache_nr": (used, lambda e: e.unlocked("free_swap_and_cache_nr", e.number, 1)),
    "swapcache_prepare": (anywhere, simple("swapcache_prepare", 1)),
    "swapcache_clear": (lambda state: state.pin == 1 and not cached(state), simple("swapcache_clear", 1)),
    "swap_cache_add_folio": (lambda state: state.pin == 1 and not cached(state), Entry.add),
    "swap_cache_del_folio": (cached, with_folio("swap_cache_del_folio")),
    "__vswap_remove_mapping": (cached, Entry.remove),
    "folio_free_swap": (cached, with_folio("folio_free_swap")),
    "__try_to_reclaim_swap": (
        lambda state: state != FREE,
        lambda e: e.unlocked("__try_to_reclaim_swap", e.rig.s.swap.info[0], 1, 1),
    ),
}
"""Operation -> (may it be called in this state?, do it).  The last one is given the physical slot, and flag ANYWAY."""

SHORT = {"alloc": "folio_alloc_swap", "dup": "swap_duplicate", "free": "swap_free", "zap": "free_swap_and_cache_nr"}
SHORT |= {"prepare": "swapcache_prepare", "clear": "swapcache_clear", "add": "swap_cache_add_folio"}
SHORT |= {"del": "swap_cache_del_folio", "remove": "__vswap_remove_mapping", "give-up": "folio_free_swap"}
SHORT |= {"reclaim": "__try_to_reclaim_swap"}
"""Short names of the operations, for walks."""

ROWS = (("in the cache", 1, "fo"), ("pinned, no folio", 1, "sh-"), ("not pinned", 0, "sh-"))
"""The rows of the board: name, pin, contents of the word."""


TEXT = "font-size='12' fill='currentColor'"


def cell(state: State) -> tuple[int, int]:
    """Row and column of a state on the board."""
    row = next(i for i, (_, pin, words) in enumerate(ROWS) if pin == state.pin and (state.word or "-") in words)
    return row, state.users


def board(columns: int) -> str:
    """The empty board.  Rows: pin and folio; columns: users."""
    parts = [f"<text x='0' y='{50 + 50 * row}' {TEXT}>{name}</text>" for row, (name, _, _) in enumerate(ROWS)]
    for column in range(columns):
        parts.append(f"<text x='{165 + 90 * column}' y='14' {TEXT}>N = {column}</text>")
        for row, (_, pin, _) in enumerate(ROWS):
            colour = "#88888833" if not pin and not column else "#1f9bb555" if pin else "#e0912f44"
            place = f"x='{140 + 90 * column}' y='{22 + 50 * row}' width='84' height='44'"
            parts.append(f"<rect {place} rx='4' fill='{colour}'/>")
    return "".join(parts)


def figure(name: str, steps: list[tuple[str, str, State]]) -> str:
    """A board on which an entry goes from place to place, a step for each operation."""
    shown = []
    for operation, answer, state in [("", "", FREE), *steps]:
        row, column = cell(state)
        place = f"x='{140 + 90 * column}' y='{22 + 50 * row}' width='84' height='44'"
        says = f"{operation}: {answer}; {state}" if operation else str(state)
        content = "" if state == FREE else f"X={state.word} K={state.marked}"
        mark = f"<rect {place} rx='4' fill='none' stroke='currentColor' stroke-width='3'/>"
        word = f"<text x='{148 + 90 * column}' y='{48 + 50 * row}' {TEXT}>{content}</text>"
        shown.append((operation or "start", f"{mark}{word}<text x='0' y='190' {TEXT}>{escape(says)}</text>"))
    columns = 1 + max(3, *(state.users for _, _, state in steps))
    alt = "the way of an entry: free; " + "; ".join(f"{operation}: {state}" for operation, _, state in steps)
    return stepper_html(name, board(columns), shown, alt, 140 + 90 * columns, 196)


def fields(state: State) -> dict[str, object]:
    """A state as cells of a table."""
    values = ("", "", "", "", "free") if state == FREE else (*state, "")
    return dict(zip(("P", "N", "X", "K", ""), values, strict=True))


@dataclass(frozen=True, slots=True)
class Walk:
    """Operations on one entry, what they answered, and the state after each of them."""

    stage: str
    steps: list[tuple[str, str, State]]
    name: str = "walk"

    def rows(self) -> list[dict[str, Any]]:
        """A row a step; the first one is the free entry."""
        return [
            {"step": number, "operation": operation, "answer": answer} | fields(state)
            for number, (operation, answer, state) in enumerate([("start", "", FREE), *self.steps], 1)
        ]

    def __repr__(self) -> str:
        return table_text(self.rows())

    def _repr_html_(self) -> str:
        return figure(self.name, self.steps) + table_html(self.rows())


def walk(operations: str = "alloc dup remove prepare add free reclaim", name: str = "walk") -> Walk:
    """Do operations on one entry, which is free at first.  Names as in OPERATIONS or SHORT, blanks between them.

    name: of the figure, once a page.

    ValueError for an unknown operation, or one that would be a bug of its caller.
    """
    entry, steps = Entry(), []
    for word in operations.split():
        operation = SHORT.get(word, word)
        answer = entry.do(operation)
        steps.append((operation, answer, entry.state))
    return Walk(str(entry.rig.stage.id), steps, name)


@dataclass(frozen=True, slots=True)
class Lives:
    """Every state that an entry can be in, and where each operation leads: the kernel did all of these steps."""

    stage: str
    arrows: dict[State, dict[str, tuple[str, State]]]

    def __repr__(self) -> str:
        nr = sum(map(len, self.arrows.values()))
        return f"stage {self.stage}, up to {MOST_USERS} users: {len(self.arrows)} states, {nr} steps between them"

    def _repr_html_(self) -> str:
        states = list(self.arrows)
        data = {
            "names": list(OPERATIONS),
            "rows": [name for name, _, _ in ROWS],
            "columns": MOST_USERS + 1,
            "states": [{"text": str(state), "cell": cell(state)} for state in states],
            "steps": [
                {name: [answer, states.index(after)] for name, (answer, after) in steps.items()}
                for steps in self.arrows.values()
            ],
            "goals": [
                {"text": "fresh: pinned, no user, not marked", "states": [states.index(State(1, 0, "fo", 0))]},
                {"text": "the cache's alone: marked", "states": [states.index(State(1, 0, "fo", 1))]},
                {
                    "text": "a pin whose user has gone",
                    "states": [states.index(State(1, 0, word, 1)) for word in ("-", "sh")],
                },
            ],
        }
        text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
        script = PLAYER.read_text(encoding="utf-8").replace("DATA", text)
        return f"<div class='lifecycle-player'><p>{escape(repr(self))}</p></div><script>{script}</script>"


@cache
def lives() -> Lives:
    """Find all states by trying every operation in every state, from "free" on, with up to MOST_USERS users."""
    ways: dict[State, tuple[str, ...]] = {FREE: ()}
    arrows: dict[State, dict[str, tuple[str, State]]] = {}
    for state in (queue := [FREE]):
        arrows[state] = {}
        for name, (legal, _) in OPERATIONS.items():
            if not legal(state) or (name == "swap_duplicate" and state.users == MOST_USERS):
                continue
            *_, (_, answer, after) = walk(" ".join((*ways[state], name))).steps
            arrows[state][name] = (answer, after)
            if after not in ways:
                ways[after] = (*ways[state], name)
                queue.append(after)
    return Lives("13", arrows)


def short(states: Iterable[State]) -> str:
    """A few states in a line."""
    return ", ".join("free" if state == FREE else f"({state.pin},{state.users},{state.word})" for state in states)


def golden(stage: int | str = 13) -> Table:
    """Five sequences on neighbouring entries: what was called, its answer, the locks it took, what is left."""
    rows: list[dict[str, Any]] = []

    def note(case: str, rig: Rig, first: int, nr: int, name: str, *args: Any) -> None:
        before, costs = short(rig.state(first + i) for i in range(nr)), rig.kernel.cost.snapshot()
        if name == "__vswap_remove_mapping":
            rig.call("swap_cache_lock_irq", first)
        answer = rig.call(name, *args)
        locks = rig.kernel.cost.since(costs).get("cl_lock", 0)
        after = [rig.state(first + i) for i in range(nr)]
        error = isinstance(answer, int) and not isinstance(answer, bool) and answer < 0
        said = f"-{errno.errorcode[-answer]}" if error else "-" if answer is None else str(answer)
        marks = "".join(str(state.marked) for state in after)
        rows.append({"sequence": case, "before": before, "answer": said, "locks": locks})
        rows[-1] |= {"after": short(after), "K": marks}

    rig = Rig(stage)
    first = survivors(rig)
    note("batch with a survivor", rig, first, 3, "vswap_free_nr_any_cache_only", first, 3)
    rig = Rig(stage)
    first = rig.evicted(2)
    rig.call("swap_free", first + 2)
    note("duplicate with a hole", rig, first, 3, "swap_duplicate_nr", first, 3)
    rig = Rig(stage)
    first = rig.evicted(2)
    rig.call("swapcache_prepare", first + 2, 1)
    note("prepare with a cached one", rig, first, 3, "swapcache_prepare", first, 3)
    for users in (0, 1):
        rig = Rig(stage)
        folio = rig.folio(1)
        rig.call("folio_alloc_swap", folio)
        first = int(folio.swap)
        if users:
            rig.call("swap_duplicate_nr", first, 2)
        note(f"remove, {users} users", rig, first, 2, "__vswap_remove_mapping", folio, first, 77)
    return Table("golden sequences", rows)


def survivors(rig: Rig) -> int:
    """Three entries with 1, 2 and 1 users, of which the third is pinned."""
    first = rig.evicted(2)
    rig.call("swap_duplicate", first + 1)
    rig.call("swapcache_prepare", first + 2, 1)
    return first


@dataclass(frozen=True, slots=True)
class Refused:
    """A swap-out that the cgroup refuses: counters before and after."""

    answer: int
    before: dict[str, int]
    after: dict[str, int]

    def __repr__(self) -> str:
        return f"-{errno.errorcode[-self.answer]}; before {self.before}, after {self.after}"


def refused(stage: int | str = 13) -> Refused:
    """A folio of four pages of a group that may have three in swap is given entries, and loses them again."""
    rig = Rig(stage)
    group = rig.kernel.cgroup("job", swap_max=3 * 4096)
    folio = rig.folio(2)
    rig.call("mem_cgroup_charge", folio, group.memcg)

    def counters() -> dict[str, int]:
        vswap = rig.s.vswap
        return {"virtual": vswap.used, "free slots": rig.s.swap.nr_swap_pages, "rejected": vswap.alloc_reject}

    before = counters()
    return Refused(rig.call("folio_alloc_swap", folio), before, counters())


ENDS = (
    "zswap_entry_free",
    "mem_cgroup_uncharge_swap_by_id",
    "swap_slot_free_nr",
    "vswap_rmap_set",
    "swap_map_fill",
    "release_vswap_slot",
    "vswap_cluster_put",
)
"""Functions that give something back when an entry ends."""


def end_of_an_entry(stage: int | str = 13) -> list[str]:
    """The functions that give back what a compressed page of a cgroup has, in the order in which they are called."""
    kernel = at(stage).Kernel(ram="8M", swap=[Ssd("16M")], zswap="lz4", cpus=1, locks="validated")
    app = kernel.spawn("app", kernel.cgroup("job"))
    heap = app.mmap(4096)
    heap.write_page(0, b"text" * 1024)
    app.madvise(heap, "pageout")
    return [call.name for call in record_calls(stage, kernel, heap.munmap) if call.name in ENDS]
