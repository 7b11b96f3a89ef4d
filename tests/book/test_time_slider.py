"""The code time slider: its data, the widget, and the page without a kernel, driven in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vswap_ref.lab.time_slider import CodeSlider, add_version, code_slider, definitions, history, page, time_slider
from vswap_ref.series.stages import at, latest, main_line

TOY: dict[str, Any] = {
    "stages": [{"id": "0", "title": "Linux"}, {"id": "1", "title": "first"}, {"id": "2", "title": "<second>"}],
    "functions": {
        "old": [
            {"at": 0, "module": "mm/a.py", "text": "def old():\n    same\n    one", "was": ""},
            {"at": 2, "module": "", "text": "", "was": ""},
        ],
        "new": [{"at": 2, "module": "mm/b.py", "text": 'def new():\n    same\n    "</script>"', "was": "old"}],
    },
}
MANY = TOY | {"functions": TOY["functions"] | {f"x{number}": TOY["functions"]["old"] for number in range(20)}}
"""More names than one would choose from a list: they are typed."""


def test_history_is_that_of_the_sources() -> None:
    """The version that holds at a stage is the text of the function there."""
    data = history()
    assert [stage["id"] for stage in data["stages"]] == main_line()
    for number, stage in enumerate(data["stages"]):
        for name, (module, text) in definitions(at(stage["id"]).sources()).items():
            version = [version for version in data["functions"][name] if version["at"] <= number][-1]
            assert (version["module"], version["text"]) == (module, text)
    for versions in data["functions"].values():
        assert all(a["text"] != b["text"] or a["module"] != b["module"] for a, b in zip(versions, versions[1:]))  # noqa: B905, RUF007


def test_versions() -> None:
    """A version is noted when something has changed, also when a function goes."""
    lives: dict[str, list[dict[str, Any]]] = {}
    for number, text in enumerate(["a", "a", "b", "", ""]):
        add_version(lives, "name", number, "mm/x.py" if text else "", text, "")
    assert [(version["at"], version["text"]) for version in lives["name"]] == [(0, "a"), (2, "b"), (3, "")]


def test_definitions_keep_decorators() -> None:
    """Functions and classes of mm, from the decorator to the end."""
    text = "X = 1\n\n\n@dataclass\nclass A:\n    a: int\n\n\ndef f() -> int:\n    return 1\n"
    assert definitions({"mm/m.py": text, "kernel.py": text}) == {
        "A": ("mm/m.py", "@dataclass\nclass A:\n    a: int"),
        "f": ("mm/m.py", "def f() -> int:\n    return 1"),
    }


def test_widget() -> None:
    """It carries its data; a wrong name or stage is refused."""
    widget = time_slider("zswap_store", 0)
    assert (widget.name, widget.stage, widget.history) == ("zswap_store", 0, history())
    json.dumps(widget.history)
    assert time_slider().stage == len(widget.history["stages"]) - 1 == int(latest())
    with pytest.raises(ValueError, match="function='zswap_stroe': no stage has it"):
        time_slider("zswap_stroe")
    with pytest.raises(ValueError, match="stage=99: expected one of 0"):
        time_slider(stage=99)


def test_a_chapter_has_its_functions() -> None:
    """Only those that are asked for, each with its whole life; what does not exist is refused."""
    slider = code_slider(4, "zswap_entry_load", "swap_zswap_tree")
    assert list(slider.history["functions"]) == ["zswap_entry_load", "swap_zswap_tree"]
    assert "swap_zswap_tree: 0, 8 gone" in repr(slider)
    assert 'id="code-slider-4-zswap_entry_load"' in slider._repr_html_()
    with pytest.raises(ValueError, match="no stage has 'zswap_stroe'"):
        code_slider(4, "zswap_stroe")
    with pytest.raises(ValueError, match="stage=99"):
        code_slider(99, "zswap_load")


@pytest.mark.slow
@pytest.mark.browser
def test_a_chapter_begins_with_what_it_changed(tmp_path: Path, driver: Any) -> None:
    """The stage and the comparison are set; another of the few functions is chosen from a list."""
    file = tmp_path / "chapter.html"
    file.write_text(
        f"<!doctype html><meta charset='utf-8'><body>{CodeSlider(TOY, '2')._repr_html_()}", encoding="utf-8"
    )
    driver.get(file.as_uri())
    find = lambda selector: driver.find_element("css selector", f".time-slider {selector}")  # noqa: E731
    assert (find(".ts-title").text, find(".ts-owner").text) == ("Stage 2: <second>", "Gone since stage 2, <second>.")
    assert "-     one" in find(".ts-code").get_attribute("textContent")
    tops = driver.execute_script(
        "return [...document.querySelectorAll('.ts-code > span')].map(e => Math.round(e.getBoundingClientRect().top))"
    )
    assert len(tops) == len(set(tops)) > 2, "lines stand below each other"
    assert tops == sorted(tops)
    find("select").send_keys("n")
    assert "+ def new():" in find(".ts-code").get_attribute("textContent")


@pytest.mark.slow
@pytest.mark.browser
def test_page_by_keyboard(tmp_path: Path, driver: Any, outside: Callable[[], list[str]]) -> None:
    """Arrow keys move through the stages; diff, owner, rename and end are told; nothing is asked of the network."""
    from selenium.webdriver.common.keys import Keys

    file = tmp_path / "slider.html"
    file.write_text(f"<!doctype html><meta charset='utf-8'><body>{page(MANY, 'old')}", encoding="utf-8")
    driver.get(file.as_uri())
    find = lambda selector: driver.find_element("css selector", f".time-slider {selector}")  # noqa: E731
    code = lambda: find(".ts-code").get_attribute("textContent")  # noqa: E731
    slider = find("input[type=range]")
    assert (find(".ts-title").text, find(".ts-owner").text) == (
        "Stage 2: <second>",
        "Gone since stage 2, <second>.",
    )
    slider.send_keys(Keys.ARROW_LEFT)
    assert find(".ts-owner").text == "mm/a.py, written by stage 0, Linux. Not changed by this stage."
    assert code() == "def old():\n    same\n    one\n"
    assert slider.get_attribute("aria-valuetext") == "Stage 1: first"
    find("input[type=checkbox]").send_keys(" ")
    name = find("input[type=search]")
    name.clear()
    name.send_keys("ne")
    assert find(".ts-owner").text == "No function of this name. Names with it: new"
    name.send_keys("w")
    assert find(".ts-owner").text == "Comes with stage 2, <second>."
    find("button:last-of-type").send_keys(Keys.ENTER)
    assert find(".ts-owner").text == "mm/b.py, written by stage 2, <second>. Called old before."
    lines = ["- def old():", "+ def new():", "      same", "-     one", '+     "</script>"']
    assert sorted(code().split("\n")[:-1]) == sorted(lines)
    assert not find("button:last-of-type").is_enabled()
    assert outside() == []
