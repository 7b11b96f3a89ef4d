"""Whatever is changed in what a trace says that the real code did, a replay notices.

Every operation is done once, and then compared with each version of its line in which one value is another: a number
one larger, a flag turned over, a part left out or written twice.  Versions that the reader refuses count as noticed.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from vswap_ref.lab.replay import replay
from vswap_ref.lab.replay.compare import differences
from vswap_ref.lab.replay.effects import in_order, sums
from vswap_ref.lab.replay.events import COSTS, cost_differences, not_counted, note_counters, snapshot
from vswap_ref.lab.replay.expected import Expected
from vswap_ref.lab.replay.neighbours import standins
from vswap_ref.lab.replay.operations import execute
from vswap_ref.lab.replay.player import touched
from vswap_ref.lab.replay.reader import TraceError, numbered_lines, operation
from vswap_ref.lab.replay.shape import STATE
from vswap_ref.lab.replay.world import World, new_world, replaced
from vswap_ref.series import at

GOLDEN = Path(__file__).parent.parent.parent / "data" / "golden"
OBSERVED = ("ret", "fx", "cost", *STATE)
"""Fields of a line that say what happened; the others say what to do."""

Line = dict[str, Any]


def variants(value: Any) -> Iterator[Any]:
    """A JSON value with one thing changed; of a list the first, the last and a middle item."""
    if isinstance(value, bool):
        yield from (not value, int(value))
    elif isinstance(value, int):
        yield from (value + 1, value - 1, str(value))
    elif isinstance(value, str):
        yield value + "x"
    elif value is None:
        yield from (0, [[0, 1]])
    elif isinstance(value, dict):
        for key in value:
            yield {name: part for name, part in value.items() if name != key}
            yield from ({**value, key: part} for part in variants(value[key]))
        yield {**value, "unknown": 1}
    else:
        for i in sorted({0, len(value) // 2, len(value) - 1}) if value else ():
            yield value[:i] + value[i + 1 :]
            yield value[: i + 1] + value[i:]
            yield from ([*value[:i], part, *value[i + 1 :]] for part in variants(value[i]))


def changed_lines(line: Line) -> Iterator[tuple[str, Line]]:
    """(field, the line with one thing in that field changed or the field left out)."""
    for name in line.keys() & {*OBSERVED}:
        yield name, {key: value for key, value in line.items() if key != name}
        yield from ((name, {**line, name: value}) for value in variants(line[name]))


def same_meaning(world: World, before: Any, expected: Expected, field: str, line: Line, changed: Line) -> bool:
    """Is the change one that says the same, or one of those that EXCLUDED tells of?"""
    if field == "fx":
        one, other = (json.dumps([in_order(fx), sums(fx)]) for fx in (line["fx"], changed["fx"]))
        return one == other
    if field == "cost":
        skipped = not_counted(world, operation(Path(), 0, line, line["i"]), before)
        counts = [
            {k: v for k, v in x["cost"].items() if k in COSTS and k not in skipped and v} for x in (line, changed)
        ]
        return counts[0] == counts[1]
    states = [independent(expected, set(expected.clusters)) for _ in range(2)]
    for state, version in zip(states, (line, changed), strict=True):
        state.apply(operation(Path(), 0, version, line["i"]))
    return states[0] == states[1]


def noticed(world: World, expected: Expected, before: Any, seen: set[int], changed: Line, result: Any) -> bool:
    """Does the comparison, or the reader, object to the changed line?"""
    try:
        altered = operation(Path(), 0, changed, changed["i"])
        view = independent(expected, {change.get("id") for change in changed["clusters"]})
        view.apply(altered)
    except TraceError:
        return True
    found = differences(world, view, altered, result, seen)
    return any(True for _ in found) or any(True for _ in cost_differences(world, altered, before))


def independent(expected: Expected, ids: set[int]) -> Expected:
    """The trace's state, to be changed by a line that names these clusters."""
    other = copy(expected)
    for name in ("pcpu", "iter", "partial", "folios", "memcgs", "phys", "clusters"):
        setattr(other, name, dict(getattr(expected, name)))
    for id_ in ids & other.clusters.keys():
        other.clusters[id_] = copy(other.clusters[id_])
        other.clusters[id_].slots = dict(other.clusters[id_].slots)
    return other


def unnoticed(path: Path, most: int) -> Iterator[str]:
    """Changes of a trace's first ``most`` operations that nobody notices."""
    (_, header), *rest = numbered_lines(path)
    lines = [line for _, line in rest if line.keys() != {"note"}]
    world = new_world(at(header["level"]), header["level"])
    expected, prints = Expected(), dict[int, bytes]()
    with replaced(world, standins(world)):
        for line in lines[:most]:
            done = operation(path, 0, line, line["i"])
            before, state = snapshot(world), independent(expected, set(expected.clusters))
            result = execute(world, done)
            note_counters(world, before)
            expected.apply(done)
            seen = touched(world, done, prints)
            assert not list(differences(world, expected, done, result, seen))
            for field, changed in changed_lines(line):
                if not noticed(world, state, before, seen, changed, result) and not same_meaning(
                    world, before, state, field, line, changed
                ):
                    versions = (json.dumps(version.get(field))[:300] for version in (line, changed))
                    yield f"{path.name}, {done}: {field}: {' -> '.join(versions)}"


SMALL = ("s01", "s03", "s04", "s05", "s06", "s08b", "s09", "s10", "s14")
"""Scenarios with few slots, whose every line is changed in every way; of the others, a piece."""


@pytest.mark.parametrize("level", range(9, 15))
def test_no_change_of_a_scenario_goes_unnoticed(level: int) -> None:
    """Results, effects, counters, costs and every part of the state."""
    files = [path for path in sorted(GOLDEN.glob(f"{level:02}/s*.gz")) if path.name.startswith(SMALL)]
    assert len(files) >= 5
    assert not [text for path in files for text in unnoticed(path, 100 if "cluster_life" not in path.name else 10)]


@pytest.mark.slow
@pytest.mark.parametrize("level", range(9, 15))
def test_no_change_of_a_random_program_goes_unnoticed(level: int) -> None:
    """Its first operations."""
    assert not list(unnoticed(GOLDEN / f"{level:02}" / "r01.jsonl.gz", 25))


def agrees(path: Path) -> bool:
    """Is the file a trace that replays?"""
    try:
        return replay(path).agrees
    except TraceError:
        return False


@pytest.mark.parametrize("level", range(9, 15))
def test_an_answer_of_the_devices_that_was_not_given_is_noticed(tmp_path: Path, level: int) -> None:
    """Which slots the allocator found, and which the swap map freed together, is taken from the trace: it shows."""
    (path,) = GOLDEN.glob(f"{level:02}/{'s04' if level == 14 else 's01'}*.gz")
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    given = [
        (line, i)
        for line in lines
        for i, effect in enumerate(line.get("fx", ()))
        if effect[0] in ("swap_slot_alloc", "swap_slots_free")
    ]
    assert given
    for number, (line, i) in enumerate((*given[:3], *given[-3:])):
        recorded = line["fx"][i]
        for change in variants(recorded):
            line["fx"][i] = change
            made = tmp_path / f"{number}.jsonl"
            made.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
            assert not agrees(made), f"{recorded} -> {change}"
        line["fx"][i] = recorded
