"""``python -m benchmarks``: speed of the model and of the engine, as ratios within one run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from vswap_ref import Disk, Kernel, Pmem, Ssd
from vswap_ref.machine import PAGE_SIZE, BlockDevice

from .floor import simulate

PAGES = 4096
ROUNDS = 6


def floor_us() -> float:
    """Processor time of the textbook simulator for a fault with an eviction, in microseconds."""
    accesses = [(page, True) for _ in range(4) for page in range(2 * PAGES)]
    best = min(timed(lambda: simulate(accesses, PAGES)) for _ in range(ROUNDS))
    return best / len(accesses) * 1e6


def cycle_us(device: BlockDevice, cgroup: bool) -> tuple[float, float, float]:
    """Processor time of swap-out, swap-in and free of one page through the face, in microseconds."""
    kernel = Kernel(ram="64M", swap=[device])
    heap = kernel.spawn("bench", cgroup=kernel.cgroup("bench") if cgroup else None).mmap(PAGES * PAGE_SIZE)
    for page in range(PAGES):
        heap.write_page(page, bytes((1 + page % 255,)) * PAGE_SIZE)

    def out() -> None:
        heap.process.madvise(heap, "pageout")
        kernel.drain()
        kernel.reclaim(PAGES * PAGE_SIZE)

    def back() -> None:
        for page in range(PAGES):
            heap.touch(page, write=True)

    outs, backs = zip(*[(timed(out), timed(back)) for _ in range(ROUNDS)], strict=True)
    out()
    free = timed(heap.munmap)
    return min(outs) / PAGES * 1e6, min(backs) / PAGES * 1e6, free / PAGES * 1e6


def timed(function: Callable[[], object]) -> float:
    """Seconds of processor time that a call takes."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def import_ms(statement: str) -> float:
    """Milliseconds that a statement takes in a fresh interpreter, NumPy loaded and bytecode cached; best of nine."""
    code = f"import numpy, time; t = time.perf_counter(); {statement}; print((time.perf_counter() - t) * 1e3)"
    caching = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return min(float(subprocess.check_output([sys.executable, "-c", code], env=caching)) for _ in range(9))


def main() -> None:
    """Print the report."""
    floor = floor_us()
    print(f"textbook LRU simulator, fault with eviction: {floor:.2f} us of processor time (the floor)\n")
    print(f"{'order-0 page, no compression':<34}{'out':>8}{'in':>8}{'free':>8}{'sum us':>9}{'x floor':>9}")
    for device in (Pmem, Ssd, Disk):
        for cgroup in (False, True):
            figures = cycle_us(device("64M"), cgroup)
            name = f"{device.__name__}{', in a cgroup' if cgroup else ''}"
            row = "".join(f"{figure:8.1f}" for figure in figures)
            print(f"{name:<34}{row}{sum(figures):9.1f}{sum(figures) / floor:9.1f}")
    numpy = import_ms("import numpy.fft")
    print(f"\n{'loading':<34}{'ms':>8}")
    for name, statement in (
        ("import vswap_ref", "import vswap_ref"),
        ("at(0), bytecode cached", "import vswap_ref; vswap_ref.at(0).Kernel"),
        ("import numpy.fft (to compare)", "import numpy.fft"),
    ):
        print(f"{name:<34}{import_ms(statement) if 'fft' not in name else numpy:8.1f}")


if __name__ == "__main__":
    main()
