"""Stages whose notebooks only patch a parent: stitching, the order of modules, the symbol map, loading."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import copy_toy, edit, write_package

from vswap_ref.series import SeriesError
from vswap_ref.series.series import Series
from vswap_ref.series.source import substitute
from vswap_ref.series.stitch import stitch
from vswap_ref.workshop.history import find, symbol_map


@pytest.fixture
def toy(tmp_path: Path) -> Series:
    """The toy series."""
    return copy_toy(tmp_path)


def change(package: Path, path: str, old: str, new: str) -> None:
    """An edit in the package."""
    text = (package / path).read_text()
    assert old in text
    (package / path).write_text(text.replace(old, new, 1))


def notebooks(series: Series) -> dict[str, str]:
    """Texts of all notebooks."""
    return {path.stem: path.read_text() for path in series.root.glob("*.md")}


def changed(series: Series, before: dict[str, str]) -> set[str]:
    """Notebooks whose text has changed."""
    return {name for name, text in notebooks(series).items() if text != before[name]}


OWNERS = {
    "last written in stage 0": ("mm/state.py", "value: int = 0", "value: int = 10", "00-base", "value: int = 10"),
    "replaced at stage 1": ("mm/store.py", "STEP = 2", "STEP = 20", "01-replace", "STEP = 20"),
    "added at stage 1, moved at stage 2": (
        "mm/count.py",
        "return advance(counter)",
        "return advance(counter) + 0 * advance(counter)",
        "01-replace",
        "return step(counter) + 0 * step(counter)",
    ),
    "written in stage 0, renamed at stage 2": (
        "mm/store.py",
        'def advance(counter: Counter) -> int:\n    """One advance."""',
        'def advance(counter: Counter) -> int:\n    """Advance once, so advance."""',
        "00-base",
        'def step(counter: Counter) -> int:\n    """Advance once, so step."""',
    ),
    "replaced at stage 2": ("mm/face.py", "Advance two at a time.", "Two at a time.", "02-move", "Two at a time."),
    "a docstring of stage 0": ("mm/face.py", "What users call.", "What people call.", "00-more", "What people call."),
}


@pytest.mark.parametrize("what", sorted(OWNERS))
def test_an_edit_goes_to_the_cell_that_wrote_the_definition(toy: Series, what: str) -> None:
    """In whichever stage; renames of later stages are undone in it; weaving gives the edit back."""
    path, old, new, owner, written = OWNERS[what]
    before, package = notebooks(toy), write_package(toy)
    change(package, path, old, new)
    assert len(stitch(toy, package)) == 1
    assert changed(toy, before) == {owner}
    assert written in notebooks(toy)[owner]
    assert Series(toy.root).weave(2)[path] == (package / path).read_text()
    assert stitch(Series(toy.root), package) == []


REFUSED = {
    "it would come back renamed": (
        [("mm/store.py", "One advance.", "One step.")],
        r"00-base, cell 2, line 43: advance may not use a name .*step to adv",
    ),
    "a definition of stage 0 may not use what exists from stage 1 on": (
        [
            ("mm/face.py", "    return counter.value\n", "    return counter.value\n\n\nLATE = run\n"),
            ("mm/store.py", "    counter.value += STEP", "    counter.value += STEP\n    _ = twice"),
        ],
        r"00-base, cell 2, line \d+: twice is unknown",
    ),
    "a name that is defined twice": (
        [("mm/store.py", "\nSTEP = 2", "\nSTEP = 2\nSTEP = 3")],
        r"mm/store.py, line \d+: STEP was defined before in mm/store.py, line",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_edit_that_does_not_fit_is_refused(toy: Series, what: str) -> None:
    """Nothing is written, the edits that would fit neither."""
    edits, message = REFUSED[what]
    before, package = notebooks(toy), write_package(toy)
    for one in edits:
        change(package, *one)
    with pytest.raises(SeriesError, match=message):
        stitch(toy, package)
    assert not changed(toy, before)


def test_a_new_definition_goes_to_the_cell_that_uses_it(toy: Series) -> None:
    """Above its only user if that is the neighbour below, else below the neighbour above."""
    package = write_package(toy)
    helper = "def helper() -> int:\n    return 1\n\n\n"
    change(package, "mm/face.py", "def run(", f"{helper}def run(")
    change(package, "mm/face.py", "    return counter.value", "    return counter.value * helper()")
    change(package, "mm/store.py", "\n\n\ndef advance(", f"\n\n\n{helper.replace('helper', 'other')}def advance(")
    assert stitch(toy, package)
    again = Series(toy.root)
    assert find(again, "helper", 2)[1].cell.notebook == "02-move"
    assert find(again, "other", 2)[1].cell.notebook == "01-replace"
    for path in ("mm/face.py", "mm/store.py"):
        assert sorted(again.weave(2)[path].split("\n")) == sorted((package / path).read_text().split("\n"))


def test_a_definition_whose_text_ends_another_is_left_alone(toy: Series) -> None:
    """``STEP = 2`` is not found in ``BIG_STEP = 2``."""
    toy = edit(toy, "01-replace", "STEP = 2\n", "BIG_STEP = 2\nSTEP = 2\n")
    package = write_package(toy)
    change(package, "mm/store.py", "\nSTEP = 2", "\nSTEP = 3")
    stitch(toy, package)
    assert "BIG_STEP = 2\nSTEP = 3\n" in notebooks(toy)["01-replace"]


words = st.sampled_from(["a", "b", "c", "ab", "__a"])


@given(st.lists(words), st.permutations(["x", "y", "z"]))
def test_undoing_renames_is_exact(text: list[str], new: list[str]) -> None:
    """Renames to names that nothing had before can be undone, whatever the text."""
    renames = [("a", new[0]), ("b", "a"), (new[0], new[1])]
    before = " ".join(text)
    after = substitute(before, renames)
    assert substitute(after, [(y, x) for x, y in reversed(renames)]) == before


def test_a_rename_follows_in_code_docstrings_and_comments(toy: Series) -> None:
    """Whole words only."""
    toy = edit(toy, "00-base", "# A step.", "# A step, not a misstep or step_on; `step` and x.step.")
    toy = edit(toy, "01-replace", "STEP = 2\n", "OTHER = 2\n")
    toy = edit(toy, "01-replace", "--after STEP", "--after OTHER")
    assert "# A advance, not a misstep or step_on; `advance` and x.advance." in toy.weave(2)["mm/store.py"]


def test_a_renamed_definition_can_be_replaced_in_the_same_stage(toy: Series) -> None:
    """Rename first, then write the new text."""
    cell = '%%patch mm/store.py\ndef advance(counter: Counter) -> int:\n    """Far."""\n```\n```{code-cell}\n'
    toy = edit(toy, "02-move", "%%patch mm/face.py", cell + "%%patch mm/face.py")
    assert find(toy, "advance", 2)[1].cell.notebook == "02-move"
    assert '"""Far."""' in toy.weave(2)["mm/store.py"]


NEW_MODULE = '''
```{code-cell}
%%patch mm/deep/lookup.py
"""A module in a folder."""


def look(counter: Counter) -> int:
    """Look."""
    return counter.value
```

```{code-cell}
%%patch mm/store.py
def peek(counter: Counter) -> int:
    """Look from below."""
    return look(counter)
```
'''


def test_a_stage_can_insert_a_module(toy: Series) -> None:
    """A module that exists from a stage on has its place in that stage's table; earlier stages do not know it."""
    path = toy.path("01-replace")
    path.write_text(path.read_text() + NEW_MODULE)
    with pytest.raises(SeriesError, match=r"01-replace, cell 3, line \d+: mm/deep/lookup.py has no floor"):
        Series(toy.root).weave(1)
    title = 'title = "replaced"'
    toy = edit(toy, "series.toml", title, f'{title}\nabove = {{ "deep/lookup" = "state" }}')
    assert toy.order(0) == ["state", "store", "count", "face"]
    assert toy.order(1) == toy.order(2) == ["state", "deep/lookup", "store", "count", "face"]
    texts = toy.weave(1)
    assert "from ..state import Counter\n" in texts["mm/deep/lookup.py"]
    assert "from .deep.lookup import look\n" in texts["mm/store.py"]
    assert {"mm/__init__.py", "mm/deep/__init__.py"} <= set(texts)
    assert "mm/deep/lookup.py" not in toy.weave(0)


