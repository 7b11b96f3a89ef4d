"""The index of kernel functions agrees with the code, the notebooks and the tests."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from vswap_ref.cli import main
from vswap_ref.lab import function_index as function_index_module
from vswap_ref.lab.function_index import (
    Entry,
    choose_tests,
    exercised,
    find_functions,
    function_index,
    kernel_functions,
    settle_rows,
    stage_definitions,
)

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def index() -> list[Entry]:
    """The index at stage 0: later stages remove some of these functions."""
    return function_index(0)


def test_names_are_unique_and_rows_complete() -> None:
    """A function stands in the list once, with its file, group, section and contract."""
    functions = kernel_functions()
    assert len({function.name for function in functions}) == len(functions)
    for function in functions:
        assert all((function.file, function.group, function.contract)), function
        assert function.baseline.replace(".", "").isdigit(), function
        assert not function.contract.endswith("."), function


def test_a_home_or_a_reason(index: list[Entry]) -> None:
    """Every function is in the model, or the list says why not; never both."""
    homeless = [entry.function.name for entry in index if entry.home is None and not entry.function.reason]
    assert not homeless, "add the function to the model, or a reason to data/functions/baseline.csv"
    settled = [entry.function.name for entry in index if entry.home is not None and entry.function.reason]
    assert not settled, "run `vswap-ref functions --record`"


def test_another_name_only_where_the_kernel_name_is_free() -> None:
    """The column ``model`` is for functions whose kernel name the model does not use."""
    homes = stage_definitions("0")
    for function in kernel_functions():
        if function.model:
            assert function.model != function.name
            assert function.name not in homes, f"{function.name} exists: empty its column `model`"


def test_homes_are_written_in_chapters(index: list[Entry]) -> None:
    """Every home has a signature, a docstring, and a heading of a chapter."""
    for entry in index:
        if entry.home is not None:
            assert entry.home.summary, entry
            assert entry.home.signature.startswith("("), entry
            text = (ROOT / "notebooks" / f"{entry.home.notebook}.md").read_text(encoding="utf-8")
            assert f"## {entry.home.heading}\n" in text, entry


def test_every_home_is_run_by_a_test_that_exists(index: list[Entry]) -> None:
    """The record names tests that exist, and misses no function of the model."""
    recorded = exercised()
    assert set(recorded) == {entry.function.name for entry in index if entry.home is not None}, (
        "run `vswap-ref functions --record`"
    )
    known: dict[str, set[str]] = {}
    for test in {test for tests in recorded.values() for test in tests}:
        file, *_, name = test.split("::")
        if file not in known:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            known[file] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in known[file], f"{test} is gone: run `vswap-ref functions --record`"


def test_the_most_specific_tests_come_first() -> None:
    """A test that names the function beats one that only runs it; then the share of calls decides."""
    calls = {
        "broad": {"zswap_store": 2, "swap_free": 98},
        "narrow": {"zswap_store": 1, "swap_free": 1},
        "direct": {"zswap_store": 1, "swap_free": 999},
        "other": {"swap_free": 1},
    }
    chosen = choose_tests(calls, {"direct": {"zswap_store"}, "narrow": {"Kernel"}})
    assert chosen == {
        "zswap_store": ["direct", "narrow", "broad"],
        "swap_free": ["other", "direct", "broad"],
    }


def test_find_by_name_part_and_slip(index: list[Entry]) -> None:
    """An exact name finds one function, a part finds several, a slip is answered with close names."""
    assert [entry.function.name for entry in find_functions("swap_free", index)] == ["swap_free"]
    assert {"swap_free_nr", "free_swap_cache"} <= {entry.function.name for entry in find_functions("swap_", index)} | {
        entry.function.name for entry in find_functions("free_swap", index)
    }
    assert [entry.function.name for entry in find_functions("is_swap_pte", index)] == ["softleaf_is_swap"]
    with pytest.raises(ValueError, match=r"'zswap_stroe'.*close: zswap_store"):
        find_functions("zswap_stroe", index)
    with pytest.raises(ValueError, match=r"stage='99': expected one of 0"):
        function_index(99)


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    """One function as text and as JSON; an unknown one is an error in one line."""
    assert main(["functions", "zswap_load", "--stage", "0"]) == 0
    text = capsys.readouterr().out
    assert "vswap_ref/mm/zswap.py: zswap_load(s: System, folio: Folio) -> int" in text
    assert "notebooks/00-04-zswap.md" in text
    assert main(["functions", "zswap_load", "--json", "--stage", "0"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["home"]["module"] == "mm/zswap.py"
    assert main(["functions", "remove_mapping"]) == 0
    assert "not in the model: " in capsys.readouterr().out
    assert main(["functions", "nonsense_at_all"]) == 1
    assert capsys.readouterr().err.startswith("vswap-ref: no kernel function 'nonsense_at_all'")


def test_recording_settles_what_the_code_has_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that has got a home loses its reason, one that exists under its own name its other name."""
    lines = [
        "name,file,group,baseline,contract,model,simplified,reason",
        "swap_free,mm/swapfile.c,life cycle,10.2,Free,,,not yet: frees",
        "zswap_load,mm/zswap.c,side tables,19.6,Load,zswap_store,,",
        "remove_mapping,mm/vmscan.c,reclaim,24,Remove,,,never",
    ]
    path = tmp_path / "baseline.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr(function_index_module, "baseline_path", lambda: path)
    assert settle_rows() == ["swap_free", "zswap_load"]
    assert [(row.model, row.reason) for row in kernel_functions()] == [("", ""), ("", ""), ("", "never")]
