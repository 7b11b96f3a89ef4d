"""``python -m benchmarks``: speed of the model and of the engine, as ratios within one run."""

from __future__ import annotations

import os
import subprocess
import sys

import vswap_ref as vr
from vswap_ref.machine import PAGE_SIZE, BlockDevice, format_size

from . import layer
from .floor import floor_us, timed

PAGES = 512
"""2 MiB: contents stay in the processor's caches, so that Python is measured; MORE_PAGES are 16 MiB and do not."""
MORE_PAGES = 4096
BATCHES = {
    "512 on a device in a row": "11",
    "512 compressed": "12",
    "512 zeros": "13",
    "511, compressed and on a device in turn": "14",
}
"""What is freed in one call -> its row in data/costs."""
RECORDED = {
    "out and in": "order 0 zswap: out (7 calls) + in (13 calls), no compression",
    "free 512 on a device in a row": "free_swap_and_cache_nr(512) alone, one disk range (min/mean)",
    "free 512 zeros": "free_swap_and_cache_nr(512) alone, zero backed, whole call (min/mean)",
    "look up an entry": "swp_swapcount, same cluster",
}
"""Name of a figure -> where data/costs has the real code's."""


def cycle_us(stage: int, device: BlockDevice, cgroup: bool, pages: int) -> tuple[float, float, float]:
    """Processor time of swap-out, swap-in and free of one page through the face, in microseconds."""
    kernel = vr.at(stage).Kernel(ram="64M", swap=[device])
    heap = kernel.spawn("bench", cgroup=kernel.cgroup("bench") if cgroup else None).mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap.write_page(page, bytes((1 + page % 255,)) * PAGE_SIZE)

    def out() -> None:
        heap.process.madvise(heap, "pageout")
        kernel.drain()
        kernel.reclaim(pages * PAGE_SIZE)

    def back() -> None:
        for page in range(pages):
            heap.touch(page, write=True)

    outs, backs = zip(*[(timed(out), timed(back)) for _ in range(24576 // pages)], strict=True)
    out()
    free = timed(heap.munmap)
    return min(outs) / pages * 1e6, min(backs) / pages * 1e6, free / pages * 1e6


def import_ms(statement: str, cached: bool = True) -> float:
    """Milliseconds of processor time that a statement takes in a fresh interpreter with NumPy loaded; best of nine.

    Of its own thread: NumPy leaves others behind that spin for a while.

    ``cached``: the bytecode of stages is; else of nothing.
    """
    code = f"import numpy, time; t = time.thread_time(); {statement}; print((time.thread_time() - t) * 1e3)"
    caching = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    fresh = caching | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": os.devnull}
    env = caching if cached else fresh
    return min(float(subprocess.check_output([sys.executable, "-c", code], env=env)) for _ in range(9))


def report_cycles() -> None:
    """A page's way out and back through the face."""
    print(f"{'order-0 page, no compression':<42}{'out':>8}{'in':>8}{'free':>8}{'sum us':>9}{'x floor':>9}")
    for stage in (0, layer.STAGE):
        for device, cgroup, pages in (
            (vr.Pmem, False, PAGES),
            (vr.Pmem, True, PAGES),
            (vr.Pmem, False, MORE_PAGES),
            (vr.Ssd, False, PAGES),
            (vr.Disk, False, PAGES),
        ):
            floor, figures = floor_us(), cycle_us(stage, device("64M"), cgroup, pages)
            size = format_size(pages * PAGE_SIZE)
            name = f"stage {stage}, {device.__name__}, {size}{', in a cgroup' if cgroup else ''}"
            row = "".join(f"{figure:8.1f}" for figure in figures)
            print(f"{name:<42}{row}{sum(figures):9.1f}{sum(figures) / floor:9.1f}")


def layer_us() -> dict[str, float]:
    """Microseconds that the virtual layer takes."""
    out, back = layer.cycle_us()
    cycle = {"out to zswap, 7 calls": out, "in from zswap, 15 calls": back, "out and in": out + back}
    batches = {f"free {name}": layer.least_us(row) for name, row in BATCHES.items()}
    return cycle | batches | {"look up an entry": layer.least_us("15") / 50}


def report_layer() -> None:
    """The virtual layer's share, beside the real code: measured with zswap and cgroups as stand-ins."""
    whole, floor = layer_us(), floor_us()
    with layer.stand_ins():
        alone = layer_us()
    title = f"the virtual layer, stage {layer.STAGE}"
    print(f"\n{title:<42}{'us':>9}{'alone':>9}{'x floor':>9}{'real us':>10}{'x real':>9}")
    for name, us in alone.items():
        print(f"{name:<42}{whole[name]:9.2f}{us:9.2f}{us / floor:9.1f}", end="")
        real = layer.recorded_ns(RECORDED[name]) / 1e3 if name in RECORDED else 0
        print(f"{real:10.3f}{us / real:9.0f}" if real else f"{'-':>10}{'-':>9}")
    print("alone: without what zswap and cgroups do when it calls them")


def report_events() -> None:
    """Primitive operations of the model, and of the real code where it differs (which has six patches more)."""
    recorded = layer.recorded_events()
    names = [name for name in recorded["1"] if name not in ("cache_hits", "vswap_used")]
    print(f"\nprimitive operations: stage {layer.STAGE}, and after / the real code with 20 patches if it has others")
    for row in layer.LIFE_CYCLES:
        counts = layer.events(row)
        both = (
            f"{name} {counts[name]}" + f"/{recorded[row][name]}" * (counts[name] != recorded[row][name])
            for name in names
            if counts[name] or recorded[row][name]
        )
        print(f"{row:>3}  {', '.join(both)}")


def report_loading() -> None:
    """Import of the package, and of a stage."""
    print(f"\n{'loading, NumPy loaded before':<42}{'ms':>8}")
    for name, statement, cached in (
        ("import vswap_ref", "import vswap_ref", True),
        ("import, at(0), bytecode cached", "import vswap_ref; vswap_ref.at(0).Kernel", True),
        ("import, at(0), compiled", "import vswap_ref; vswap_ref.at(0).Kernel", False),
        ("import numpy.fft (to compare)", "import numpy.fft", True),
    ):
        print(f"{name:<42}{import_ms(statement, cached):8.1f}")


def main() -> None:
    """Print the report."""
    print(f"floor: a textbook LRU simulator, fault with eviction, {floor_us():.2f} us of processor time\n")
    report_cycles()
    report_layer()
    report_events()
    report_loading()


if __name__ == "__main__":
    main()
