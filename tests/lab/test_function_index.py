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
    baseline_functions,
    choose_tests,
    exercised,
    find_functions,
    function_index,
    home_of,
    kernel_functions,
    settle_rows,
    stage_definitions,
    vswap_functions,
)
from vswap_ref.series.stages import latest, main_line

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def index() -> list[Entry]:
    """The functions of 6.19 at stage 0: later stages remove some of them."""
    return [entry for entry in function_index(0) if not entry.function.since]


def test_names_are_unique_and_rows_complete() -> None:
    """A function stands in a list once, with its file, group, contract, and section or first stage."""
    functions = kernel_functions()
    assert len({(function.name, bool(function.since)) for function in functions}) == len(functions)
    for function in functions:
        assert all((function.file, function.group, function.contract)), function
        assert (function.since or function.baseline.replace(".", "")).isdigit(), function
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
    for function in baseline_functions():
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
    there = [entry.function.key for entry in index if entry.home is not None]
    layer = [
        function.key for function in vswap_functions() if not function.reason and int(function.since) <= int(latest())
    ]
    assert recorded.keys() == {*there, *layer}, "run `vswap-ref functions --record`"
    known: dict[str, set[str]] = {}
    for test in {test for tests in recorded.values() for test in tests}:
        file, *_, name = test.split("::")
        if file not in known:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            known[file] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in known[file], f"{test} is gone: run `vswap-ref functions --record`"


def test_virtual_swap_is_in_the_stages_that_its_rows_name() -> None:
    """From the first stage to the last that a row names the model has the function in mm/vswap, and in no other."""
    line = main_line()
    for function in vswap_functions():
        there = [stage for stage in line if home_of(function, stage_definitions(stage))]
        last = min(int(function.until or latest()), int(latest()))
        expected = [] if function.reason else [stage for stage in line if int(function.since) <= int(stage) <= last]
        assert there == expected, function


def test_virtual_swap_has_homes_with_words() -> None:
    """Each home at the latest stage has a docstring and a heading of a chapter."""
    homes = [entry.home for entry in function_index() if entry.function.since and entry.home]
    assert len(homes) > 60
    for home in homes:
        assert home.summary, home
        text = (ROOT / "notebooks" / f"{home.notebook}.md").read_text(encoding="utf-8")
        assert f"## {home.heading}\n" in text, home


def test_a_function_that_moves_has_two_rows() -> None:
    """Each has a home where its own file has the function, at no stage both."""
    for stage, modules in (("0", ["mm/swap_alloc.py", None]), ("14", [None, "mm/vswap/swap_out.py"])):
        found = find_functions("folio_alloc_swap", function_index(stage))
        assert [entry.function.file for entry in found] == ["mm/swapfile.c", "mm/vswap.c"]
        assert [entry.home and entry.home.module for entry in found] == modules
        assert found[0].tests != found[1].tests, "recorded under one key"


def test_the_most_specific_tests_come_first() -> None:
    """A test that names the function beats one that only runs it; then the share of calls decides."""
    calls = {
        "broad": {"zswap_store": 2, "swap_free": 98},
        "narrow": {"zswap_store": 1, "swap_free": 1},
        "direct": {"zswap_store": 1, "swap_free": 999},
        "other": {"swap_free": 1},
    }
    calls["layer"] = {"vswap/swap_free_nr": 1}
    chosen = choose_tests(calls, {"direct": {"zswap_store"}, "narrow": {"Kernel"}})
    assert chosen == {
        "zswap_store": ["direct", "narrow", "broad"],
        "swap_free": ["other", "direct", "broad"],
        "vswap/swap_free_nr": ["layer"],
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
    assert main(["functions", "vswap_alloc", "--stage", "8"]) == 0
    assert capsys.readouterr().out.endswith("stages:   from 9 to 17\n  not at this stage\n")
    assert main(["functions", "remove_mapping"]) == 0
    assert "not in the model: " in capsys.readouterr().out
    assert main(["functions", "nonsense_at_all"]) == 2
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
    assert [(row.model, row.reason) for row in baseline_functions()] == [("", ""), ("", ""), ("", "never")]
