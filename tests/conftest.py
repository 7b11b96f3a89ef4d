"""Skips are counted and reported; in CI a skip is a failure, because CI installs everything.

``@pytest.mark.stages(first, until=None)`` runs a test at stages of the main line from ``first`` to ``until`` (both
included; None: the latest): at three of them, which ones depends on the test, or at all with ``every=True``, those
three in the quick run; ``without`` names stages that cannot do it (vswap_ref.lab.defects).  What a
test module imports from the face or from ``vswap_ref.mm`` is that of the stage while such a test runs, and the fixture
``stage`` is the stage itself.  ``--stages 0,3`` chooses stages, ``--deep`` runs all tests at all stages, gives random
programs their full length at each, and runs what is marked ``deep``.

``--record-functions FILE`` writes which tests run which functions of the model (`vswap-ref functions --record`).
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections import Counter
from collections.abc import Collection, Generator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import vswap_ref.kernel
from vswap_ref.series import at
from vswap_ref.series.stages import LoadedStage, latest, main_line
from vswap_ref.workshop.execute import STEADY

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
    """Options of this project."""
    parser.addoption("--record-functions", metavar="FILE", help="write which tests run which functions of the model")
    parser.addoption("--stages", metavar="K,K", help="stages at which the tests by stage run (default: all)")
    parser.addoption(
        "--deep", action="store_true", help="run all at every stage, at full length, and what is so marked"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start the recorder if it is asked for; pass on how deep to test."""
    os.environ["VSWAP_DEEP"] = "1" if config.getoption("--deep") else ""
    target = config.getoption("--record-functions")
    if target:
        config.pluginmanager.register(FunctionRecorder(Path(target)))


LONG_FILES = ("test_book.py", "test_same.py", "test_fault_injection.py", "test_metadata.py", "test_transitions.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for deep runs.  Long files first, then chapters: they should not be what a worker ends with."""
    if not config.getoption("--deep"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("deep")])
        items[:] = [item for item in items if not item.get_closest_marker("deep")]
    items.sort(key=lambda item: 0 if item.path.name in LONG_FILES else 1 if item.path.suffix == ".ipynb" else 2)


def line_between(first: int = 0, until: int | None = None, without: Collection[int] = ()) -> list[str]:
    """Stages of the main line from ``first`` to ``until``, both included (None: the latest), but those ``without``."""
    end = int(latest()) if until is None else until
    return [stage for stage in main_line() if first <= int(stage) <= end and int(stage) not in without]


def spread(ids: list[str], test: str, wanted: int = 3) -> list[str]:
    """Some of the stages at equal distances, which ones depends on the test: all tests together reach every stage."""
    distance = max(1, len(ids) // wanted)
    return ids[zlib.crc32(test.encode()) % distance :: distance]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that is marked with ``stages`` once a stage."""
    marker = metafunc.definition.get_closest_marker("stages")
    if marker is None:
        return
    limits = dict(marker.kwargs)
    every = limits.pop("every", False) or metafunc.config.getoption("--deep")
    ids, chosen = line_between(*marker.args, **limits), metafunc.config.getoption("--stages")
    quick = chosen.split(",") if chosen else spread(ids, metafunc.definition.nodeid)
    wanted = [stage for stage in ids if stage in quick or (every and not chosen)]
    marks = {stage: [] if stage in quick else [pytest.mark.slow] for stage in wanted}
    if "stage" not in metafunc.fixturenames:
        metafunc.fixturenames.insert(0, "stage")
    rows = [pytest.param(stage, id=f"stage {stage}", marks=marks[stage]) for stage in wanted]
    metafunc.parametrize("stage", rows, indirect=True)


@pytest.fixture
def stage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LoadedStage:
    """The stage at which a test with the mark ``stages`` runs; the names that its module imported are the stage's."""
    loaded = at(request.param)
    for name in [name for name in vars(vswap_ref.kernel) if name in vswap_ref.__all__]:
        monkeypatch.setattr(vswap_ref, name, getattr(loaded, name), raising=False)
    homes = {name: module for module in loaded.modules() for name in vars(module)}
    for name, value in list(vars(request.module).items()):
        home = getattr(value, "__module__", None) or getattr(value, "__name__", "")
        if home == "vswap_ref.kernel":
            monkeypatch.setattr(request.module, name, getattr(loaded, value.__name__))
        elif home.startswith("vswap_ref.mm."):
            kernel_name = value.__name__
            stands = loaded.module(home.removeprefix("vswap_ref.mm.")) if home == kernel_name else homes[kernel_name]
            monkeypatch.setattr(request.module, name, getattr(stands, kernel_name, stands))
    return loaded


@pytest.fixture(autouse=True)
def _runs_at_its_stage(request: pytest.FixtureRequest) -> None:
    """A test that is marked with ``stages`` runs at its stage, whether it asks for the fixture or not."""
    if request.node.get_closest_marker("stages"):
        request.getfixturevalue("stage")


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
    """Notes every function of mm and mm/vswap that a test calls; tests with random programs are left out."""

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
            folders = Path(code.co_filename).parts[-3:-1]
            if folders[-1:] == ("mm",) or folders == ("mm", "vswap"):
                counts["vswap/" * ("vswap" in folders) + code.co_name] += nr
        self.named.setdefault(test, set()).update(getattr(item, "function", self.note).__code__.co_names)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the most specific tests of each function, unless the run was broken off."""
        from vswap_ref.lab.function_index import choose_tests

        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            text = json.dumps(choose_tests(self.calls, self.named), indent=1)
            self.target.write_text(text + "\n", encoding="utf-8")
