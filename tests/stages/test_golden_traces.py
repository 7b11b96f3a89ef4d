"""The virtual layer against traces of the real mm/vswap.c: each stage does what the code of its patch did."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vswap_ref.machine.bitmap
from vswap_ref.cli import main
from vswap_ref.lab.replay import TraceError, replay
from vswap_ref.series import at
from vswap_ref.series.stages import latest

GOLDEN = Path(__file__).parent.parent.parent / "data" / "golden"
FILES = sorted(path for path in GOLDEN.glob("*/*.gz") if int(path.parent.name) <= int(latest()))
Plant = Callable[..., Any]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name.partition('.')[0]}")
def test_stage_does_what_the_code_did(path: Path) -> None:
    """Results, calls to the outside in their order, and state, after every operation."""
    outcome = replay(path)
    assert outcome.agrees, f"\n{outcome}"
    assert outcome.done == len(outcome.trace.operations) >= 30


def test_files_are_as_recorded() -> None:
    """Every file has its checksum in the list, and the list no other file."""
    lines = (line.split() for line in (GOLDEN / "sha256sums.txt").read_text(encoding="utf-8").splitlines())
    files = {str(path.relative_to(GOLDEN)): path for path in GOLDEN.glob("*/*.gz")}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == {
        name: checksum for checksum, name in lines
    }


def golden(level: int, name: str) -> Path:
    """A trace by its level and the beginning of its name."""
    return next(GOLDEN.glob(f"{level:02}/{name}*"))


def plant(monkeypatch: pytest.MonkeyPatch, stage: int, name: str, change: Callable[[Plant], Plant]) -> None:
    """Replace a function of a stage, everywhere in it, by what ``change`` makes of it."""
    found = [module for module in at(stage).modules() if name in vars(module)]
    assert found, f"stage {stage} has no function {name}"
    for module in found:
        monkeypatch.setattr(module, name, change(getattr(module, name)))


def not_listed(listed: Plant) -> Plant:
    """A cluster with room again is forgotten."""
    return lambda s, cluster, at_head: None


def not_cleared(rmap_set: Plant) -> Plant:
    """The reverse map keeps what it has when a slot is freed."""
    return lambda s, ci, slot, entry, nr: rmap_set(s, ci, slot, entry, nr) if entry else None


def no_reference(tryget: Plant) -> Plant:
    """A pin counts nothing."""

    def pinned(s: Any, entry: int) -> Any:
        found = tryget(s, entry)
        if found[0]:
            s.vswap.cluster_map.load(entry >> 9).refcnt -= 1
        return found

    return pinned


def one_too_many(alloc: Plant) -> Plant:
    """A failure is counted once, whatever the size."""

    def allocated(s: Any, *args: Any) -> Any:
        before = s.vswap.alloc_reject
        entry = alloc(s, *args)
        s.vswap.alloc_reject = before + (s.vswap.alloc_reject > before)
        return entry

    return allocated


def looked_up_twice(iterate: Plant) -> Plant:
    """Every look-up locks the cluster, lets it go, and locks it again."""

    def iterated(s: Any, held: Any, entry: int) -> Any:
        cluster = iterate(s, held, entry)
        if cluster is None:
            return None
        cluster.lock.release()
        return iterate(s, None, entry)

    return iterated


def no_shadow(delete: Plant) -> Plant:
    """A folio leaves nothing behind."""
    return lambda s, folio, entry, shadow: delete(s, folio, entry, None)


def kept(erase: Plant) -> Plant:
    """What should be taken out is only looked at."""
    return at(11).module("vswap.zswap_index").zswap_entry_load


def not_forgotten(clear: Plant) -> Plant:
    """The cgroup's id stays in the descriptor."""
    return lambda s, entry, nr: at(12).module("vswap.cgroup").lookup_swap_cgroup_id(s, entry)


def no_mark(mark: Plant) -> Plant:
    """The reverse map is not told."""
    return lambda s, slot: None


def left_undone(function: Plant) -> Plant:
    """Nothing happens."""
    return lambda *args: None


@pytest.mark.parametrize(
    ("stage", "name", "change", "trace", "field"),
    [
        (9, "add_to_partial_list", not_listed, "s08", "partial list of order"),
        (9, "vswap_rmap_set", not_cleared, "s01", "effect"),
        (9, "tryget_swap_entry", no_reference, "s01", "cluster 1: ref"),
        (9, "vswap_alloc", one_too_many, "s04", "alloc_reject"),
        (9, "vswap_iter", looked_up_twice, "s01", "events cl_lock"),
        (10, "__swap_cache_del_folio", no_shadow, "s01", "cluster 1: slot 1"),
        (11, "zswap_entry_erase", kept, "s03", "cluster 1: zswap copy of slot 0"),
        (12, "swap_cgroup_clear", not_forgotten, "s06", "cluster 1: slot 0"),
        (13, "swap_rmap_mark_cache_only", no_mark, "s01", "effect 1"),
        (14, "release_backing", left_undone, "s05", "effect 1"),
        (14, "swap_zeromap_folio_set", left_undone, "s05", "cluster 1: slot 0"),
    ],
)
def test_a_planted_change_is_found(
    monkeypatch: pytest.MonkeyPatch, stage: int, name: str, change: Callable[[Plant], Plant], trace: str, field: str
) -> None:
    """A layer that behaves otherwise in one point does not replay; the report names the point."""
    plant(monkeypatch, stage, name, change)
    outcome = replay(golden(stage, trace))
    assert not outcome.agrees
    assert any(difference.field.startswith(field) for difference in outcome.differences), f"\n{outcome}"


