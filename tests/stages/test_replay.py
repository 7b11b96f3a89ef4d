"""The comparison of stages can fail: planted changes turn it red, and it says what is different."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import replay
from replay import Coverage, assert_same, changed_functions, differences
from workload import Step, play

from vswap_ref.series import at
from vswap_ref.series import stages as stages_module
from vswap_ref.series.series import Series
from vswap_ref.series.stages import LoadedStage, latest

HEADER = "---\nkernelspec:\n  name: python3\n---\n\n# Planted\n"
QUICK: dict[str, Any] = {"worlds": ("no room",), "nr_steps": 20}
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
        monkeypatch.setattr(stages_module, "stages_cache", lambda: tmp_path / "stages")
        forget()
        return at("planted")

    def forget() -> None:
        stages_module.stage_files.cache_clear()
        replay.functions.cache_clear()
        for name in [name for name in replay.sys.modules if name.startswith(f"{stages_module.ROOT}.splanted")]:
            del replay.sys.modules[name]

    yield make
    monkeypatch.undo()
    forget()


def restated(name: str, old: str = "", new: str = "") -> str:
    """The cell that restates a function of the latest stage, with one edit."""
    path, definition = Series(stages_module.CHECKOUT / "notebooks").find(name, latest())
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
    with pytest.raises(AssertionError, match=r"steps differ between stage \w+ and stage planted") as failure:
        assert_same(latest(), "planted", **QUICK)
    message = str(failure.value)
    assert "[no room] " in message
    assert "madvise" in message or "pageout" in message
    assert "the steps before the first difference:" in message
    assert inspect.cleandoc(message).count("\nstep ") <= replay.SHOWN


def test_a_changed_function_that_is_never_executed_turns_it_red(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is named as unreachable, or the test calls it itself."""
    plant('%%patch mm/folio.py\ndef idle_helper() -> int:\n    """Nobody calls it."""\n    return 1')
    with pytest.raises(AssertionError, match="does not execute idle_helper, which the patch changed"):
        assert_same(latest(), "planted", **QUICK)
    monkeypatch.setattr(replay, "play", lambda *arguments: [])
    assert_same(latest(), "planted", unreachable={"idle_helper"}, **QUICK)

    def call(stage: LoadedStage) -> int:
        return int(stage.module("folio").idle_helper()) if stage.id == "planted" else 1

    assert_same(latest(), "planted", also=call, **QUICK)
    monkeypatch.setenv("VSWAP_DEEP", "1")
    with pytest.raises(AssertionError, match=r"idle_helper is reached: take it out of `unreachable`"):
        assert_same(latest(), "planted", also=call, unreachable={"idle_helper"}, **QUICK)
    with pytest.raises(AssertionError, match="what `also` returns differs: 1, 2"):
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
    """Every kind of difference: operation, result, counters, time, length."""
    a = Step("w", "read", "line one\nline two", {"pswpin": 1, "pgfault": 2}, 100)
    b = Step("w", "read", "line one\nline 2", {"pswpin": 3, "pgfault": 2}, 101)
    assert differences([a, a], [a, a], ("x", "y")) == ""
    text = differences([a, a], [a, b, b], ("x", "y"))
    assert text.split("\n") == [
        "2 of 3 steps differ between x and y",
        "the steps before the first difference:",
        "    0: [w] read -> line one\nline two".replace("\n", " / "),
        "step 1: [w] read",
        "    result: line two | line 2",
        "    pswpin: +1 | +3",
        "    time: 100 ns | 101 ns",
        "step 2: [w] read",
        "    only one of the two runs has this step",
    ]


@pytest.mark.slow
def test_the_workload_reaches_every_operation_of_the_face() -> None:
    """An operation that is new in kernel.py has to be used in the workload; and it is repeatable."""
    stage = at(latest())
    face = [value for value in vars(stage.kernel).values() if getattr(value, "__module__", "") == stage.kernel.__name__]
    wanted = {name for item in face for name in (vars(item) if inspect.isclass(item) else [item.__name__])}
    wanted = {name for name in wanted if not name.startswith("__")} - FIELDS
    coverage = Coverage(stage, wanted)
    coverage.package = stage.kernel.__name__
    steps = coverage.of(lambda: play(stage, nr_steps=60))
    assert coverage.missing == set()
    assert differences(steps, play(stage, nr_steps=60), ("first", "second")) == ""


FIELDS = {
    "compressor", "max_pool_percent", "accept_threshold_percent", "shrinker", "enabled", "sizes", "defrag", "begin",
    "end", "operation", "detail", "reducer_override",
}  # fmt: skip
"""Names in classes of the face that are no functions (of dataclasses), or are called from C."""
