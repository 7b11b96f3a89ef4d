# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""What the paths of the virtual swap space cost in primitive operations.

Kernel home: mm/vswap.c.  The primitives' names are those of the recorded traces.
"""

from __future__ import annotations

VSWAP_PRIMITIVES = {
    "cl_lock": "locks of virtual clusters taken",
    "cl_trylock_fail": "locks of virtual clusters that were busy, and not waited for",
    "ref": "changes of the reference count of a virtual cluster",
    "bit_scans": "searches for free virtual slots in a cluster's bitmap",
    "rmap_atomic": "words of the reverse map written",
}

VSWAP_COST_OF_PATH: dict[str, dict[str, int]] = {
    "vswap_iter": {"xa_load": 1, "rcu_lock": 2, "cl_lock": 1},
    "vswap_iter_next": {"xa_load": 1, "rcu_lock": 1, "cl_lock": 1},
    "vswap_iter_nothing": {"xa_load": 1, "rcu_lock": 2},
    "vswap_map_load": {"xa_load": 1, "rcu_lock": 2},
    "vswap_load_and_lock": {"xa_load": 1, "rcu_lock": 2, "cl_lock": 1},
    "vswap_map_lock": {"xa_lock": 1},
    "vswap_cluster_lock": {"cl_lock": 1},
    "vswap_cluster_trylock_fails": {"cl_trylock_fail": 1},
    "vswap_cluster_ref": {"ref": 1},
    "vswap_cpu_dead": {"rcu_lock": 1},
    "vswap_alloc": {"rcu_lock": 1, "atomic": 1},
    "vswap_alloc_local_lock": {"local_lock": 1},
    "vswap_bit_scan": {"bit_scans": 1},
    "vswap_used": {"atomic": 1},
    "vswap_rmap_set": {"rmap_atomic": 1},
    "further_vswap_rmap_set": {"rmap_atomic": 1},
}
