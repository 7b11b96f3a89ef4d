"""vswap_ref: an executable description of Linux swap and of the Virtual Swap Space series.

    import vswap_ref as vr
    k = vr.Kernel(ram="16M", swap=[vr.Ssd("64M")], zswap="lz4")

``vr.Kernel`` is the latest stage, ``vr.at(k).Kernel`` any stage.  Names load when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .kernel import Cgroup, Hibernation, InvariantError, Kernel, Mapping, OutOfMemory, Process, Shmem, Thp, Zswap
    from .lab import Record, compare, interleave, load_trace, run
    from .machine import Disk, Pmem, Ssd, SwapFile, Zram, mkswap
    from .series import at

__version__ = "0.1.0"

_HOMES = {
    "kernel": (
        "Cgroup",
        "Hibernation",
        "InvariantError",
        "Kernel",
        "Mapping",
        "OutOfMemory",
        "Process",
        "Shmem",
        "Thp",
        "Zswap",
    ),
    "machine": ("Disk", "Pmem", "Ssd", "SwapFile", "Zram", "mkswap"),
    "lab": ("Record", "compare", "interleave", "load_trace", "run"),
    "series": ("at",),
}

__all__ = [
    "Cgroup",
    "Disk",
    "Hibernation",
    "InvariantError",
    "Kernel",
    "Mapping",
    "OutOfMemory",
    "Pmem",
    "Process",
    "Record",
    "Shmem",
    "Ssd",
    "SwapFile",
    "Thp",
    "Zram",
    "Zswap",
    "at",
    "compare",
    "interleave",
    "load_trace",
    "mkswap",
    "run",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
