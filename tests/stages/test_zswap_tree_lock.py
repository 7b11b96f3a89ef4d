"""The lock of zswap's trees: taken as often as the cost ledger says, inside the right locks, gone with the tree."""

from __future__ import annotations

from typing import Any

import pytest

import vswap_ref as vr
from vswap_ref.lab import interleave
from vswap_ref.lab.tiny_kernel import write_back
from vswap_ref.machine import PAGE_SIZE

PAGES = 24
TEXT = b"words that compress   " * 186
LAST = 10
"""The last stage that has a tree."""


def out_in_and_free(kernel: Any) -> None:
    """Pages go to zswap; some come back, some are written back, the others are freed."""
    app = kernel.processes[0]
    heap = app.mappings[0]
    for page in range(PAGES):
        heap[page * PAGE_SIZE : page * PAGE_SIZE + len(TEXT)] = TEXT
    app.madvise(heap, "pageout")
    kernel.drain()
    for page in range(PAGES // 3):
        heap.touch(page)
    while not kernel.vmstat["zswpwb"]:
        write_back(kernel)
    heap.munmap()


def machine(stage: Any, locks: str) -> Any:
    """A kernel with zswap, a device, and a process with a mapping."""
    kernel = stage.Kernel(ram="4M", swap=[vr.Ssd("4M")], zswap="lz4", locks=locks, cpus=1)
    kernel.spawn("app").mmap(PAGES * PAGE_SIZE)
    return kernel


def counted(kernel: Any) -> int:
    """Stores and erasures in the cost ledger."""
    return sum(kernel.system.cost.get(f"zswap_tree_{what}", 0) for what in ("store", "erase"))


@pytest.mark.stages(0, LAST, every=True)
def test_the_ledger_counts_what_the_lock_counts(stage: Any) -> None:
    """Each store and each erasure is one acquisition of a tree's lock, wherever it is written."""
    costs: list[int] = []
    record = interleave(
        lambda: machine(stage, "scheduled"), [out_in_and_free], seeds=[0], after=lambda k: costs.append(counted(k))
    )
    assert record.failure is None
    assert record.acquisitions["zswap_tree"] == costs[0] > PAGES


@pytest.mark.stages(0, LAST, every=True)
def test_nothing_nests_in_a_tree_lock(stage: Any) -> None:
    """It is the innermost one; a freed slot's cluster is locked outside of it, and a page table may be."""
    kernel = machine(stage, "validated")
    out_in_and_free(kernel)
    kernel.check()
    lockdep = kernel.locks.lockdep
    assert not lockdep.inside.get("zswap_tree")
    outer = {name for name, inner in lockdep.inside.items() if "zswap_tree" in inner}
    assert outer == {"ci", "ptl"}


@pytest.mark.stages(LAST + 1, every=True)
def test_no_tree_no_lock(stage: Any) -> None:
    """From patch 11 on no lock of this class is even made, and nothing is counted for it."""
    kernel = machine(stage, "scheduled")
    interleave(kernel, [out_in_and_free], seeds=[0])
    assert "zswap_tree" not in kernel.locks.lockdep.stat
    assert not counted(kernel)
    assert not any("zswap_tree" in text for path, text in stage.sources().items() if path.startswith("mm/"))
