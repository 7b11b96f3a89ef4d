"""The book: builds without a warning, works from the file system, asks nothing of the network, reads in the dark."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
ASSETS = ROOT / "_build" / "assets" / ".done"
PAGES = [
    "book/index.html",
    "book/functions.html",
    "book/how-this-book-is-built.html",
    "book/invariants.html",
    "book/symbols.html",
    "book/time-slider.html",
    *sorted(f"notebooks/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.md")),
]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built book; a warning is an error."""
    folder = tmp_path_factory.mktemp("book")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-c", "book"]
    result = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), ".", str(folder / "html")], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return folder / "html"


def wait_for_widgets(driver: Any, page: str) -> None:
    """Every stored widget view becomes a live control within some seconds."""
    wanted = driver.execute_script(
        "return document.querySelectorAll('script[type=\"application/vnd.jupyter.widget-view+json\"]').length"
    )
    for _ in range(100):
        shown = driver.execute_script("return document.querySelectorAll('.jupyter-widgets.widget-vbox').length")
        if shown >= wanted:
            return
        time.sleep(0.1)
    raise AssertionError(f"{page}: {shown} of {wanted} widgets appeared")


CONTRAST = """
document.documentElement.dataset.theme = arguments[0]; document.documentElement.dataset.mode = arguments[0];
const rgb = text => text.match(/[\\d.]+/g).map(Number);
const light = c => { const f = v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 };
  return .2126 * f(c[0]) + .7152 * f(c[1]) + .0722 * f(c[2]) };
const back = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
  if (c.length < 4 || c[3] > .5) return c } return arguments[0] == 'dark' ? [20, 24, 30] : [255, 255, 255] };
const bad = [];
const what = '.bd-article p, .bd-article td, .text_html svg, svg.idea, .widget-label, .widget-html';
for (const e of document.querySelectorAll(what)) {
  if (!e.textContent.trim() || !e.offsetParent && e.tagName != 'svg') continue;
  const a = light(rgb(getComputedStyle(e).color)), b = light(back(e));
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) bad.push(e.tagName + ' ' + e.className + ' ' + ratio.toFixed(1) + ': ' + e.textContent.slice(0, 40));
}
return bad.slice(0, 5);
"""

SILENT = """
return [...document.querySelectorAll('.bd-article svg, .bd-article img')]
  .filter(e => e.tagName == 'svg' ? e.getAttribute('role') == 'img' && !e.getAttribute('aria-label') : !e.alt).length
"""

NARROW = """
const page = document.documentElement, cut = [];
for (const slider of document.querySelectorAll('.widget-inline-hbox'))
  if (slider.getBoundingClientRect().right > page.clientWidth) cut.push('slider ' + slider.textContent.trim());
for (const words of document.querySelectorAll('.bd-article svg text')) {
  const height = words.getBoundingClientRect().height;
  if (height && height < 9) cut.push('small words ' + words.textContent);
}
return [page.scrollWidth <= page.clientWidth, cut.slice(0, 5)];
"""
PHONE = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": False}


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_whole(html: Path, driver: Any, outside: Callable[[], list[str]], page: str) -> None:
    """From the file system it asks nothing of the network, and its widgets appear.

    Text, tables, pictures and widgets have a contrast of at least 4.5 in both colour schemes.  Every picture says what
    it shows.  In a window of 390 pixels nothing has to be pushed sideways but code, tables and pictures, each by
    itself; sliders end inside it; words in pictures can be read.
    """
    driver.get((html / page).as_uri())
    if ASSETS.exists():
        wait_for_widgets(driver, page)
        assert outside() == []
    for scheme in ("light", "dark"):
        assert driver.execute_script(CONTRAST, scheme) == [], scheme
    assert driver.execute_script(SILENT) == 0
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    narrow = driver.execute_script(NARROW)
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert narrow == [True, []]


@pytest.mark.slow
@pytest.mark.browser
def test_pages_need_no_network() -> None:
    """What they load is there as a copy: otherwise the test above cannot look at widgets and requests."""
    if not ASSETS.exists():
        pytest.skip("npm is not installed: the pages load assets from their CDN")
    assert (ASSETS.parent / "mathjax" / "tex-chtml.js").exists()


@pytest.mark.slow
@pytest.mark.browser
def test_functions_are_found_by_name(html: Path, driver: Any) -> None:
    """The filter leaves the rows with the typed words; their links lead to a heading of a chapter."""
    rows = "return [...document.querySelectorAll('table.function-index tbody tr')].filter(e => e.offsetParent)"
    driver.get((html / "book" / "functions.html").as_uri())
    everything = len(driver.execute_script(rows))
    driver.find_element("css selector", ".function-filter input").send_keys("zswap_store_p")
    (row,) = driver.execute_script(rows)
    assert "zswap_store_page" in row.text
    assert f"1 of {everything}" in driver.find_element("css selector", ".function-filter").text
    headings = "return [...document.querySelectorAll('.bd-article h2')].filter(e => e.offsetParent).length"
    assert driver.execute_script(headings) == 1
    driver.get(row.find_element("css selector", "a").get_attribute("href"))
    assert driver.execute_script("return !!document.getElementById(location.hash.slice(1))")
    assert "14-decoupling.html#" in driver.current_url
