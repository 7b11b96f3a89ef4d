"""Assertions only look: with ``python -O``, which leaves them out, the model does the same."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from vswap_ref.series.stages import at, stages

ROOT = Path(__file__).parent.parent.parent
LOOKING = {
    *("all", "any", "count", "isinstance", "len", "load", "set"),
    *("folio_word", "word_is_folio", "swp_tb_folio", "swp_tb_is_folio"),
}
"""What may be called inside an assertion: functions that change nothing and count nothing."""


def calls(node: ast.Assert) -> set[str]:
    """Names of the functions that an assertion's condition calls."""
    found = (call.func for call in ast.walk(node.test) if isinstance(call, ast.Call))
    return {func.attr if isinstance(func, ast.Attribute) else ast.unparse(func) for func in found}


@pytest.mark.parametrize("stage", stages())
def test_conditions_have_no_effects(stage: str) -> None:
    """Of the modelled kernel, at each stage."""
    for path, text in at(stage).sources().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assert):
                assert calls(node) <= LOOKING, f"{path} line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.slow
def test_recorded_traces_replay_without_assertions() -> None:
    """Results, effects and costs are the same, at each level."""
    files = sorted(ROOT.glob("data/golden/*/s0[13]*.gz"))
    assert len(files) == 12
    command = [sys.executable, "-O", "-m", "vswap_ref.cli", "replay", *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("operations agree") == len(files)
