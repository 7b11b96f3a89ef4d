"""zswap's four helpers: nothing else has changed, and what each of them promises."""

from __future__ import annotations

from typing import Any

import pytest

import vswap_ref as vr
from vswap_ref.kernel import Thp
from vswap_ref.lab.experiments.zswap_trees import callers, failing_store, freeing
from vswap_ref.machine import PAGE_SIZE

STAGE = vr.at(4)
HELPERS = {"zswap_entry_store", "zswap_entry_load", "zswap_entry_erase", "zswap_empty"}
BLOCK = 1 << 14


@pytest.fixture
def kernel() -> Any:
    """A kernel with zswap, two devices of two blocks each, nothing compressed."""
    size = 2 * BLOCK * PAGE_SIZE
    return STAGE.Kernel(ram="8M", swap=[vr.Ssd(size, contentless=True), vr.Ssd(size, contentless=True)], zswap="lz4")


def zentry(kernel: Any, entry: int) -> Any:
    """A compressed page, on no list and charged to nobody."""
    return STAGE.module("zswap_pool").zswap_entry_alloc(kernel.system, entry, b"compressed", None)


def test_only_the_helpers_know_the_trees() -> None:
    """All other functions of zswap go through them; the model's look from outside and its ramp do not."""
    users = {row["function"] for row in callers(STAGE, "swap_zswap_tree").rows}
    assert users == HELPERS | {"is_zswapped", "zswap_enter_range"}


def test_what_is_stored_is_found_until_it_is_erased(kernel: Any) -> None:
    """Store returns the content before, erase returns it once; neither frees anything."""
    s, pool = kernel.system, STAGE.module("zswap_pool")
    entry, neighbour = 5, 6
    first, second = zentry(kernel, entry), zentry(kernel, entry)
    assert pool.zswap_entry_load(s, entry) is None
    assert pool.zswap_entry_store(s, entry, first) is None
    assert pool.zswap_entry_load(s, entry) is first
    assert pool.zswap_entry_store(s, entry, second) is first
    assert pool.zswap_entry_load(s, entry) is second
    assert pool.zswap_entry_load(s, neighbour) is None
    held = s.zswap.pool_bytes
    assert [pool.zswap_entry_erase(s, entry) for _ in range(2)] == [second, None]
    assert pool.zswap_entry_load(s, entry) is None
    assert s.zswap.pool_bytes == held > 0


def test_each_helper_is_counted_once(kernel: Any) -> None:
    """Store and erase lock the tree, a load reads under RCU, the empty test costs nothing."""
    s, pool = kernel.system, STAGE.module("zswap_pool")
    costs = {
        "zswap_entry_store": {"xa_lock": 1},
        "zswap_entry_load": {"xa_load": 1, "rcu_lock": 1},
        "zswap_entry_erase": {"xa_lock": 1},
        "zswap_empty": {},
    }
    for name, cost in costs.items():
        before = kernel.cost.snapshot()
        getattr(pool, name)(s, 5, *([zentry(kernel, 5)] if name == "zswap_entry_store" else []))
        assert kernel.cost.since(before) == cost, name


def test_empty_speaks_of_a_block(kernel: Any) -> None:
    """True as long as nothing is stored in the entry's 16,384 slots of its device, whatever is elsewhere."""
    s, pool, types = kernel.system, STAGE.module("zswap_pool"), STAGE.module("types")
    probes = {(device, block): types.swp_entry(device, block * BLOCK + 77) for device in (0, 1) for block in (0, 1)}
    for place in probes:
        for slot in (0, BLOCK - 1):
            stored = types.swp_entry(place[0], place[1] * BLOCK + slot)
            pool.zswap_entry_store(s, stored, zentry(kernel, stored))
            assert {at: pool.zswap_empty(s, entry) for at, entry in probes.items()} == {
                at: at != place for at in probes
            }
            pool.zswap_entry_erase(s, stored)
    assert all(pool.zswap_empty(s, entry) for entry in probes.values())


