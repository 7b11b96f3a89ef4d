# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""What paths cost in primitive operations.

Each path counts once where it is taken, in ``System.cost``; what it costs stands in a table, and is multiplied when
somebody looks.  The primitives' names are those of the recorded traces.  Kernel homes: mm/swapfile.c,
mm/memcontrol.c, mm/zswap.c, lib/xarray.c.
"""

from __future__ import annotations

from vswap_ref.machine import Counters

from .state import System
from .vswap.cost import VSWAP_COST_OF_PATH, VSWAP_PRIMITIVES

PRIMITIVES = {
    "ci_lock": "locks of physical clusters taken",
    "local_lock": "locks of a CPU's own allocation hint taken",
    "rcu_lock": "RCU read sections entered, those in XArray look-ups included",
    "xa_load": "look-ups in the map of virtual clusters",
    "xa_lock": "the lock of the map of virtual clusters taken",
    "atomic": "atomic updates of the counts of used and of free slots",
    "memcg_ref": "changes of the reference count of a cgroup's id",
    "memcg_lookup": "look-ups of a cgroup by its id",
    "memcg_uncharge_calls": "calls that give swap charges back",
    "phys_free_calls": "calls that free physical slots",
    "phys_free_slots": "physical slots freed",
    "zswap_free": "compressed pages freed",
    **VSWAP_PRIMITIVES,
}

COST_OF_PATH: dict[str, dict[str, int]] = {
    "ci_lock": {"ci_lock": 1},
    "swap_range_alloc": {"local_lock": 1, "atomic": 2},
    "folio_alloc_swap_fails": {"local_lock": 1},
    "swap_range_free": {"atomic": 2, "phys_free_calls": 1, "phys_free_slots": 1},
    "further_slot_free": {"phys_free_slots": 1},
    "mem_cgroup_id_get": {"memcg_ref": 1},
    "mem_cgroup_id_get_many": {"memcg_ref": 1},
    "mem_cgroup_try_charge_swap_fails": {"memcg_ref": 1},
    "mem_cgroup_from_id": {"memcg_lookup": 1, "rcu_lock": 1},
    "mem_cgroup_uncharge_swap": {"memcg_uncharge_calls": 1, "memcg_lookup": 1, "rcu_lock": 1, "memcg_ref": 1},
    "mem_cgroup_uncharge_swap_nobody": {"memcg_uncharge_calls": 1, "memcg_lookup": 1, "rcu_lock": 1},
    "zswap_entry_free": {"zswap_free": 1},
    **VSWAP_COST_OF_PATH,
}


def primitive_counts(s: System) -> Counters:
    """How many of each primitive have happened since boot."""
    counts = dict.fromkeys(PRIMITIVES, 0)
    for path, taken in s.cost.snapshot().items():
        for primitive, nr in COST_OF_PATH[path].items():
            counts[primitive] += nr * taken
    return Counters(counts)
