# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""From the name of a page to its place, and back.

Kernel home: include/linux/swap.h.  A name (entry) stands in page tables and is the key of the swap cache and of zswap;
a place (slot) is a page of a device.  Here alone one becomes the other.  Both ways are the identity, which is why
neither can fail; callers convert where the answer cannot change under them: with the device pinned or a lock held.
"""

from __future__ import annotations

from .state import System
from .types import SwpEntry, SwpSlot


def swp_entry_to_swp_slot(s: System, entry: SwpEntry) -> SwpSlot:
    """The slot that holds an entry's page."""
    return SwpSlot(entry)


def swp_slot_to_swp_entry(s: System, slot: SwpSlot) -> SwpEntry:
    """The entry whose page a slot holds."""
    return SwpEntry(slot)
