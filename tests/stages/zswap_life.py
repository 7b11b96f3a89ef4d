"""A seeded life with zswap in front of two devices, and everything that can be seen of it."""

from __future__ import annotations

import random
from dataclasses import astuple
from typing import Any

import vswap_ref as vr
from vswap_ref.machine import PAGE_SIZE
from vswap_ref.series.stages import checkout_series


def parent(stage: int) -> str:
    """The stage that a stage builds on."""
    return str(checkout_series().stage(str(stage)).parent)


def life(stage: int | str, seed: int, steps: int = 800) -> dict[str, Any]:
    """Two processes write, read, fork, page out and unmap; the pool overflows, a device goes.

    Allocations fail now and then, in the pool and for entries.
    """
    rng = random.Random(seed)
    devices = [vr.Ssd("2M", "a"), vr.Pmem("2M", "b")]
    zswap = vr.Zswap("lz4", max_pool_percent=3, shrinker=bool(seed % 2))
    k = vr.at(stage).Kernel(ram="4M", swap=devices, zswap=zswap, thp=vr.Thp("never", {"64K": "always"}), page_cluster=2)
    free = k.cgroup("free", memory_max="384K")
    tight = k.cgroup("tight", memory_max="256K", zswap_max="64K", zswap_writeback=bool(seed % 3))
    heaps = [k.spawn(name, group).mmap("512K") for name, group in (("one", free), ("two", tight))]
    expected: dict[tuple[int, int], bytes] = {}
    for step in range(steps):
        number, page = rng.randrange(2), rng.randrange(128)
        heap = heaps[number]
        action = rng.choice(("write", "write", "read", "read", "read", "read", "pageout", "reclaim", "fail", "child"))
        if action == "write":
            expected[number, page] = content(rng)
            heap.write_page(page, expected[number, page])
        elif action == "read":
            assert heap.read_page(page) == expected.get((number, page), bytes(PAGE_SIZE))
        elif action == "pageout":
            heap.process.madvise(heap, "pageout")
        elif action == "reclaim":
            k.reclaim("64K")
        elif action == "fail":
            k.faults.fail(rng.choice(("zs_malloc", "zswap_entry_cache_alloc")), nth=rng.randrange(1, 6))
        else:
            child = heap.process.fork(f"child {step}")
            child.mappings[0].touch(page)
            child.exit()
    k.drain()
    seen = look(k)
    k.swapoff(rng.randrange(2))
    k.check()
    for (number, page), data in expected.items():
        assert heaps[number].read_page(page) == data
    return seen | {f"{name} at the end": value for name, value in look(k).items()}


def content(rng: random.Random) -> bytes:
    """A page: zero, text, or noise."""
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(PAGE_SIZE)
    return rng.randbytes(PAGE_SIZE) if kind == 1 else rng.randbytes(16) * (PAGE_SIZE // 16)


def look(k: Any) -> dict[str, Any]:
    """Counters, costs, ledger, the order of zswap's lists, the state of every slot, the time."""
    s = k.system
    groups = list(s.memcg.by_id.values())
    return {
        "vmstat": dict(k.vmstat),
        "debugfs": dict(k.zswap_debugfs()),
        "cost": dict(s.cost),
        "ledger": list(k.memory().rows),
        "lists": [[(hex(e.swpentry), e.length, e.referenced) for e in group.zswap_lru] for group in groups],
        "groups": [dict(group.stat) for group in groups],
        "slots": [(bytes(si.swap_map), si.inuse_pages) for si in s.swap.info],
        "events": [astuple(event) for event in k.events],
        "ns": k.clock.ns,
    }
