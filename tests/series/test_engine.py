"""The literate engine on a toy series of three stages and a branch."""

from __future__ import annotations

import inspect
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import TOY, copy_toy, edit, live, write_package

import vswap_ref
from vswap_ref.series import SeriesError
from vswap_ref.series.live_stage import LiveStage
from vswap_ref.series.notebook import Cell, read_cells
from vswap_ref.series.series import Series
from vswap_ref.series.source import free_names, split
from vswap_ref.series.stages import write_stages, write_texts
from vswap_ref.series.stitch import stitch
from vswap_ref.series.tree import apply_cells
from vswap_ref.series.weave import weave_tree
from vswap_ref.workshop.history import diff, find


@pytest.fixture
def toy(tmp_path: Path) -> Series:
    """The toy series in a folder of its own."""
    return copy_toy(tmp_path)


def woven(series: Series, stage: int | str) -> dict[str, str]:
    """Module texts of a stage."""
    return series.weave(stage)


def load(texts: dict[str, str], name: str, folder: Path) -> Any:
    """Import woven texts as a package and return its face module."""
    write_texts(folder / name, texts)
    sys.path.insert(0, str(folder))
    try:
        return __import__(f"{name}.mm.face", fromlist=["run"])
    finally:
        sys.path.remove(str(folder))


def test_every_stage_runs(toy: Series, tmp_path: Path) -> None:
    """Replace, insert after, move, rename, delete: each stage is a working package."""
    results = {stage: load(woven(toy, stage), f"toy_{stage}", tmp_path).run(3) for stage in (0, 1, 2, "variant")}
    assert results == {0: 3, 1: 6, 2: 12, "variant": 6}


def test_woven_text_is_ordinary_python(toy: Series) -> None:
    """Docstring, imports, comments, order; a replaced definition keeps its place, an inserted one gets its own."""
    text = woven(toy, 1)["mm/store.py"]
    assert text.startswith("# Woven from notebooks/")
    assert "from .state import Counter\n" in text
    order = list(split(Cell("store", 0, 0, "\n" + text)).definitions)
    assert order == ["__doc__", "STEP", "twice", "step"]
    assert "# A step." in woven(toy, 0)["mm/store.py"]
    assert set(woven(toy, 2)) == {"mm/__init__.py", "mm/count.py", "mm/face.py", "mm/state.py", "mm/store.py"}


def test_rename_reaches_every_use(toy: Series) -> None:
    """Code in other modules follows."""
    texts = woven(toy, 2)
    assert "advance(counter)" in texts["mm/count.py"]
    assert not any("step(" in text for text in texts.values())


def test_weave_then_stitch_changes_nothing(toy: Series) -> None:
    """stitch . weave is the identity on the notebooks."""
    before = {path.name: path.read_text() for path in toy.root.glob("*.md")}
    package = write_package(toy)
    assert stitch(toy, package) == []
    assert {path.name: path.read_text() for path in toy.root.glob("*.md")} == before


EDITS = {
    "a body": ("mm/face.py", "return counter.value", "return counter.value + 0"),
    "a docstring": ("mm/state.py", '"""A number."""', '"""A number that grows."""'),
    "a module docstring": ("mm/face.py", '"""What users call."""', '"""What people call."""'),
    "a new function": ("mm/face.py", "def run(", 'def rest() -> None:\n    """Do nothing."""\n\n\ndef run('),
    "a new import": (
        "mm/state.py",
        "from dataclasses import dataclass\n",
        "import math\nfrom dataclasses import dataclass\n",
    ),
}


@pytest.mark.parametrize("what", sorted(EDITS))
def test_an_edit_in_the_package_comes_back_by_weaving(toy: Series, what: str) -> None:
    """weave(stitch(edit)) says what the edit said."""
    path, old, new = EDITS[what]
    package = write_package(toy)
    target = package / path
    text = target.read_text()
    assert old in text
    edited = text.replace(old, new, 1)
    if what == "a new import":
        edited = edited.replace("value: int = 0", "value: int = math.floor(0.5)")
    target.write_text(edited)
    assert stitch(toy, package)
    again = woven(Series(toy.root), 2)[path]
    assert sorted(again.split("\n")) == sorted(edited.split("\n"))


