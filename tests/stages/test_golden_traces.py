"""The virtual layer against traces of the real mm/vswap.c: each stage does what the code of its patch did."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vswap_ref.machine.bitmap
from vswap_ref.cli import main
from vswap_ref.lab.replay import TraceError, replay
from vswap_ref.lab.replay.world import new_world
from vswap_ref.lab.replay.world import swapon as world_swapon
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
    """Replay a trace made of these objects; operations get their numbers, those of the kernel their costs."""
    count = 0
    for line in lines[1:]:
        if isinstance(line, dict) and "op" in line and line.get("i") == 0:
            line["i"], count = count, count + 1
            if not line["op"].startswith("env.") and line["op"] != "state":
                line.setdefault("cost", {})
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
        ([HEADER, operation(fx=[["rmap_set", 5]])], "effect ['rmap_set', 5]: expected slot count entry"),
        ([HEADER, operation(cpu=4)], "line 2: cpu 4: expected a number below 4"),
        (
            [HEADER, operation(nested=1)],
            "line 2: operations inside another operation (interleaving) cannot be replayed",
        ),
        ([HEADER, operation(op="swap_everything")], "'swap_everything' is missing or unknown"),
        ([HEADER, operation(op="swap_duplicate")], "expected arguments ['entry'], got []"),
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


WORLD = [
    operation(op="env.memcg_mode", args={"v": 0}),
    operation(op="env.memcg", args={"id": 1}, memcgs={"1": {"ref": 1, "swap": 0, "memsw": 0, "stat": 0}}),
]


def swapon(type_: int, slots: int = 4096) -> dict[str, Any]:
    """A line that switches a device on."""
    return operation(op="env.swapon", args={"type": type_, "max": slots})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (operation(op="swap_free_nr", args={"entry": 512, "nr": -1}), "'nr' is -1: expected a whole number from 0 to"),
        (operation(op="swap_free_nr", args={"entry": 512, "nr": 10**15}), "'nr' is 1000000000000000"),
        (operation(op="swap_free_nr", args={"entry": "512", "nr": 1}), "'entry' is '512'"),
        (operation(op="swap_free_nr", args={"entry": True, "nr": 1}), "'entry' is True"),
        (operation(op="swap_free_nr", args={"entry": 512, "nr": 1, "of": 1}), "'of': no operation has it"),
        (operation(op="swap_free_nr", args={"entry": 512, "nr": 1, "order": 1}), "expected arguments ['entry', 'nr']"),
        (operation(op="swap_duplicate", args={"entry": 512, "each": 0}), "'each' is 0"),
        (operation(op="swap_duplicate", args={"entry": 512, "each": 10**12}), "'each' is 1000000000000"),
        (operation(op="swap_duplicate", args={"entry": -512}), "'entry' is -512"),
        (operation(op="env.folio", args={"id": 10**12, "order": 0, "memcg": 0, "flags": 0}), "'id' is 1000000000000"),
        (operation(op="env.folio", args={"id": 1, "order": 40, "memcg": 0, "flags": 0}), "'order' is 40"),
        (operation(op="env.folio", args={"id": 1, "order": 0, "memcg": 7, "flags": 0}), "7 is unknown"),
        (operation(op="env.folio_set", args={"id": 9, "set": 1}), "9 is unknown"),
        (operation(op="env.folio_gone", args={"id": 9}), "9 is unknown"),
        (operation(op="env.folio_set", args={"id": 9, "nr": 1}), "unexpected keyword argument 'nr'"),
        (operation(op="env.memcg", args={"id": 2, "parent": 6}), "6 is unknown"),
        (operation(op="env.memcg_offline", args={"id": 6}), "6 is unknown"),
        (operation(op="env.swapoff", args={"type": 3}), "list index out of range"),
        (swapon(40), "'type' is 40"),
        (swapon(0, 10**9), "a device of 1000000000 slots"),
        (operation(op="env.fail", args={"what": "everything"}), "'what' is 'everything': expected one of"),
        (operation(op="vswap_cpu_dead", args={"cpu": 9}), "'cpu' is 9"),
        (operation(fx=[["rmap_set", [0, 1], -5, 512]]), "effect ['rmap_set', [0, 1], -5, 512]"),
        (operation(fx=[["zswap_entry_free", 1, 10**9]]), "effect ['zswap_entry_free', 1, 1000000000]"),
        (operation(fx=[["*", 10**9, ["vfree"]]]), "expected ['*', how often, effect]"),
        (operation(fx=[["swap_slot_alloc", 0]]), "effect ['swap_slot_alloc', 0]: expected int slot int or"),
        (operation(fx=[["teleport", 1]]), "expected a known call"),
        (operation(fx=[[[1], 1]]), "expected a list that begins with a name"),
        (operation(ret=0) | {"surprise": 1}, "unknown fields ['surprise']"),
        (operation(used=1.0), "used: 1.0: expected a whole number"),
        (operation(pcpu={"7": {"iter": -1, "alloc": {}}}), "cpu 7"),
        (operation(partial={"12": [1]}), "list of order 12"),
        (operation(clusters=[SLOTLESS | {"slots": [[0, -3, "free"]]}]), "slots [0, -3]"),
        (operation(clusters=[SLOTLESS | {"slots": [[500, 400, "S", [0, 1], None, 0, 1, 0]]}]), "slots [500, 400]"),
        (operation(clusters=[SLOTLESS, SLOTLESS]), "a cluster is named twice"),
        (operation(op="swap_duplicate", args={"entry": 512}, cost={"xa_load": "many"}), "expected counts of events"),
        (operation(op="env.local_irq_enable", cost={}), "expected field 'cost' with the operations of the kernel"),
        (operation(i=7), "operation 7: expected number 2; lines are missing or doubled"),
    ],
)
def test_what_no_recorder_can_have_written_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, line: dict[str, Any], message: str
) -> None:
    """Absurd counts, arguments, effects and states: one line on stderr with the place, exit status 2."""
    path = tmp_path / "made.jsonl"
    with pytest.raises(TraceError, match=r"made\.jsonl, line 4"):
        replay_lines([HEADER, *copy.deepcopy(WORLD), dict(line), operation()], path)
    assert main(["replay", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"vswap-ref: {path}, line 4")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize("level", [9, 12, 14])
def test_a_truncated_trace_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, level: int) -> None:
    """Cut in a line, between two lines, or in the packed data."""
    packed = golden(level, "s01").read_bytes()
    text = gzip.decompress(packed)
    cuts = {
        text[:-20]: "no JSON",
        text[: text.rindex(b"\n", 0, -1) + 1]: "the file ends here, without a complete state: is it truncated?",
        text[: text.index(b"\n") + 1]: "line 1: expected operations after the header",
        packed[:-30]: "damaged gzip file",
    }
    for number, (data, message) in enumerate(cuts.items()):
        path = tmp_path / f"{number}.gz"
        path.write_bytes(data)
        assert main(["replay", str(path)]) == 2
        error = capsys.readouterr().err
        assert (error.startswith(f"vswap-ref: {path}"), error.count("\n")) == (True, 1)
        assert message in error


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    """The reader of JSON gives up before Python does."""
    path = tmp_path / "deep.jsonl"
    path.write_text(json.dumps(HEADER) + "\n" + "[" * 200_000 + "]" * 200_000 + "\n", encoding="utf-8")
    with pytest.raises(TraceError, match="line 2: no JSON"):
        replay(path)


def edited(level: int, name: str, *, change: Callable[[list[Any]], None]) -> list[Any]:
    """The lines of a trace, numbered anew after a change."""
    lines = [json.loads(line) for line in gzip.decompress(golden(level, name).read_bytes()).splitlines()]
    change(lines)
    operations = (line for line in lines[1:] if "op" in line)
    for number, line in enumerate(operations):
        line["i"] = number
    return lines


def position(lines: list[Any], op: str) -> int:
    """The first line with an operation."""
    return next(i for i, line in enumerate(lines) if line.get("op") == op)


@pytest.mark.parametrize("level", range(9, 13))
def test_interrupts_come_on_again_at_every_level(level: int) -> None:
    """Unlocking without touching interrupts and switching them on afterwards is the same as doing both at once.

    At level 9 the swap cache is no part of the layer: its lock leaves interrupts alone, and so does the other half.
    """

    def in_two_steps(lines: list[Any]) -> None:
        i = position(lines, "swap_cache_unlock_irq")
        held = {} if level == 9 else {"held": {"locks": 0, "irqs_off": 1}}
        lines[i] |= {"op": "swap_cache_unlock"} | held
        lines.insert(i + 1, operation(op="env.local_irq_enable", cpu=lines[i]["cpu"]))

    outcome = replay_lines(edited(level, "s01", change=in_two_steps))
    assert outcome.agrees, f"\n{outcome}"


def test_interrupts_that_are_on_cannot_come_on(tmp_path: Path) -> None:
    """Where the lock is the layer's, the trace has to have switched them off."""
    with pytest.raises(TraceError, match=r"line 2, .*interrupts are on"):
        replay_lines([HEADER | {"level": 10}, operation(op="env.local_irq_enable"), operation()])


