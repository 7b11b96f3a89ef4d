"""Handles stand for the objects that they were given for, and for nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswap_ref.machine import Arena


@given(st.lists(st.integers(-5, 9)))
def test_an_arena_is_a_dict_that_chooses_its_keys(steps: list[int]) -> None:
    """Allocating (>= 0) or freeing one of the live handles (< 0), with a dict as the oracle; handles are reused."""
    arena: Arena[int] = Arena()
    oracle: dict[int, int] = {}
    most = 0
    for step in steps:
        if step >= 0:
            handle = arena.alloc(step)
            assert handle not in oracle
            oracle[handle] = step
        elif oracle:
            handle = sorted(oracle)[step % len(oracle)]
            assert arena.free(handle) == oracle.pop(handle)
            with pytest.raises(KeyError, match=f"handle {handle} is not in use"):
                arena.free(handle)
        most = max(most, len(oracle))
        assert arena == oracle
        assert all(1 <= handle <= most for handle in oracle)


def test_zero_stands_for_nothing() -> None:
    """So that a word of zeros names no object."""
    arena: Arena[str] = Arena()
    assert arena.alloc("first") == 1
    for handle in (0, -1, 2):
        with pytest.raises(KeyError, match="is not in use"):
            arena[handle]
