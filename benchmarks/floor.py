"""The floor of comparison: a paging simulator in the usual textbook style.

It counts faults and moves nothing: no contents, no slots, no cgroups, no locks.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable


def simulate(accesses: Iterable[tuple[int, bool]], frames: int, policy: str = "lru") -> dict[str, int]:
    """Run (page, write?) accesses with ``frames`` page frames; policy "fifo" or "lru".  Returns counts of events."""
    memory: OrderedDict[int, bool] = OrderedDict()
    swapped: set[int] = set()
    counts = {"hits": 0, "first": 0, "swapins": 0, "writes": 0, "evictions": 0}
    for page, write in accesses:
        if page in memory:
            counts["hits"] += 1
            if policy == "lru":
                memory.move_to_end(page)
            memory[page] = memory[page] or write
            continue
        if len(memory) == frames:
            victim, dirty = memory.popitem(last=False)
            counts["evictions"] += 1
            counts["writes"] += dirty
            swapped.add(victim)
        counts["swapins" if page in swapped else "first"] += 1
        memory[page] = write
    return counts


def timed(function: Callable[[], object]) -> float:
    """Seconds of processor time that a call takes."""
    begin = time.thread_time()
    function()
    return time.thread_time() - begin


def floor_us(frames: int = 4096, rounds: int = 6) -> float:
    """Processor time of the simulator for a fault with an eviction, in microseconds."""
    accesses = [(page, True) for _ in range(4) for page in range(2 * frames)]
    return min(timed(lambda: simulate(accesses, frames)) for _ in range(rounds)) / len(accesses) * 1e6
