"""Access traces: both forms, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vswap_ref.lab.trace import load_trace, traces


def test_shipped_traces_are_as_listed() -> None:
    """Events, pages and stores as the manifest says."""
    for name, row in traces().items():
        trace = load_trace(name)
        assert (len(trace), trace.pages, int(trace.write.sum())) == (row["events"], row["pages"], row["stores"])
        assert trace.footprint == trace.pages


def test_text_and_npz_are_the_same_trace(tmp_path: Path) -> None:
    """The two forms say the same."""
    (tmp_path / "a.txt").write_text("# comment\nw 0\nw 2  # behind\n\nr 0\n")
    np.savez(tmp_path / "b.npz", page=np.array([0, 2, 0]), write=np.array([True, True, False]))
    first, second = load_trace(tmp_path / "a.txt"), load_trace(tmp_path / "b.npz")
    assert first.page.tolist() == second.page.tolist() == [0, 2, 0]
    assert first.write.tolist() == second.write.tolist() == [True, True, False]
    assert (first.pages, first.footprint) == (3, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("r 1\nx 2\n", "line 2: 'x 2': expected 'r PAGE' or 'w PAGE'"),
        ("r -1\n", "line 1"),
        ("r 99999999999\n", "integers from 0"),
        ("", "not empty"),
    ],
)
def test_bad_text_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """The message names file and line."""
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match="bad.txt.*" + message):
        load_trace(path)


def test_npz_without_arrays_and_missing_files(tmp_path: Path) -> None:
    """Other files are refused by name."""
    np.savez(tmp_path / "c.npz", pages=np.array([1]))
    with pytest.raises(ValueError, match=r"c\.npz: expected an \.npz file with arrays page and write"):
        load_trace(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_text("w 0")
    with pytest.raises(ValueError, match=r"d\.npz: no \.npz file"):
        load_trace(tmp_path / "d.npz")
    with pytest.raises(FileNotFoundError, match="there are compile, sqlite, sort"):
        load_trace("quicksort")
