"""A headless Chromium for the tests: Debian's browser and driver, through Selenium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --allow-file-access-from-files --window-size=1300,1000"
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests, which records network requests; they are skipped if there is none."""
    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver_path:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    yield driver
    driver.quit()


@pytest.fixture
def driver(chromium: Any) -> Iterator[Any]:
    """The browser, on an empty page before and after."""
    outside_requests(chromium)
    yield chromium
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    chromium.get("about:blank")


@pytest.fixture
def outside(driver: Any) -> Callable[[], list[str]]:
    """Addresses outside the page's own files that were asked for since the last call."""
    return lambda: outside_requests(driver)


def outside_requests(driver: Any) -> list[str]:
    """Addresses outside the page's own files that were asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("file:", "data:", "blob:", "chrome", "about:"))]
