"""The house: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vswap_ref

PACKAGE = Path(vswap_ref.__file__).parent
ALLOWED = {
    "machine": set(),
    "mm": {"machine"},
    "display": {"machine"},
    "kernel": {"machine", "mm", "display"},
    "series": {"display"},
    "_stages": {"series"},
    "workshop": {"series"},
    "lab": {"machine", "kernel", "display", "series", "workshop"},
    "cli": {"series", "workshop", "lab"},
}
"""Part of the package -> parts that it may import from."""


def imported_parts(path: Path) -> set[str]:
    """Parts of the package that a file imports from, the part that it belongs to left out."""
    here = path.relative_to(PACKAGE).with_suffix("").parts
    parts: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = list(here[: len(here) - node.level]) if node.level else []
            target = [*base, *(node.module or "").split(".")]
            if node.level == 0:
                if target[0] != "vswap_ref":
                    continue
                target = target[1:]
            names = [target[0]] if target and target[0] else [alias.name for alias in node.names]
            parts |= set(names)
        elif isinstance(node, ast.Import):
            parts |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("vswap_ref.")}
    known = {part for part in parts if (PACKAGE / part).exists() or (PACKAGE / f"{part}.py").exists()}
    return known - {here[0]}


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_parts_import_only_from_below(part: str) -> None:
    """mm knows nothing of notebooks, stages, plots or widgets; the engine knows nothing of the model."""
    files = list((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]
    for path in files:
        extra = imported_parts(path) - ALLOWED[part] - {part}
        assert not extra, f"{path.relative_to(PACKAGE)} imports from {extra}"


def test_core_needs_numpy_alone() -> None:
    """All but the lab and the command import the standard library and NumPy alone, anything else only lazily."""
    import sys

    legal = set(sys.stdlib_module_names) | {"numpy", "vswap_ref"}
    for part in ("machine", "mm", "kernel", "display", "series", "workshop"):
        for path in list((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]:
            if path.name == "lexer.py":
                continue
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                assert {name.split(".")[0] for name in names} <= legal, f"{path}: {names}"
