"""The virtual layer alone: a kernel of a stage without devices, whose virtual slots are taken and freed directly."""

from __future__ import annotations

from typing import Any

import vswap_ref as vr
from vswap_ref.series.stages import latest

STAGES = range(9, int(latest()) + 1)
ORDERS = range(10)
MODULES = (
    "allocation",
    "cluster",
    "free",
    "lookup",
    "pin",
    "rmap",
    "swap_cache",
    "zswap_index",
    "cgroup",
    "lifecycle",
    "cache_pin",
    "backing",
    "swap_out",
)


class Layer:
    """A stage's layer; ``call`` finds its functions by name, ``s`` is the state."""

    def __init__(self, stage: int, cpus: int = 1) -> None:
        self.stage = vr.at(stage)
        self.number = stage
        self.kernel = self.stage.Kernel(ram="8M", cpus=cpus)
        self.s = self.kernel.system
        self.vswap = self.s.vswap
        self.folios: dict[int, Any] = {}

    def call(self, name: str, *args: Any) -> Any:
        """A function of the layer by its name, called with the state first."""
        return self.function(name)(self.s, *args)

    def function(self, name: str) -> Any:
        """A function of the layer by its name."""
        for module in MODULES:
            if f"mm/vswap/{module}.py" in self.stage.paths and hasattr(self.stage.module(f"vswap.{module}"), name):
                return getattr(self.stage.module(f"vswap.{module}"), name)
        raise AttributeError(name)

    def folio(self, order: int) -> Any:
        """A folio that is ready to be swapped out; its memory is not accounted for."""
        mem_map = self.s.memory.mem_map
        folio = self.stage.module("state").Folio(len(mem_map), order, bytearray(), locked=True, uptodate=True)
        folio.nr_pages = 1 << order
        folio.swapbacked = True
        mem_map += [folio] * (1 << order)
        return folio

    def alloc(self, order: int = 0, cpu: int = 0) -> int:
        """Take virtual slots; returns the first."""
        self.s.cpu = cpu
        folio = order if self.number == 9 else self.folio(order)
        return int(self.call("vswap_alloc", folio))

    def free(self, *entries: int, wait: bool = True) -> None:
        """Free virtual slots that nobody refers to, one by one; then ``wait`` for a grace period."""
        for entry in entries:
            if self.number < 13:
                self.call("vswap_free", entry, None)
            else:
                self.call("swapcache_clear", entry, 1)
        if wait:
            self.s.rcu.synchronize()

    def cluster(self, entry: int) -> Any:
        """The cluster of a slot, or None."""
        return self.vswap.cluster_map.load(entry >> 9)

    def partial(self, order: int) -> list[int]:
        """Ids on a partial list, from its head."""
        return [cluster.id for cluster in self.vswap.partial_lists[order]]

    def assert_invariants(self, pins: dict[int, int] | None = None) -> None:
        """What must hold between any two operations."""
        v, clusters = self.vswap, dict(self.vswap.cluster_map.items())
        for id_, c in clusters.items():
            assert c.id == id_
            assert not c.lock.locked()
            assert c.bitmap.weight == c.count <= 512 - (0 if id_ else 1 << c.order)
            assert c.refcnt == c.count + c.cached + (pins or {}).get(id_, 0) > 0
            places = [(cpu, k) for cpu, hint in enumerate(v.percpu) for k, x in enumerate(hint.clusters) if x is c]
            listed = [k for k in ORDERS if c in v.partial_lists[k]]
            assert [k for _, k in places] == [c.order] * c.cached
            assert not listed or (listed == [c.order] and not c.cached and not c.full)
            assert not c.cached or (not c.full and c.count + (1 << c.order) <= 512)
            assert c.order < 9 or not (c.cached or c.full or listed or not id_)
            assert id_ or not any(c.bitmap.bits[: 1 << c.order])
        assert sum(c.count for c in clusters.values()) == v.used
        assert {c for k in ORDERS for c in v.partial_lists[k]} <= set(clusters.values())
