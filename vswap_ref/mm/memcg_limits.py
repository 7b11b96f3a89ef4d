# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Limits of a memory cgroup: what happens when one is changed, and what it costs to be above ``high``.

Kernel home: mm/memcontrol.c (memory_max_write, memory_high_write, mem_cgroup_handle_over_high).
"""

from __future__ import annotations

from .memcg import MAX_RECLAIM_RETRIES, SWAP_CLUSTER_MAX, above_high, memcg_event, memcg_lineage, memcg_subtree
from .reclaim import try_to_free_mem_cgroup_pages
from .state import Memcg, PageCounter, System


def memory_max_write(s: System, memcg: Memcg, limit: int | None) -> None:
    """Set memory.max (pages, None: no limit) and reclaim down to it.

    It stays set if that does not succeed: then every charge fails, and the event "oom" is counted.
    """
    memcg.memory.max = limit
    if not reclaim_to(s, memcg, limit):
        memcg_event(memcg, "oom")


def memory_high_write(s: System, memcg: Memcg, limit: int | None) -> None:
    """Set memory.high (pages, None: no limit) and reclaim down to it as far as possible."""
    memcg.memory.high = limit
    watch_high_limits(s)
    reclaim_to(s, memcg, limit)


def swap_high_write(s: System, memcg: Memcg, limit: int | None) -> None:
    """Set memory.swap.high (slots, None: no limit).  What is swapped out already stays."""
    memcg.swap.high = limit
    watch_high_limits(s)


def watch_high_limits(s: System) -> None:
    """Charges look for high limits only while there are any."""
    tree = memcg_subtree(s.memcg.root)
    s.memcg.watch_high = any((memcg.memory.high, memcg.swap.high) != (None, None) for memcg in tree)


def swap_max_write(s: System, memcg: Memcg, limit: int | None) -> None:
    """Set memory.swap.max (slots, None: no limit).  What is swapped out already stays."""
    memcg.swap.max = limit


WRITES = {
    "memory.max": memory_max_write,
    "memory.high": memory_high_write,
    "memory.swap.max": swap_max_write,
    "memory.swap.high": swap_high_write,
}


def cgroup_file_write(s: System, memcg: Memcg, name: str, limit: int | None) -> None:
    """Write a limit (pages, None: no limit) to one of a cgroup's files."""
    WRITES[name](s, memcg, limit)


def reclaim_to(s: System, memcg: Memcg, limit: int | None) -> bool:
    """Reclaim until usage is at the limit, or 16 rounds brought nothing.  True if it is."""
    retries = MAX_RECLAIM_RETRIES
    while limit is not None and memcg.memory.usage > limit and retries:
        if not try_to_free_mem_cgroup_pages(s, memcg, memcg.memory.usage - limit):
            retries -= 1
    return limit is None or memcg.memory.usage <= limit


NSEC_PER_SEC = 1_000_000_000
MEMCG_MAX_HIGH_DELAY = 2 * NSEC_PER_SEC
MEMCG_LEAST_HIGH_DELAY = NSEC_PER_SEC // 100


def overage(pages: PageCounter) -> float:
    """How far usage is above the high limit, as a share of the limit; 0 if it is not."""
    if pages.high is None or pages.usage <= pages.high:
        return 0.0
    return (pages.usage - pages.high) / max(pages.high, 1)


def calculate_high_delay(memcg: Memcg, nr: int) -> int:
    """Nanoseconds to sleep for ``nr`` pages charged: the square of the worst overage, for memory and for swap."""
    delay = 0.0
    for counters in (memcg.memory_counters, memcg.swap_counters):
        delay += max(map(overage, counters), default=0.0) ** 2 * nr * NSEC_PER_SEC
    return min(int(delay), MEMCG_MAX_HIGH_DELAY)


def reclaim_high(s: System, memcg: Memcg, nr: int) -> int:
    """Reclaim from every ancestor that is above its high limit, and count the events.  Returns pages freed."""
    freed = 0
    for ancestor in memcg_lineage(memcg):
        if above_high(ancestor.memory):
            memcg_event(ancestor, "high")
            freed += try_to_free_mem_cgroup_pages(s, ancestor, max(nr, SWAP_CLUSTER_MAX))
        if above_high(ancestor.swap):
            memcg_event(ancestor, "swap.high")
    return freed


def mem_cgroup_handle_over_high(s: System, memcg: Memcg) -> None:
    """Let a program pay for pages charged above a high limit: first by reclaim, and if that does not help by sleep.

    Delays under 10 ms are not slept; none is longer than 2 s.
    """
    nr, s.memcg.nr_over_high = s.memcg.nr_over_high, 0
    retries = MAX_RECLAIM_RETRIES
    while True:
        freed = reclaim_high(s, memcg, nr)
        delay = calculate_high_delay(memcg, nr)
        if delay <= MEMCG_LEAST_HIGH_DELAY:
            return
        retries -= not freed
        if not retries:
            break
    s.clock.advance(delay)
