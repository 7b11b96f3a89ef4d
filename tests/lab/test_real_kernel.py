"""The model's counters beside those recorded on a real kernel."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from vswap_ref.cli import main
from vswap_ref.lab.experiments.workload import shrunken
from vswap_ref.lab.real_kernel import (
    Workload,
    accesses,
    allowed_deviation,
    compare_workload,
    contents,
    load_counters,
    run_workload,
    xorshift,
    xorshift_jump,
)

COUNTERS = Path(__file__).parents[2] / "data/real-kernel/counters.csv"
RECORDED = load_counters(COUNTERS)
WRITES = Workload("disk", 32, 96, 2, "rand", 1, "zr", 0, 3, 0)
LARGER = [replace(WRITES, zswap=1), Workload("zram", 64, 192, 2, "rand", 0, "tttt", 0, 1, 0)]
SOME = [WRITES, *(pytest.param(workload, marks=pytest.mark.slow) for workload in LARGER)]


def test_every_recorded_workload_is_read_with_both_repetitions() -> None:
    assert len(RECORDED) == 11
    assert all(len(runs) == 2 for runs in RECORDED.values())


def test_a_jump_is_as_many_steps() -> None:
    state = 88172645463325252
    for _ in range(1000):
        state = xorshift(state)
    assert xorshift_jump(88172645463325252, 1000) == state


def test_accesses_begin_where_filling_ended() -> None:
    """Pages of random words draw from the same generator as the accesses."""
    workload = Workload("disk", 1, 1, 1, "rand", 0, "zr", 0, 7, 0)
    state = 7 * 2654435761 + 88172645463325252
    for _ in range(128 * 512):
        state = xorshift(state)
    expected = []
    for _ in range(5):
        state = xorshift(state)
        expected.append((state % 256, 0))
    assert list(islice(accesses(workload), 5)) == expected


def test_contents_are_zero_text_and_random() -> None:
    zero, text, noise = islice(contents(Workload("disk", 1, 1, 1, "seq", 0, "ztr", 0, 1, 0)), 3)
    assert zero == bytes(4096)
    assert text[:16] == b"page000001 000\n\0"
    assert text[16 * 8 : 16 * 9] == b"page000001 001\n\0"
    assert len(text) == len(noise) == 4096
    assert len(set(noise)) > 200


@pytest.mark.parametrize("workload", SOME, ids=str)
def test_the_model_counts_what_the_kernel_counted(workload: Workload) -> None:
    verdicts = compare_workload(workload, RECORDED[workload], stage=0)
    assert [verdict for verdict in verdicts if not verdict.ok] == []


@pytest.mark.parametrize(("device", "whole", "split"), [("zram", 8, 0), ("disk", 0, 8)])
def test_huge_pages_leave_whole_or_are_split(device: str, whole: int, split: int) -> None:
    """An eighth of the recorded run: 64 whole on zram; a swap file has no room for any."""
    counters = run_workload(Workload(device, 8, 16, 1, "seq", 0, "t", 1, 1, 0), stage=0)
    assert (counters["thp_swpout"], counters["thp_swpout_fallback"]) == (whole, split)
    assert counters["thp_fault_alloc"] == 8


@pytest.mark.slow
def test_the_recorded_huge_pages() -> None:
    workload = next(workload for workload in RECORDED if workload.thp)
    verdicts = {verdict.counter: verdict for verdict in compare_workload(workload, RECORDED[workload], stage=0)}
    assert all(verdict.ok for verdict in verdicts.values())
    assert verdicts["thp_swpout"].model == verdicts["thp_swpout"].kernel == 64


def test_tolerances() -> None:
    runs = [{"pswpout": 10_000, "workingset_refault_anon": 10_000, "swap_ra": 5, "pgscan_anon": 1}]
    assert allowed_deviation(WRITES, "pswpout", runs) == pytest.approx(500)
    assert allowed_deviation(replace(WRITES, writes=0), "pswpout", runs) == pytest.approx(700)
    assert allowed_deviation(replace(WRITES, pattern="seq"), "pswpout", runs) == pytest.approx(200)
    assert allowed_deviation(WRITES, "swap_ra", runs) == pytest.approx(145)
    assert allowed_deviation(WRITES, "pgscan_anon", runs) is None
    assert allowed_deviation(WRITES, "pswpout", [{"pswpout": 1000}, {"pswpout": 2000}]) == 3000


def test_the_command_reports_a_counter_out_of_tolerance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = "device,limit_mb,mb,passes,pattern,writes,mix,thp,seed,zswap,rep,workingset_refault_anon"
    right = tmp_path / "right.csv"
    right.write_text(f"{header}\nzram,4,8,1,seq,0,t,0,1,0,1,2048\n")
    assert main(["real-kernel", str(right), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report[0]["counters"][0]["model"] == 2048
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(f"{header}\nzram,4,8,1,seq,0,t,0,1,0,1,9999\n")
    assert main(["real-kernel", str(wrong)]) == 1
    assert "workingset_refault_anon" in capsys.readouterr().out


def test_a_file_without_the_columns_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert main(["real-kernel", str(other)]) == 2
    assert "no column device, limit_mb" in capsys.readouterr().err


@pytest.mark.slow
def test_pages_under_writeback_make_zero_pages_leave_unless_reclaim_waits_for_them() -> None:
    """Version 1 waits, version 2 passes them over; on a fast disk there is nothing to wait for."""
    waiting, passing = (shrunken("rotating", memcg=version).zero_share for version in ("v1", "v2"))
    assert passing > waiting + 0.05
    assert abs(shrunken("disk", memcg="v2").zero_share - waiting) < 0.02