def test_removed_definition_leaves_its_cell(toy: Series) -> None:
    """What is deleted in the package is deleted in the notebook, with the blank lines above it."""
    package, before = write_package(toy), toy.text("02-move")
    face = package / "mm/face.py"
    text = face.read_text()
    face.write_text(text + "\n\ndef spare() -> None:\n    pass\n")
    stitch(toy, package)
    assert "spare" in woven(Series(toy.root), 2)["mm/face.py"]
    face.write_text(text)
    stitch(Series(toy.root), package)
    assert Series(toy.root).text("02-move") == before


names = st.sampled_from(["alpha", "beta", "gamma"])


def cell(module: str, name: str, value: int, number: int = 1) -> Cell:
    """An export cell with one constant."""
    return Cell("nb", number, 1, f"%%patch mm/{module}.py\n{name} = {value}")


@given(st.permutations([("one", "A"), ("two", "B"), ("three", "C"), ("four", "D")]))
def test_order_of_cells_of_different_modules_does_not_matter(order: list[tuple[str, str]]) -> None:
    """Only the order within a module does."""
    tree, _ = apply_cells({}, [cell(module, name, 1, number) for number, (module, name) in enumerate(order)])
    modules = ["one", "two", "three", "four"]
    plain, _ = apply_cells({}, [cell(module, name, 1) for module, name in sorted(order)])
    assert weave_tree(tree, modules) == weave_tree(plain, modules)


@given(names, st.integers(0, 9), st.integers(0, 9))
def test_replacing_twice_is_replacing_once(name: str, first: int, second: int) -> None:
    """The last text wins, in the place of the first."""
    base, _ = apply_cells(
        {}, [cell("one", other, 0, number) for number, other in enumerate(("alpha", "beta", "gamma"))]
    )
    once, _ = apply_cells(base, [cell("one", name, second)])
    twice, _ = apply_cells(apply_cells(base, [cell("one", name, first)])[0], [cell("one", name, second)])
    assert weave_tree(once, ["one"]) == weave_tree(twice, ["one"])


BROKEN = {
    "unknown name": (
        ("00-more", "counter = Counter()", "counter = Kounter()"),
        r"00-more, cell 1, line 24: Kounter is unknown",
    ),
    "twice in a stage": (
        ("01-replace", "def twice(", "STEP = 3\n\n\ndef twice("),
        r"01-replace, cell 2, line 25: STEP of mm/store.py was defined before in 01-replace, cell 1, line 18",
    ),
    "twice in two notebooks of a stage": (
        ("00-more", "%%patch mm/face.py", "%%patch mm/store.py\nSTEP = 1\n```\n\n```{code-cell}\n%%patch mm/face.py"),
        r"00-more, cell 1, line 18: STEP of mm/store.py was defined before in 00-base, cell 2, line 34",
    ),
    "in two modules": (
        ("00-more", "def run(", "STEP = 3\n\n\ndef run("),
        r"00-more, cell 1, line 22: STEP is defined in mm/face.py and, at 00-base, cell 2, line 38, in mm/store.py",
    ),
    "a call up": (
        ("00-base", "counter.value += STEP", "counter.value += run(0)"),
        r"00-base, cell 2, line 45: step uses run of mm/face.py: a call up from mm/store.py",
    ),
    "no definition": (("00-base", "STEP = 1", "print(1)"), r"00-base, cell 2, line 39: only definitions"),
    "two statements on a line": (
        ("00-base", "STEP = 1", "STEP = 1; MORE = 2"),
        r"00-base, cell 2, line 39: two statements on one line",
    ),
    "twice in a cell": (
        ("00-base", "STEP = 1", "STEP = 1\nSTEP = 2"),
        r"00-base, cell 2, line 40: STEP was defined before in 00-base, cell 2, line 38",
    ),
    "a syntax error": (("00-more", "def run(times", "def run(times times"), r"00-more, cell 1, line 22: "),
    "a foreign import": (
        ("00-base", "from dataclasses", "import numpyro\nfrom dataclasses"),
        r"00-base, cell 1, line 21: imports numpyro; allowed",
    ),
    "delete what is not there": (
        ("0v-variant", "del twice", "del thrice"),
        r"0v-variant, cell 1, line 18: del thrice: mm/store.py has no such definition",
    ),
    "an odd path": (("00-more", "mm/face.py", "kernel.py"), r"00-more, cell 1, line 18: expected %%patch mm/a.py"),
    "an odd option": (
        ("01-replace", "--after STEP", "--before STEP"),
        r"01-replace, cell 2, line 25: expected %%patch",
    ),
    "after nothing": (
        ("01-replace", "--after STEP", "--after STAP"),
        r"01-replace, cell 2, line 25: --after STAP: mm/store.py has no such definition",
    ),
    "move what is not there": (
        ("02-move", "mm/store.py:twice", "mm/store.py:thrice"),
        r"02-move, cell 1, line 18: --move thrice: mm/store.py has no such definition",
    ),
    "move from nowhere": (("02-move", "mm/store.py:twice", "mm/stare.py:twice"), r"cell 1, line 18: --move twice"),
    "rename what is not there": (
        ("02-move", "--rename step", "--rename stop"),
        r"02-move, cell 1, line 18: --rename stop advance: no module defines stop",
    ),
    "rename to a name that exists": (
        ("02-move", "step advance", "step twice"),
        r"--rename step twice: twice stands already in 01-replace, cell 2, line 26",
    ),
    "rename to a word that is used": (
        ("02-move", "step advance", "step counter"),
        r"--rename step counter: counter stands already in 00-base, cell 1, line 19",
    ),
    "an odd rename": (("02-move", "--rename step advance", "--rename step"), r"02-move, cell 1, line 19: expected"),
    "delete no module": (
        ("02-move", "--rename step advance", "--delete mm/stare.py"),
        r"02-move, cell 1, line 18: --delete mm/stare.py: no such module",
    ),
    "no floor": (("00-more", "mm/face.py", "mm/fact.py"), r"00-more, cell 1, line 19: mm/fact.py has no floor"),
    "a circle": (
        (
            "02-move",
            "%%patch mm/face.py",
            "%%patch mm/store.py\nHOW = twice\n```\n\n```{code-cell}\n%%patch mm/face.py",
        ),
        r"02-move, cell 2, line 26: HOW uses twice of mm/count.py: a call up from mm/store.py",
    ),
}


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_errors_name_notebook_cell_and_line(toy: Series, what: str) -> None:
    """A mistake is found when weaving, and the message leads to it."""
    (notebook, old, new), message = BROKEN[what]
    with pytest.raises(SeriesError, match=message):
        edit(toy, notebook, old, new).weave_all()


