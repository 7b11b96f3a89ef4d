"""Reclaim that needs memory does not reclaim: PF_MEMALLOC, and workers that are not called while they run."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

import vswap_ref as vr
from vswap_ref.kernel import Kernel
from vswap_ref.machine import PAGE_SIZE
from vswap_ref.mm import reclaim
from vswap_ref.mm.folio import folio_alloc, nr_free_pages
from vswap_ref.mm.memcg import try_charge_memcg
from vswap_ref.mm.types import PF_MEMALLOC


class Depth:
    """How deep a function is inside itself; more than ``most`` ends the test instead of the computer's patience."""

    def __init__(self, most: int) -> None:
        self.most, self.now, self.deepest, self.calls = most, 0, 0, 0

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted."""

        def watched(*args: Any) -> Any:
            self.now += 1
            self.calls += 1
            self.deepest = max(self.deepest, self.now)
            assert self.now <= self.most, f"call {self.calls} is {self.now} deep"
            try:
                return function(*args)
            finally:
                self.now -= 1

        return watched


@pytest.mark.stages(0, every=True)
@pytest.mark.parametrize("shrinker", [False, True], ids=["worker", "shrinker"])
def test_writeback_at_the_limits_does_not_nest(shrinker: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small pool, four cgroups at their limits: a worker inside a task's reclaim may reclaim, and nothing in that."""
    zswap = vr.Zswap("lz4", max_pool_percent=2, shrinker=shrinker)
    kernel = Kernel(ram="3M", swap=[vr.Ssd("8M")], zswap=zswap)
    reclaims, workers, hooks = Depth(2), Depth(1), kernel.system.hooks
    hooks.try_to_free_mem_cgroup_pages = reclaims.watch(hooks.try_to_free_mem_cgroup_pages)
    hooks.try_to_free_pages = reclaims.watch(hooks.try_to_free_pages)
    monkeypatch.setattr(reclaim, "shrink_worker", workers.watch(reclaim.shrink_worker))
    rng, heaps = random.Random(1), []
    for limit in ("96K", "160K", "320K", "640K"):
        heaps.append(kernel.spawn(limit, kernel.cgroup(limit, memory_max=limit)).mmap(64 * PAGE_SIZE))
    for _ in range(2000):
        page = rng.randrange(64)
        rng.choice(heaps).write_page(page, bytes([page]) * 2096 + rng.randbytes(2000))
    assert kernel.vmstat["zswpwb"] > 0
    assert shrinker or workers.calls > 0
    assert reclaims.deepest == (1 if shrinker else 2)
    kernel.check()
    assert all(heap.read_page(page)[:1] == bytes([page]) for heap in heaps for page in range(64))


@pytest.mark.stages(0)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_charge_inside_reclaim_goes_over_the_limit(version: str) -> None:
    """It neither fails nor reclaims; the event is counted, and the flag ends with the reclaim."""
    kernel = Kernel(ram="4M", swap=[vr.Ssd("4M")], memcg=version)
    group = kernel.cgroup("job", memory_max="16K")
    if version == "v1":
        group.memsw_max = "16K"
    heap = kernel.spawn("app", group).mmap("16K")
    heap[:] = bytes(range(256)) * 64
    s, memcg = kernel.system, heap.process.mm.memcg
    with reclaim.task_flag(s, PF_MEMALLOC):
        assert try_charge_memcg(s, memcg, 3) == 0
    assert s.task_flags == 0
    assert (memcg.memory.usage, kernel.vmstat["pgscan_direct"]) == (7, 0)
    assert memcg.memsw.usage == (7 if version == "v1" else 0)
    assert memcg.events["max"] == (2 if version == "v1" else 1)
    assert "oom" not in memcg.events


@pytest.mark.stages(0)
def test_a_page_inside_reclaim_comes_from_the_reserve() -> None:
    """Below the low watermark a task reclaims; inside reclaim it takes what is left, to the last page."""
    kernel = Kernel(ram="256K", swap=[vr.Ssd("1M")])
    s = kernel.system
    with reclaim.task_flag(s, PF_MEMALLOC):
        folios = [folio_alloc(s) for _ in range(65)]
    assert [folio is None for folio in folios] == [False] * 64 + [True]
    assert (nr_free_pages(s), kernel.vmstat["allocstall_normal"]) == (0, 0)
    assert folio_alloc(s) is None
    assert kernel.vmstat["allocstall_normal"] == 1
