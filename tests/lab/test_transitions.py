"""The states of a swap entry: the table and the exploration agree both ways, and a mistake in the code shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from vswap_ref.lab.exploration import Route, explore_late_reader, explore_race, explore_world, explored, route
from vswap_ref.lab.tiny_kernel import STAGE
from vswap_ref.lab.transitions import FREE, OPERATIONS, State, Transitions, parse, rows, table
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


# --- mistakes ----------------------------------------------------------------------------------------------------


def replace_everywhere(monkeypatch: pytest.MonkeyPatch, name: str, wrong: Callable[..., Any]) -> Callable[..., Any]:
    """Every module of the stage that has a function gets a wrong one; returns the right one."""
    stage = at(STAGE)
    right: Callable[..., Any] = stage.find(name)
    for module in stage.modules():
        if vars(module).get(name) is right:
            monkeypatch.setattr(module, name, wrong)
    return right


def unexpected(explore: Callable[[Transitions], None]) -> list[str]:
    """States and steps that an exploration sees and the table does not have; it may end in an error of the kernel."""
    seen = Transitions()
    with suppress(AssertionError, RuntimeError, KeyError):
        explore(seen)
    legal = {step for row in table().values() for step in row.steps}
    strange = [f"{state} at rest" for state in seen.rest if table()[state].kind != "at rest"]
    strange += [f"{state} in passing" for state in seen.passing if table()[state].kind == "never"]
    return sorted(
        strange + [f"{step.state} by {step.operation} to {step.following}" for step in seen.steps.keys() - legal]
    )


def test_nothing_is_unexpected_without_a_mistake() -> None:
    """What the next tests see is the mistake."""
    assert unexpected(lambda seen: explore_world("own page, full zswap", seen)) == []
    assert unexpected(explore_late_reader) == []


def test_a_slot_that_is_not_freed_with_its_last_pin_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """__swapcache_clear forgets to look at the count: who gives up the last folio keeps a slot that nobody needs."""

    def forgetful(s: Any, cluster: Any, entry: int, nr: int) -> None:
        for index in range(entry & 511, (entry & 511) + nr):
            cluster.desc.in_swapcache[index] = 0

    replace_everywhere(monkeypatch, "__swapcache_clear", forgetful)
    found = unexpected(lambda seen: explore_world("own page, pmem", seen))
    assert "Z 0 0 none at rest" in found
    assert "Z 1 0 folio by folio_free_swap to Z 0 0 none" in found


def test_a_type_that_is_kept_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backing is released and the type not changed: a page of zeros counts as one whose folio has the content."""
    replace_everywhere(monkeypatch, "vswap_set_type", lambda *_: None)
    found = unexpected(lambda seen: explore_race(SSD, ("a writes zeros",), ("a pageout", "a reads"), seen))
    assert "F 1 1 folio by __vswap_remove_mapping to F 0 1 none" in found
    assert "F 0 1 none at rest" in found


def test_a_slot_that_is_freed_under_its_pin_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last user takes the slot with it although the swap cache has it pinned."""
    stage = at(STAGE)

    def hasty(s: Any, cluster: Any, entry: int) -> bool:
        index = entry & 511
        cluster.desc.swap_count[index] -= 1
        if not cluster.desc.swap_count[index]:
            stage.find("vswap_free")(s, cluster, entry)
        return False

    replace_everywhere(monkeypatch, "vswap_put_count", hasty)
    found = unexpected(lambda seen: explore_world("own page, pmem", seen))
    assert "Z 1 1 folio by vswap_free_nr_any_cache_only to free" in found


def test_a_reader_that_does_not_ask_for_the_backing_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The late reader would read from nowhere: it puts a folio behind a slot whose data is elsewhere."""
    claim = at(STAGE).find("claim_cache_flag")
    replace_everywhere(monkeypatch, "swapcache_prepare_read", claim)
    assert "F 1 0 none by swap_cache_add_folio to F 1 0 folio" in unexpected(explore_late_reader)
