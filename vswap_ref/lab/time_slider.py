"""The code time slider: the text of any function at any stage, the patch that wrote it, what it changed.

One small front-end (``time_slider.js``, ``time_slider.css``) with its data embedded.  ``time_slider()`` shows it in
JupyterLab as a widget; ``page`` is the same as a piece of HTML that needs no kernel and nothing from outside;
``code_slider()`` is that for a few functions of a chapter.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vswap_ref.series import SeriesError
from vswap_ref.series.stages import at, checkout_series, latest, main_line, stages
from vswap_ref.workshop.history import symbol_map

JS = Path(__file__).with_suffix(".js")
CSS = Path(__file__).with_suffix(".css")

History = dict[str, Any]
"""{"stages": [{"id", "title"}], "functions": {name: [{"at", "module", "text", "was"}]}}, ready for JSON.

``at`` is the place in the list of stages from which on the version holds, until the next one.  A version without text
says that the function is gone.  ``was``: its name before, if that stage renamed it.
"""


@cache
def history() -> History:
    """The life of every function and class of ``mm`` on the main line."""
    line = main_line()
    names = renames()
    lives: dict[str, list[dict[str, Any]]] = {}
    for number, stage in enumerate(line):
        present = definitions(at(stage).sources())
        for name, (module, text) in present.items():
            add_version(lives, name, number, module, text, names.get((stage, name), ""))
        for name in lives.keys() - present.keys():
            add_version(lives, name, number, "", "", "")
    titles = [{"id": stage, "title": stages()[stage]} for stage in line]
    return {"stages": titles, "functions": dict(sorted(lives.items()))}


def add_version(
    lives: dict[str, list[dict[str, Any]]], name: str, number: int, module: str, text: str, was: str
) -> None:
    """Note how a function is at a stage, unless that is how it was before."""
    versions = lives.setdefault(name, [])
    if not versions or (versions[-1]["module"], versions[-1]["text"]) != (module, text):
        versions.append({"at": number, "module": module, "text": text, "was": was})


def definitions(sources: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Function or class -> (module, text), of the modules of mm."""
    modules = {path: text for path, text in sources.items() if path.startswith("mm/")}
    return {name: (path, found) for path, text in modules.items() for name, found in texts_in(text).items()}


@cache
def texts_in(module: str) -> dict[str, str]:
    """Function or class -> its text, of a module's text: most modules are the same at many stages."""
    found, lines = {}, module.split("\n")
    for node in ast.parse(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


def renames() -> dict[tuple[str, str], str]:
    """(stage, new name) -> old name; empty in an installed wheel, which has no notebooks to tell."""
    try:
        table = symbol_map(checkout_series(), latest())
    except SeriesError:
        return {}
    events = [event for life in table["symbols"].values() for event in life]
    return {(event["stage"], event["name"]): event["source"] for event in events if event["verb"] == "renamed"}


def time_slider(function: str = "folio_alloc_swap", stage: int | str | None = None) -> Any:
    """The slider as a widget, at a function and a stage (None: the latest).  Needs anywidget.

    ValueError for a function or a stage that does not exist.
    """
    import anywidget
    import traitlets

    data = history()
    ids = [row["id"] for row in data["stages"]]
    wanted = ids[-1] if stage is None else str(stage)
    if function not in data["functions"]:
        raise ValueError(f"function={function!r}: no stage has it")
    if wanted not in ids:
        raise ValueError(f"stage={stage!r}: expected one of {', '.join(ids)}")

    class TimeSlider(anywidget.AnyWidget):
        """The front-end reads these; ``name`` and ``stage`` follow what the reader chooses."""

        _esm = JS
        _css = CSS
        history = traitlets.Dict().tag(sync=True)
        name = traitlets.Unicode().tag(sync=True)
        stage = traitlets.Int().tag(sync=True)

    return TimeSlider(history=data, name=function, stage=ids.index(wanted))


def page(data: History, function: str, stage: str | None = None, name: str = "time-slider", diff: bool = False) -> str:
    """The slider as a piece of HTML, at a function and a stage (None: the latest).

    ``name``: the id of its element, once a page.  ``diff``: it begins with what has changed since the stage before.
    """
    ids = [row["id"] for row in data["stages"]]
    place = len(ids) - 1 if stage is None else ids.index(stage)
    values = {"history": data, "name": function, "stage": place, "diff": diff}
    text = json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")
    script = JS.read_text(encoding="utf-8").replace("export default", "const slider =")
    start = (
        f"const values = {text};\n"
        "const model = { get: (key) => values[key], set: (key, value) => { values[key] = value; },\n"
        "  save_changes() {}, on() {}, off() {} };\n"
        f'slider.render({{ model, el: document.getElementById("{name}") }});\n'
    )
    style = CSS.read_text(encoding="utf-8")
    return f'<style>\n{style}</style>\n<div id="{name}"></div>\n<script type="module">\n{script}{start}</script>'


@dataclass(frozen=True, slots=True)
class CodeSlider:
    """Some functions through all stages, as a piece of HTML: first the first function at ``stage``, and its changes."""

    history: History
    stage: str

    def __repr__(self) -> str:
        ids = [row["id"] for row in self.history["stages"]]
        lives = (
            f"{name}: {', '.join(ids[version['at']] + ('' if version['text'] else ' gone') for version in versions)}"
            for name, versions in self.history["functions"].items()
        )
        return "written by stages\n" + "\n".join(lives)

    def _repr_html_(self) -> str:
        first = next(iter(self.history["functions"]))
        return page(self.history, first, self.stage, f"code-slider-{self.stage}-{first}", diff=True)


def code_slider(stage: int | str, *functions: str) -> CodeSlider:
    """The slider for a chapter: these functions only, at the chapter's stage.

    ValueError for a function or a stage that does not exist.
    """
    data = history()
    for name in functions:
        if name not in data["functions"]:
            raise ValueError(f"functions: no stage has {name!r}")
    if str(stage) not in [row["id"] for row in data["stages"]]:
        raise ValueError(f"stage={stage!r}: there is no such stage")
    chosen = {name: data["functions"][name] for name in functions}
    return CodeSlider({"stages": data["stages"], "functions": chosen}, str(stage))
