"""The cover letter's table of memory overhead, measured."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest
from chapters import stored_outputs

from vswap_ref.lab import metadata_table
from vswap_ref.lab.metadata import nr_steps, published_figures

LETTER = {
    "zswap": ["25.00", "57.00", "89.00", "121.00", "153.00"],
    "swapfile": ["25.00", "41.00", "57.00", "73.00", "89.00"],
}
"""The ten figures of the old design, typed from the letter once more."""


ENTRIES = ["0", "2,097,152", "4,194,304", "6,291,456", "8,388,607"]


def test_the_chapter_shows_the_ten_figures_of_the_old_design() -> None:
    """A device of 32 GB, filled through the allocator: every figure to its last digit, measured and published."""
    (table,) = [output for cell, output in stored_outputs("00-15") if 'metadata_table("32G", stage=0)' in cell]
    rows = [line.split() for line in table.splitlines()[2:]]
    for backend, figures in LETTER.items():
        mine = [row for row in rows if row[0] == backend]
        assert [row[3:6] for row in mine] == [[nr, mib, mib] for nr, mib in zip(ENTRIES, figures, strict=True)]


@pytest.mark.deep
def test_the_ten_figures_of_the_old_design() -> None:
    """The same computed, in less than 2 GiB."""
    script = """
import resource
from vswap_ref.lab import metadata_table
table = metadata_table("32G", stage=0)
print(table.to_json())
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    points = json.loads(result.stdout)["points"]
    for backend, figures in LETTER.items():
        mine = [point for point in points if point["backend"] == backend]
        assert [f"{point['letter_bytes'] / 2**20:.2f}" for point in mine] == figures
        assert [f"{point['published_mib']:.2f}" for point in mine] == figures
        assert [point["entries"] for point in mine] == [0, 2097152, 4194304, 6291456, 8388607]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert before == peak or peak < 2 << 20, "kilobytes"


def test_exact_bytes_of_a_full_gigabyte() -> None:
    """262,144 slots: one table a cluster, 261 nodes a tree (the index reaches 262,143), headers, 16 tree heads."""
    point = metadata_table("1G", stage=0, percents=[100], backends=["zswap"]).points[0]
    used = 262144 - 1
    assert point.entries == used
    assert point.ledger["swap table"] == (8 * used, 4096 * 512)
    assert point.ledger["zswap trees"] == (8 * used, 576 * 16 * 261)
    assert point.ledger["zswap entries"] == (0, 56 * used)
    assert point.ledger["cluster headers"] == (0, 32 * 512)
    assert point.ledger["zswap tree heads"] == (0, 16 * 16)
    assert point.ledger.letter == 262144 * 25 // 8 + 16 * used


def test_a_tree_beyond_262144_has_one_node_more() -> None:
    """The index of a tree is the full offset, so later trees are a level higher."""
    nodes = [
        metadata_table(size, 0, percents=[100], backends=["zswap"]).points[0].ledger["zswap trees"][1] // 576
        for size in ("1G", "1088M")
    ]
    assert nodes == [16 * 261, 16 * 261 + 262]


def test_published_figures_stand_beside_their_own_device_only() -> None:
    """Ten for the old design at 32 GB; none beside another size."""
    assert len(published_figures("old")) == 10
    assert published_figures("no such design") == {}
    table = metadata_table("64M", percents=[0, 50])
    assert [point.published for point in table.points] == [None] * 4
    assert table.agrees
    assert [row["ledger"][0]["structure"] for row in json.loads(table.to_json())["points"]] == ["swap_map"] * 4
    assert "aria-label" in table._repr_html_()
    assert repr(table).count("\n") == 5


def test_bad_choices_are_named() -> None:
    """What is wrong, and what is legal."""
    with pytest.raises(ValueError, match="size='1'"):
        metadata_table("1")
    with pytest.raises(ValueError, match=r"percents=.*ascending"):
        metadata_table("8M", percents=[50, 0])
    with pytest.raises(ValueError, match="backend='zram'"):
        metadata_table("8M", backends=["zram"])
    with pytest.raises(ValueError, match="stage=99"):
        metadata_table("8M", stage=99)


def test_progress_counts_all_steps() -> None:
    """The bar ends where the work ends."""
    from vswap_ref.lab.metadata import fill

    for slots in (2, 512, (1 << 18) + 5):
        for percents in ([0], [100], [0, 25, 100]):
            assert len(list(fill(0, slots, "swapfile", percents, {}))) == nr_steps(slots, percents)


def test_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    """Text and JSON; exit status 0 if nothing published is missed."""
    from vswap_ref.cli import main

    assert main(["memory", "--size", "16M"]) == 0
    assert "swapfile  100 %    4,095" in capfd.readouterr().out
    assert main(["memory", "--size", "16M", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["device_bytes"] == 16 << 20
    assert main(["memory", "--size", "1M5"]) == 2
    assert "size='1M5'" in capfd.readouterr().err


def test_the_ledger_shows_itself() -> None:
    """Picture with its figures in words, one colour a row, sums by the time of payment, unknown names refused."""
    ledger = metadata_table("16M", 0, percents=[100], backends=["zswap"]).points[0].ledger
    page = ledger._repr_html_()
    assert f"{ledger.letter:,} as the cover letter counts, {ledger.exact:,} exactly" in page
    assert all(row[0] in page and row[0] in repr(ledger) for row in ledger.rows)
    assert page.count("<rect") == sum(row[2] > 0 for row in ledger.rows) + sum(row[3] > 0 for row in ledger.rows)
    paid = ledger.paid()
    assert sorted(paid) == ["at swapon", "with use"]
    assert [sum(column) for column in zip(*paid.values(), strict=True)] == [ledger.letter, ledger.exact]
    with pytest.raises(KeyError, match="no structure 'swapmap'"):
        ledger["swapmap"]
