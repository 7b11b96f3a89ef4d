# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The swap subsystem initialises itself at boot.

Kernel home: mm/swap_state.c.
"""

from __future__ import annotations

from .state import System
from .vswap.init import vswap_init


def swap_init(s: System) -> int:
    """Initialise the virtual swap space, then make /sys/kernel/mm/swap with its file.  Returns 0 or an error."""
    err = vswap_init(s)
    if err:
        s.log.append("failed to initialize virtual swap space")
        return err
    s.dirs.sysfs_mm["swap"] = ["vma_ra_enabled"]
    return 0
