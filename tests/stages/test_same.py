"""The comparison of stages can fail: planted changes turn it red, and it says what is different."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from chapters import stored_outputs

from vswap_ref import _stages
from vswap_ref.lab import same
from vswap_ref.lab.same import Coverage, assert_same, changed_functions, compare_runs
from vswap_ref.lab.same_workload import Step, play
from vswap_ref.series import at
from vswap_ref.series import stages as stages_module
from vswap_ref.series.series import Series
from vswap_ref.series.stages import LoadedStage, latest
from vswap_ref.workshop.history import find

HEADER = "---\nkernelspec:\n  name: python3\n---\n\n# Planted\n"
QUICK: dict[str, Any] = {"worlds": ("file",), "nr_steps": 20}
Plant = Callable[..., LoadedStage]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    """Gives a function that makes a stage "planted" on the latest one, out of the bodies of patch cells."""
    base, root = latest(), tmp_path / "notebooks"

    def make(*cells: str) -> LoadedStage:
        shutil.copytree(stages_module.CHECKOUT / "notebooks", root, ignore=shutil.ignore_patterns("*.ipynb"))
        text = HEADER + "".join(f"\n```{{code-cell}}\n{body}\n```\n" for body in cells)
        (root / "planted.md").write_text(text, encoding="utf-8")
        with (root / "series.toml").open("a", encoding="utf-8") as file:
            file.write(f'\n[[stage]]\nid = "planted"\ntitle = "planted"\nnotebooks = ["planted"]\nparent = {base}\n')
        monkeypatch.setattr(stages_module, "notebooks_root", lambda: root)
        monkeypatch.setattr(stages_module, "BUILD", tmp_path / "stages")
        monkeypatch.setattr(_stages, "__path__", [str(tmp_path / "stages")])
        forget()
        return at("planted")

    def forget() -> None:
        stages_module.stage_files.cache_clear()
        same.functions.cache_clear()
        same.played.cache_clear()
        for name in [name for name in sys.modules if name.startswith("vswap_ref._stages.splanted")]:
            del sys.modules[name]

    yield make
    monkeypatch.undo()
    forget()


def restated(name: str, old: str = "", new: str = "") -> str:
    """The cell that restates a function of the latest stage, with one edit."""
    path, definition = find(Series(stages_module.CHECKOUT / "notebooks"), name, latest())
    assert old in definition.text
    return f"%%patch {path}\n{definition.text.replace(old, new, 1)}"


def test_a_patch_without_functional_change_is_the_same(plant: Plant) -> None:
    """A function is restated with other words; another one is new and is called by it."""
    helper = 'def twice(number: int) -> int:\n    """Two times."""\n    return number * 2'
    cell = restated("do_munmap", '"""\n', '"""\n    twice(1)\n')
    plant(f"{cell}\n\n\n{helper}")
    assert changed_functions(latest(), "planted").after == {"do_munmap", "twice"}
    assert changed_functions(latest(), "planted").before == {"do_munmap"}
    assert_same(latest(), "planted", **QUICK)


def test_a_planted_change_turns_it_red(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """At one of the two stages a function returns something else: the first step that differs is named."""
    stage = plant(restated("do_munmap", '"""\n', '"""\n    # as before\n'))
    kernel = stage.module("api")
    genuine = kernel.do_madvise
    monkeypatch.setattr(kernel, "do_madvise", lambda *arguments: genuine(*arguments) + 1)
    with pytest.raises(
        AssertionError, match=r"stage \w+ and stage planted, [\d,]+ operations: NOT the same"
    ) as failure:
        assert_same(latest(), "planted", **QUICK)
    message = str(failure.value)
    assert "[file] " in message
    assert "madvise" in message or "pageout" in message
    assert message.count("\n    ") <= same.SHOWN


def test_a_changed_function_that_is_never_executed_turns_it_red(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is named as unreachable, or the test calls it itself."""
    plant('%%patch mm/folio.py\ndef idle_helper() -> int:\n    """Nobody calls it."""\n    return 1')
    with pytest.raises(AssertionError, match="does not execute idle_helper, which the patch changed"):
        assert_same(latest(), "planted", **QUICK)
    monkeypatch.setattr(same, "play", lambda *arguments: [])
    same.played.cache_clear()
    assert_same(latest(), "planted", unreachable={"idle_helper"}, **QUICK)

    def call(stage: LoadedStage) -> int:
        return int(stage.module("folio").idle_helper()) if stage.id == "planted" else 1

    assert_same(latest(), "planted", also=call, **QUICK)
    same.played.cache_clear()
    monkeypatch.setenv("VSWAP_DEEP", "1")
    with pytest.raises(AssertionError, match=r"idle_helper is reached: take it out of `unreachable`"):
        assert_same(latest(), "planted", also=call, unreachable={"idle_helper"}, **QUICK)
    with pytest.raises(AssertionError, match=r"also: result: 1 \| 2"):
        assert_same(latest(), "planted", also=lambda stage: call(stage) + (stage.id == "planted"), **QUICK)