def test_first_fit_from_the_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which slot of a cluster is taken is part of what is compared; the report shows the cluster from both sides."""

    def last_run(bitmap: Any, nr: int, align: int = 1, start: int = 0) -> int:
        ends = range(len(bitmap.bits) - nr, start - 1, -align)
        return next((index for index in ends if not any(bitmap.bits[index : index + nr])), -1)

    monkeypatch.setattr(vswap_ref.machine.bitmap.Bitmap, "find_zero_run", last_run)
    outcome = replay(golden(9, "s01"))
    assert not outcome.agrees
    assert "cluster 1: slot 1: expected S:0.2:f2:0:1:2, got free" in str(outcome)
    assert "cluster 1 in the trace: order 0, 2 slots, 3 references, cached; allocated: 0-1" in str(outcome)
    assert "cluster 1 in the model: order 0, 2 slots, 3 references, cached; allocated: 0, 511" in str(outcome)


def test_replay_leaves_the_stage_as_it_was() -> None:
    """The stand-ins are gone afterwards, also after a replay that broke off."""
    before = [dict(vars(module)) for module in at(9).modules()]
    replay(golden(9, "s01"))
    with pytest.raises(TraceError):
        replay_lines([HEADER, operation(op="folio_alloc_swap", args={"folio": 7})])
    assert [dict(vars(module)) for module in at(9).modules()] == before


HEADER = {"format": "vswap-trace-1", "kind": "scenario", "doc": "made by hand", "level": 9}


def operation(**changes: Any) -> dict[str, Any]:
    """A line of a trace."""
    return {"i": 0, "cpu": 0, "op": "state", "args": {}, "ret": None, "fx": [], "clusters": []} | changes


def replay_lines(lines: list[Any], path: Path | None = None) -> Any:
    """Replay a trace made of these objects."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        target = path or Path(folder) / "made.jsonl"
        target.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
        return replay(target)


SLOTLESS = {
    "id": 1,
    "order": 0,
    "count": 0,
    "ref": 1,
    "cached": 1,
    "full": 0,
    "crc": "00000000",
    "alloc": [],
    "slots": [],
}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "empty; expected a trace in the format vswap-trace-1"),
        ([HEADER | {"format": "vswap-trace-2"}], "line 1: format 'vswap-trace-2': expected a header"),
        ([HEADER | {"level": 7}], "line 1: level 7: expected a patch from 9 to 22"),
        ([HEADER, [1, 2]], "line 2: expected a JSON object, got '[1, 2]'"),
        ([HEADER, {"op": "state"}], "line 2: field 'i' is None: expected an integer"),
        ([HEADER, operation(fx="none")], "line 2: field 'fx' is 'none': expected a list"),
        ([HEADER, operation(fx=[["rmap_set", 5]])], "line 2: malformed effects: ValueError"),
        ([HEADER, operation(cpu=4)], "line 2: cpu 4: expected a number below 4"),
        (
            [HEADER, operation(nested=1)],
            "line 2: operations inside another operation (interleaving) cannot be replayed",
        ),
        ([HEADER, operation(op="swap_everything")], "'swap_everything' is missing or unknown"),
        ([HEADER, operation(op="swap_duplicate")], "'entry' is missing or unknown"),
        ([HEADER, operation(op="env.folio", args={"id": 1})], "missing a required argument: 'order'"),
        ([HEADER, operation(op="folio_alloc_swap", args={"folio": 7})], "7 is missing or unknown"),
        ([HEADER, operation(clusters=[{"id": 1}])], "malformed state: KeyError('order')"),
        (
            [HEADER, operation(clusters=[SLOTLESS | {"crc": "12345678"}])],
            "checksum of cluster 1: 00000000, not 12345678",
        ),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path: Path, lines: list[Any], message: str) -> None:
    """The message names the file, the line and what is wrong."""
    path = tmp_path / "made.jsonl"
    with pytest.raises(TraceError, match=r"made\.jsonl") as caught:
        replay_lines(lines, path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{ no json", "line 1: no JSON"),
        (gzip.compress(bytes(range(256)), mtime=0)[:20], "damaged gzip file"),
        (b"\xff\xfe\x00", "no text"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    """Truncated and foreign files end in one line, not in a traceback."""
    path = tmp_path / "other.gz"
    path.write_bytes(data)
    with pytest.raises(TraceError, match=message):
        replay(path)


def test_the_command_tells_and_exits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 if all agrees; 1 if not, or for a bad file; what is not compared is said."""
    good = str(golden(9, "s01"))
    assert main(["replay", good]) == 0
    out = capsys.readouterr().out
    assert "level 9 on stage 9: 50 operations agree" in out
    assert "not compared:" in out
    plant(monkeypatch, 9, "vswap_rmap_set", not_cleared)
    assert main(["replay", good, "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)["replays"]
    assert (row["agrees"], row["op"], row["line"]) == (False, "folio_free_swap", 45)
    assert row["differences"][0]["field"] == "effect 4"
    assert main(["replay", str(tmp_path / "missing.gz")]) == 1
    assert main(["replay", good, "--stage", "8"]) == 1
    assert "stage='8': expected a stage that has virtual slots" in capsys.readouterr().err
