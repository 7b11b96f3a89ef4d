# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Which cgroup a virtual slot is charged to: an id in its descriptor.

Kernel home: mm/vswap.c.  Id 0 means no record.  An id other than 0 has a reference on the cgroup's id for each slot.
"""

from __future__ import annotations

from ..state import Folio, System, VswapCluster
from ..types import VSWAP_CLUSTER_MASK, SwpEntry, swp_entry_range
from .lookup import vswap_cluster_load, vswap_iter


def __vswap_cgroup_record(cluster: VswapCluster, entry: SwpEntry, memcgid: int, nr: int) -> int:
    """Write the id of ``nr`` slots of a locked cluster, all of one cgroup; returns the id that the last of them had."""
    index, ids = entry & VSWAP_CLUSTER_MASK, cluster.desc.memcgid
    if nr == 1:
        old = ids[index]
        ids[index] = memcgid
        return old
    before = ids[index : index + nr].tolist()
    cluster.desc.array["memcgid"][index : index + nr] = memcgid
    first = next((i for i, old in enumerate(before) if old), nr)
    assert len(set(before[first:])) <= 1, f"slots of several cgroups: {before}"
    return before[-1]


def vswap_cgroup_record(s: System, entry: SwpEntry, memcgid: int, nr: int) -> int:
    """Write the id of ``nr`` allocated slots of one cluster; returns the id that the last of them had."""
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        assert cluster is not None
        old = __vswap_cgroup_record(cluster, entry, memcgid, nr)
        cluster.lock.release()
    return old


def swap_cgroup_record(s: System, folio: Folio, memcgid: int, entry: SwpEntry) -> None:
    """Record the id for the folio's slots from ``entry`` on, which had none."""
    old = vswap_cgroup_record(s, entry, memcgid, folio.nr_pages)
    assert not old


def __swap_cgroup_record(s: System, folio: Folio, memcgid: int, entry: SwpEntry) -> None:
    """swap_cgroup_record for who has locked the entry's part of the swap cache."""
    with s.rcu.read:
        cluster = vswap_cluster_load(s, entry)
        assert cluster is not None
        old = __vswap_cgroup_record(cluster, entry, memcgid, folio.nr_pages)
    assert not old


def swap_cgroup_clear(s: System, entry: SwpEntry, nr: int) -> int:
    """Clear the record of ``nr`` allocated slots, all of one cgroup, and return its id (0 if there was none)."""
    return vswap_cgroup_record(s, entry, 0, nr)


def lookup_swap_cgroup_id(s: System, entry: SwpEntry) -> int:
    """The id recorded for a virtual slot; 0 if there is none, or no such slot."""
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        if cluster is None:
            return 0
        memcgid = cluster.desc.memcgid[entry & VSWAP_CLUSTER_MASK]
        cluster.lock.release()
    return memcgid


def vswap_cgroup_batch(s: System, entry: SwpEntry, max_nr: int) -> int:
    """How many slots from the entry's on have the same id as the first; at least 1."""
    if max_nr <= 1:
        return max_nr
    cluster, nr, memcgid = None, 0, 0
    with s.rcu.read:
        for one in swp_entry_range(entry, entry + max_nr):
            cluster = vswap_iter(s, cluster, one)
            if cluster is None:
                break
            found = cluster.desc.memcgid[one & VSWAP_CLUSTER_MASK]
            memcgid = memcgid if nr else found
            if found != memcgid:
                break
            nr += 1
        if cluster is not None:
            cluster.lock.release()
    return max(nr, 1)
