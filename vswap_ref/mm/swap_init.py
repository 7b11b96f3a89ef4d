# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The swap subsystem initialises itself at boot.

Kernel home: mm/swap_state.c.
"""

from __future__ import annotations

from .state import System


def swap_init(s: System) -> int:
    """Make /sys/kernel/mm/swap with its file.  Returns 0."""
    s.dirs.sysfs_mm["swap"] = ["vma_ra_enabled"]
    return 0
