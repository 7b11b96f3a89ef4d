"""The page of kernel functions: its tables are made from the live index when the book is built."""

from __future__ import annotations

import re
from itertools import groupby

from vswap_ref.lab.function_index import Entry, function_index

MARKER = "<!-- tables -->"


def expand(page: str) -> str:
    """The page with the tables in place of the marker."""
    entries = function_index()
    missing = [entry for entry in entries if entry.home is None]
    parts = [
        f"{len(entries)} functions; the model has {len(entries) - len(missing)} of them.",
        "## Not in the model",
        table(("Function", "Kernel file", "What it does", "Why the model has none"), map(missing_row, missing)),
    ]
    for group, members in groupby((e for e in entries if e.home), key=lambda entry: entry.function.group):
        parts.append(f"## {group[0].upper()}{group[1:]}")
        parts.append(table(("Function", "Kernel file", "What it does", "In the model"), map(home_row, members)))
    return page.replace(MARKER, "\n\n".join(parts))


def table(head: tuple[str, ...], rows: object) -> str:
    """A Markdown table that the filter of the page finds."""
    lines = [head, tuple("---" for _ in head), *rows]  # type: ignore[misc]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "{.function-index}\n" + text


def missing_row(entry: Entry) -> tuple[str, ...]:
    """A function that the model lacks."""
    function = entry.function
    return f"`{function.name}`", function.file, plain(function.contract), plain(function.reason)


def home_row(entry: Entry) -> tuple[str, ...]:
    """A function that the model has: contract, what is simpler, module, chapter, a test."""
    function, home = entry.function, entry.home
    assert home is not None
    name = f" as `{function.model}`" if function.model else ""
    where = (
        f"`{home.module.removeprefix('mm/')}`{name}, in [{plain(home.heading)}]({chapter(home.notebook, home.heading)})"
    )
    simpler = f"<br>*Simpler:* {plain(function.simplified)}." if function.simplified else ""
    test = f"<br>Run by {test_name(entry.tests[0])}" if entry.tests else ""
    return f"`{function.name}`", function.file, plain(function.contract) + simpler, where + test


def test_name(test: str) -> str:
    """A test as a reader looks for it."""
    return f"`{test.rpartition('::')[2]}`"


def chapter(notebook: str, heading: str) -> str:
    """Link to a heading of a chapter."""
    slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    return f"../notebooks/{notebook}.ipynb#{slug}"


def plain(text: str) -> str:
    """Text for a cell of a Markdown table: names with underscores as code."""
    return re.sub(r"(?<![`\w])(\*\*\w+|\w*_\w+(?:\.\w+)*(?:\([^)]*\))?(?:\.\w+)?)", r"`\1`", text.replace("|", "\\|"))
