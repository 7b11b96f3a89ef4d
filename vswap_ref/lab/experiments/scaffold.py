"""Experiments of the chapter on the scaffold: the modules of a stage, and swap's part of booting."""

from __future__ import annotations

import ast
import errno
from dataclasses import dataclass
from unittest.mock import patch

from vswap_ref.display import OneRow, picture
from vswap_ref.machine import PAGE_SIZE, Ssd
from vswap_ref.series import at


@dataclass(frozen=True, slots=True)
class ModuleTree:
    """The modules of a stage, with the names of their functions."""

    stage: str
    functions: dict[str, list[str]]

    @property
    def vswap(self) -> dict[str, list[str]]:
        """Those of the virtual swap space."""
        return {path: names for path, names in self.functions.items() if path.startswith("mm/vswap/")}

    def __repr__(self) -> str:
        new = sum(map(len, self.vswap.values()))
        return f"stage {self.stage}: {len(self.functions)} modules, {new} functions in mm/vswap"

    def _repr_html_(self) -> str:
        squares, x, y, tallest = "", 0, 0, 0
        for path, names in self.functions.items():
            side = 8 + 2 * len(names)
            if x + side > 640:
                x, y, tallest = 0, y + tallest + 6, 0
            tallest = max(tallest, side)
            colour = "#c8453c" if path in self.vswap else "#3f6fb0"
            title = f"<title>{path}: {len(names)} functions</title>"
            squares += f"<rect x='{x}' y='{y}' width='{side}' height='{side}' fill='{colour}'>{title}</rect>"
            x += side + 6
        return f"<p>{self!r} (red)</p>{picture(squares, repr(self), 660, y + tallest)}"


def module_tree(stage: int | str = 7) -> ModuleTree:
    """The modules of a stage, sorted, with the functions they define."""
    functions: dict[str, list[str]] = {}
    for path, text in sorted(at(stage).sources().items()):
        names = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        if path.startswith("mm/") and names:
            functions[path] = names
    return ModuleTree(str(stage), functions)


@dataclass(frozen=True, slots=True)
class SwapBoot(OneRow):
    """What swap's part of booting returned, made and logged, and whether a page survives being swapped out."""

    debugfs_on: str
    error: str
    result: int
    sysfs: dict[str, list[str]]
    debugfs: dict[str, list[str]] | None
    log: list[str]
    swapped: bool

    def row(self) -> dict[str, object]:
        """As a row of a table."""
        return {
            "debugfs": self.debugfs_on,
            "vswap_init fails": self.error,
            "swap_init": self.result if not self.result else f"-{errno.errorcode[-self.result]}",
            "/sys/kernel/mm/swap": "yes" if "swap" in self.sysfs else "no",
            "debugfs/vswap": "yes" if "vswap" in (self.debugfs or {}) else "no",
            "log": "; ".join(self.log) or "-",
            "swapping works": "yes" if self.swapped else "no",
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name}: {value}" for name, value in self.row().items())


def boot_swap(debugfs: str = "on", error: str = "none", stage: int | str = 7) -> SwapBoot:
    """Run swap_init on a kernel without directories, then swap a page out and in.

    debugfs: "on" or "off".  error: "none", or the name of the error that vswap_init fails with.
    """
    loaded = at(stage)
    kernel = loaded.Kernel(ram="1M", swap=[Ssd("1M")])
    s, module = kernel.system, loaded.module("swap_init")
    s.dirs = loaded.module("state").KernelDirs(debugfs={} if debugfs == "on" else None)
    s.log.clear()
    if error == "none":
        result = module.swap_init(s)
    else:
        with patch.object(module, "vswap_init", lambda s: -getattr(errno, error)):
            result = module.swap_init(s)
    heap = kernel.spawn("app").mmap(PAGE_SIZE)
    heap[0:5] = b"hello"
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    out = heap.where()[0] != "resident"
    return SwapBoot(
        debugfs, error, result, s.dirs.sysfs_mm, s.dirs.debugfs, s.log, out and bytes(heap[0:5]) == b"hello"
    )
