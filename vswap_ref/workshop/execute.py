"""Producing the paired .ipynb of a text notebook: executed, deterministic, and only when something has changed.

jupytext reads the text, nbclient runs it.  A hash of all inputs is kept in the notebook's metadata.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vswap_ref.series import SeriesError
from vswap_ref.series.series import Series
from vswap_ref.series.stages import CHECKOUT, PACKAGE

ADDRESS = re.compile(r"0x[0-9a-f]{8,}")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
IMPORT = re.compile(r"^ *(?:from|import) .*", re.MULTILINE)
STAGES = re.compile(r"\b(at|compare)\(")
WIDGETS = "application/vnd.jupyter.widget-state+json"
TIMEOUT_SECONDS = 300
STEADY = {"TQDM_DISABLE": "1"}
"""Progress bars appear when a cell is slow: outputs must not depend on that."""


def inputs_hash(series: Series, notebook: str) -> str:
    """Hash of what a notebook's outputs depend on: its cells, stages' sources, lab, machine, magics, data."""
    cells = [cell.body for cell in series.cells(notebook)]
    lab = lab_files(cells)
    texts = cells + [file.read_text("utf-8") for file in lab]
    home = next(stage for stage in series.stages.values() if notebook in stage.notebooks)
    stages = [stage.id for stage in series.lineage(home.id)] + [series.latest]
    if any(STAGES.search(text) for text in texts):
        stages = list(series.stages)
    files = [PACKAGE / "kernel.py", PACKAGE / "display.py", PACKAGE / "series" / "magics.py"]
    files += sorted((PACKAGE / "machine").rglob("*.py")) + sorted((CHECKOUT / "data").rglob("*.json"))
    texts += [file.name + file.read_text("utf-8") for file in files]
    texts += [path + text for stage in dict.fromkeys(stages) for path, text in series.weave(stage).items()]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def lab_files(cells: list[str]) -> list[Path]:
    """Files of the lab that cells import, directly or through each other: all whose name an import mentions."""
    files = {file.stem: file for file in (PACKAGE / "lab").rglob("[!_]*.py")}
    files |= {"lab": PACKAGE / "lab" / "__init__.py", "vswap_ref": PACKAGE / "__init__.py"}
    found: set[Path] = set()
    texts = list(cells)
    while texts:
        words = re.split(r"[\s,()]+", " ".join(IMPORT.findall(texts.pop())))
        new = {files[name] for name in {word.rpartition(".")[2] for word in words} & files.keys()} - found
        found |= new
        texts += [file.read_text("utf-8") for file in new]
    return sorted(found)


def read_text_notebook(series: Series, name: str) -> Any:
    """The notebook as jupytext reads it, with cell ids that depend on the place only."""
    import jupytext

    notebook = jupytext.read(series.path(name))
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{number:03d}"
    kernel = notebook.metadata["kernelspec"]
    notebook.metadata = {"kernelspec": kernel, "jupytext": {"formats": "md:myst,ipynb"}}
    return notebook


def read_pair(series: Series, name: str) -> tuple[Path, str, Any]:
    """The path of the executed pair, its text, and what it holds; empty if there is none."""
    path = series.path(name).with_suffix(".ipynb")
    text = path.read_text("utf-8") if path.exists() else "{}"
    return path, text, json.loads(text)


def is_fresh(series: Series, name: str) -> bool:
    """True if the pair was executed with today's inputs."""
    metadata = read_pair(series, name)[2].get("metadata", {})
    return bool(metadata.get("vswap_ref", {}).get("inputs") == inputs_hash(series, name))


def render(notebook: Any) -> str:
    """A notebook as it is stored."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def execute(series: Series, name: str) -> None:
    """Run a notebook and write its pair.  SeriesError with the failing cell's traceback."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = read_text_notebook(series, name)
    client = NotebookClient(notebook, timeout=TIMEOUT_SECONDS, resources={"metadata": {"path": str(series.root)}})
    client.record_timing = False
    try:
        client.execute(env={**os.environ, **STEADY})
    except CellExecutionError as error:
        raise SeriesError(f"{name}: {COLOUR.sub('', str(error))}") from None
    notebook.metadata["vswap_ref"] = {"inputs": inputs_hash(series, name)}
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell["outputs"] = merge_streams(cell["outputs"])
    read_pair(series, name)[0].write_text(renumber_widgets(notebook), encoding="utf-8")


def merge_streams(outputs: list[Any]) -> list[Any]:
    """Neighbouring pieces of one stream become one output; addresses are blanked."""
    merged: list[Any] = []
    for output in outputs:
        if "text" in output:
            output["text"] = ADDRESS.sub("0x…", output["text"])
        if merged and "text" in output and merged[-1].get("name") == output["name"]:
            merged[-1]["text"] += output["text"]
        else:
            merged.append(output)
    return merged


def renumber_widgets(notebook: Any) -> str:
    """The stored form; widget ids are numbers in order of first appearance, without widgets their metadata goes."""
    state = notebook["metadata"].get("widgets", {}).get(WIDGETS, {}).get("state")
    if not state:
        notebook["metadata"].pop("widgets", None)
    text = json.dumps(notebook)
    for number, model in enumerate(sorted(state or (), key=text.index), 1):
        text = text.replace(model, f"{number:032d}")
    return render(json.loads(text))


def with_outputs(series: Series, name: str) -> str:
    """The stored form of today's cells and prose with the outputs of the executed pair."""
    notebook, stored = read_text_notebook(series, name), read_pair(series, name)[2]
    old = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    for cell, executed in zip([cell for cell in notebook.cells if cell.cell_type == "code"], old, strict=True):
        cell["outputs"], cell["execution_count"] = executed["outputs"], executed["execution_count"]
    notebook.metadata = {**stored["metadata"], **notebook.metadata}
    return render(notebook)


def select(series: Series, wanted: Iterable[str]) -> list[str]:
    """Notebook names that begin with one of the words; all without words.  SeriesError for a word without match."""
    names = [name for stage in series.stages.values() for name in stage.notebooks]
    for word in wanted:
        if not any(name.startswith(word) for name in names):
            raise SeriesError(f"no notebook begins with {word!r}; there are {', '.join(names)}")
    return [name for name in names if name.startswith(tuple(wanted) or "")]


def execute_stale(series: Series, wanted: list[str], force: bool) -> None:
    """Execute the notebooks whose inputs have changed; in the others the prose may have changed: write that."""
    names = select(series, wanted)
    stale = [name for name in names if force or not is_fresh(series, name)]
    for number, name in enumerate(stale, 1):
        print(f"[{number}/{len(stale)}] executing {name}", file=sys.stderr, flush=True)
        execute(series, name)
    for name in sorted({*names} - {*stale}):
        path, text, _ = read_pair(series, name)
        renewed = with_outputs(series, name)
        if renewed != text:
            path.write_text(renewed, encoding="utf-8")
    print(f"{len(stale)} executed, {len(names) - len(stale)} up to date")


def check_pairs(series: Series) -> int:
    """SeriesError unless every notebook's pair has the same cells and was executed with today's inputs."""
    names = select(series, [])
    for name in names:
        path, text, _ = read_pair(series, name)
        if not is_fresh(series, name):
            raise SeriesError(f"{path.name} is out of date; run `vswap-ref nb {name}`")
        if with_outputs(series, name) != text:
            raise SeriesError(f"{path.name} has other cells than {name}.md; run `vswap-ref nb {name}`")
    return len(names)
