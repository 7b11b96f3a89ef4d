"""Pages that are made from the stages: what they say is what the code does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "book"))

import function_page  # noqa: E402
import stage_pages  # noqa: E402

from vswap_ref.series.stages import checkout_series, latest, stages  # noqa: E402
from vswap_ref.workshop.history import find  # noqa: E402

CHECK = 'def check_zswap(s):\n    """Words."""\n    expect(s.a, "one")\n    expect(s.b, "two", b=s.b)\n'


def test_states_of_an_invariant() -> None:
    """Not yet before the first stage that asserts it, suspended where a later one does not."""
    changed = CHECK.replace('    expect(s.a, "one")\n', "").replace('"two"', '"three"')
    ledger = stage_pages.invariant_ledger({"0": CHECK, "1": changed, "2": CHECK})
    assert ledger == {
        "one": ["holds", "suspended", "holds"],
        "two": ["holds", "suspended", "holds"],
        "three": ["not yet", "holds", "suspended"],
    }
    assert stage_pages.invariants(CHECK) == {"one": "check_zswap", "two": "check_zswap"}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (["holds"] * 4, "holds"),
        (["holds", "holds", "suspended", "holds"], "holds at 0-1, suspended at 2, holds at 3"),
        (["not yet", "not yet", "not yet", "holds"], "not yet at 0-2, holds at 3"),
    ],
)
def test_states_are_told_in_runs(row: list[str], text: str) -> None:
    """First and last stage of each run, or one word for all."""
    assert stage_pages.spans(row, ["0", "1", "2", "3"]) == text


def test_the_ledger_has_every_call() -> None:
    """As many invariants as texts are given to ``expect``."""
    page = stage_pages.invariants_page("<!-- ledger -->")
    text = checkout_series().weave(latest())["mm/check.py"]
    assert text.count("expect(") - 1 >= len(stage_pages.invariants(text)) > 50
    assert "| no folio lock leaked | `check_folios` | holds" in page


def test_a_symbol_shows_what_each_stage_did() -> None:
    """Verbs behind their stage."""
    events = [{"stage": "0", "verb": "added"}, {"stage": "2", "verb": "moved"}, {"stage": "2", "verb": "replaced"}]
    assert stage_pages.life(events) == "new at 0, moved and changed at 2"
    assert "| `zswap_store` | mm/zswap" in stage_pages.symbols_page("<!-- symbols -->")


def test_the_page_on_the_engine_shows_real_output() -> None:
    """Every command runs; what it prints stands below it."""
    text = (ROOT / "book" / "how-this-book-is-built.md").read_text(encoding="utf-8")
    page = stage_pages.engine_page(text)
    assert "<!--" not in page
    for name in ("stages", "blame", "diff", "symbols", "export", "stitch"):
        assert f"$ vswap-ref {name}" in page
    path, definition = find(checkout_series(), "folio_alloc_swap", latest())
    assert f"{path}: folio_alloc_swap is written in {definition.where}" in page
    assert "mm/zswap.py: zswap_load written to " in page
    assert f"of stage {latest()} written to exported" in page
    assert f"   0  {stages()['0']}" in page


def test_a_command_that_fails_is_no_output() -> None:
    """The build stops instead of printing nothing."""
    with pytest.raises(AssertionError, match="vswap-ref blame no_such_function"):
        stage_pages.output("vswap-ref blame no_such_function")


def test_a_function_that_a_patch_took_away_is_in_the_model_of_linux() -> None:
    """It has its place among the others, with its last stage; what the model never had has a reason."""
    page = function_page.expand("<!-- tables -->")
    (row,) = [line for line in page.split("\n") if line.startswith("| `zswap_swapon`")]
    assert "in [The pool](../notebooks/00-04-zswap.ipynb#the-pool)<br>*Until stage 7.*" in row
    (row,) = [line for line in page.split("\n") if line.startswith("| `zswap_entry_erase`")]
    assert "*From stage 11.*<br>*Until stage 13.*" in row
    assert not [line for line in page.split("\n") if line.startswith("| `") and line.endswith("|  |")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a field: s.swap.nr_swap_pages", "a field: `s.swap.nr_swap_pages`"),
        ("swp_swap_info(s, entry).flags", "`swp_swap_info(s, entry).flags`"),
        ("as in mm/swap_state.c, `is_so`", "as in `mm/swap_state.c`, `is_so`"),
        ("far below 2**50 slots", "far below 2**50 slots"),
    ],
)
def test_names_are_shown_as_code(text: str, shown: str) -> None:
    """With the structure or the folder that they belong to."""
    assert function_page.plain(text) == shown