def test_a_stage_can_move_a_module_to_another_floor(toy: Series) -> None:
    """What may call up at no stage before may do so from this one on."""
    toy = edit(
        toy, "02-move", "%%patch mm/face.py", "%%patch mm/store.py\nUP = run\n```\n```{code-cell}\n%%patch mm/face.py"
    )
    with pytest.raises(SeriesError, match="a call up"):
        toy.weave(2)
    toy = edit(toy, "02-move", "UP = run", "UP = run\n\ndel UP")
    title = 'title = "moved"'
    toy = edit(toy, "series.toml", title, f'{title}\nabove = {{ count = "face" }}')
    assert toy.order(2) == ["state", "store", "face", "count"]
    with pytest.raises(SeriesError, match=r"run uses twice of mm/count.py: a call up from mm/face.py"):
        toy.weave(2)
    with pytest.raises(SeriesError, match="stage 2: count is above ground, which has no floor"):
        edit(toy, "series.toml", 'count = "face"', 'count = "ground"').order(2)


def test_symbol_map(toy: Series) -> None:
    """The life of every symbol; a renamed one continues under its new name."""
    table = symbol_map(toy)
    lives = {
        name: [(event["stage"], event["verb"], event["source"], event["module"]) for event in events]
        for name, events in table["symbols"].items()
    }
    step = [("0", "added", "", "mm/store.py"), ("2", "renamed", "step", "mm/store.py")]
    assert lives == {
        "Counter": [("0", "added", "", "mm/state.py")],
        "STEP": [("0", "added", "", "mm/store.py"), ("1", "replaced", "", "mm/store.py")],
        "advance": step,
        "run": [("0", "added", "", "mm/face.py"), ("2", "replaced", "", "mm/face.py")],
        "step": step,
        "twice": [("1", "added", "", "mm/store.py"), ("2", "moved", "mm/store.py", "mm/count.py")],
    }
    assert [stage["id"] for stage in table["stages"]] == ["0", "1", "2"]
    assert table["symbols"]["run"][1]["notebook"] == "02-move"
    branch = symbol_map(toy, "variant")
    assert [event["verb"] for event in branch["symbols"]["twice"]] == ["added", "removed"]
    assert [stage["id"] for stage in branch["stages"]] == ["0", "1", "variant"]


def test_series_toml_is_checked(toy: Series) -> None:
    """A parent that does not exist, a key that means nothing."""
    with pytest.raises(SeriesError, match="stage variant: no stage 7 before it"):
        edit(toy, "series.toml", "parent = 1", "parent = 7")
    with pytest.raises(SeriesError, match="stage variant: expected the keys id, title, notebooks, parent, above"):
        edit(toy, "series.toml", "parent = 7", "parents = 1")
