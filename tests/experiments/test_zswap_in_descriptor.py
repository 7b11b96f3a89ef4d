"""What the chapter on zswap in the descriptor shows."""

from __future__ import annotations

import pytest

from vswap_ref.lab.experiments.before_after import byte_changes, cost_changes
from vswap_ref.lab.experiments.zswap_in_descriptor import (
    MEANWHILE,
    ZSWAP_USE,
    break_even,
    freeing_locks,
    index_bytes,
    stale_writeback,
    two_places,
)


def test_nothing_compressed_costs_eight_bytes_more() -> None:
    """16.22 and 24.22 bytes a slot: descriptors and cluster headers of full clusters."""
    assert [round(index_bytes(stage, 0).a_slot, 2) for stage in (10, 11)] == [16.22, 24.22]


@pytest.mark.slow
def test_break_even() -> None:
    """Near seven in eight if the compressed pages lie in a row; before each leaf has one of them if they do not."""
    in_a_row, scattered = break_even("in a row"), break_even("scattered")
    assert in_a_row.equal_at == pytest.approx(87.5, abs=0.5)
    assert scattered.equal_at == pytest.approx(100 / 64 * 8 / 9.14, abs=0.05)
    assert len(set(in_a_row.after)) == 1
    assert f"equal at {in_a_row.equal_at:.1f} %" in in_a_row._repr_html_()
    with pytest.raises(ValueError, match="spread='everywhere': expected one of in a row, scattered"):
        index_bytes(11, 50, "everywhere")


@pytest.mark.parametrize("zswap", ZSWAP_USE)
def test_a_freed_slot_takes_three_locks(zswap: str) -> None:
    """Two before, and one for each call; the tree's lock only if the tree was not empty."""
    before, after = (freeing_locks(stage, 1024, zswap) for stage in (10, 11))
    assert (before.cluster, after.cluster) == (2 * 1024 + 2, 3 * 1024 + 2)
    assert before.tree == (0 if zswap == "never on" else 1024)
    assert after.tree == 0
    assert before.found == after.found == (1024 if zswap == "all of the pages" else 0)


def test_only_whole_clusters_are_freed() -> None:
    """Others are refused."""
    with pytest.raises(ValueError, match="slots=100: expected a positive multiple of 512"):
        freeing_locks(11, 100)


@pytest.mark.parametrize("stage", [10, 11, 12])
@pytest.mark.parametrize(("meanwhile", "result"), [*zip(MEANWHILE, ("0", "-EEXIST", "-ENOMEM"), strict=True)])
def test_a_stale_writeback_changes_nothing(meanwhile: str, result: str, stage: int) -> None:
    """Only the entry that is still there is written."""
    record = stale_writeback(meanwhile, stage)
    assert (record.result, record.written) == (result, int(result == "0"))
    assert record.owner_reads == {"0": "first", "-EEXIST": "(nobody)", "-ENOMEM": "second"}[result]
    assert record.stored_pages == int(result == "-ENOMEM")


def test_a_page_has_two_places() -> None:
    """The table of the specification, step by step."""
    steps = {
        step["event"]: (step["zswap_entry"], step["zero bit"], step["on the device"]) for step in two_places(11).steps
    }
    assert steps == {
        "allocated": ("0", 0, "(never written)"),
        "accepted by zswap": ("set", 0, "(never written)"),
        "read again": ("0", 0, "(never written)"),
        "accepted again": ("set", 0, "(never written)"),
        "written back": ("0", 0, "one"),
        "zeros": ("0", 1, "(never written)"),
        "zswap is off": ("0", 0, "two"),
        "freed": ("-", 0, "two"),
    }
    slots = [step["slot"] for step in two_places(11).steps]
    assert len(set(slots[:5])) == 1
    assert all(slots[:-1])


def test_ledgers_before_and_after() -> None:
    """Only what the patch changes is listed."""
    structures = {(row["pages in"], row["structure"]) for row in byte_changes(10, 11).rows}
    names = ("vswap descriptors", "zswap tree heads", "total")
    assert structures == {("zswap", "zswap trees")} | {
        (where, name) for where in ("zswap", "swapfile") for name in names
    }
    assert {row["primitive"] for row in cost_changes(10, 11).rows} == {"rcu_lock", "xa_load", "xa_lock", "cl_lock"}
    assert cost_changes(11, 12).rows == []
