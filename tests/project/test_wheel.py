"""The wheel, installed in an empty environment, is a working package."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import pickle
import vswap_ref as vr
k = vr.at(0).Kernel(ram="1M", swap=[vr.Ssd("1M")], zswap="deflate", debug=True)
heap = k.spawn("app").mmap("64K")
heap[0:5] = b"hello"
k.reclaim("64K")
heap.process.madvise(heap, "pageout")
assert heap.where()[0] == "zswap", heap.where()
assert heap[0:5] == b"hello"
assert pickle.loads(pickle.dumps(k.events[0])) == k.events[0]
print(vr.at(0), vr.Kernel.__module__, type(k).__module__)
"""


@pytest.mark.slow
def test_wheel_in_an_empty_environment(tmp_path: Path) -> None:
    """Build it, install it beside NumPy alone, boot stage 0, and use the command."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", str(wheel)], check=True, capture_output=True, cwd=tmp_path)
    result = subprocess.run([python, "-c", PROGRAM], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "<stage 0: Linux 6.19> vswap_ref.kernel vswap_ref._stages.s0.kernel\n"
    command = subprocess.run([home / "bin" / "vswap-ref", "stages"], check=True, capture_output=True, text=True)
    assert "Linux 6.19" in command.stdout
