"""Skips are counted and reported; in CI a skip is a failure, because CI installs everything.

``--record-functions FILE`` writes which tests run which functions of the model (`vswap-ref functions --record`).
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType
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


def pytest_addoption(parser: pytest.Parser) -> None:
    """One option: --record-functions."""
    parser.addoption("--record-functions", metavar="FILE", help="write which tests run which functions of the model")


def pytest_configure(config: pytest.Config) -> None:
    """Start the recorder if it is asked for."""
    target = config.getoption("--record-functions")
    if target:
        config.pluginmanager.register(FunctionRecorder(Path(target)))


class CallTrace:
    """How often each code object is entered; what kernel.check() calls to look at the structures does not count."""

    def __init__(self) -> None:
        self.codes: Counter[CodeType] = Counter()
        self.checking = False

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        """A function is called."""
        if self.checking:
            return None
        self.codes[frame.f_code] += 1
        self.checking = frame.f_code.co_name == "check"
        return self.leave if self.checking else None

    def leave(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Something happens in check() itself."""
        self.checking = event != "return"
        return self.leave


class FunctionRecorder:
    """Notes every function of vswap_ref/mm that a test calls; tests with random programs are left out."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.calls: dict[str, Counter[str]] = {}
        self.named: dict[str, set[str]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Trace calls, and nothing else, while a test runs; a test that fails shows nothing."""
        calls = CallTrace()
        sys.settrace(None if item.get_closest_marker("hypothesis") else calls.enter)
        try:
            result = yield
        finally:
            sys.settrace(None)
        self.note(item, calls.codes)
        return result

    def note(self, item: pytest.Item, codes: Counter[CodeType]) -> None:
        """File what a test has called; the variants of a parametrized test are one test."""
        test = item.nodeid.partition("[")[0]
        counts = self.calls.setdefault(test, Counter())
        for code, nr in codes.items():
            if Path(code.co_filename).parent.name == "mm":
                counts[code.co_name] += nr
        self.named.setdefault(test, set()).update(getattr(item, "function", self.note).__code__.co_names)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the most specific tests of each function, unless the run was broken off."""
        from vswap_ref.lab.function_index import choose_tests

        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            text = json.dumps(choose_tests(self.calls, self.named), indent=1)
            self.target.write_text(text + "\n", encoding="utf-8")
