"""The live stage: after every cell the running modules are what the sources say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toys import cell, copy_toy, edit, live

from vswap_ref.series import SeriesError
from vswap_ref.series.live_stage import LiveStage
from vswap_ref.series.series import Series


@pytest.fixture
def toy(tmp_path: Path) -> Series:
    """The toy series."""
    return copy_toy(tmp_path)


def names(stage: LiveStage, module: str) -> set[str]:
    """What a live module binds."""
    return {name for name in vars(stage.module(module)) if not name.endswith("__")}


def test_rename_rebinds_every_caller(toy: Series) -> None:
    """The old name is gone from every module, the new one is bound where it is used, and callers call it."""
    stage = live(toy)
    assert stage.module("face").run(3) == 6
    stage.apply(cell("%patch --rename step advance"))
    assert not any("step" in names(stage, module) for module in ("store", "face"))
    assert "advance" in names(stage, "store") & names(stage, "face")
    assert stage.module("face").run(3) == 6
    assert stage.module("store").twice.__code__.co_names == ("advance",)
    assert not stage.missing


def test_several_mechanical_lines_in_a_cell(toy: Series) -> None:
    """They act in their order."""
    stage = live(toy)
    changes = stage.apply(cell("%patch --rename step advance\n%patch --rename twice two\n%patch --rename advance go"))
    assert [str(change) for change in changes] == [
        "mm/store.py: advance renamed from step, +5 -5",
        "mm/store.py: two renamed from twice, +1 -1",
        "mm/store.py: go renamed from advance, +5 -5",
    ]
    assert {"go", "two"} <= names(stage, "store")
    assert "advance" not in names(stage, "store") | names(stage, "face")


def test_move_takes_the_binding_along(toy: Series) -> None:
    """The attribute leaves its old home; the new one's globals are the new module's; callers are rebound."""
    stage = live(toy)
    four = "def four(counter: Counter) -> int:\n    twice(counter)\n    return twice(counter)"
    stage.apply(cell(f"%%patch mm/face.py\n{four}"))
    stage.apply(cell("%patch --move mm/store.py:twice mm/count.py"))
    assert "twice" not in names(stage, "store")
    assert stage.module("count").twice is stage.module("face").twice
    assert stage.module("count").twice.__globals__ is vars(stage.module("count"))
    assert stage.module("face").four(stage.module("state").Counter()) == 8


def test_moving_the_last_definition_drops_the_module(toy: Series) -> None:
    """A module without definitions is not there any more, in sys.modules either."""
    stage = live(toy)
    name = stage.module("face").__name__
    stage.apply(cell("%patch --move mm/face.py:run mm/count.py"))
    assert "mm/face.py" not in stage.tree
    assert name not in sys.modules
    assert not hasattr(sys.modules[name.rpartition(".")[0]], "face")
    assert stage.module("count").run(1) == 2


def test_del_removes_the_name_everywhere(toy: Series) -> None:
    """Callers miss it, and the error names both."""
    stage = live(toy)
    stage.apply(cell("%%patch mm/store.py\ndef __inner() -> int:\n    return 1"))
    stage.apply(cell("%%patch mm/face.py\ndef outer() -> int:\n    return __inner()"))
    assert "__inner" in names(stage, "face")
    stage.apply(cell("%%patch mm/store.py\ndel step, __inner"))
    assert "__inner" not in names(stage, "face")
    stage.apply(cell("%%patch mm/face.py\ndel outer"))
    assert "step" not in names(stage, "store") | names(stage, "face")
    with pytest.raises(SeriesError, match=r"missing: step \(needed by (run|twice)\)"):
        _ = stage.kernel
    stage.apply(cell("%%patch mm/store.py\ndef step(counter: Counter) -> int:\n    return 7"))
    assert not stage.missing
    assert stage.module("face").step(None) == 7


def test_deleting_a_module_removes_its_names_everywhere(toy: Series) -> None:
    """Also names that other modules had imported; what was made from one of them goes too."""
    stage = live(toy)
    stage.apply(cell("%%patch mm/face.py\nclass More(Counter):\n    pass"))
    stage.apply(cell("%patch --delete mm/state.py"))
    assert "Counter" not in names(stage, "store") | names(stage, "face")
    assert "More" not in names(stage, "face")
    with pytest.raises(SeriesError, match=r"missing: Counter \(needed by .*, More"):
        _ = stage.kernel


def test_what_was_made_from_a_definition_is_made_again(toy: Series) -> None:
    """Tables, subclasses and defaults hold values; they are executed again, in turn."""
    stage = live(toy)
    stage.apply(cell("%%patch mm/face.py\nTABLE = {name: STEP for name in 'ab'}\nCOPY = dict(TABLE)"))
    stage.apply(cell("%%patch mm/face.py\ndef far(by: int = STEP) -> int:\n    return by"))
    stage.apply(cell("%%patch mm/store.py\nSTEP = 5"))
    face = stage.module("face")
    assert (face.TABLE, face.COPY, face.far()) == ({"a": 5, "b": 5}, {"a": 5, "b": 5}, 5)


def test_an_import_that_no_one_uses_any_more_goes(toy: Series) -> None:
    """A module binds exactly what its definitions use."""
    stage = live(toy)
    stage.apply(cell("%%patch mm/face.py\nimport math\n\ndef root(x: int) -> float:\n    return math.sqrt(x)"))
    assert stage.module("face").root(4) == 2
    stage.apply(cell("%%patch mm/face.py\ndel root"))
    assert "math" not in names(stage, "face")


def test_a_cell_that_fails_changes_nothing(toy: Series) -> None:
    """Neither the sources nor the modules, whatever is wrong with it."""
    stage = live(toy)
    tree, before = stage.tree, {module: dict(vars(stage.module(module))) for module in ("state", "store", "face")}
    for body, error in (
        ("%%patch mm/store.py\nSTEP = 1 // 0", ZeroDivisionError),
        ("%%patch mm/store.py\nSTEP = 9\n\ndef run() -> None: ...", SeriesError),
        ("%patch --rename step advance\n%patch --rename stop go", SeriesError),
    ):
        with pytest.raises(error):
            stage.apply(cell(body))
        assert stage.tree == tree
        assert not stage.changes
    after = {module: dict(vars(stage.module(module))) for module in before}
    assert {module: set(after[module]) for module in after} == {module: set(before[module]) for module in before}
    assert stage.module("face").run(3) == 6


def test_a_planted_mistake_is_there_for_a_while(toy: Series) -> None:
    """It runs inside the block; afterwards the sources, and what runs, are as before, whatever happened in it."""
    stage = live(toy)
    before = stage.tree

    def run_with(name: str, old: str, new: str) -> int:
        with stage.planted(name, old, new) as changed:
            return int(changed.module("face").run(3))

    assert run_with("STEP", "2", "20") == 60
    with pytest.raises(TypeError):
        run_with("STEP", "2", "None")
    with pytest.raises(ZeroDivisionError):
        run_with("STEP", "2", "2 // 0")
    assert stage.tree == before
    assert stage.module("face").run(3) == 6
    with pytest.raises(SeriesError, match="name='STAP': stage 2 defines no such thing"):
        run_with("STAP", "", "")
    with pytest.raises(SeriesError, match=r"old='3': mm/store\.py: STEP has no such text"):
        run_with("STEP", "3", "")


ORDERS = [
    "%patch --rename step advance",
    "%patch --rename advance step",
    "%patch --move mm/store.py:twice mm/count.py",
    "%patch --move mm/count.py:twice mm/store.py",
    "%%patch mm/store.py\nSTEP = 3",
    "%%patch mm/store.py\nSTEP = 4",
    "%%patch mm/face.py\nFAR = STEP + 1",
    "%%patch mm/face.py\ndel FAR",
    "%%patch mm/state.py\n@dataclass\nclass Counter:\n    value: int = 1",
    "%%patch mm/store.py\ndel twice",
    "%%patch mm/store.py\ndef twice(counter: Counter) -> int:\n    return -1",
    "%patch --delete mm/store.py",
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(ORDERS), max_size=6))
def test_a_changed_stage_equals_one_that_began_so(tmp_path_factory: Any, orders: list[str]) -> None:
    """After any cells, every module binds what a stage does that is loaded from the sources as they are now."""
    toy = copy_toy(tmp_path_factory.mktemp("toy"))
    stage = live(toy)
    for order in orders:
        try:
            stage.apply(cell(order))
        except SeriesError:
            continue
    seen = [bindings(stage), stage.missing]
    fresh = live(toy)
    fresh._become({})
    assert bindings(fresh) == {}
    fresh._become(stage.tree)
    assert [bindings(fresh), fresh.missing] == seen


def bindings(stage: LiveStage) -> dict[str, dict[str, object]]:
    """Module -> what it binds: constants by value, everything else by the module that it was made in."""
    return {
        path: {
            name: getattr(value, "__module__", value)
            for name, value in stage._namespace(path).items()
            if not name.endswith("__")
        }
        for path in stage.tree
    }


def test_the_live_stage_of_a_patch_begins_as_its_parent(toy: Series) -> None:
    """A notebook of stage 1 starts from stage 0; with its cells run it is stage 1."""
    stage = live(toy, "1", "01-replace")
    assert stage.module("face").run(3) == 3
    for one in toy.cells("01-replace"):
        stage.apply(one)
    assert stage.module("face").run(3) == 6
    assert stage.tree == toy.tree(1)


def test_a_variant_begins_as_its_parent(toy: Series) -> None:
    """Stage "variant" branches off stage 1."""
    stage = live(toy, "variant", "0v-variant")
    assert "twice" in names(stage, "store")
    for one in toy.cells("0v-variant"):
        stage.apply(one)
    assert "twice" not in names(stage, "store")


@pytest.fixture
def shell(toy: Series, monkeypatch: pytest.MonkeyPatch) -> Any:
    """IPython with the magics, on the toy series."""
    from IPython.core.interactiveshell import InteractiveShell

    from vswap_ref.series import magics

    monkeypatch.setattr(magics, "checkout_series", lambda: Series(toy.root))
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "vswap_ref.series")
    yield shell
    InteractiveShell.clear_instance()


def run(shell: Any, body: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What running a cell prints, its result included."""
    capsys.readouterr()
    shell.run_cell(body)
    return capsys.readouterr().out


