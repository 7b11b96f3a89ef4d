"""One seeded program on any stage: everything that a user or a counter can see of it."""

from __future__ import annotations

import random
from typing import Any

import vswap_ref as vr
from vswap_ref.machine import PAGE_SIZE
from vswap_ref.series.stages import stages

PAGES = 32


def stage_before(stage: int) -> int:
    """The stage of the main line that a stage builds on."""
    return max(int(known) for known in stages() if known.isdigit() and int(known) < stage)


def page(seed: int) -> bytes:
    """Zero, repetitive or noise."""
    noise = random.Random(seed)
    return (bytes(PAGE_SIZE), noise.randbytes(64) * 64, noise.randbytes(PAGE_SIZE))[seed % 3]


def boot(stage: int) -> Any:
    """A small kernel with a device of each kind that matters: rotating, asynchronous, synchronous."""
    devices = [vr.Pmem("256K", name="pmem"), vr.Ssd("256K", name="ssd")]
    return vr.at(stage).Kernel(ram="512K", swap=devices, zswap=vr.Zswap("lz4", max_pool_percent=5), debug=True)


def run(stage: int, seed: int, steps: int = 150) -> dict[str, Any]:
    """Write, read, fork, move, share, advise, reclaim, swapoff, swapon at random; return what can be seen."""
    rng, kernel, seen = random.Random(seed), boot(stage), []
    app = kernel.spawn("app", kernel.cgroup("job", memory_max="96K"))
    shm = kernel.shmem(PAGES * PAGE_SIZE, name="shared")
    heaps = [app.mmap(PAGES * PAGE_SIZE), app.mmap(PAGES * PAGE_SIZE), app.mmap(shm)]
    for step in range(steps):
        heap, number = rng.choice(heaps), rng.randrange(PAGES)
        action = rng.choice(["write"] * 4 + ["read"] * 3 + ["advise", "mincore", "move", "fork", "reclaim", "devices"])
        try:
            seen.append((action, act(kernel, app, heap, number, action, rng, step)))
        except (OSError, MemoryError) as error:
            seen.append((action, type(error).__name__, str(error)))
    contents = [heap.read_page(number) for heap in heaps for number in range(PAGES)]
    swap = [(si.flags, si.inuse_pages, bytes(si.swap_map), si.users.count) for si in kernel.system.swap.info]
    return {
        "seen": seen,
        "contents": contents,
        "devices": swap,
        "vmstat": kernel.vmstat.snapshot(),
        "cost": kernel.cost.snapshot(),
        "time": kernel.clock.ns,
        "memory": kernel.memory().rows,
    }


def act(kernel: Any, app: Any, heap: Any, number: int, action: str, rng: random.Random, step: int) -> Any:
    """One action; returns what it answers."""
    start, stop = number * PAGE_SIZE, min(PAGES, number + 4) * PAGE_SIZE
    if action == "write":
        return heap.write_page(number, page(step))
    if action == "read":
        return heap.read_page(number)
    if action == "advise":
        return app.madvise(heap, rng.choice(["pageout", "willneed"]), start, stop)
    if action == "mincore":
        return list(app.mincore(heap))
    if action == "move":
        source, target = rng.sample(app.mappings[:2], 2)
        app.madvise(source, "pageout", start, stop)
        app.madvise(target, "dontneed", start, stop)
        return app.move_pages(source, target, start, stop)
    if action == "fork":
        child = app.fork()
        content = child.mappings[0].read_page(number)
        child.exit()
        return content
    if action == "reclaim":
        kernel.drain()
        return kernel.reclaim("64K")
    device = kernel.devices[rng.choice(list(kernel.devices))]
    kernel.swapoff(device)
    return kernel.swapon(device)
