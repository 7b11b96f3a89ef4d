"""Widgets: turn a pure experiment ``run(parameters) -> result`` into something to play with.

Every result shows itself as HTML, so the same function serves the widget, the static page, the tests and exercises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def explore(run: Callable[..., Any], **choices: Sequence[Any]) -> Any:
    """A panel with one slider for each parameter of an experiment; its result is shown below and follows them.

    ``choices`` gives the values of each parameter, e.g. ``explore(run, pages=[64, 128], device=["disk", "ssd"])``;
    the first value is shown first.  Works by mouse and by keyboard.  Needs ipywidgets.
    """
    import ipywidgets as widgets

    controls = {
        name: widgets.SelectionSlider(
            options=list(values),
            value=values[0],
            description=name.replace("_", " "),
            continuous_update=False,
            style={"description_width": "9em"},
            layout={"width": "32em"},
        )
        for name, values in choices.items()
    }
    view = widgets.HTML()

    def show(_change: object = None) -> None:
        result = run(**{name: control.value for name, control in controls.items()})
        view.value = result._repr_html_()

    for control in controls.values():
        control.observe(show, names="value")
    show()
    return widgets.VBox([*controls.values(), view])