@pytest.mark.parametrize("level", range(9, 13))
def test_a_claim_on_entries_is_given_up(level: int) -> None:
    """swapcache_clear, which is the swap map's until 12, undoes swapcache_prepare and changes nothing else.

    ``s03`` takes an entry back in through the swap cache; before that the claim is made, given up and made again.
    """

    def claimed_twice(lines: list[Any]) -> None:
        i = next(i for i, line in enumerate(lines) if line.get("op") == "swapcache_prepare")
        (before,) = unclaimed(lines[:i], lines[i]["clusters"][0])
        clear = lines[i] | {"op": "swapcache_clear", "ret": None, "clusters": [before]}
        lines[i + 1 : i + 1] = [clear, dict(lines[i])]

    lines = edited(level, "s03", change=claimed_twice)
    outcome = replay_lines(lines)
    assert outcome.agrees, f"\n{outcome}"
    assert sum(line.get("op") == "swapcache_clear" for line in lines) == 1


def unclaimed(lines: list[Any], claimed: dict[str, Any]) -> list[dict[str, Any]]:
    """The change of a cluster that takes the claims of another change back: as the cluster was before."""
    runs = [[*run[:6], 1 - run[6], run[7]] for run in claimed["slots"]]
    last = [change for line in lines for change in line.get("clusters", ()) if change["id"] == claimed["id"]][-1]
    return [claimed | {"slots": runs, "crc": last["crc"]}]


