"""A kernel with one page, and everything that can happen to it: the ground of an exhaustive exploration."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vswap_ref.machine import PAGE_SIZE, BlockDevice, Pmem, Ssd
from vswap_ref.series import at

from .transition_graph import BACKINGS
from .transitions import State

STAGE = 14
Operation = Callable[[Any], object]
"""Something that can happen to a kernel."""

SPOILT = b"\xff"
"""A compressed copy that does not decompress."""


def on_page(process: int, action: Callable[[Any, Any], object]) -> Operation:
    """An operation of a process on its page."""

    def operation(k: Any) -> None:
        page = k.processes[process].mappings[0]
        action(page.process, page)

    return operation


def tasks_of(process: int) -> dict[str, Operation]:
    """What one process can do to the page."""
    name = "ab"[process]
    contents = {
        "zeros": bytes(PAGE_SIZE),
        "text": b"a page of text  " * (PAGE_SIZE // 16),
        "noise": random.Random(0).randbytes(PAGE_SIZE),
    }
    calls: dict[str, Callable[[Any, Any], object]] = {
        f"writes {what}": lambda _, page, data=data: page.write_page(0, data)  # type: ignore[misc]
        for what, data in contents.items()
    }
    calls["reads"] = lambda _, page: page.read_page(0)
    for advice in ("pageout", "willneed", "dontneed"):
        calls[advice] = lambda owner, page, advice=advice: owner.madvise(page, advice)  # type: ignore[misc]
    return {f"{name} {call}": on_page(process, action) for call, action in calls.items()}


def write_back(k: Any) -> None:
    """zswap writes its coldest page to the disk: it looks twice, because the first look is a second chance."""
    module = sys.modules[type(k.system).__module__.removesuffix("state") + "zswap_writeback"]
    for _ in range(2):
        module.shrink_memcg(k.system, k.system.memcg.root)


def spoil(k: Any) -> None:
    """What zswap has stored does not decompress any more."""
    for entry in k.system.memcg.root.zswap_lru:
        entry.object = SPOILT


def hibernate(k: Any) -> None:
    """An image is written, or given up; while there is one, the cache keeps its slots."""
    if k.image is not None and k.image.active:
        k.image.release()
    else:
        k.hibernate(pages=0)


FACE: dict[str, Operation] = {
    **tasks_of(0),
    **tasks_of(1),
    "fork": lambda k: k.processes[0].fork("b"),
    "b exits": lambda k: k.processes[1].exit(),
    "reclaim": lambda k: k.reclaim("64K"),
    "I/O ends": lambda k: k.drain(),
    "writeback": write_back,
    "spoil": spoil,
    "swapoff": lambda k: k.swapoff(0),
    "hibernate": hibernate,
}
"""The operations, by name."""

WORLDS: dict[str, tuple[tuple[bool, str, int], set[str]]] = {
    "own page, SSD, zswap": ((False, "ssd", 20), {"fork", "writeback", "I/O ends", "spoil"}),
    "own page, SSD, zswap, no fork": ((False, "ssd", 20), {"writeback", "spoil", "hibernate", "swapoff"}),
    "own page, pmem": ((False, "pmem", -1), {"fork", "swapoff"}),
    "own page, full zswap": ((False, "none", 0), {"fork"}),
    "shared page, SSD, zswap": ((True, "ssd", 20), {"writeback", "I/O ends", "spoil"}),
    "shared page, pmem": ((True, "pmem", -1), {"swapoff"}),
    "shared page, full zswap": ((True, "none", 0), set()),
}
"""The tiny kernels (see ``boot``), and what can happen to each beside what its processes do."""

EXTRAS = set.union(*(extras for _, extras in WORLDS.values()))


def boot(world: str) -> Any:
    """A kernel with one page: a process's own, or one of a shared object that two processes map.

    By name: shared or not, the device, and the percent of memory that zswap may use (-1: there is no zswap).
    """
    (shared, device, percent), _ = WORLDS[world]
    devices: dict[str, list[BlockDevice]] = {"ssd": [Ssd("64K")], "pmem": [Pmem("64K")], "none": []}
    loaded = at(STAGE)
    zswap = loaded.Zswap(max_pool_percent=percent) if percent >= 0 else None
    k = loaded.Kernel("256K", devices[device], zswap, locks="scheduled", memcg=None, page_cluster=0)
    page = k.shmem(PAGE_SIZE) if shared else PAGE_SIZE
    for name in "ab"[: 1 + shared]:
        k.spawn(name).mmap(page)
    return k


def after(world: str, path: Sequence[str]) -> Any:
    """A tiny kernel after some operations."""
    k = boot(world)
    for name in path:
        FACE[name](k)
    return k


def possible(k: Any, world: str) -> list[str]:
    """The operations that make sense: with the second process or without, with a device or without."""
    absent = {"fork"} if len(k.processes) > 1 else {name for name in FACE if name.startswith("b ")}
    absent |= set() if k.devices else {"writeback", "hibernate", "swapoff"}
    return [name for name in FACE if name not in absent | EXTRAS - WORLDS[world][1]]


Fields = tuple[int, ...]
"""A descriptor: type, in_swapcache, swap_count, swap_cache, slot."""


def descriptors(k: Any, unknown: dict[int, Fields] | None = None) -> Iterator[tuple[int, Fields]]:
    """(Virtual slot, its fields) of every allocated slot; those of a locked cluster as they are in ``unknown``."""
    for number, cluster in k.system.vswap.cluster_map.items():
        if cluster.lock.locked():
            yield from ((entry, fields) for entry, fields in (unknown or {}).items() if entry >> 9 == number)
            continue
        desc, index = cluster.desc, cluster.bitmap.bits.find(1)
        while index >= 0:
            columns = (desc.type, desc.in_swapcache, desc.swap_count, desc.swap_cache, desc.slot)
            yield number << 9 | index, tuple(column[index] for column in columns)
            index = cluster.bitmap.bits.find(1, index + 1)


def state_of(fields: Fields) -> State:
    """The state of an allocated descriptor."""
    type_, pinned, count, word, _ = fields
    return State(
        BACKINGS[type_], pinned, str(count) if count < 2 else "2+", "folio" if word and not word & 1 else "none"
    )


def frames(k: Any) -> list[Any]:
    """The folios in memory, the shared zero page aside."""
    return [folio for folio in k.system.memory.mem_map[1:] if folio is not None]


def pages(k: Any) -> int:
    """Pages with a content of their own: folios, and entries without one.  More than one after copy on write."""
    return len(frames(k)) + sum(state_of(fields).word == "none" for _, fields in descriptors(k))


def fingerprint(k: Any) -> tuple[Any, ...]:
    """The abstract state of a tiny kernel: two that have the same go on in the same ways."""
    s = k.system
    ptes = sorted(bool(pte) + bool(pte & 1) for mm in s.mms for table in mm.pgd.values() for pte in table if pte)
    folios = sorted(
        (any(f.data), f.mapping is not None, f.swapcache, f.swapcache and (f.dirty, f.writeback, f.uptodate))
        for f in frames(k)
    )
    entries = sorted(state_of(fields) for _, fields in descriptors(k))
    spoilt = any(entry.object == SPOILT for entry in s.memcg.root.zswap_lru)
    return len(k.processes), *ptes, *folios, *entries, spoilt, len(k.devices), s.power.suspended_storage
