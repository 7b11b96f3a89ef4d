"""Skips are counted and reported; in CI a skip is a failure, because CI installs everything."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

from vswap_ref.series.execute import STEADY

os.environ.update(STEADY)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """Turn a skip into a failure when the environment says CI."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be missing: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say at the end how much was not looked at."""
    skipped = len(terminalreporter.stats.get("skipped", []))
    if skipped:
        terminalreporter.write_line(f"{skipped} tests were skipped because an optional tool is missing (listed above)")
