"""Pages that are made from the stages when the book is built: invariants, symbols, code slider, the engine's output."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from vswap_ref.cli import main
from vswap_ref.lab.time_slider import history, page
from vswap_ref.series.series import Series
from vswap_ref.series.stages import CHECKOUT, PACKAGE, at, checkout_series, latest, main_line
from vswap_ref.series.stitch import stitch
from vswap_ref.workshop.history import symbol_map

HOLDS, NOT_YET, SUSPENDED = "holds", "not yet", "suspended"
VERBS = {"added": "new", "replaced": "changed", "moved": "moved", "renamed": "renamed", "removed": "gone"}
COMMAND = re.compile(r"^<!-- run: (.*) -->$", re.MULTILINE)
SHOWN_LINES = 14


def invariants(text: str) -> dict[str, str]:
    """Invariant -> function that asserts it: the texts given to ``expect`` in a module."""
    found = {}
    for function in ast.parse(text).body:
        for node in ast.walk(function) if isinstance(function, ast.FunctionDef) else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "expect":
                name = node.args[1]
                assert isinstance(name, ast.Constant), f"{function.name}: the name of an invariant is not a text"
                found[str(name.value)] = function.name
    return found


def invariant_ledger(texts: dict[str, str]) -> dict[str, list[str]]:
    """Invariant -> its state at each stage, from the text of ``mm/check.py`` at each."""
    present = {stage: invariants(text) for stage, text in texts.items()}
    names = dict.fromkeys(name for found in present.values() for name in found)
    return {name: states([name in found for found in present.values()]) for name in names}


def spans(row: list[str], line: list[str]) -> str:
    """The states of an invariant as runs of stages: "holds at 0-5, suspended at 6-8"; "holds" if it always does."""
    pairs = groupby(zip(row, line, strict=True), key=itemgetter(0))
    runs = [(state, [stage for _, stage in run]) for state, run in pairs]
    if len(runs) == 1:
        return runs[0][0]
    return ", ".join(f"{state} at {stages[0]}" + (f"-{stages[-1]}" if stages[1:] else "") for state, stages in runs)


def states(holds: Iterable[bool]) -> list[str]:
    """States of an invariant that is asserted at some stages: before the first one it cannot be expressed."""
    seen, result = False, []
    for asserted in holds:
        seen = seen or asserted
        result.append(HOLDS if asserted else SUSPENDED if seen else NOT_YET)
    return result


def invariants_page(text: str) -> str:
    """The ledger of invariants, with the function that asserts each."""
    texts = {stage: at(stage).sources()["mm/check.py"] for stage in main_line()}
    homes = {name: function for found in map(invariants, texts.values()) for name, function in found.items()}
    ledger = invariant_ledger(texts)
    rows = [(cell(name), f"`{homes[name]}`", spans(row, list(texts))) for name, row in ledger.items()]
    return text.replace("<!-- ledger -->", table(("Invariant", "Asserted by", "Stages"), rows))


def symbols_page(text: str) -> str:
    """The map of symbols and stages."""
    found = symbol_map(checkout_series(), latest())
    rows = [(f"`{name}`", events[-1]["module"], life(events)) for name, events in found["symbols"].items()]
    return text.replace("<!-- symbols -->", table(("Symbol", "Module", "Stages"), rows))


def life(events: list[dict[str, Any]]) -> str:
    """What the stages did to a symbol: "new at 0, moved and changed at 2"."""
    deeds = [
        f"{' and '.join(dict.fromkeys(VERBS[event['verb']] for event in run))} at {stage}"
        for stage, run in groupby(events, key=lambda event: event["stage"])
    ]
    return ", ".join(deeds)


def slider_page(text: str) -> str:
    """The code time slider."""
    return text.replace("<!-- slider -->", f"```{{raw}} html\n{page(history(), 'folio_alloc_swap')}\n```")


def engine_page(text: str) -> str:
    """Every ``<!-- run: ... -->`` becomes the command and what it prints."""
    return COMMAND.sub(
        lambda match: console(match[1].replace("PREVIOUS", previous()).replace("LATEST", latest())), text
    )


def previous() -> str:
    """The stage before the latest; the latest itself if it is the only one."""
    return main_line()[-2:][0]


def console(command: str) -> str:
    """A console block: the command and the beginning of its output."""
    lines = output(command).rstrip("\n").split("\n")
    left = f"\n... ({len(lines) - SHOWN_LINES} more lines)" if len(lines) > SHOWN_LINES else ""
    return f"```console\n$ {command}\n" + "\n".join(lines[:SHOWN_LINES]) + f"{left}\n```"


def output(command: str) -> str:
    """What a command prints; SeriesError and failures are not hidden."""
    program, *words = command.split()
    assert program == "vswap-ref", command
    if words == ["stitch"]:
        return stitched()
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(printed), contextlib.chdir(folder):
        assert main(words) == 0, command
    return printed.getvalue()


def stitched() -> str:
    """What ``vswap-ref stitch`` says after an edit of one docstring, made in a copy."""
    with tempfile.TemporaryDirectory() as folder:
        notebooks, package = Path(folder, "notebooks"), Path(folder, "package")
        shutil.copytree(CHECKOUT / "notebooks", notebooks, ignore=shutil.ignore_patterns("*.ipynb"))
        shutil.copytree(PACKAGE / "mm", package / "mm")
        module = package / "mm" / "zswap.py"
        before = module.read_text(encoding="utf-8")
        after = re.sub(r'(def zswap_load\(.*?""")', r"\1Give the page back. ", before, count=1, flags=re.DOTALL)
        assert before != after
        module.write_text(after, encoding="utf-8")
        return "\n".join(stitch(Series(notebooks), package))


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table that the filter of the page finds."""
    lines = [head, ("---",) * len(head), *rows]
    return "{.function-index}\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


PAGES: dict[str, Callable[[str], str]] = {
    "book/invariants": invariants_page,
    "book/symbols": symbols_page,
    "book/time-slider": slider_page,
    "book/how-this-book-is-built": engine_page,
}
"""Page -> what fills it."""
