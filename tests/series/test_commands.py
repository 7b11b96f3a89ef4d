"""The engine's commands, on a copy of the checkout whose subject is the toy series."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toys import TOY, copy_toy, edit

import vswap_ref
from vswap_ref.series import SeriesError
from vswap_ref.series.series import Series
from vswap_ref.workshop import execute

PACKAGE = Path(vswap_ref.__file__).parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout: the engine's code, the toy's notebooks, no mm."""
    shutil.copytree(TOY, tmp_path / "notebooks")
    shutil.copytree(PACKAGE, tmp_path / "vswap_ref", ignore=shutil.ignore_patterns("mm", "__pycache__"))
    return tmp_path


def command(checkout: Path, *words: str, fails: bool = False) -> str:
    """Run ``vswap-ref`` of a checkout; returns what it prints."""
    result = subprocess.run(
        [sys.executable, "-m", "vswap_ref.cli", *words],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode != 0) == fails, result.stderr
    return result.stderr if fails else result.stdout


def files(folder: Path) -> dict[str, bytes]:
    """Path -> content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.py")}


def test_weave_needs_no_mm(checkout: Path) -> None:
    """Absent, half deleted, corrupt, with a strange file in it: weaving gives the same package."""
    mm = checkout / "vswap_ref" / "mm"
    assert "5 modules woven, stage 2" in command(checkout, "weave")
    good = files(mm)
    assert set(good) == {"__init__.py", "count.py", "face.py", "state.py", "store.py"}
    (mm / "state.py").write_text("def broken(:\n")
    (mm / "store.py").write_bytes(b"\xff\xfe\x00")
    (mm / "count.py").unlink()
    (mm / "old.py").write_text("")
    assert "differs from the notebooks: mm/count.py, mm/old.py, mm/state.py" in command(
        checkout, "weave", "--check", fails=True
    )
    assert "vswap_ref/mm/old.py: removed" in command(checkout, "weave")
    assert files(mm) == good
    shutil.rmtree(mm)
    command(checkout, "weave")
    assert files(mm) == good
    assert "5 modules agree" in command(checkout, "weave", "--check")


def test_check_weaves_every_stage(checkout: Path) -> None:
    """A mistake that later stages hide is found."""
    edit(Series(checkout / "notebooks"), "00-more", "counter = Counter()", "counter = Kounter()")
    assert "00-more, cell 1, line 24: Kounter is unknown" in command(checkout, "weave", "--check", fails=True)


def test_stitch_weave_and_blame(checkout: Path) -> None:
    """An edit in the package comes back through the notebook of its stage."""
    command(checkout, "weave")
    store = checkout / "vswap_ref" / "mm" / "store.py"
    store.write_text(store.read_text().replace("STEP = 2", "STEP = 5"))
    assert command(checkout, "stitch").strip() == "mm/store.py: STEP written to 01-replace, cell 1, line 18"
    assert "5 modules agree" in command(checkout, "weave", "--check")
    assert command(checkout, "stitch") == "nothing to stitch\n"
    assert command(checkout, "blame", "STEP") == "mm/store.py: STEP is written in 01-replace, cell 1, line 19\n"
    assert "00-base, cell 2, line 38" in command(checkout, "blame", "STEP", "--stage", "0")
    assert "stage 2 has no 'STEPP'; close: STEP" in command(checkout, "blame", "STEPP", fails=True)


def test_diff_export_stages_symbols(checkout: Path) -> None:
    """What changed between stages, a stage as files, the lists."""
    command(checkout, "weave")
    assert "+STEP = 2" in command(checkout, "diff", "0", "1")
    assert command(checkout, "diff", "1", "1") == "no difference\n"
    assert "-def twice" in command(checkout, "diff", "1", "variant", "mm/store.py")
    command(checkout, "export", "variant", str(checkout / "out"))
    assert set(files(checkout / "out")) == {
        "__init__.py", "kernel.py", "mm/__init__.py", "mm/face.py", "mm/state.py", "mm/store.py",
    }  # fmt: skip
    assert "is not empty" in command(checkout, "export", "0", str(checkout / "out"), fails=True)
    assert "expected one of 0, 1, 2, variant" in command(checkout, "export", "7", str(checkout / "new"), fails=True)
    assert "variant  another second stage  (4 modules)" in command(checkout, "stages")
    assert "twice (mm/count.py): 1 added, 2 moved mm/store.py\n" in command(checkout, "symbols")
    assert command(checkout, "symbols", "twice").splitlines() == [
        "   1  added, +4 -0, in mm/store.py: 01-replace, cell 2",
        "   2  moved from mm/store.py, +0 -0, in mm/count.py: 02-move, cell 1",
    ]
    assert list(json.loads(command(checkout, "symbols", "twice", "--json"))["symbols"]) == ["twice"]
    assert "the series has no 'twise'; close: twice" in command(checkout, "symbols", "twise", fails=True)
    table = json.loads(command(checkout, "symbols", "--json", "--stage", "1"))
    assert [event["verb"] for event in table["symbols"]["STEP"]] == ["added", "replaced"]
    assert [stage["title"] for stage in table["stages"]] == ["first", "replaced"]


def test_every_stage_can_be_loaded(checkout: Path) -> None:
    """at(k) gives real modules; a module that a stage has no more is not found, and a new one not before."""
    program = """
