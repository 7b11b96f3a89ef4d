"""Two CPUs at the same page: every order of their steps, with the model as it is or with a mistake planted in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from vswap_ref.lab.schedules import Interleavings, interleave
from vswap_ref.machine import PAGE_SIZE, BlockDevice, Pmem, Ssd
from vswap_ref.series import at

OLD, NEW = b"first   " * (PAGE_SIZE // 8), b"second  " * (PAGE_SIZE // 8)


@dataclass(frozen=True, slots=True)
class Scene:
    """What two CPUs do on a kernel with one process; the first page of its only mapping is swapped out."""

    first: Callable[[Any], object]
    second: Callable[[Any], object]
    device: type[BlockDevice] = Ssd
    size: str = "4M"
    expected: bytes = OLD


def read(kernel: Any) -> None:
    """Read the page; once more if the fault reports a lack of memory, as a processor would."""
    heap = kernel.processes[0].mappings[0]
    try:
        heap.read_page(0)
    except MemoryError:
        heap.read_page(0)


def rewrite(kernel: Any) -> None:
    """Write the page, and push it out again."""
    app = kernel.processes[0]
    app.mappings[0].write_page(0, NEW)
    app.madvise(app.mappings[0], "pageout", 0, PAGE_SIZE)


def push_out(page: int, kernel: Any) -> None:
    """Push another page out."""
    app = kernel.processes[0]
    app.madvise(app.mappings[0], "pageout", page * PAGE_SIZE, (page + 1) * PAGE_SIZE)


def move(kernel: Any) -> None:
    """Move the page to the second mapping; it may say that this does not work now."""
    app = kernel.processes[0]
    with suppress(OSError):
        app.move_pages(app.mappings[0], app.mappings[1], 0, PAGE_SIZE)


def in_and_out(kernel: Any) -> None:
    """Write to the page, with what it has anyway, and push it out; unless it has been moved away."""
    app = kernel.processes[0]
    if app.mappings[0].where()[0] != "unmapped":
        app.mappings[0][0] = OLD[0]
        app.madvise(app.mappings[0], "pageout", 0, PAGE_SIZE)


def swapoff(kernel: Any) -> None:
    """Take the device out of use; it may say that this does not work now."""
    try:
        kernel.swapoff(0)
    except OSError as error:
        kernel.processes[0].name = f"swapoff: {str(error).rpartition(' ')[2]}"


SCENES = {
    "two faults": Scene(read, read),
    "two faults, synchronous device": Scene(read, read, Pmem),
    "fault, and the slot used again": Scene(read, rewrite, Pmem, "8K", NEW),
    "fault, swapoff": Scene(read, swapoff),
    "move, swapped in and out": Scene(move, in_and_out),
    "two pages pushed out": Scene(partial(push_out, 1), partial(push_out, 2)),
}
"""The page comes back on both CPUs; or on one, while the other frees its slot, and uses it again for want of others."""


@dataclass(frozen=True, slots=True)
class Plant:
    """A mistake: the function's module and name, and what its text becomes: (old, new), (old, new), ..."""

    module: str
    function: str
    edits: tuple[tuple[str, str], ...]


PLANTS: dict[str, tuple[Plant, ...]] = {
    "nothing": (),
    "PTE compared without its lock": (Plant("fault", "do_swap_page_major", (("with vmf.mm.ptl:", "if True:"),)),),
    "cache flag not claimed": (
        Plant("fault", "swapin_bypass", (("if swapcache_prepare(s, entry, nr):", "if False:"),)),
        Plant("fault", "map_swapped_in", (("    if bypass:\n", "    if False:\n"),)),
    ),
    "cache not looked at again": (
        Plant("userfaultfd", "move_swap_pte", (("elif is_swap_cached(s, entry):", "elif False:"),)),
    ),
    "cluster list without its lock": (Plant("cluster", "isolate_lock_cluster", (("with si.lock:", "if True:"),)),),
}
"""Locks and claims that can be left out."""


@contextmanager
def planted(stage: Any, mistake: str) -> Iterator[None]:
    """Every caller runs the changed functions, until the end of the block."""
    before = []
    for plant in PLANTS[mistake]:
        module = stage.module(plant.module)
        function = getattr(module, plant.function)
        before.append((function, function.__code__))
        function.__code__ = changed(module, function, plant.edits)
    try:
        yield
    finally:
        for function, code in before:
            function.__code__ = code


def changed(module: ModuleType, function: Callable[..., Any], edits: tuple[tuple[str, str], ...]) -> Any:
    """The code of a function with another text.  ValueError if the text is not there to be replaced."""
    text = inspect.getsource(function)
    for old, new in edits:
        if old not in text:
            raise ValueError(f"{function.__name__} has no {old!r}")
        text = text.replace(old, new)
    namespace: dict[str, Any] = {}
    exec(compile(f"from __future__ import annotations\n{text}", "<planted>", "exec"), vars(module), namespace)
    return namespace[function.__name__].__code__


def boot(stage: Any, device: BlockDevice) -> Any:
    """A kernel with three pages, the first one swapped out from CPU 0, which does no more."""
    kernel = stage.Kernel(ram="512K", swap=[device], locks="scheduled", page_cluster=0, cpus=3)
    app = kernel.spawn("app")
    heap = app.mmap(3 * PAGE_SIZE)
    app.mmap(PAGE_SIZE)
    for page in (0, 1, 2):
        heap.write_page(page, OLD)
    heap.process.madvise(heap, "pageout", 0, PAGE_SIZE)
    kernel.drain()
    kernel.reclaim(PAGE_SIZE)
    return kernel


def astray(kernel: Any) -> bool:
    """A folio in the swap cache says that it is mapped at the page's first place, and nothing is mapped there."""
    first = kernel.processes[0].mappings[0]
    source = first.vma
    if first.where()[0] != "unmapped":
        return False
    cached = [folio for folio in kernel.system.memory.mem_map if folio is not None and folio.swapcache]
    return any(folio.anon_vma is source.anon_vma and folio.index == source.start for folio in cached)


def outcome(expected: bytes, kernel: Any) -> str:
    """What a run came to.  AssertionError if the page does not read as it was last written."""
    app = kernel.processes[0]
    moved = app.mappings[1].where()[0] != "unmapped"
    assert not (moved and astray(kernel)), "a cached folio has not noticed that its page was moved"
    assert app.mappings[moved].read_page(0) == expected, "the page reads as it was before it was written"
    kernel.check()
    return app.name if app.name != "app" else "data kept"


def two_cpus(
    scene: str = "two faults",
    mistake: str = "nothing",
    preemptions: int = 1,
    stage: int | str = 0,
    schedule: str | None = None,
) -> Interleavings:
    """Run a scene in every schedule with at most so many preemptions, or in one schedule again.

    ValueError for unknown names, and for a mistake that cannot be made at this stage.
    """
    for name, value, known in (("scene", scene, list(SCENES)), ("mistake", mistake, list(PLANTS))):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
    setting, loaded = SCENES[scene], at(stage)
    search: dict[str, Any] = {"schedule": schedule} if schedule is not None else {"exhaustive": True}
    with planted(loaded, mistake):
        return interleave(
            lambda: boot(loaded, setting.device(setting.size)),
            [setting.first, setting.second],
            cpus=(1, 2),
            preemptions=preemptions,
            after=partial(outcome, setting.expected),
            **search,
        )
