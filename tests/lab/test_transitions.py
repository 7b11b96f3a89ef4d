"""The states of a swap entry: the table and the exploration agree both ways, and a mistake in the code shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from vswap_ref.lab.exploration import Route, explore_late_reader, explore_world, explored, route
from vswap_ref.lab.tiny_kernel import STAGE, WORLDS
from vswap_ref.lab.transitions import FREE, OPERATIONS, State, Transitions, parse, rows, table
from vswap_ref.machine import InvariantError
from vswap_ref.series import at

SSD = "own page, SSD, zswap"


def test_the_table_has_every_combination_once() -> None:
    """Four backings, pinned or not, three counts, folio or none; and "free"."""
    states = {State(b, p, n, w) for b in "SZCF" for p in (0, 1) for n in ("0", "1", "2+") for w in ("none", "folio")}
    assert table().keys() == states | {FREE}
    assert Counter(row.kind for row in table().values()) == {"at rest": 19, "transient": 12, "never": 18}
    for row in table().values():
        assert (row.kind == "never") == (not row.steps)
        assert row.meaning


def test_steps_of_the_table_lead_to_states_that_may_be() -> None:
    """By functions of the layer; the backing changes only where a folio is cached, and the count stays then."""
    for row in table().values():
        for state, operation, following in row.steps:
            assert operation in OPERATIONS
            assert table()[following].kind != "never"
            if FREE not in (state, following) and state.backing != following.backing:
                assert state[1:] == following[1:] == (1, state.swap_count, "folio")


@pytest.mark.slow
def test_table_and_exploration_agree_both_ways() -> None:
    """At-rest states are those seen between operations; transient ones are seen at switch points only."""
    seen = explored()
    assert seen.differences() == []
    assert {state for state, row in table().items() if row.kind == "at rest"} == seen.rest.keys()
    assert {state for state, row in table().items() if row.kind == "transient"} == seen.transient.keys()
    assert "?" not in {step.operation for step in seen.steps}
    assert {step.operation for step in seen.steps} == set(OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("state", [str(state) for state, row in table().items() if row.kind != "never"])
def test_a_route_leads_to_its_state(state: str) -> None:
    """Run again, the operations take an entry there step by step, and each step begins where one has ended."""
    found = route(state)
    assert isinstance(found, Route)
    been = {FREE}
    for _, step in found.steps:
        assert step.state in been
        been.add(step.following)
    assert parse(state) in been
    assert state in found._repr_html_()


def test_a_state_that_may_not_be_has_no_route() -> None:
    """The message names it."""
    for wrong in ("Q 1 1 folio x", "C 0 1", ""):
        with pytest.raises(ValueError, match="expected"):
            parse(wrong)
    assert len(rows("never")) == 18


def test_the_late_reader() -> None:
    """A reader that is late pins an entry without data, and its user vanishes meanwhile."""
    seen = Transitions()
    explore_late_reader(seen)
    assert State("F", 1, "0", "none") in seen.passing
    assert {state.backing for state in seen.rest} == set()


# --- mistakes ----------------------------------------------------------------------------------------------------------


def replaced(monkeypatch: pytest.MonkeyPatch, module: str, name: str, wrong: Callable[..., Any]) -> None:
    """Every module of the stage that has the function gets the wrong one."""
    right = getattr(at(STAGE).module(module), name)
    for path in ("fault", "readahead", "reclaim", "shmem_swap", "swap_read", "page_io", "zswap", "zswap_writeback"):
        if getattr(at(STAGE).module(path), name, None) is right:
            monkeypatch.setattr(at(STAGE).module(path), name, wrong)
    for path in ("backing", "cache_pin", "lifecycle", "swap_cache", "swap_out"):
        if getattr(at(STAGE).module(f"vswap.{path}"), name, None) is right:
            monkeypatch.setattr(at(STAGE).module(f"vswap.{path}"), name, wrong)


def findings(world: str) -> list[str]:
    """What an exploration of one kernel finds that the table does not have; an exception counts."""
    seen = Transitions({FREE: explored_nothing})
    try:
        explore_world(world, seen)
    except (AssertionError, InvariantError, KeyError, RuntimeError) as error:
        return [f"{type(error).__name__}: {error}"]
    return [line for line in seen.differences() if "not seen so" not in line and ": seen transient" not in line]


explored_nothing: Any = None
