"""What the stages did to symbols: where one is written, what differs between two stages, the life of each."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from vswap_ref.series import SeriesError
from vswap_ref.series.series import Series
from vswap_ref.series.source import Definition
from vswap_ref.series.tree import definitions, symbols

T = TypeVar("T")


def find(series: Series, symbol: str, stage_id: int | str) -> tuple[str, Definition]:
    """(module, definition) of a symbol at a stage; SeriesError with close names if there is none."""
    tree = series.tree(stage_id)
    homes = symbols(tree)
    home = look_up(symbol, homes, f"stage {stage_id} has")
    return home, tree[home].definitions[symbol]


def look_up(symbol: str, table: Mapping[str, T], holder: str) -> T:
    """A symbol's row of a table; SeriesError with close names if it has none."""
    if symbol not in table:
        close = ", ".join(difflib.get_close_matches(symbol, table, 3))
        raise SeriesError(f"{holder} no {symbol!r}" + (f"; close: {close}" if close else ""))
    return table[symbol]


def diff(series: Series, old: int | str, new: int | str, what: str | None = None) -> str:
    """Unified diff of two stages, definition by definition; ``what`` limits it to a symbol or a module."""
    before, after = definitions(series.tree(old)), definitions(series.tree(new))
    parts: list[str] = []
    for path, name in sorted({**before, **after}, key=lambda key: key[0]):
        if what in (None, path, name):
            a, b = (side[path, name].text.splitlines() if (path, name) in side else [] for side in (before, after))
            parts += difflib.unified_diff(a, b, f"{old}/{path}:{name}", f"{new}/{path}:{name}", lineterm="")
    return "\n".join(parts)


def symbol_map(series: Series, stage_id: int | str | None = None) -> dict[str, Any]:
    """The symbol x patch map: {"stages": [...], "symbols": {name: [event, ...]}}, ready for JSON.

    An event says what a stage up to ``stage_id`` (default: the latest) did to the symbol, and where that is
    written.  The life of a renamed symbol continues under its new name; the old one ends.
    """
    lineage = series.lineage(series.latest if stage_id is None else stage_id)
    lives: dict[str, list[dict[str, Any]]] = {}
    for stage in lineage:
        for change in series.build(stage.id)[1]:
            event = {"stage": stage.id, "notebook": change.cell.notebook, "cell": change.cell.number}
            event |= {"module": change.module, "name": change.name, "verb": change.verb, "source": change.source}
            event |= {"added": change.lines[0], "removed": change.lines[1]}
            if change.verb == "renamed":
                lives[change.name] = lives.get(change.source, [])
                lives[change.source] = [*lives[change.name], event]
            lives[change.name] = [*lives.get(change.name, []), event]
    return {"stages": [asdict(stage) for stage in lineage], "symbols": dict(sorted(lives.items()))}


def life(events: list[dict[str, Any]]) -> str:
    """The life of a symbol, a line for each event: stage, deed, lines, place in the model, cell."""
    lines = []
    for event in events:
        deed = f"{event['verb']} from {event['source']}" if event["source"] else event["verb"]
        size = f"+{event['added']} -{event['removed']}"
        cell = f"{event['notebook']}, cell {event['cell']}"
        lines.append(f"{event['stage']:>4}  {deed}, {size}, in {event['module']}: {cell}")
    return "\n".join(lines)
