"""The page of kernel functions: its tables are made from the live index when the book is built."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from vswap_ref.lab.function_index import VSWAP_GROUP, Entry, KernelFunction, function_index, last_stage
from vswap_ref.series.stages import latest

MARKER = "<!-- tables -->"
NOT_YET = "not yet: "


def expand(page: str) -> str:
    """The page with the tables in place of the marker."""
    entries = [shown(*pair) for pair in zip(function_index(0), function_index(), strict=True)]
    linux = [entry for entry in entries if not entry.function.since]
    missing = [entry for entry in entries if entry.home is None]
    waiting = [entry for entry in missing if entry.function.reason.startswith(NOT_YET)]
    parts = [
        f"Linux 6.19: {len(linux)} functions; the model has {sum(entry.home is not None for entry in linux)} of them. "
        f"`mm/vswap.c`, up to patch {latest()}: {len(entries) - len(linux)} functions, in the group *{VSWAP_GROUP}*."
    ]
    if waiting:
        parts += ["## Not yet in the model", table("Part that is missing", map(missing_row, waiting))]
    never = [entry for entry in missing if entry not in waiting]
    parts += ["## Not in the model", table("Why the model has none", map(missing_row, never))]
    for group, members in groupby((e for e in entries if e.home), key=lambda entry: entry.function.group):
        parts += [f"## {group[0].upper()}{group[1:]}", table("In the model", map(home_row, members))]
    return page.replace(MARKER, "\n\n".join(parts))


def shown(first: Entry, now: Entry) -> Entry:
    """The entry of a function as the page has it: of the latest stage, of stage 0, or of the last stage that has it."""
    if now.home or first.home or first.function.reason:
        return now if now.home else first
    (last,) = [entry for entry in function_index(last_stage(now.function)) if entry.function == now.function]
    return last


def table(last: str, rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table that the filter of the page finds."""
    lines = [("Function", "What it does", last), ("---",) * 3, *rows]
    return "{.function-index}\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def name_cell(function: KernelFunction) -> str:
    """Name and kernel file."""
    return f"`{function.name}`<br>{function.file}"


def missing_row(entry: Entry) -> tuple[str, ...]:
    """A function that the model lacks."""
    function = entry.function
    return name_cell(function), plain(function.contract), plain(function.reason.removeprefix(NOT_YET))


def home_row(entry: Entry) -> tuple[str, ...]:
    """A function that the model has: contract, what is simpler, module, chapter, a test."""
    function, home = entry.function, entry.home
    assert home is not None
    name = f" as `{function.model}`" if function.model else ""
    module = home.module.removeprefix("mm/")
    where = f"`{module}`{name}, in [{plain(home.heading)}]({chapter(home.notebook, home.heading)})"
    simpler = f"<br>*Simpler:* {plain(function.simplified)}." if function.simplified else ""
    last = last_stage(function)
    since = f"<br>*From stage {function.since}.*" if function.since else ""
    gone = "" if last == latest() else f"<br>*Until stage {last}.*"
    test = f"<br>Run by `{entry.tests[0].rpartition('::')[2]}`" if entry.tests else ""
    return name_cell(function), plain(function.contract) + simpler, where + since + gone + test


def chapter(notebook: str, heading: str) -> str:
    """Link to a heading of a chapter."""
    slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    return f"../notebooks/{notebook}.ipynb#{slug}"


NAME = re.compile(r"(?<![`\w./])(\*\*\w+|(?:\w+[./])*\w*_\w+(?:\.\w+)*(?:\([^)]*\))?(?:\.\w+)?)")
"""A name with an underscore, with what it belongs to."""


def plain(text: str) -> str:
    """Text for a cell of a Markdown table: names with underscores as code."""
    return NAME.sub(r"`\1`", text.replace("|", "\\|"))