def test_blame_and_diff(toy: Series) -> None:
    """Who wrote a definition, and what changed between two stages."""
    path, owned = find(toy, "run", 2)
    assert (path, owned.cell.notebook) == ("mm/face.py", "02-move")
    assert find(toy, "Counter", 2)[1].cell.notebook == "00-base"
    assert {"-STEP = 1", "+STEP = 2"} <= set(diff(toy, 0, 1, "STEP").split("\n"))
    assert diff(toy, 0, 1, "Counter") == ""
    with pytest.raises(SeriesError, match="close: twice"):
        find(toy, "twise", 2)
    with pytest.raises(SeriesError, match="there are 0, 1, 2, variant"):
        toy.tree(7)


def test_every_stage_is_a_folder_of_its_own(toy: Series, tmp_path: Path) -> None:
    """With the face; what a stage has no more goes when the stages are written again."""
    folder = tmp_path / "stages"
    for stage in ("s0", "s1"):
        (folder / stage / "mm").mkdir(parents=True)
        (folder / stage / "mm" / "count.py").write_text("OLD = 1\n")
    titles = write_stages(toy.root, folder)
    assert titles == {"0": "first", "1": "replaced", "2": "moved", "variant": "another second stage"}
    for stage in titles:
        paths = {path.relative_to(folder / f"s{stage}").as_posix() for path in (folder / f"s{stage}").rglob("*.py")}
        assert paths == {*woven(toy, stage), "__init__.py", "kernel.py"}
    assert "def twice" in (folder / "s2" / "mm" / "count.py").read_text()


def test_live_cells_take_effect_everywhere(toy: Series) -> None:
    """Replacing a function rebinds it in the modules that call it."""
    stage = live(toy)
    assert stage.module("face").run(3) == 6
    for one in toy.cells("02-move"):
        stage.apply(one)
    assert stage.module("face").run(3) == 12
    stage.apply(
        Cell(
            "02-move",
            0,
            0,
            "%%patch mm/store.py\ndef advance(counter: Counter) -> int:\n    counter.value += 100\n    return 0",
        )
    )
    assert stage.module("face").run(3) == 600
    assert "100" in inspect.getsource(stage.module("store").advance)


