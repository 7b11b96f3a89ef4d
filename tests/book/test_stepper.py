"""The picture in steps: by choice, by itself, and still for those who asked for less motion.  In a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vswap_ref.lab.stepper import stepper_html

STEPS = [(f"step {number}", f"<text x='0' y='20'>step {number}</text>") for number in range(3)]


def shown(driver: Any) -> list[int]:
    """Which steps are visible."""
    style = "return getComputedStyle(document.querySelector('#demo .s{}')).visibility"
    return [number for number in range(3) if driver.execute_script(style.format(number)) == "visible"]


def test_it_tells_in_words_what_it_shows() -> None:
    """The picture has its text, each step a labelled button."""
    html = stepper_html("demo", "", STEPS, "three <steps>", 100, 40)
    assert "aria-label='three &lt;steps&gt;'" in html
    assert html.count("<input") == html.count("<label") == 4
    assert "prefers-reduced-motion" in html
    assert "<script" not in html


@pytest.mark.browser
def test_picked_steps_stay_and_motion_can_be_refused(tmp_path: Path, driver: Any) -> None:
    """A picked step is the only one shown; with less motion there is no play, and the first step stands still."""
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><meta charset='utf-8'>" + stepper_html("demo", "", STEPS, "steps", 100, 40))
    driver.get(page.as_uri())
    running = "return document.getAnimations().length"
    assert driver.execute_script(running) == 3
    for number in (2, 0, 1):
        driver.find_element("id", f"demo-{number}").click()
        assert shown(driver) == [number]
    assert driver.execute_script(running) == 0
    driver.find_element("id", "demo-play").click()
    less = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", less)
    assert shown(driver) == [0]
    assert driver.execute_script(running) == 0
    assert not driver.find_element("id", "demo-play").is_displayed()
