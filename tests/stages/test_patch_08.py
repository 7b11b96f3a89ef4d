"""One tree for zswap: what is the same, and exactly what is not."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vswap_ref as vr
from vswap_ref.lab.experiments.zswap_trees import (
    cpus_apart,
    freeing,
    index_curve,
    index_size,
    nodes_for_one_page,
    scattered,
    stores_at_once,
    tree_levels,
)
from vswap_ref.machine import XArray

STAGE, BEFORE = vr.at(8), 7


def pool() -> Any:
    """The module with the helpers."""
    return STAGE.module("zswap_pool")


def zentry(kernel: Any, entry: int) -> Any:
    """A compressed page, on no list and charged to nobody."""
    return pool().zswap_entry_alloc(kernel.system, entry, b"compressed", None)


def nodes_by_formula(indices: Iterable[int]) -> int:
    """Of each level the number of different prefixes; as many levels as the largest index has sixths of bits."""
    levels = -(-max(indices, default=0).bit_length() // 6)
    return sum(len({index >> 6 * level for index in indices}) for level in range(1, levels + 1))


def test_swapon_has_one_reason_less_to_fail() -> None:
    """Before, no memory for zswap's array made it fail; now there is no such allocation."""
    k = vr.at(BEFORE).Kernel(ram="8M", zswap="lz4")
    k.faults.fail("kvzalloc_zswap_trees")
    with pytest.raises(OSError, match="swapon") as error:
        k.swapon(vr.Ssd("1M"))
    assert error.value.errno == errno.ENOMEM
    k = STAGE.Kernel(ram="8M", zswap="lz4")
    with pytest.raises(ValueError, match="kvzalloc_zswap_trees"):
        k.faults.fail("kvzalloc_zswap_trees")
    k.faults.fail("xa_node", times=1000)
    assert k.swapon(vr.Ssd("1M")) == 0


def test_what_is_gone() -> None:
    """Functions and constants of the divided index."""
    gone = {
        "zswap_swapon",
        "zswap_swapoff",
        "swap_zswap_tree",
        "ZSWAP_ADDRESS_SPACE_SHIFT",
        "ZSWAP_ADDRESS_SPACE_PAGES",
    }
    assert gone <= set(vars(vr.at(BEFORE).module("zswap_pool")))
    assert not gone & set(vars(pool()))


def test_equal_slots_of_two_devices_do_not_meet() -> None:
    """The same slot number on three devices, three pages."""
    k = STAGE.Kernel(ram="8M", swap=[vr.Ssd("1M", name) for name in "abc"], zswap="lz4", cpus=1)
    s, entries = k.system, [STAGE.module("types").swp_entry(device, 7) for device in range(3)]
    pages = [zentry(k, entry) for entry in entries]
    for entry, page in zip(entries, pages, strict=True):
        assert pool().zswap_entry_store(s, entry, page) is None
    assert [pool().zswap_entry_load(s, entry) for entry in entries] == pages
    assert pool().zswap_entry_erase(s, entries[1]) is pages[1]
    assert [pool().zswap_entry_load(s, entry) for entry in entries] == [pages[0], None, pages[2]]


def test_empty_speaks_of_the_whole_system() -> None:
    """One page anywhere, and no entry of any device is told that zswap is empty."""
    k = STAGE.Kernel(ram="8M", swap=[vr.Ssd("1M"), vr.Ssd("1M")], zswap="lz4")
    s, entries = k.system, [STAGE.module("types").swp_entry(device, 7) for device in (0, 1)]
    assert all(pool().zswap_empty(s, entry) for entry in entries)
    pool().zswap_entry_store(s, entries[1], zentry(k, entries[1]))
    assert not any(pool().zswap_empty(s, entry) for entry in entries)
    pool().zswap_entry_erase(s, entries[1])
    assert all(pool().zswap_empty(s, entry) for entry in entries)


def test_swapoff_leaves_no_page_of_its_device() -> None:
    """Nobody in the kernel looks any more; check() does, and here it is broken on purpose."""
    k = STAGE.Kernel(ram="16M", swap=[vr.Ssd("1M"), vr.Ssd("1M")], zswap="lz4", cpus=1)
    heap = k.spawn("app").mmap_swapped("1500K")
    swp_type = STAGE.module("types").swp_type
    used = {swp_type(entry) for entry, _ in pool().zswap_items(k.system)}
    assert used == {0, 1}
    k.swapoff(1)
    assert {swp_type(entry) for entry, _ in pool().zswap_items(k.system)} <= {0}
    k.check()
    assert heap.read_page(374) == heap.read_page(0)
    left = STAGE.module("types").swp_entry(1, 7)
    k.system.zswap.stored_pages += 1
    pool().zswap_entry_store(k.system, left, zentry(k, left))
    pool().zswap_lru_add(k.system, pool().zswap_entry_load(k.system, left))
    with pytest.raises(STAGE.InvariantError, match="in use only"):
        k.check()