def test_a_store_that_gets_no_node_stores_nothing(kernel: Any) -> None:
    """MemoryError from the helper; through zswap_store_page it is a page rejected for want of memory."""
    s, pool = kernel.system, STAGE.module("zswap_pool")
    kernel.faults.fail("xa_node")
    with pytest.raises(MemoryError):
        pool.zswap_entry_store(s, 5, zentry(kernel, 5))
    assert pool.zswap_entry_load(s, 5) is None
    assert pool.zswap_empty(s, 5)
    held = s.zswap.pool_bytes
    kernel.faults.fail("xa_node")
    assert not STAGE.module("zswap").zswap_store_page(s, 5, b"data" * 1024, None, s.zswap.pool)
    assert s.zswap.debugfs["reject_alloc_fail"] == 1
    assert (s.zswap.pool_bytes, s.zswap.stored_pages) == (held, 0)


@pytest.mark.parametrize(
    ("site", "nth"),
    [(site, nth) for site in ("zswap_entry_cache_alloc", "zs_malloc") for nth in (1, 7, 16)] + [("xa_node", 1)],
)
def test_a_large_folio_is_stored_whole_or_not_at_all(site: str, nth: int) -> None:
    """Wherever it fails, no slot of the folio is left in zswap, and the folio goes to the device."""
    k = STAGE.Kernel(ram="8M", swap=[vr.Ssd("4M")], zswap="lz4", thp=Thp("never", {"64K": "always"}))
    heap = k.spawn("app").mmap("64K")
    data = [bytes([page + 1]) * PAGE_SIZE for page in range(16)]
    for page, text in enumerate(data):
        heap.write_page(page, text)
    k.faults.fail(site, nth=nth)
    heap.process.madvise(heap, "pageout")
    k.drain()
    assert list(STAGE.module("zswap_pool").zswap_items(k.system)) == []
    assert (k.system.zswap.stored_pages, k.system.zswap.pool_bytes, k.vmstat["pswpout"]) == (0, 0, 16)
    k.check()
    assert [heap.read_page(page) for page in range(16)] == data


def test_the_clean_up_locks_the_tree_for_every_page() -> None:
    """Each page stored before the failing one was stored under the lock; then all 16 are erased under it."""
    for fails_at in (1, 8, 16):
        record = failing_store(fails_at, 4)
        assert (record.stored_before, record.locks) == (fails_at - 1, fails_at - 1 + 16)
        assert (record.left, record.written) == (0, 16)


def test_one_compressed_page_in_the_block_makes_freeing_dear() -> None:
    """512 locks for 512 slots, none if it is anywhere else."""
    assert freeing(4, 512, "in the same block").locks == 512
    assert freeing(4, 512, "in another block").locks == freeing(4, 512, "nowhere").locks == 0
    with pytest.raises(ValueError, match="compressed_page='here'"):
        freeing(4, 512, "here")


def test_a_page_stored_again_replaces_its_older_copy() -> None:
    """Out, changed in the swap cache, out again: the first entry is handed back, and freed."""
    k = STAGE.Kernel(ram="4M", swap=[vr.Ssd("4M")], zswap="lz4")
    s, pool, folios = k.system, STAGE.module("zswap_pool"), STAGE.module("folio")
    folio = folios.folio_alloc(s)
    folio.swapbacked = folio.uptodate = True
    folios.folio_lock(folio)
    assert STAGE.module("swap_alloc").folio_alloc_swap(s, folio) == 0
    stored = []
    for text in (b"first", b"second"):
        folio.data[:] = text * 512 + bytes(PAGE_SIZE - 512 * len(text))
        assert STAGE.module("zswap").zswap_store(s, folio)
        stored.append(pool.zswap_entry_load(s, folio.swap))
    assert stored[0] is not stored[1]
    assert list(s.memcg.root.zswap_lru) == [stored[1]]
    assert (s.zswap.stored_pages, s.zswap.pool_bytes) == (1, pool.zs_object_size(stored[1].length))
