"""Build hook: puts the sources of all stages, and the data, into the wheel."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StagesBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Weaves every stage from the notebooks; an editable install reads the notebooks themselves."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built."""
        if version == "editable":
            return
        root = Path(self.root)
        sys.path.insert(0, str(root))
        from vswap_ref.series.stages import write_stages

        self.folder = tempfile.TemporaryDirectory()
        write_stages(root / "notebooks", Path(self.folder.name))
        build_data["force_include"][self.folder.name] = "vswap_ref/_stages"
        if (root / "data").exists():
            build_data["force_include"][str(root / "data")] = "vswap_ref/data"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called after the wheel was built."""
        if version != "editable":
            self.folder.cleanup()