def test_location_line_and_diff(toy: Series) -> None:
    """One line a definition is stored; the diff is made when asked for."""
    from vswap_ref.series.magics import Locations

    stage = live(toy, "1", "01-replace")
    shown = Locations([change for one in toy.cells("01-replace") for change in stage.apply(one)])
    assert repr(shown) == "mm/store.py: STEP replaced, +1 -3\nmm/store.py: twice added, +4 -0"
    assert {"-STEP = 1", "+STEP = 2", "+    return step(counter)"} <= set(shown.diff().lines)
    assert "<details" in shown.diff()._repr_html_()


def test_live_stage_names_what_is_missing(toy: Series) -> None:
    """Without its own cells a first notebook leaves gaps; they close as the cells run."""
    stage = live(toy, "0", "00-base")
    assert stage.missing
    with pytest.raises(SeriesError, match=r"not complete yet.*(step|Counter)"):
        _ = stage.kernel
    for one in toy.cells("00-base"):
        if one.patch:
            stage.apply(one)
    assert not stage.missing
    assert stage.module("face").run(2) == 2


def test_stages_are_real_modules() -> None:
    """Tracebacks with lines, sources, pickles; a clear error for a stage that does not exist."""
    stage = vswap_ref.at(0)
    module = stage.module("swap_map")
    assert "def swap_duplicate(" in inspect.getsource(module.swap_duplicate)
    kernel = stage.Kernel(ram="1M", swap=[vswap_ref.Ssd("1M")])
    assert type(pickle.loads(pickle.dumps(kernel.zswap or vswap_ref.Zswap()))).__name__ == "Zswap"
    event = kernel.events[0]
    assert type(event).__module__ == "vswap_ref._stages.s0.kernel"
    assert pickle.loads(pickle.dumps(event)) == event
    with pytest.raises(ValueError, match=r"stage=99: expected one of 0"):
        vswap_ref.at(99)
    try:
        module.swap_duplicate(None, 0)
    except AttributeError as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        assert frame.line
        assert Path(frame.filename).exists()


def test_replacing_a_class_makes_kernels_stale() -> None:
    """A kernel booted before says so; a new one works."""
    from vswap_ref.series.stages import checkout_series

    series = checkout_series()
    stage = LiveStage(series, "0", "00-06-looking-and-checking")
    for one in series.cells("00-06-looking-and-checking"):
        if one.patch:
            stage.apply(one)
    kernel = stage.Kernel(ram="1M")
    owned = stage.tree["mm/state.py"].definitions["IoState"]
    stage.apply(Cell("x", 0, 0, f"%%patch mm/state.py\n{owned.text}"))
    assert kernel.vmstat is not None, "the same text again changes nothing"
    stage.apply(Cell("x", 0, 0, f"%%patch mm/state.py\n# Another.\n{owned.text}"))
    with pytest.raises(SeriesError, match="boot a new Kernel"):
        kernel.vmstat  # noqa: B018
    stage.Kernel(ram="1M").check()


@given(st.sampled_from(["x", "len", "dtype"]), st.sampled_from(["int", "Folio"]))
def test_free_names(name: str, kind: str) -> None:
    """Annotations count, locals do not."""
    text = f"def f(a: {kind}) -> int:\n    local = {name}(a)\n    return [i for i in local]\n"
    assert free_names(text) == {name, kind, "int"}


@pytest.mark.slow
def test_execution_is_deterministic(tmp_path: Path) -> None:
    """Two runs give the same bytes; an edit makes the pair out of date, and the check says so."""
    from vswap_ref.workshop import execute

    (tmp_path / "series.toml").write_text('[[stage]]\nid = 0\ntitle = "t"\nnotebooks = ["00-plain"]\n')
    head = (TOY / "00-base.md").read_text().split("# A toy")[0]
    (tmp_path / "00-plain.md").write_text(head + "```{code-cell}\nimport math\nprint(math.pi, object())\n```\n")
    series, texts = Series(tmp_path), []
    for _ in range(2):
        execute.execute(series, "00-plain")
        texts.append((tmp_path / "00-plain.ipynb").read_text())
    assert texts[0] == texts[1]
    assert "3.14159" in texts[0]
    assert execute.check_pairs(series) == 1
    with pytest.raises(SeriesError, match=r"00-plain\.ipynb is out of date"):
        execute.check_pairs(edit(series, "00-plain", "math.pi", "math.tau"))


def test_a_code_cell_that_is_never_closed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "01-open.md"
    path.write_text("# Open\n\n```{code-cell}\n:tags: [x]\nx = 1\n")
    with pytest.raises(SeriesError, match="01-open, line 5: the code cell"):
        read_cells(path.stem, path.read_text())
