"""The swap cache in the descriptors: the same for users, no lock for all of it, and what is kept where."""

from __future__ import annotations

import pytest
from vswap_costs import Counted, metadata_of

import vswap_ref as vr
from vswap_ref.lab.same import VISIBLE, assert_same
from vswap_ref.machine import PAGE_SIZE
from vswap_ref.series.stages import LoadedStage

V2 = ("large folios", "file", "no room")
"""The worlds without cgroups of version 1, which stand still here."""


def split_in_the_cache(stage: LoadedStage) -> tuple[vr.Kernel, list[tuple[int, int, int]]]:
    """A large folio in the swap cache is split: the kernel, and what each of its entries then finds."""
    k = stage.Kernel(ram="4M", swap=[vr.Ssd("4M")], cpus=1, thp=vr.Thp("always", {"64K": "always"}), zswap="lz4")
    heap = k.spawn("app").mmap("64K")
    for page in range(16):
        heap.write_page(page, bytes([page]) * PAGE_SIZE)
    (folio,) = {f for f in k.system.memory.mem_map[1:] if f is not None and f.order}
    folio.locked = True
    assert stage.module("vswap.swap_out").folio_alloc_swap(k.system, folio) == 0
    folio.refcount += 1
    assert stage.module("huge_memory").split_folio_to_list(k.system, folio) == 0
    folio.locked = False
    folio.refcount -= 1
    k.check()
    peek = getattr(stage.module("swap_cache"), "swap_cache_peek", None)
    peek = peek or stage.module("vswap.swap_cache").swap_cache_peek
    found = [peek(k.system, folio.swap + page) for page in range(16)]
    return k, [(item.order, item.swap, item.data[0]) for item in found]


@pytest.mark.slow
def test_everything_is_the_same() -> None:
    """Values, errors, counters and times of 11,000 steps."""
    assert_same(9, 10, worlds=V2, only=VISIBLE, also=lambda stage: split_in_the_cache(stage)[1])


@pytest.mark.parametrize("stage", [10, 11, 12])
def test_looking_up_costs_a_lock(stage: int) -> None:
    """Before, a look-up needed none."""
    before, after = Counted(9), Counted(stage)
    for kernel, locks in ((before, 0), (after, 1)):
        folio = kernel.swapped()
        assert kernel.locks("swap_cache_get_folio", folio.swap) == locks
        assert folio.refcount == 3
        assert kernel.locks("swap_cache_get_shadow", folio.swap) == locks
    assert "cache_lock" in before.kernel.cost
    assert "cache_lock" not in after.kernel.cost


def test_adding_needs_no_memory_and_cannot_fail() -> None:
    """The site where a node of the tree could be missing is gone; so are the tree's rows in the ledger."""
    old, new = (vr.at(stage).Kernel(ram="1M") for stage in (9, 10))
    assert old.faults.docs.keys() - new.faults.docs.keys() == {"swap_cache_node"}
    rows = [{row[0] for row in kernel.memory().rows} for kernel in (old, new)]
    assert rows[0] - rows[1] == {"swap cache"}


def test_bytes() -> None:
    """Eight more in each descriptor, and no node: about one byte less for a page."""
    before, after = metadata_of(9), metadata_of(10)
    nodes = before["swap cache"][1]
    assert after["vswap descriptors"][1] - before["vswap descriptors"][1] == 8 * 512
    assert 9 < nodes / 512 < 10.5
    total = [sum(exact for _, exact in rows.values()) for rows in (before, after)]
    assert total[1] - total[0] == 8 * 512 - nodes < 0


def test_the_life_of_a_word() -> None:
    """A folio; the shadow that reclaim leaves; the folio that comes back; nothing; and no shadow of a former owner."""
    k = vr.at(10).Kernel(ram="2M", swap=[vr.Ssd("1M")], zswap=None, cpus=1, page_cluster=0)
    cache = vr.at(10).module("vswap.swap_cache")
    heap = k.spawn("app").mmap("4K")
    heap.write_page(0, b"text" * 1024)
    heap.process.madvise(heap, "pageout")
    folio = cache.swap_cache_peek(k.system, 512)
    assert folio.swap == 512
    k.drain()
    k.reclaim("64K")
    shadow = cache.swap_cache_peek(k.system, 512)
    assert shadow & 1
    refaults = k.vmstat["workingset_refault_anon"]
    assert heap.read_page(0) == b"text" * 1024
    assert k.vmstat["workingset_refault_anon"] == refaults + 1
    assert not isinstance(cache.swap_cache_peek(k.system, 512), int)
    heap.munmap()
    assert cache.swap_cache_peek(k.system, 512) is None
    other = k.spawn("other").mmap("4K")
    other.write_page(0, bytes(range(256)) * (PAGE_SIZE // 256))
    other.process.madvise(other, "pageout")
    assert cache.swap_cache_peek(k.system, 512).swap == 512
    k.check()


@pytest.mark.parametrize("stage", [10, 11, 12])
def test_a_folio_that_could_not_be_charged_leaves_no_trace(stage: int) -> None:
    """The descriptors hold it from the beginning, but it is undone: flag, entry, references and counters are as before.

    The dead word stays in the descriptor; look-ups do not see it.
    """
    kernel = Counted(stage)
    kernel.owner.swap.max = 0
    folio, before = kernel.folio(), kernel.kernel.vmstat.snapshot()
    assert kernel.call("folio_alloc_swap", folio) < 0
    assert (folio.swapcache, folio.swap, folio.refcount) == (False, 0, 1)
    assert not {"nr_swapcached", "nr_file_pages"} & kernel.kernel.vmstat.since(before).keys()
    (cluster,) = (cluster for _, cluster in kernel.s.vswap.cluster_map.items())
    assert cluster.desc.swap_cache[0]
    assert kernel.call("swap_cache_get_folio", 512) is None
    assert kernel.s.vswap.used == 0


@pytest.mark.parametrize("stage", [10, 11, 12])
def test_a_folio_is_split_in_the_cache(stage: int) -> None:
    """Each page takes over its word; the checker sees every one at its place, and all contents are there."""
    k, found = split_in_the_cache(vr.at(stage))
    assert len(found) == 16
    assert found == [(0, found[0][1] + page, page) for page in range(16)]
    assert [k.processes[0].mappings[0].read_page(page)[0] for page in range(16)] == list(range(16))


@pytest.mark.parametrize("what", ["gone", "moved"])
def test_the_checker_finds_a_folio_out_of_place(what: str) -> None:
    """A word is missing, or stands where it does not belong."""
    stage = vr.at(10)
    k = stage.Kernel(ram="2M", swap=[vr.Ssd("1M")], zswap=None, cpus=1)
    heap = k.spawn("app").mmap("8K")
    for page in range(2):
        heap.write_page(page, b"text" * 1024)
    heap.process.madvise(heap, "pageout")
    k.check()
    (cluster,) = (cluster for _, cluster in k.system.vswap.cluster_map.items())
    cluster.desc.swap_cache[0] = 0 if what == "gone" else cluster.desc.swap_cache[1]
    with pytest.raises(stage.InvariantError, match=r"folio in the cache|covers the slot"):
        k.check()