import vswap_ref as vr
for stage in (0, 1, 2, "variant"):
    print(vr.at(stage), vr.at(stage).module("face").run(3))
for stage, name in ((1, "count"), (2, "gone")):
    try:
        vr.at(stage).module(name)
    except ModuleNotFoundError as error:
        print(error)
"""
    edit(Series(checkout / "notebooks"), "series.toml", '[["state"],', '[["state", "gone"],')
    cell = "%%patch mm/gone.py\nGONE = 1\n```\n\n```{code-cell}\n"
    edit(Series(checkout / "notebooks"), "00-more", "%%patch", f"{cell}%%patch")
    edit(Series(checkout / "notebooks"), "02-move", "%patch --move", "%patch --delete mm/gone.py\n%patch --move")
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == [
        "<stage 0: first> 3",
        "<stage 1: replaced> 6",
        "<stage 2: moved> 12",
        "<stage variant: another second stage> 6",
        "No module named 'vswap_ref._stages.s1.mm.count'",
        "No module named 'vswap_ref._stages.s2.mm.gone'",
    ]


def test_hash_follows_what_a_notebook_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab file changes the notebooks that import it, directly or through others, and no more."""
    lab = tmp_path / "vswap_ref" / "lab"
    (lab / "experiments").mkdir(parents=True)
    for name, text in (
        ("../__init__", "from .lab import run"),
        ("__init__", "from .paging import run"),
        ("paging", "from .corpus import pages"),
        ("corpus", ""),
        ("experiments/cache", "from vswap_ref.lab.corpus import (\n    pages,\n)"),
        ("experiments/zswap", ""),
    ):
        (lab / f"{name}.py").write_text(text)
    monkeypatch.setattr(execute, "PACKAGE", tmp_path / "vswap_ref")

    def used(cell: str) -> list[str]:
        return sorted(path.relative_to(lab).as_posix() for path in execute.lab_files([cell]) if lab in path.parents)

    assert used("from vswap_ref.lab.experiments.cache import fill") == ["corpus.py", "experiments/cache.py"]
    assert used("from vswap_ref.lab.experiments import zswap as z") == ["experiments/zswap.py"]
    assert used("%load_ext x\nimport vswap_ref as vr") == ["__init__.py", "corpus.py", "paging.py"]
    assert used("from vswap_ref.machine import PAGE_SIZE") == []


def test_hash_follows_the_stages_that_a_notebook_shows(tmp_path: Path) -> None:
    """A patch changes its own notebook and later ones; the notebooks before it only if they load stages."""
    toy = copy_toy(tmp_path)
    names = ("00-base", "01-replace", "02-move", "0v-variant")

    def hashes(series: Series) -> dict[str, str]:
        return {name: execute.inputs_hash(series, name) for name in names}

    before = hashes(toy)
    assert len(set(before.values())) == 4
    variant = hashes(edit(toy, "0v-variant", "del twice", "del twice\n\nMORE = 1"))
    assert {name for name in names if variant[name] != before[name]} == {"0v-variant"}
    toy = edit(toy, "00-base", "math.pi", "vr.at(2)")
    loads = hashes(toy)
    assert loads["00-base"] != hashes(edit(toy, "0v-variant", "MORE = 1", "MORE = 2"))["00-base"]


def test_prose_is_renewed_without_execution(tmp_path: Path) -> None:
    """Outputs stay; the check finds prose that differs, and nb writes it."""
    (tmp_path / "series.toml").write_text('[[stage]]\nid = 0\ntitle = "t"\nnotebooks = ["00-plain"]\n')
    head = (TOY / "00-base.md").read_text().split("# A toy")[0]
    (tmp_path / "00-plain.md").write_text(head + "Words.\n\n```{code-cell}\n1 + 1\n```\n")
    series, pair = Series(tmp_path), tmp_path / "00-plain.ipynb"
    notebook = execute.read_text_notebook(series, "00-plain")
    output = {"output_type": "stream", "name": "stdout", "text": "2"}
    notebook.cells[1].update(outputs=[output], execution_count=1)
    notebook.metadata["vswap_ref"] = {"inputs": execute.inputs_hash(series, "00-plain")}
    pair.write_text(execute.render(notebook))
    assert execute.check_pairs(series) == 1
    series = edit(series, "00-plain", "Words.", "Other words.")
    with pytest.raises(SeriesError, match=r"00-plain\.ipynb has other cells"):
        execute.check_pairs(series)
    execute.execute_stale(series, ["00-p"], force=False)
    assert execute.check_pairs(series) == 1
    assert json.loads(pair.read_text())["cells"][1]["outputs"] == [output]
    with pytest.raises(SeriesError, match="no notebook begins with '01'; there are 00-plain"):
        execute.select(series, ["00", "01"])
