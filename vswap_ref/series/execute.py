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

from .errors import SeriesError
from .series import Series
from .stages import CHECKOUT, PACKAGE
from .weave import weave_tree

ADDRESS = re.compile(r"0x[0-9a-f]{8,}")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
WIDGETS = "application/vnd.jupyter.widget-state+json"
TIMEOUT_SECONDS = 300


def inputs_hash(series: Series, notebook: str) -> str:
    """Hash of what a notebook's outputs depend on: its cells, its stage's sources, the rest of the package, data."""
    digest = hashlib.sha256()
    for cell in series.cells(notebook):
        digest.update(cell.body.encode() + b"\0")
    stage = series.stage_of(notebook)
    for path, text in weave_tree(series.tree(stage.id), series.floors).items():
        digest.update(path.encode() + text.encode())
    files = [PACKAGE / "kernel.py", PACKAGE / "display.py"]
    for folder, pattern in ((PACKAGE / "machine", "*.py"), (PACKAGE / "lab", "*.py"), (CHECKOUT / "data", "*.json")):
        files += sorted(folder.rglob(pattern))
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def ipynb_path(series: Series, notebook: str) -> Path:
    """The pair of a text notebook."""
    return series.root / f"{notebook}.ipynb"


def stored_hash(path: Path) -> str | None:
    """The hash in an executed notebook; None if there is none."""
    if not path.exists():
        return None
    metadata = json.loads(path.read_text("utf-8"))["metadata"]
    return str(metadata["vswap_ref"]["inputs"]) if "vswap_ref" in metadata else None


def read_text_notebook(path: Path) -> Any:
    """The notebook as jupytext reads it, with cell ids that depend on the place only."""
    import jupytext

    notebook = jupytext.read(path)
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{number:03d}"
    metadata = notebook.metadata
    notebook.metadata = {"kernelspec": metadata["kernelspec"], "jupytext": {"formats": "md:myst,ipynb"}}
    return notebook


STEADY = {"TQDM_DISABLE": "1"}
"""Progress bars appear when a cell is slow: outputs must not depend on that."""


def execute(series: Series, name: str) -> None:
    """Run a notebook and write its pair.  SeriesError with the failing cell's traceback."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = read_text_notebook(series.path(name))
    client = NotebookClient(notebook, timeout=TIMEOUT_SECONDS, resources={"metadata": {"path": str(series.root)}})
    client.record_timing = False
    try:
        client.execute(env={**os.environ, **STEADY})
    except CellExecutionError as error:
        raise SeriesError(f"{name}: {COLOUR.sub('', str(error))}") from None
    notebook.metadata["vswap_ref"] = {"inputs": inputs_hash(series, name)}
    text = json.dumps(normalise(notebook), indent=1, sort_keys=True, ensure_ascii=False)
    ipynb_path(series, name).write_text(text + "\n", encoding="utf-8")


def normalise(notebook: Any) -> Any:
    """Take out what differs from run to run: addresses, language details, how output was chunked, widget ids."""
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell["outputs"] = merge_streams(cell["outputs"])
    return renumber_widgets(json.loads(json.dumps(notebook)))


def merge_streams(outputs: list[Any]) -> list[Any]:
    """Neighbouring pieces of one stream become one output; addresses are blanked."""
    merged: list[Any] = []
    for output in outputs:
        if "text" not in output:
            merged.append(output)
            continue
        output["text"] = ADDRESS.sub("0x…", output["text"])
        if merged and merged[-1].get("name") == output["name"]:
            merged[-1]["text"] += output["text"]
        else:
            merged.append(output)
    return merged


def renumber_widgets(notebook: Any) -> Any:
    """Widget model ids become numbers in order of first appearance; without widgets their metadata goes away."""
    state = notebook["metadata"].get("widgets", {}).get(WIDGETS, {}).get("state")
    if not state:
        notebook["metadata"].pop("widgets", None)
        return notebook
    text = json.dumps(notebook)
    order = sorted(state, key=lambda model: text.index(model))
    for number, model in enumerate(order, 1):
        text = text.replace(model, f"{number:032d}")
    return json.loads(text)


def select(series: Series, wanted: Iterable[str]) -> list[str]:
    """Notebook names that begin with one of the words; all without words.  SeriesError for a word without match."""
    names = [name for stage in series.stages.values() for name in stage.notebooks]
    chosen: list[str] = []
    for word in wanted:
        matches = [name for name in names if name.startswith(word)]
        if not matches:
            raise SeriesError(f"no notebook begins with {word!r}; there are {', '.join(names)}")
        chosen += matches
    return chosen or names


def execute_stale(series: Series, wanted: list[str], force: bool) -> int:
    """Execute the notebooks whose inputs have changed; returns 0."""
    names = select(series, wanted)
    stale = [name for name in names if force or stored_hash(ipynb_path(series, name)) != inputs_hash(series, name)]
    for number, name in enumerate(stale, 1):
        print(f"[{number}/{len(stale)}] executing {name}", file=sys.stderr, flush=True)
        execute(series, name)
    for name in sorted(set(names) - set(stale)):
        refresh_prose(series, name)
    print(f"{len(stale)} executed, {len(names) - len(stale)} up to date")
    return 0


def refresh_prose(series: Series, name: str) -> None:
    """Nothing to execute, but the prose may have changed: write it with the stored outputs."""
    path = ipynb_path(series, name)
    stored = json.loads(path.read_text("utf-8"))
    outputs = iter([cell for cell in stored["cells"] if cell["cell_type"] == "code"])
    notebook = read_text_notebook(series.path(name))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            old = next(outputs)
            cell["outputs"], cell["execution_count"] = old["outputs"], old["execution_count"]
    kept = {key: value for key, value in stored["metadata"].items() if key in ("vswap_ref", "widgets")}
    notebook.metadata.update(kept)
    text = json.dumps(json.loads(json.dumps(notebook)), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if text != path.read_text("utf-8"):
        path.write_text(text, encoding="utf-8")


def check_pairs(series: Series) -> int:
    """SeriesError unless every notebook's pair has the same cells and was executed with today's inputs."""
    names = select(series, [])
    for name in names:
        path = ipynb_path(series, name)
        if stored_hash(path) != inputs_hash(series, name):
            raise SeriesError(f"{path.name} is out of date; run `vswap-ref nb {name}`")
        stored = [(c["cell_type"], "".join(c["source"])) for c in json.loads(path.read_text("utf-8"))["cells"]]
        wanted = [(c.cell_type, c.source) for c in read_text_notebook(series.path(name)).cells]
        if stored != wanted:
            raise SeriesError(f"{path.name} has other cells than {name}.md; run `vswap-ref nb {name}`")
    return len(names)