@given(st.sets(st.tuples(st.integers(0, 23), st.integers(1, 1 << 20)), max_size=40), st.randoms(use_true_random=False))
def test_nodes_follow_the_formula(slots: set[tuple[int, int]], rng: Any) -> None:
    """Whatever is stored, in whatever order, and when some of it is erased again."""
    k = STAGE.Kernel(ram="1M", zswap="lz4")
    swp_entry = STAGE.module("types").swp_entry
    entries = [swp_entry(device, slot) for device, slot in sorted(slots)]
    rng.shuffle(entries)
    for entry in entries:
        pool().zswap_entry_store(k.system, entry, zentry(k, entry))
    assert k.memory()["zswap trees"] == (8 * len(entries), 576 * nodes_by_formula(entries))
    for entry in entries[::2]:
        pool().zswap_entry_erase(k.system, entry)
    assert k.memory()["zswap trees"][1] == 576 * nodes_by_formula(entries[1::2])


@pytest.mark.parametrize(
    ("place", "before", "after"),
    [
        ("nowhere", 0, 0),
        ("in the same block", 1500, 1500),
        ("in another block", 0, 1500),
        ("on another device", 0, 1500),
    ],
)
def test_freeing_locks_once_a_slot_if_anything_is_compressed(place: str, before: int, after: int) -> None:
    """Before, only if something was compressed within the same 64 MiB."""
    assert freeing(BEFORE, 1500, place).locks == before
    assert freeing(8, 1500, place).locks == after


def test_an_exit_with_100_000_pages() -> None:
    """No lock before, 100,000 after."""
    assert [freeing(stage, 100_000, "on another device").locks for stage in (BEFORE, 8)] == [0, 100_000]


def test_a_full_device_needs_a_few_nodes_less() -> None:
    """1 GiB: 16 trees of 256 leaves, 4 nodes above and a root before; one tree of 4,096 leaves after."""
    before, after = index_size(BEFORE, "1G"), index_size(8, "1G")
    assert (before.nodes, before.heads) == (16 * (256 + 4 + 1), 16 * 16)
    assert (after.nodes, after.heads) == (4096 + 64 + 1, 16)
    assert before.entries == after.entries == 262_143


def test_nodes_of_a_full_device_of_32_gib() -> None:
    """The figures of the published account: what empty trees would need for all its slots."""
    parts = [XArray[int]().missing_nodes(max(1, part << 14), (1 << 14) - (part == 0)) for part in range(512)]
    assert (sum(parts), XArray[int]().missing_nodes(1, (1 << 23) - 1)) == (134_128, 133_153)


def test_a_page_on_a_later_device_is_deep() -> None:
    """The device's number is in the top bits of the index: 10 levels from device 1 on, 11 from device 4 on."""
    assert [nodes_for_one_page(BEFORE, device) for device in (0, 1, 4)] == [1, 1, 1]
    assert [nodes_for_one_page(8, device) for device in (0, 1, 3, 4)] == [1, 10, 10, 11]


def test_scattered_pages_pay_for_a_node_each() -> None:
    """One page in 64 slots: 576 bytes and a share of what is above, in both designs."""
    for stage in (BEFORE, 8):
        assert 576 < scattered(stage) < 600


@pytest.mark.slow
def test_cpus_with_a_block_each_meet_on_the_one_tree() -> None:
    """With a tree for each block they never do; otherwise they take the same locks as often."""
    before, after = stores_at_once(BEFORE, 2), stores_at_once(8, 2)
    assert (before.of("zswap_tree")["contentions"], after.of("zswap_tree")["contentions"] > 0) == (0, True)
    for lock in ("zswap_tree", "swap_cache", "ci"):
        assert before.of(lock)["acquisitions"] == after.of(lock)["acquisitions"] > 0, lock
    assert stores_at_once(8, 1).of("zswap_tree")["contentions"] == 0


def test_each_cpu_has_a_block_of_its_own() -> None:
    """The compressed pages of three processes are in three blocks of 16,384 slots."""
    k = cpus_apart(BEFORE, 3, 2)
    blocks = [entry >> 14 for entry, _ in vr.at(BEFORE).module("zswap_pool").zswap_items(k.system)]
    assert blocks == [0, 0, 1, 1, 2, 2]


def test_the_curve_of_bytes() -> None:
    """Full or empty, the one tree is never dearer; a tree for each block costs 16 bytes a block more from the start."""
    curve = index_curve("128M", (BEFORE, 8))
    assert (curve.before[0], curve.after[0]) == (2 * 16 / 1024, 16 / 1024)
    assert all(one <= many for one, many in zip(curve.after, curve.before, strict=True))
    assert curve.after[-1] * 1024 == 16 + 576 * (512 + 8 + 1)


def test_a_second_device_makes_the_tree_deep() -> None:
    """4 levels reach the end of 32 GiB, 10 the first page of the next device, 11 that of the fifth."""
    assert [row["levels of the one tree"] for row in tree_levels("32G", 5).rows] == [4, 10, 10, 10, 11]
