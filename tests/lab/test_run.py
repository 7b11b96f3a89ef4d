"""Runs: a trace over contents, the record, the command."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

import vswap_ref as vr
from vswap_ref.cli import main


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A loop over 200 pages, three times, writing every third."""
    path = tmp_path / "loop.txt"
    path.write_text("".join(f"{'w' if page % 3 == 0 else 'r'} {page}\n" for _ in range(3) for page in range(200)))
    return path


def test_half_the_memory_pages(trace: Path) -> None:
    """A loop over twice the memory evicts; every page is somewhere; zero pages are never written."""
    record = vr.run(trace, pages="zero", zswap=None)
    assert record.ram == 100 * 4096
    assert record.vmstat["swpout_zero"] > 100
    assert record.vmstat.get("pswpout", 0) < record.vmstat["swpout_zero"]
    assert sum(record.where.values()) == 200
    assert record.slots >= record.where["swapfile"]
    before = vr.run(trace, pages="zero", zswap=None, stage=13)
    assert before.slots >= 200 - before.where.get("resident", 0), "every page in swap has a place on the device"
    assert record.slots < 200 - record.where.get("resident", 0), "a page of zeros needs none any more"


def test_the_same_settings_give_the_same_record(trace: Path) -> None:
    """Runs are repeatable to the last counter; a record survives pickling and JSON."""
    first, second = (vr.run(trace, seed=3) for _ in range(2))
    assert first == second
    assert pickle.loads(pickle.dumps(first)) == first
    assert json.loads(first.to_json())["vmstat"] == first.vmstat
    assert vr.run(trace, seed=4) != first


def test_enough_memory_never_faults_twice(trace: Path) -> None:
    """With room for all pages nothing is swapped."""
    record = vr.run(trace, ram="4M")
    assert "pgmajfault" not in record.vmstat
    assert record.where == {"resident": 200}


def test_compare_runs_both_stages(trace: Path) -> None:
    """A stage agrees with itself in every row."""
    comparison = vr.compare(0, 0, trace)
    assert all(row["stage 0"] == row["stage 0 again"] for row in comparison.rows())


def churn(kernel: vr.Kernel) -> None:
    """A group of 1 MiB works on 2 MiB, a quarter of it zeros."""
    heap = kernel.spawn("app", kernel.cgroup("web", memory_max="1M")).mmap("2M")
    for page in range(heap.pages):
        heap.write_page(page, bytes(4096) if page % 4 == 0 else page.to_bytes(4, "little") * 1024)


def test_compare_takes_a_function() -> None:
    """Each stage has a kernel and devices of its own; what differs is told, and only that."""
    device = vr.Ssd("8M")
    comparison = vr.compare(13, 14, churn, ram="8M", swap=[device])
    first, second = comparison.first, comparison.second
    assert (first.trace, first.stage, second.stage, first.ram) == ("churn", "13", "14", 8 << 20)
    assert first.slots == sum(nr for place, nr in first.where.items() if place != "resident") > 200
    assert (second.slots, second.where) == (0, first.where)
    assert first.stored == second.stored == first.where["zswap"] > 0
    assert {row["what"] for row in comparison.different()} >= {"slots", "metadata bytes"}


def test_compare_leaves_devices_alone() -> None:
    """Both stages write to copies; the device that was given stays as it was."""
    device = vr.Ssd("8M")
    comparison = vr.compare(13, 14, churn, ram="8M", swap=[device], zswap="off")
    assert comparison.first.vmstat["pswpout"] > 100
    assert not any(map(any, map(device.read, range(1, 64))))


def test_a_comparison_is_tidy_and_drawn() -> None:
    """One row a stage and figure; JSON of both records; a picture that says in words what it shows."""
    comparison = vr.compare(13, 14, churn)
    tidy = {(row["what"], row["stage"]): row["value"] for row in comparison.tidy()}
    assert tidy["slots", "13"] == comparison.first.slots
    assert len(comparison.tidy()) == 2 * len(comparison.rows())
    again = json.loads(comparison.to_json())
    assert again["second"]["slots"] == comparison.second.slots == 0
    html = comparison._repr_html_()
    assert f"device slots in use {comparison.first.slots} and 0" in html
    assert "<svg role='img'" in html
    assert "device slots in use" in repr(comparison)


@pytest.mark.parametrize("workload", [7, None, ["sort"]])
def test_compare_wants_a_trace_or_a_function(workload: object) -> None:
    """Anything else is refused, and named."""
    with pytest.raises(ValueError, match="workload="):
        vr.compare(13, 14, workload)  # type: ignore[arg-type]


def test_compare_knows_both_stages_before_it_runs() -> None:
    """An unknown second stage is not found out after minutes of the first."""
    ran: list[object] = []
    with pytest.raises(ValueError, match="stage='99'"):
        vr.compare(13, "99", ran.append)
    assert not ran


def test_compare_command(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The main figures side by side, or everything as JSON."""
    arguments = ["compare", "13", "14", str(trace), "--pages", "zero", "--swap", "ssd:2M"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["what", "stage", "13", "stage", "14"]
    assert main([*arguments, "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert both["first"]["slots"] > both["second"]["slots"] == 0


def test_command_prints_json(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shell's door to the same record."""
    assert main(["run", str(trace), "--stage", "0", "--swap", "zram:2M", "--zswap", "off", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["stage"] == "0"
    assert record["vmstat"]["pswpout"] > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["nofile"],
        ["sort", "--swap", "tape:1G"],
        ["sort", "--ram", "much"],
        ["sort", "--stage", "99"],
        ["sort", "--pages", "x"],
    ],
)
def test_command_errors_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, a line that names the value, no traceback."""
    assert main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vswap-ref: ")
    assert error.count("\n") == 1


def test_command_without_room_says_so(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory that cannot be found is one line too."""
    assert main(["run", str(trace), "--swap", "none", "--zswap", "off", "--pages", "random", "--ram", "256K"]) == 2
    assert "memory and swap are at their limits" in capsys.readouterr().err
