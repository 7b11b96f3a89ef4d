"""zswap's index in the descriptors: the same for users, no tree, and a price for every page that is freed."""

from __future__ import annotations

import pytest
from vswap_costs import Counted, metadata_of

import vswap_ref as vr
from vswap_ref.lab.same import VISIBLE, assert_same
from vswap_ref.machine import PAGE_SIZE
from vswap_ref.series.stages import LoadedStage

V2 = ("large folios", "file", "no room")


def stored_alike(stage: LoadedStage) -> list[object]:
    """A large folio whose pages share one compressed object, in memory and freed again."""
    k = stage.Kernel(ram="8M", swap=[vr.Ssd("8M")], zswap="lz4", cpus=1)
    heap = k.spawn("app").mmap_swapped("2M")
    seen = [heap.where().counts(), heap.read_page(5), k.zswap_debugfs()]
    heap.munmap()
    k.check()
    return [*seen, k.zswap_debugfs(), k.vmstat.snapshot()]


@pytest.mark.slow
def test_everything_is_the_same() -> None:
    """Values, errors, counters and times of 11,000 steps."""
    assert_same(10, 11, worlds=V2, only=VISIBLE, also=stored_alike)


def zswapped(stage: int, pages: int = 2) -> tuple[vr.Kernel, vr.Mapping]:
    """A process with compressed pages, none of them in memory."""
    k = vr.at(stage).Kernel(ram="2M", swap=[vr.Ssd("1M")], zswap="lz4", cpus=1, page_cluster=0)
    heap = k.spawn("app").mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap.write_page(page, bytes([page + 1, 7]) * (PAGE_SIZE // 2))
    heap.process.madvise(heap, "pageout")
    assert heap.where().counts() == {"zswap": pages}
    return k, heap


def test_an_entry_is_where_its_swap_entry_leads() -> None:
    """Store returns what was there, erase returns it once, and a free slot has nothing."""
    k, _ = zswapped(11)
    index, s = vr.at(11).module("vswap.zswap_index"), k.system
    stored = dict(index.zswap_items(s))
    assert {entry: zentry.swpentry for entry, zentry in stored.items()} == {512: 512, 513: 513}
    assert index.zswap_entry_load(s, 512) is stored[512]
    assert index.zswap_entry_store(s, 512, stored[513]) is stored[512]
    assert index.zswap_entry_store(s, 512, stored[512]) is stored[513]
    k.check()
    for entry in (0, 514, 1 << 30):
        assert index.zswap_entry_load(s, entry) is None
        assert index.zswap_entry_erase(s, entry) is None
    assert [index.zswap_entry_erase(s, 512) for _ in range(2)] == [stored[512], None]


@pytest.mark.parametrize("entry", [514, 1 << 30])
def test_storing_in_a_free_slot_looks_like_success(entry: int) -> None:
    """Nothing is stored, nobody is told, no handle is lost."""
    k, _ = zswapped(11)
    index, s = vr.at(11).module("vswap.zswap_index"), k.system
    zentry, live = index.zswap_entry_load(s, 512), len(s.zswap.entries)
    assert index.zswap_entry_store(s, entry, zentry) is None
    assert index.zswap_entry_load(s, entry) is None
    assert len(s.zswap.entries) == live


@pytest.mark.parametrize("function", ["zswap_entry_load", "zswap_entry_erase"])
def test_each_helper_locks_the_cluster_once(function: str) -> None:
    """Loading needed no lock before, erasing the tree's."""
    old, new = Counted(10, zswap="lz4"), Counted(11, zswap="lz4")
    assert "cl_lock" not in old.of(function, old.evicted())
    assert new.of(function, new.evicted())["cl_lock"] == 1


def test_empty_answers_another_question() -> None:
    """False as soon as there is a cluster, with no page compressed at all."""
    kernel = Counted(11)
    assert kernel.call("zswap_empty", 0)
    kernel.evicted()
    assert kernel.s.zswap.stored_pages == 0
    assert not kernel.call("zswap_empty", 0)


def test_the_price_of_emptiness() -> None:
    """zswap was never on; a page that is freed costs two locks of its cluster before, three after."""
    costs = []
    for stage in (10, 11):
        kernel = Counted(stage)
        costs.append(kernel.locks("swap_free_nr", kernel.evicted(9), 512) - 1)
    assert costs == [2 * 512, 3 * 512]


def test_a_node_cannot_be_missing() -> None:
    """One site less where memory may be short; the index takes no bytes beside the descriptors."""
    old, new = (vr.at(stage).Kernel(ram="1M") for stage in (10, 11))
    assert old.faults.docs.keys() - new.faults.docs.keys() == {"xa_node"}
    assert not any("zswap tree" in row[0] for row in new.memory().rows)


def test_bytes_break_even_at_seven_of_eight_pages() -> None:
    """A tree costs nodes for what is compressed, the descriptor eight bytes for everything."""
    none = [metadata_of(stage) for stage in (10, 11)]
    every = [metadata_of(stage, zswap="lz4") for stage in (10, 11)]
    exact = [[sum(row[1] for row in rows.values()) for rows in pair] for pair in (none, every)]
    assert exact[0][1] - exact[0][0] == 8 * 512
    nodes = every[0]["zswap trees"][1]
    assert exact[1][1] - exact[1][0] == 8 * 512 - nodes < 0
    assert 0.75 < 8 * 512 / nodes < 0.9


def test_a_page_has_a_slot_and_a_compressed_copy_at_the_same_time() -> None:
    """The device's page is reserved and never written; swap-in from zswap takes the copy and leaves the slot."""
    k, heap = zswapped(11)
    (cluster,) = (cluster for _, cluster in k.system.vswap.cluster_map.items())
    assert cluster.desc.slot[0]
    assert cluster.desc.zswap_entry[0]
    assert k.vmstat["pswpout"] == 0
    assert heap.read_page(0)[:2] == bytes([1, 7])
    assert cluster.desc.slot[0]
    assert not cluster.desc.zswap_entry[0]
    k.check()


@pytest.mark.parametrize("again", [False, True])
def test_stale_writeback(again: bool) -> None:
    """Writeback has noted the entry; the slot is freed, perhaps used again: an error, and nobody's data is lost."""
    k, heap = zswapped(11, 1)
    stage, s = vr.at(11), k.system
    zentry = stage.module("vswap.zswap_index").zswap_entry_load(s, 512)
    heap.munmap()
    if again:
        heap = k.spawn("other").mmap("4K")
        heap.write_page(0, b"other" * 819 + b"!")
        heap.process.madvise(heap, "pageout")
    assert stage.module("zswap_writeback").zswap_writeback_entry(s, zentry, 512) == (-12 if again else -17)
    k.drain()
    k.check()
    assert not again or heap.read_page(0) == b"other" * 819 + b"!"


@pytest.mark.parametrize("what", ["lost", "twice"])
def test_the_checker_finds(what: str) -> None:
    """A handle that no descriptor has, or two descriptors with one."""
    k, _ = zswapped(11)
    (cluster,) = (cluster for _, cluster in k.system.vswap.cluster_map.items())
    k.check()
    cluster.desc.zswap_entry[0] = 0 if what == "lost" else cluster.desc.zswap_entry[1]
    with pytest.raises(vr.at(11).InvariantError, match=r"stored_pages|where its swap entry leads|zswap lists"):
        k.check()
