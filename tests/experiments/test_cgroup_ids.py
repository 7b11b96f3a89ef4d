"""What the chapter on cgroup ids in the descriptor shows."""

from __future__ import annotations

import pytest

from vswap_ref.lab.experiments.cgroup_ids import batch_clear, id_bytes, sparse_use, three_books, version_1


def test_break_even_at_a_quarter() -> None:
    """Two bytes a slot of the device against eight a slot in use, in whole clusters."""
    record = id_bytes("256M")
    assert set(record.before) == {2.0}
    assert record.after[-1] == pytest.approx(8, rel=0.01)
    assert record.equal_at == pytest.approx(25, abs=1)


@pytest.mark.parametrize(("kept", "bytes_a_slot"), [(512, 8), (64, 64), (1, 4096)])
def test_a_cluster_is_paid_for_as_a_whole(kept: int, bytes_a_slot: int) -> None:
    """However few of its slots are left."""
    record = sparse_use(kept, clusters=4)
    assert (record.slots, record.descriptors) == (4 * kept, 4 * kept * bytes_a_slot)
    assert record.array == 2 * 5 * 512


def test_sparse_use_needs_a_survivor() -> None:
    """From 1 to 512."""
    with pytest.raises(ValueError, match="kept=0: expected an int from 1 to 512"):
        sparse_use(0)


@pytest.mark.parametrize(
    ("ids", "returned", "warns"),
    [("0 7 7 7", 7, False), ("7 7 7 0", 0, True), ("7 7 7 7", 7, False), ("7 9 7 7", 7, True), ("0 0 0 0", 0, False)],
)
def test_a_batch_returns_its_last_id(ids: str, returned: int, warns: bool) -> None:
    """Zeros in front are let pass without a warning."""
    record = batch_clear(ids)
    assert (record.returned, record.warns) == (returned, warns)


def test_version_1_stands_still_at_two_stages() -> None:
    """Ok, blocked, blocked, ok."""
    assert [version_1(stage).outcome.split(":")[0] for stage in (9, 10, 11, 12)] == ["ok", "blocked", "blocked", "ok"]


def test_the_books_agree() -> None:
    """Slots, counter and references of each cgroup; the usage counts those below, dead or alive."""
    rows = {row["cgroup"]: row for row in three_books().rows}
    assert all(row["ids"] == row["MEMCG_SWAP"] for row in rows.values())
    assert {name: row["references of the id"] - row["ids"] for name, row in rows.items()} == {
        "parent": 1,
        "child": 1,
        "deleted": 0,
    }
    assert rows["parent"]["usage"] == sum(row["ids"] for row in rows.values())
