# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Freeing many virtual slots of a cluster at once, in columns of its descriptors.

No kernel home: the kernel frees them one by one (mm/vswap.c: vswap_free), and so does the model with locks that are
validated or scheduled.  With plain locks no other task runs meanwhile, so that only the end and the costs can be seen.
Both are the same here.
"""

from __future__ import annotations

import numpy as np

from ..memcg import mem_cgroup_uncharge_swap_by_id
from ..state import System, VswapCluster
from ..swap_map import swap_slot_free_nr
from ..types import (
    VSWAP_CLUSTER_MASK,
    VSWAP_CLUSTER_SHIFT,
    VSWAP_CLUSTER_SIZE,
    VSWAP_SWAPFILE,
    VSWAP_ZSWAP,
    SwpEntry,
    SwpSlot,
)
from ..zswap_pool import zswap_entries_free
from .cluster import add_to_partial_list, cluster_is_alloc_candidate

BATCH = 16
"""Slots from which on columns are faster."""


def vswap_alike(s: System, entry: SwpEntry, nr: int, pinned: int, users: int) -> int:
    """How many of ``nr`` entries, those in the first one's cluster, can be freed at once; 0 if they are too different.

    They are allocated, of one cgroup, pinned for the swap cache or not (1, 0), and have that many users each.
    """
    cluster, index = s.vswap.cluster_map.load(entry >> VSWAP_CLUSTER_SHIFT), entry & VSWAP_CLUSTER_MASK
    nr = min(nr, VSWAP_CLUSTER_SIZE - index)
    if cluster is None or nr < BATCH or s.locks.kind != "plain":
        return 0
    slots = cluster.desc.array[index : index + nr]
    alike = cluster.bitmap.test(index) and cluster.bitmap.all_equal(index, nr)
    alike = alike and (slots["swap_count"] == users).all() and (slots["in_swapcache"] == pinned).all()
    return nr if alike and (slots["memcgid"] == slots["memcgid"][0]).all() else 0


def swap_slot_free_each(s: System, slot: SwpSlot, nr: int) -> None:
    """Free ``nr`` physical slots in a row at the price of ``nr`` calls."""
    before = s.cost.ci_lock
    swap_slot_free_nr(s, slot, nr)
    saved = nr - (s.cost.ci_lock - before)
    s.cost.ci_lock += saved
    s.cost.swap_range_free += saved
    s.cost.further_slot_free -= saved


def release_backings(s: System, slots: np.ndarray) -> None:
    """release_backing for each of the slots with these descriptors."""
    words = slots["slot"]
    places, first = words[slots["type"] == VSWAP_SWAPFILE], 0
    ends = (places[1:] - places[:-1] != 1).nonzero()[0] + 1
    for end in (*ends.tolist(), len(places)) if len(places) else ():
        swap_slot_free_each(s, SwpSlot(places[first].item()), end - first)
        first = end
    handles = words[(slots["type"] == VSWAP_ZSWAP) & (words != 0)]
    if len(handles):
        zswap_entries_free(s, s.zswap.entries.free_all(handles.tolist()))
    words[:] = 0


def mem_cgroup_uncharge_swap_each(s: System, memcg_id: int, nr: int) -> None:
    """Give back the charges of ``nr`` slots at the price of ``nr`` calls."""
    before = s.cost.mem_cgroup_uncharge_swap
    mem_cgroup_uncharge_swap_by_id(s, memcg_id, nr)
    if s.cost.mem_cgroup_uncharge_swap > before:
        s.cost.mem_cgroup_uncharge_swap += nr - 1
    elif s.memcg.enabled:
        s.cost.mem_cgroup_uncharge_swap_nobody += nr - 1


def release_vswap_slots(s: System, cluster: VswapCluster, entry: SwpEntry, nr: int) -> None:
    """release_vswap_slot for ``nr`` slots that are not the last of their cluster."""
    cluster.bitmap.clear_range(entry & VSWAP_CLUSTER_MASK, nr)
    cluster.count -= nr
    cluster.refcnt -= nr
    s.vswap.used -= nr
    s.cost.vswap_cluster_ref += nr
    s.cost.vswap_used += nr
    if cluster.full and cluster_is_alloc_candidate(cluster):
        cluster.full = False
        if not cluster.cached:
            add_to_partial_list(s, cluster, at_head=False)


def vswap_free_batch(s: System, cluster: VswapCluster, entry: SwpEntry, nr: int) -> None:
    """Free ``nr`` alike slots of a locked cluster, whatever users or pins they have; they are not its last ones."""
    index, desc = entry & VSWAP_CLUSTER_MASK, cluster.desc
    slots = desc.array[index : index + nr]
    slots["swap_count"] = slots["in_swapcache"] = 0
    release_backings(s, slots)
    mem_cgroup_uncharge_swap_each(s, desc.memcgid[index], nr)
    release_vswap_slots(s, cluster, entry, nr)