def test_magics_in_a_notebook(toy: Series, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Several %patch lines in a cell print a line each; %seal compares and counts."""
    run(shell, "%stage 2 02-move", capsys)
    cells = [one.body for one in toy.cells("02-move")]
    assert "not sealed: mm/count.py differs from stage 2" in run(shell, "%seal", capsys)
    assert run(shell, cells[0], capsys).splitlines() == [
        "mm/count.py: twice moved from mm/store.py, +0 -0",
        "mm/store.py: advance renamed from step, +5 -5",
    ]
    assert "mm/face.py: run replaced, +2 -2" in run(shell, cells[1], capsys)
    shell.run_cell("from vswap_ref.series import live")
    assert "12" in run(shell, "live.module('face').run(3)", capsys)
    sealed = run(shell, "%seal", capsys)
    assert "sealed: the live stage equals stage 2" in sealed
    assert "symbols renamed" in sealed
    assert "kernel" not in sealed


def test_seal_shows_the_kernels_own_numbers(toy: Series, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A stage's diffstat in series.toml stands beside the model's."""
    edit(
        toy,
        "series.toml",
        'title = "replaced"',
        'title = "replaced"\ndiffstat = "7 files, 120 insertions, 34 deletions"',
    )
    run(shell, "%stage 1 01-replace", capsys)
    for one in toy.cells("01-replace"):
        shell.run_cell(one.body)
    lines = run(shell, "%seal", capsys).rstrip().splitlines()
    assert [line.split() for line in lines[-6:]] == [
        ["model", "kernel"],
        ["modules", "1", "7"],
        ["symbols", "added", "1"],
        ["symbols", "replaced", "1"],
        ["lines", "added", "5", "120"],
        ["lines", "removed", "3", "34"],
    ]
    with pytest.raises(SeriesError, match="stage 1: diffstat needs files, insertions and deletions"):
        edit(toy, "series.toml", "120 insertions, ", "")


def test_seal_leaves_out_what_is_zero(toy: Series, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A first notebook removes nothing; a row stays if the kernel's number is not 0."""
    deeds = ["modules", "symbols added", "lines added"]
    for diffstat, rows in (("", deeds), ("7 files, 0 insertions, 34 deletions", ["", *deeds, "lines removed"])):
        edit(toy, "series.toml", 'title = "first"', f'title = "first"\ndiffstat = "{diffstat}"')
        run(shell, "%stage 0 00-base", capsys)
        for one in toy.cells("00-base"):
            shell.run_cell(one.body)
        table = run(shell, "%seal", capsys).partition("sealed: the live stage equals stage 0\n")[2]
        assert [line[:17].strip() for line in table.rstrip().splitlines()] == rows
        toy = edit(toy, "series.toml", f'\ndiffstat = "{diffstat}"', "")


def test_errors_of_a_live_cell_name_its_line(toy: Series, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, without a traceback; the line is that of the cell."""
    run(shell, "%stage 1 01-replace", capsys)
    shown = run(shell, "%%patch mm/store.py\nSTEP = 1\nprint(2)", capsys)
    assert "SeriesError: 01-replace, this cell, line 3: only definitions may stand" in shown
    assert "Traceback" not in shown
