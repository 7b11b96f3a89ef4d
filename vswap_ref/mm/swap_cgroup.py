# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Which cgroup each slot is charged to: two bytes a slot, for the whole device.

Kernel home: mm/swap_cgroup.c.  Id 0 means no record.
"""

from __future__ import annotations

from array import array
from errno import ENOMEM

from .state import System
from .types import SwpEntry, swp_slot_offset, swp_slot_type
from .vswap.lookup import swp_entry_to_swp_slot


def swap_cgroup_swapon(s: System, type_: int, max_pages: int) -> int:
    """Allocate the id array of a device.  Returns 0 or -ENOMEM; nothing if cgroups are disabled."""
    if not s.memcg.enabled:
        return 0
    if s.faults.should_fail("vzalloc"):
        return -ENOMEM
    s.swap.cgroup[type_] = array("H", bytes(2 * (max_pages + max_pages % 2)))
    return 0


def swap_cgroup_swapoff(s: System, type_: int) -> None:
    """Detach and free the id array of a device."""
    s.swap.cgroup.pop(type_, None)


def swap_cgroup_record(s: System, memcg_id: int, entry: SwpEntry, nr: int) -> None:
    """Record the id for ``nr`` slots that had none."""
    slot = swp_entry_to_swp_slot(s, entry)
    ids, first = s.swap.cgroup[swp_slot_type(slot)], swp_slot_offset(slot)
    if nr == 1:
        assert ids[first] == 0
        ids[first] = memcg_id
    else:
        assert not any(ids[first : first + nr])
        ids[first : first + nr] = array("H", (memcg_id,)) * nr


def swap_cgroup_clear(s: System, entry: SwpEntry, nr: int) -> int:
    """Clear the record of ``nr`` slots, all of one cgroup, and return its id (0 if there was none)."""
    slot = swp_entry_to_swp_slot(s, entry)
    ids = s.swap.cgroup.get(swp_slot_type(slot))
    if ids is None:
        return 0
    first = swp_slot_offset(slot)
    memcg_id = ids[first]
    if nr == 1:
        ids[first] = 0
        return memcg_id
    assert ids[first : first + nr].count(memcg_id) == nr
    ids[first : first + nr] = array("H", bytes(2 * nr))
    return memcg_id


def lookup_swap_cgroup_id(s: System, entry: SwpEntry) -> int:
    """The id recorded for an entry's slot, or 0."""
    slot = swp_entry_to_swp_slot(s, entry)
    ids = s.swap.cgroup.get(swp_slot_type(slot))
    return ids[swp_slot_offset(slot)] if ids is not None else 0
