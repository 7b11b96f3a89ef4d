"""What must and must not stand in the project's files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def tracked() -> list[Path]:
    """Text files under version control, data and lock files left out."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in names.split("\0") if name and not name.startswith(("data/", "requirements"))]
    return [path for path in paths if path.suffix not in (".png", ".npz", ".xz") and path.exists()]


def test_no_paths_of_a_machine() -> None:
    """Files work anywhere: no home directories, no work directories."""
    machine = re.compile(r"(?<![\w.])/(root|home/\w+|work|Users)/")
    found = [path.name for path in tracked() if path != Path(__file__) and machine.search(path.read_text("utf-8"))]
    assert not found


def test_lock_has_hashes_and_no_hosts() -> None:
    """The lock file pins every package by hash and names no index."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    packages = re.findall(r"^([\w.-]+)==\S+ \\\n    --hash=sha256:", text, re.MULTILINE)
    assert len(packages) == len(re.findall(r"^[\w.-]+(?:\[.*\])?==", text, re.MULTILINE)) > 50


def readme_examples() -> list[str]:
    """Python blocks of the README."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(readme_examples())))
def test_readme_example_prints_what_it_says(number: int) -> None:
    """A trailing ``# -> text`` comment is what the line prints."""
    code = readme_examples()[number]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    wanted = re.findall(r"# -> (.*)", code)
    assert wanted
    assert result.stdout.splitlines() == wanted
