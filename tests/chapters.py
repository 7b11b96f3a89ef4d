"""What chapters show, for tests that need not compute it again: executing the chapters compares their outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def stored_outputs(prefix: str) -> list[tuple[str, str]]:
    """(cell, text of its last output) of the code cells of the chapter whose name begins so; "" without an output."""
    (path,) = NOTEBOOKS.glob(f"{prefix}*.ipynb")
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), "".join(map(text_of, cell["outputs"][-1:]))) for cell in cells]


def text_of(output: dict[str, Any]) -> str:
    """An output as text, whether it was printed or is a result."""
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))
