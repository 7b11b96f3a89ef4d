# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Control files as a user reads them: cgroupfs, and zswap's in debugfs and among the module parameters.

Kernel homes: mm/memcontrol.c, mm/memcontrol-v1.c, mm/zswap.c.
"""

from __future__ import annotations

from collections.abc import Mapping

from vswap_ref.machine import PAGE_SIZE

from .state import Memcg, System
from .views import memory_stat
from .zswap_pool import zswap_total_pages

MEMORY_EVENTS = ("low", "high", "max", "oom", "oom_kill", "oom_group_kill")
SWAP_EVENTS = ("high", "max", "fail")
PAGE_COUNTER_MAX_BYTES = (1 << 63) - PAGE_SIZE
"""What version 1 shows for "no limit"."""


def lines(values: Mapping[str, object]) -> str:
    """One "name value" line each."""
    return "".join(f"{name} {value}\n" for name, value in values.items())


def limit_text(pages: int | None) -> str:
    """A limit in bytes, or "max"."""
    return "max\n" if pages is None else f"{pages * PAGE_SIZE}\n"


def memory_events(events: Mapping[str, int]) -> str:
    """The text of memory.events."""
    return lines({name: events.get(name, 0) for name in MEMORY_EVENTS})


def memory_swap_events(memcg: Memcg) -> str:
    """The text of memory.swap.events."""
    return lines({name: memcg.events.get(f"swap.{name}", 0) for name in SWAP_EVENTS})


def cgroup_files(s: System, memcg: Memcg) -> dict[str, str]:
    """The memory files of a cgroup, by name; the root has only those without limits."""
    stat = {"memory.stat": lines(memory_stat(s, memcg))}
    if s.memcg.memsw:
        return stat | cgroup1_files(memcg)
    writeback = {"memory.zswap.writeback": f"{memcg.zswap_writeback:d}\n"}
    if memcg.parent is None:
        return stat | writeback
    usage: dict[str, str] = {}
    for name, pages in (("memory", memcg.memory), ("memory.swap", memcg.swap)):
        usage[f"{name}.current"] = f"{pages.usage * PAGE_SIZE}\n"
        usage[f"{name}.peak"] = f"{pages.watermark * PAGE_SIZE}\n"
        usage[f"{name}.high"] = limit_text(pages.high)
        usage[f"{name}.max"] = limit_text(pages.max)
    events = {
        "memory.events": memory_events(memcg.events),
        "memory.events.local": memory_events(memcg.events_local),
        "memory.swap.events": memory_swap_events(memcg),
    }
    zswap = {"memory.zswap.current": f"{memcg.zswap_bytes}\n", "memory.zswap.max": limit_text(memcg.zswap_max)}
    return usage | events | zswap | writeback | stat


def cgroup1_files(memcg: Memcg) -> dict[str, str]:
    """Usage, limit and highest usage of version 1."""
    files = {}
    for name, pages in (("memory", memcg.memory), ("memory.memsw", memcg.memsw)):
        limit = PAGE_COUNTER_MAX_BYTES if pages.max is None else pages.max * PAGE_SIZE
        files[f"{name}.usage_in_bytes"] = f"{pages.usage * PAGE_SIZE}\n"
        files[f"{name}.limit_in_bytes"] = f"{limit}\n"
        files[f"{name}.max_usage_in_bytes"] = f"{pages.watermark * PAGE_SIZE}\n"
    return files


def zswap_debugfs(s: System) -> dict[str, int]:
    """The files of debugfs zswap/: event counters, bytes of the pools, stored pages."""
    z = s.zswap
    return {
        **z.debugfs,
        "pool_total_size": zswap_total_pages(s) * PAGE_SIZE,
        "stored_pages": z.stored_pages,
        "stored_incompressible_pages": z.stored_incompressible,
    }


def debugfs(s: System) -> dict[str, dict[str, int]]:
    """What swap shows in /sys/kernel/debug: a directory, and the values of its files."""
    return {"vswap": vswap_debugfs(s), "zswap": zswap_debugfs(s)}


def zswap_parameters(s: System) -> dict[str, str]:
    """zswap's module parameters as text; the compressor is that of new pages."""
    z = s.zswap
    return {
        "enabled": "Y" if z.enabled else "N",
        "compressor": z.pool.codec.name if z.pool is not None else "",
        "max_pool_percent": str(z.max_pool_percent),
        "accept_threshold_percent": str(z.accept_threshold_percent),
        "shrinker_enabled": "Y" if z.shrinker_enabled else "N",
    }


def vswap_debugfs(s: System) -> dict[str, int]:
    """The files of debugfs vswap/: virtual slots that were refused, virtual slots in use."""
    return {"alloc_reject": s.vswap.alloc_reject, "used": s.vswap.used}
