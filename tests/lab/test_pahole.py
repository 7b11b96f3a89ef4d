"""The layout of a structure: offsets, unions, holes."""

from __future__ import annotations

import numpy as np
import pytest

from vswap_ref.lab.pahole import HOLE, pahole
from vswap_ref.series import at


def test_a_hole_in_the_middle_and_one_at_the_end() -> None:
    """What no field uses is a part of its own."""
    layout = pahole(np.dtype({"names": ["a", "b"], "formats": ["u1", "u8"], "offsets": [0, 8], "itemsize": 24}), "x")
    assert layout.parts == [(0, 1, "a"), (1, 7, HOLE), (8, 8, "b"), (16, 8, HOLE)]
    assert (layout.size, layout.holes) == (24, 15)
    assert repr(layout).endswith("x: 24 bytes, 15 of them in holes")


def test_fields_of_a_union_share_their_bytes() -> None:
    """The longer one says how many."""
    dtype = np.dtype({"names": ["short", "long"], "formats": ["u4", "u8"], "offsets": [0, 0], "itemsize": 8})
    assert pahole(dtype).parts in ([(0, 8, "short | long")], [(0, 8, "long | short")])


@pytest.mark.parametrize(("stage", "size"), [(9, 8), (10, 16), (11, 24), (12, 32), (13, 32), (14, 24)])
def test_the_descriptor_of_every_stage(stage: int, size: int) -> None:
    """Parts lie one behind the other and fill the whole descriptor."""
    layout = pahole(at(stage).module("vswap.descriptor").swp_desc)
    assert layout.size == size == sum(length for _, length, _ in layout.parts)
    assert [offset for offset, _, _ in layout.parts] == [
        sum(length for _, length, _ in layout.parts[:number]) for number in range(len(layout.parts))
    ]


def test_a_plain_dtype_is_refused() -> None:
    """There is nothing to lay out."""
    with pytest.raises(ValueError, match="no fields"):
        pahole(np.dtype("u8"))