@pytest.mark.parametrize("types", [(0, 1), (1, 0), (2, 0, 1)])
def test_devices_come_in_any_order(types: tuple[int, ...]) -> None:
    """A device is found under its number, whichever came first, and no other is lost."""
    world = new_world(at(14), 14)
    for type_ in types:
        world_swapon(world, type_, 1024 * (type_ + 1))
    assert [(si.type, si.max) for si in world.s.swap.info] == [(i, 1024 * (i + 1)) for i in range(len(types))]
    devices = [swapon(type_) for type_ in types]
    lookups = [operation(op="swp_slot_to_swp_entry", args={"type": type_, "off": 8}, ret=0, cost={}) for type_ in types]
    nothing = {"memcgs": WORLD[1]["memcgs"], "used": 0, "alloc_reject": 0, "phys": {str(type_): 0 for type_ in types}}
    state = operation(**nothing, pcpu={str(cpu): {"iter": -1, "alloc": {}} for cpu in range(4)})
    outcome = replay_lines([HEADER, *copy.deepcopy(WORLD), *devices, *lookups, state])
    assert outcome.agrees, f"\n{outcome}"


@pytest.mark.parametrize("level", range(9, 15))
def test_the_bitmap_is_compared(level: int) -> None:
    """``alloc`` of a cluster is the bitmap: one that differs from the slots is a difference."""

    def one_more(lines: list[Any]) -> None:
        i = position(lines, "folio_alloc_swap")
        lines[i]["clusters"][0]["alloc"][0][1] += 1

    outcome = replay_lines(edited(level, "s01", change=one_more))
    assert [(d.field, d.expected, d.got) for d in outcome.differences] == [("cluster 1: alloc", [[0, 2]], [[0, 1]])]


def test_a_second_answer_needs_a_pointer() -> None:
    """swap_zeromap_batch without one says false, whatever the slots are."""

    def no_pointer(lines: list[Any]) -> None:
        zeros = next(line for line in lines if line.get("op") == "swap_zeromap_batch" and line["ret"][1])
        zeros["args"]["null"], zeros["ret"][1] = 1, False

    outcome = replay_lines(edited(14, "s05", change=no_pointer))
    assert outcome.agrees, f"\n{outcome}"


@pytest.mark.parametrize("level", range(9, 13))
def test_how_slots_are_freed_together_is_the_recorders_business(level: int) -> None:
    """One call of the swap map for neighbouring slots, or one for each: the layer does the same."""

    def one_by_one(lines: list[Any]) -> None:
        line = next(line for line in lines if any(e[0] == "swap_slots_free" and e[2] > 1 for e in line.get("fx", ())))
        apart = []
        for effect in line["fx"]:
            if effect[0] == "swap_slots_free":
                (type_, offset), calls = effect[1], effect[2]
            elif effect[0] == ("swap_cache_clear_shadow" if level == 9 else "mem_cgroup_uncharge_swap"):
                apart.append(["swap_slots_free", [type_, offset], 1])
                offset += 1
            apart += [] if effect[0] == "swap_slots_free" else [effect]
        line["fx"], line["cost"]["ci_lock"] = apart, line["cost"]["ci_lock"] + calls - 1

    outcome = replay_lines(edited(level, "s05", change=one_by_one))
    assert outcome.agrees, f"\n{outcome}"


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
    assert main(["replay", str(tmp_path / "missing.gz")]) == 2
    assert main(["replay", good, "--stage", "8"]) == 2
    assert "stage='8': expected a stage that has virtual slots" in capsys.readouterr().err
