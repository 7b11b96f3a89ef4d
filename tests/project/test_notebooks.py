"""The shape of the chapters: small cells, words before each, no placeholder, the usual sections."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import pytest

from vswap_ref.series.notebook import Cell, read_cells

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.md"))
CHAPTERS = [path for path in NOTEBOOKS if not path.stem.startswith("00-00")]


def cells(path: Path) -> list[Cell]:
    """The code cells of a chapter."""
    return read_cells(path.stem, path.read_text(encoding="utf-8"))


def code_lines(cell: Cell) -> int:
    """Lines of an export cell that are neither blank nor docstring nor comment; ``__all__`` is one line."""
    text = cell.source
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    strings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            first = node.body[0]
            strings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            strings |= set(range(node.lineno + 1, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.split("\n"), 1)
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") and n not in strings for n, line in lines)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_export_cells_are_small(path: Path) -> None:
    """At most 40 lines of code; half of them short enough to be read at a glance."""
    sizes = [code_lines(cell) for cell in cells(path) if cell.patch] or [0]
    assert max(sizes) <= 40
    assert statistics.median(sizes) <= 15


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_words_come_before_code(path: Path) -> None:
    """Every export cell is introduced by a paragraph of its own."""
    text = path.read_text(encoding="utf-8")
    for match in re.finditer(r"```\{code-cell\}\n(?::.*\n)*%%patch (\S+)", text):
        before = text[: match.start()].rstrip()
        assert not before.endswith("```"), f"{path.stem}: no words before a cell of {match[1]}"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapters_have_their_parts(path: Path) -> None:
    """An experiment with a widget, the seal, the box, exercises with hidden solutions; no placeholders."""
    text = path.read_text(encoding="utf-8")
    for part in (
        "explore(",
        "%seal",
        "Model versus kernel",
        "## Exercises",
        ":::{dropdown} Solution",
        ":tags: [hide-cell]",
    ):
        assert part in text, part
    assert not re.search(r"\b(TODO|FIXME|PROSE|TBD)\b", text)


LATEST = re.compile(r"(?<![\w.])(?:vr\.|vswap_ref\.)?Kernel\(|from vswap_ref\.mm\b")


def test_chapters_name_the_stage_that_they_run() -> None:
    """Not the latest stage, which is another one with every patch: what they say would no longer be what they show."""
    texts = {path: "\n".join(cell.source for cell in cells(path) if not cell.patch) for path in NOTEBOOKS}
    texts |= {path: path.read_text(encoding="utf-8") for path in (ROOT / "vswap_ref/lab/experiments").glob("*.py")}
    assert {path.name: found for path, text in texts.items() if (found := LATEST.findall(text))} == {}
    calls = [(path.name, call) for path, text in texts.items() for call in re.findall(r"vr\.run\(.*", text)]
    assert [call for call in calls if "stage=" not in call[1]] == []
