"""What single functions cost at a stage, counted live: a folio goes through the kernel's own functions, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import vswap_ref as vr
from vswap_ref.machine import PAGE_SIZE


class Counted:
    """A kernel of a stage with one device; ``of`` runs a function and returns the primitives that it took."""

    def __init__(
        self, stage: int, memcg: str | None = "v2", size: str = "16M", bad_pages: Iterable[int] = (), **options: Any
    ) -> None:
        self.stage, device = vr.at(stage), vr.Ssd(size, bad_pages=bad_pages)
        self.kernel = self.stage.Kernel(ram="32M", swap=[device], memcg=memcg, cpus=1, **options)
        self.s = self.kernel.system
        self.owner = self.kernel.cgroup("owner").memcg if memcg else self.s.memcg.root

    def find(self, name: str) -> Any:
        """A function of the stage by its name."""
        for module in self.stage.modules():
            found = getattr(module, name, None)
            if found is not None and found.__module__ == module.__name__:
                return found
        raise AttributeError(f"stage {self.stage.id} has no function {name}")

    def call(self, name: str, *args: Any) -> Any:
        """A function of the kernel, with the state first."""
        return self.find(name)(self.s, *args)

    def of(self, name: str, *args: Any) -> dict[str, int]:
        """The primitives that a function took."""
        before = self.kernel.cost.snapshot()
        self.call(name, *args)
        return self.kernel.cost.since(before)

    def locks(self, name: str, *args: Any) -> int:
        """How often a function took the lock of a virtual cluster."""
        return self.of(name, *args).get("cl_lock", 0)

    def folio(self, order: int = 0) -> Any:
        """A charged, locked folio that may be swapped out."""
        folio = self.call("folio_alloc", order)
        assert self.call("mem_cgroup_charge", folio, self.owner) == 0
        folio.swapbacked = folio.uptodate = folio.locked = True
        return folio

    def swapped(self, order: int = 0) -> Any:
        """A folio in the swap cache, with one user for each of its entries."""
        folio = self.folio(order)
        assert self.call("folio_alloc_swap", folio) == 0
        for page in range(1 << order):
            assert self.call("swap_duplicate", folio.swap + page) == 0
        return folio

    def evicted(self, order: int = 0) -> int:
        """The first entry of a folio that has left the cache and memory, each page still with one user."""
        folio = self.swapped(order)
        entry = int(folio.swap)
        self.call("swap_cache_del_folio", folio)
        return entry


def primitives_of(function: Callable[[], Any], kernel: Any) -> dict[str, int]:
    """The primitives that something took in a kernel."""
    before = kernel.cost.snapshot()
    function()
    return dict(kernel.cost.since(before))


def metadata_of(stage: int, nr: int = 512, **options: Any) -> dict[str, tuple[int, int]]:
    """Ledger rows, (letter, exact), of ``nr`` pages swapped out in large folios, less those before."""
    kernel = vr.at(stage).Kernel(ram="32M", swap=[vr.Ssd("16M")], cpus=1, **options)
    before = {row[0]: row[2:] for row in kernel.memory().rows}
    kernel.spawn("app").mmap_swapped(nr * PAGE_SIZE)
    return {row[0]: (row[2] - before[row[0]][0], row[3] - before[row[0]][1]) for row in kernel.memory().rows}
