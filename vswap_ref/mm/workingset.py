# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Shadows: what an evicted folio leaves behind, and what its return tells.

Kernel home: mm/workingset.c.  A shadow packs the age of the cgroup's lists at eviction, the cgroup's id and
whether the folio was part of the workingset; it is odd, so that a swap-table word can hold it.
"""

from __future__ import annotations

from .memcg import lruvec_page_state, mem_cgroup_get_nr_swap_pages
from .state import Folio, Memcg, System
from .types import Shadow

MEM_CGROUP_ID_SHIFT = 16
MEM_CGROUP_ID_MASK = (1 << MEM_CGROUP_ID_SHIFT) - 1
EVICTION_SHIFT = 1 + 1 + MEM_CGROUP_ID_SHIFT
EVICTION_MASK = (1 << (64 - EVICTION_SHIFT)) - 1


def pack_shadow(memcg_id: int, eviction: int, workingset: bool) -> Shadow:
    """Eviction age, cgroup id, workingset flag, value bit: from high to low."""
    word = (eviction & EVICTION_MASK) << MEM_CGROUP_ID_SHIFT | memcg_id
    return Shadow(word << 2 | workingset << 1 | 1)


def unpack_shadow(shadow: Shadow) -> tuple[int, int, bool]:
    """(cgroup id, eviction age, workingset flag)."""
    word = shadow >> 2
    return word & MEM_CGROUP_ID_MASK, word >> MEM_CGROUP_ID_SHIFT, shadow & 2 != 0


def workingset_age_nonresident(memcg: Memcg | None, nr: int) -> None:
    """Advance the clock of evictions and activations of a cgroup and its ancestors."""
    while memcg is not None:
        memcg.lruvec.nonresident_age += nr
        memcg = memcg.parent


def workingset_eviction(s: System, folio: Folio) -> Shadow:
    """Make the shadow of a folio that is being reclaimed, and advance the clock."""
    memcg = folio.memcg or s.memcg.root
    eviction = memcg.lruvec.nonresident_age
    workingset_age_nonresident(memcg, folio.nr_pages)
    return pack_shadow(memcg.id, eviction, folio.workingset)


def workingset_refault(s: System, folio: Folio, shadow: Shadow) -> None:
    """A folio came back.  If it would have stayed with a little more memory, make it active at once."""
    memcg_id, eviction, workingset = unpack_shadow(shadow)
    nr = folio.nr_pages
    owner = folio.memcg or s.memcg.root
    s.vmstat.workingset_refault_anon += nr
    owner.stat.workingset_refault_anon += nr
    evicted_from = s.memcg.by_id.get(memcg_id)
    if evicted_from is None:
        return
    distance = evicted_from.lruvec.nonresident_age - eviction & EVICTION_MASK
    swap_left = mem_cgroup_get_nr_swap_pages(s, evicted_from) > 0
    if distance > (lruvec_page_state(s, evicted_from).active if swap_left else 0):
        return
    folio.active = True
    workingset_age_nonresident(owner, nr)
    s.vmstat.workingset_activate_anon += nr
    owner.stat.workingset_activate_anon += nr
    if workingset:
        folio.workingset = True
        s.vmstat.workingset_restore_anon += nr
        owner.stat.workingset_restore_anon += nr
