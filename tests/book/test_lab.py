"""JupyterLab in a real browser: open a notebook, run all cells, move a widget by keyboard, see the result change."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SERVER = (
    "--no-browser --allow-root --IdentityProvider.token= --ServerApp.ip=127.0.0.1 "
    "--ServerApp.disable_check_xsrf=True --LabApp.expose_app_in_browser=True"
)
ROOT = Path(__file__).parent.parent.parent
KERNEL_STATUS = "return window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """Address of a JupyterLab server on a copy of the notebooks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    settings = tmp_path / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *f"{SERVER} --port={port}".split()],
        cwd=tmp_path,
        env=os.environ
        | {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "run")}
        | {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of a condition; fails after some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            value = condition()
        except Exception:
            value = None
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}")


def other_text(view: Any, before: str) -> str:
    """The text of an element once it is another one."""
    text = str(view.get_attribute("textContent"))
    return "" if text == before else text


@pytest.mark.slow
@pytest.mark.browser
def test_widget_by_keyboard(lab: str, driver: Any) -> None:
    """The welcome chapter runs in JupyterLab, and its experiment follows the arrow keys."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def find(selector: str) -> Any:
        return driver.find_elements(By.CSS_SELECTOR, selector)

    until(lambda: driver.get(f"{lab}/lab/tree/notebooks/00-00-welcome.ipynb") or True, 60, "server")
    until(lambda: driver.execute_script("return !!window.jupyterapp"), 60, "JupyterLab starts")
    until(lambda: find(".jp-Notebook .jp-CodeCell"), 60, "the notebook opens")
    until(lambda: driver.execute_script(KERNEL_STATUS) == "idle", 60, "the kernel starts")
    driver.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    until(lambda: "slots in use" in find(".widget-html")[0].get_attribute("textContent"), 120, "a result appears")
    view = find(".widget-html")[0]
    before = view.get_attribute("textContent")
    handle = find(".noUi-handle")[2]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
    handle.send_keys(Keys.ARROW_RIGHT)
    after = until(lambda: other_text(view, before), 60, "the result follows the key")
    assert "300 slots in use" in before
    assert "0 slots in use" in after
