"""Crossings that are left out, and who calls what is given a place."""

from __future__ import annotations

import pytest

from vswap_ref.lab.experiments.crossings import call_map, forget, forget_each
from vswap_ref.series import at


@pytest.mark.parametrize("function", ["swap_free_nr", "swap_slots_free", "swap_folio_sector"])
def test_the_identity_hides_what_a_look_up_does_not(function: str) -> None:
    """At stage 6 a forgotten crossing is no mistake; at stage 9 it is noticed, in either direction."""
    assert not forget(function, 6).step
    assert forget(function, 9).step


def test_the_function_is_as_before_afterwards() -> None:
    """Its code comes back, also after an error."""
    function = at(9).module("swap_map").swap_free_nr
    code = function.__code__
    assert forget("swap_free_nr", 9).error
    assert function.__code__ is code
    assert "InvariantError" in repr(forget("swap_free_nr", 9))


def test_only_functions_that_cross() -> None:
    """One that does not is refused, with those that do."""
    with pytest.raises(ValueError, match="function='zswap_load': does not cross at stage 6; expected one of"):
        forget("zswap_load", 6)


@pytest.mark.slow
def test_each_function_by_itself() -> None:
    """Every function of the kernel that crosses at both stages, none of the model's lookers."""
    sweep = forget_each()
    assert {"swap_free_nr", "__try_to_reclaim_swap"} <= sweep.found.keys()
    assert not {"check_slots", "cluster_row", "swap_location"} & sweep.found.keys()
    assert sweep.noticed(0) == 0 < 10 <= sweep.noticed(1) < len(sweep.found)
    assert sweep._repr_html_().count("<rect") == 2 * len(sweep.found)


def test_who_calls_what_is_given_a_place() -> None:
    """Before, all hand an entry on; afterwards those who have a slot are hibernation and what is physical itself."""
    calls = call_map().callers
    assert {kind for before, _ in calls.values() for kind in before.values()} == {"hands its entry on"}
    assert calls["swap_slot_free_nr"][1] == {
        "alloc_swapdev_block": "has a slot",
        "free_all_swap_pages": "has a slot",
        "swap_free_nr": "crosses first",
    }
    assert set(calls["swap_slots_put_cache"][1].values()) == {"crosses first"}
