# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The virtual swap space initialises itself at boot.

Kernel home: mm/vswap.c.
"""

from __future__ import annotations

from errno import ENODEV

from ..state import System


def vswap_debug_fs_init(s: System) -> int:
    """Make the directory "vswap" at the root of debugfs.  Returns 0, or -ENODEV if debugfs is switched off."""
    if s.dirs.debugfs is None:
        return -ENODEV
    s.dirs.debugfs["vswap"] = []
    return 0


def vswap_init(s: System) -> int:
    """Initialise the virtual swap space.  Returns 0."""
    if vswap_debug_fs_init(s):
        s.log.append("Failed to initialize vswap debugfs")
    return 0