def test_a_renamed_function_counts_under_both_names(plant: Plant) -> None:
    """The old name has to be executed before, the new one after."""
    plant("%patch --rename shrink_lruvec scan_lruvec")
    changed = changed_functions(latest(), "planted")
    assert (changed.before, changed.after) == ({"shrink_lruvec"}, {"scan_lruvec"})
    assert_same(latest(), "planted", **QUICK)


def test_stages_must_be_in_line(plant: Plant) -> None:
    """The second one is built on the first."""
    plant(restated("do_munmap"))
    with pytest.raises(ValueError, match="before='planted': stage 0 is not built on it"):
        changed_functions("planted", 0)


def test_differences_are_readable() -> None:
    """Every kind of difference: result, requests, counters, state, length; the time; what is intended."""
    a = Step("w", "read", "one\ntwo", {"pswpin": 1}, 100, ("read 3",), state={"Folio.swap of folio 1": "7"})
    b = Step("w", "read", "one\n2", {"pswpin": 3}, 101, ("read 4",), state={"Folio.swap of folio 1": "8"})
    assert compare_runs([a, a], [a, a], ("x", "y")).same
    found = compare_runs([a, a], [a, b, b], ("x", "y"), {"time": "it is faster"})
    assert not found.same
    assert found.report().split("\n") == [
        "x and y, 3 operations: NOT the same",
        "  results                     4  2 DIFFERENT, first in step 1 [w] read: result: one / two | one / 2",
        "  device requests             2  1 DIFFERENT, first in step 1 [w] read: request: read 3 | read 4",
        "  counters                    2  1 DIFFERENT, first in step 1 [w] read: pswpin: 1 | 3",
        "  requests for memory         0  equal",
        "  locks, look-ups             0  equal",
        "  time                        2  equal but for time",
        "  state                       2  1 DIFFERENT, first in step 1 [w] read: folio 1: Folio.swap: 7 | 8",
        "  intended: time: it is faster",
        "    1 [w] read: result: one / two | one / 2",
        "    1 [w] read: request: read 3 | read 4",
        "    1 [w] read: pswpin: 1 | 3",
        "    1 [w] read: folio 1: Folio.swap: 7 | 8",
        "    2 [w] read: only one of the two runs has this step: None | [w] read",
    ]
    assert "first in step 1 [w] read: pswpin: 1 | 3" in found._repr_html_()


def test_what_is_intended_has_to_happen() -> None:
    """A difference that the patch promises and that is not there is an error, too."""
    a, b = (Step("w", "read", "", {}, ns) for ns in (100, 101))
    assert compare_runs([a], [b], ("x", "y"), {"time": "it is faster"}).same
    found = compare_runs([a], [a], ("x", "y"), {"time": "it is faster"})
    assert not found.same
    assert "BUT IT IS THE SAME" in repr(found)


PATCHES = range(1, 9)


@pytest.mark.parametrize("patch", PATCHES)
def test_a_chapter_shows_that_only_what_is_meant_differs(patch: int) -> None:
    """It compares with the stage before, all that is compared; the mistake that it plants turns the comparison red."""
    shown = [(cell, output) for cell, output in stored_outputs(f"{patch:02}-") if "compare(" in cell]
    (whole, same_output), *planted = shown
    assert f"\ncompare({patch - 1}, {patch})" in whole
    assert re.match(r"stage \d+ and stage \d+, \d\d,\d\d\d operations: (the same|as intended)\n", same_output)
    assert planted
    for cell, output in planted:
        assert "live.planted(" in cell
        assert re.match(r"stage \d+ and stage \d+ as changed here, [\d,]+ operations: NOT the same\n", output)


@pytest.mark.deep
@pytest.mark.parametrize("patch", PATCHES)
def test_only_what_is_meant_differs(patch: int) -> None:
    """Results, requests, counters, costs, times and state; every function that the patch changed is executed."""
    found = assert_same(patch - 1, patch)
    assert min(found.compared.values()) > 1000


@pytest.mark.slow
def test_the_workload_reaches_every_operation_of_the_face() -> None:
    """An operation that is new in kernel.py has to be used in the workload; and it is repeatable.

    The files of debugfs are left out: which there are is what some patches change.
    """
    stage = at(latest())
    face = [item for item in vars(stage.kernel).values() if getattr(item, "__module__", "") == stage.kernel.__name__]
    coverage = Coverage(function for item in face for function in functions_of(item))
    program: dict[str, Any] = {"worlds": ["large folios", "one cluster, version 1"], "nr_steps": 60}
    steps = coverage.of(lambda: play(stage, **program))
    assert coverage.missing == {"debugfs"}
    assert compare_runs(steps, play(stage, **program), ("first", "second")).same


def functions_of(item: Any) -> list[FunctionType]:
    """A function of the face itself, or the methods and properties of a class, without the special ones."""
    if not inspect.isclass(item):
        return [item] if isinstance(item, FunctionType) else []
    parts = [(value.fget, value.fset) if isinstance(value, property) else (value,) for value in vars(item).values()]
    plain = [inspect.unwrap(getattr(part, "__func__", part)) for pair in parts for part in pair if part is not None]
    return [part for part in plain if isinstance(part, FunctionType) and not part.__name__.startswith("__")]
