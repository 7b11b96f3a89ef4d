"""Patch 6: names and places have types of their own, physical functions take places, and readahead pins every page."""

from __future__ import annotations

import random
import re
from errno import EINVAL, ENOMEM
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vswap_ref as vr
from vswap_ref.lab.experiments.physical import (
    BRIDGES,
    MISTAKES,
    bridge_callers,
    by_hand,
    forgotten,
    kernel_sources,
    mix_up,
    pins,
    signatures,
)
from vswap_ref.machine import PAGE_SIZE
from vswap_ref.series.stages import main_line

AT = vr.at(6)
BEFORE = max(int(stage) for stage in main_line() if int(stage) < 6)
types, bridge, swap_device = AT.module("types"), AT.module("bridge"), AT.module("swap_device")
swap_alloc, swap_map, readahead = AT.module("swap_alloc"), AT.module("swap_map"), AT.module("readahead")
HAS_CACHE = 0x40


def text(seed: int) -> bytes:
    """A page that zswap can compress, of zeros or of noise."""
    noise = random.Random(seed)
    return (bytes(PAGE_SIZE), noise.randbytes(64) * 64, noise.randbytes(PAGE_SIZE))[seed % 3]


def push_out(kernel: Any, heap: Any) -> None:
    """Swap a mapping out, so that nothing of it is left in memory."""
    heap.process.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim(heap.pages * PAGE_SIZE)


def swapped(stage: int = 6, pages: int = 8, **options: Any) -> tuple[Any, Any]:
    """A kernel with one device and a mapping that is swapped out to it."""
    kernel = vr.at(stage).Kernel(**{"ram": "2M", "swap": [vr.Ssd("2M")], "cpus": 1} | options)
    heap = kernel.spawn("app").mmap(pages * PAGE_SIZE)
    for number in range(pages):
        heap.write_page(number, bytes((number % 255 + 1,)) * PAGE_SIZE)
    push_out(kernel, heap)
    return kernel, heap


@given(st.integers(0, 2**63 - 1))
def test_the_bridges_are_the_identity(value: int) -> None:
    """There and back, and back and there, for every value."""
    system: Any = None
    assert bridge.swp_slot_to_swp_entry(system, bridge.swp_entry_to_swp_slot(system, value)) == value
    assert bridge.swp_entry_to_swp_slot(system, bridge.swp_slot_to_swp_entry(system, value)) == value


@given(st.integers(0, 31), st.integers(0, 2**64 - 1))
def test_a_slot_is_a_device_and_an_offset(number: int, offset: int) -> None:
    """Bits of the offset above the 58th are cut off; an entry is put together in the same way."""
    slot = types.swp_slot(number, offset)
    assert (types.swp_slot_type(slot), types.swp_slot_offset(slot)) == (number, offset % 2**58)
    assert slot == types.swp_entry(number, offset)


@pytest.mark.parametrize("stage", [0, 6, 9, 12])
def test_slot_reclaim_looks_again_for_a_folio_that_moved_on(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folio is another one's when its lock is had: it is let go, and the right one is found and freed."""
    kernel, heap = swapped(stage, pages=1)
    heap.touch(0)
    module, si = vr.at(stage).module("slot_reclaim"), kernel.system.swap.info[0]
    offset, matches, answers = si.swap_map.index(HAS_CACHE), module.folio_matches_swap_entry, [False, False]
    monkeypatch.setattr(module, "folio_matches_swap_entry", lambda *args: answers.pop() if answers else matches(*args))
    reclaim = getattr(module, "__try_to_reclaim_swap")
    assert reclaim(kernel.system, si, offset, 1) == 1
    assert not answers
    kernel.check()


@pytest.mark.parametrize("stage", [0, 6, 14])
@pytest.mark.parametrize("device", [vr.Ssd, vr.Pmem])
def test_a_folio_is_submitted_unlocked_and_under_writeback(
    stage: int, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel sets the writeback flag, then unlocks, then hands the pages to the device."""
    module, seen = vr.at(stage).module("swap_io"), []
    write = module.bdev_write_folio

    def look(bdev: Any, block: int, folio: Any) -> bool:
        seen.append((folio.writeback, folio.locked))
        return bool(write(bdev, block, folio))

    monkeypatch.setattr(module, "bdev_write_folio", look)
    swapped(stage, pages=2, swap=[device("2M")])
    assert seen == [(True, False)] * 2


def test_slots_without_a_folio() -> None:
    """swap_slot_alloc charges nobody and does not touch the cache; on full devices it returns 0 and no slot."""
    kernel, heap = swapped(swap=[vr.Ssd("128K")], pages=8)
    s = kernel.system
    assert swap_alloc.swap_slot_alloc(s, 10) == (0, -EINVAL)
    charged, cached, free = heap.process.cgroup.swap_current, kernel.vmstat["nr_swapcached"], s.swap.nr_swap_pages
    taken = []
    while (answer := swap_alloc.swap_slot_alloc(s, 0)) != (0, 0):
        taken.append(answer)
    assert len(taken) == free > 0
    assert all(slot and not err for slot, err in taken)
    assert {s.swap.info[0].swap_map[types.swp_slot_offset(slot)] for slot, _ in taken} == {HAS_CACHE}
    assert (heap.process.cgroup.swap_current, kernel.vmstat["nr_swapcached"]) == (charged, cached)
    for slot, _ in taken:
        swap_map.swap_slots_put_cache(s, s.swap.info[0], slot, 1)
    assert s.swap.nr_swap_pages == free
    kernel.check()


def test_a_folio_on_full_devices() -> None:
    """-ENOMEM, the event of a failed charge once, and no charge is left."""
    kernel = AT.Kernel(ram="1M", swap=[vr.Ssd("64K")], cpus=1)
    s, group = kernel.system, kernel.cgroup("job")
    heap = kernel.spawn("app", group).mmap(PAGE_SIZE)
    heap.write_page(0, text(1))
    (folio,) = {folio for folio in s.memory.mem_map[1:] if folio is not None}
    taken = [swap_alloc.swap_slot_alloc(s, 0)[0] for _ in range(15)]
    folio.locked = True
    assert swap_alloc.folio_alloc_swap(s, folio) == -ENOMEM
    folio.locked = False
    assert group.events == {"swap.fail": 1}
    assert (group.swap_current, folio.swapcache, folio.swap) == (0, False, 0)
    for slot in taken:
        swap_map.swap_slots_put_cache(s, s.swap.info[0], slot, 1)
    kernel.check()


@pytest.mark.parametrize("value", [0, 1 << 58 | 1, 31 << 58 | 7, 9999])
def test_bad_slots_are_refused(value: int) -> None:
    """No pin, no device, and giving them back does nothing; the counter is unchanged."""
    kernel, _ = swapped()
    s = kernel.system
    before = bytes(s.swap.info[0].swap_map)
    assert swap_device.swap_slot_tryget_swap_info(s, value) is None
    assert swap_device.tryget_swap_entry(s, value) == (False, None)
    assert swap_device._swap_info_get(s, value) is None
    swap_map.swap_slot_free_nr(s, value, 1)
    assert (bytes(s.swap.info[0].swap_map), s.swap.info[0].users.count) == (before, 0)
    assert (swap_device.swap_slot_to_info(s, value) is None) == (value >> 58 > 0)


def test_hibernation_takes_slots_only() -> None:
    """The image's slots have the byte 1; the swap cache, the charges and the page tables do not know them."""
    kernel, heap = swapped()
    si = kernel.system.swap.info[0]
    ones = si.swap_map.count(1)
    charged, ptes = heap.process.cgroup.swap_current, [list(t) for t in heap.process.mm.pgd.values()]
    offset = AT.module("hibernate").alloc_swapdev_block(kernel.system, 0)
    slot = types.swp_slot(0, offset)
    assert si.swap_map[offset] == 1
    assert si.swap_map.count(1) == ones + 1
    assert AT.module("swap_cache").swap_cache_get_folio(kernel.system, bridge.swp_slot_to_swp_entry(None, slot)) is None
    assert heap.process.cgroup.swap_current == charged
    assert [list(t) for t in heap.process.mm.pgd.values()] == ptes
    AT.module("hibernate").free_all_swap_pages(kernel.system, 0)
    kernel.check()


@pytest.mark.parametrize(("stage", "each"), [(BEFORE, 0), (6, 1)])
def test_every_neighbour_is_pinned(stage: int, each: int) -> None:
    """1,024 touches, each pins its target; 128 windows of 8 pages pin 8 more each, since this patch."""
    record = pins(stage)
    assert (record.faults, record.read_ahead) == (128, 128 * 7)
    assert record.pins == record.releases == (1024 + each * 128 * 8,)


def test_without_windows_nothing_is_added() -> None:
    """A window of one page has no neighbours."""
    assert pins(6, page_cluster=0).pins == (1024,)


@pytest.mark.parametrize(("stage", "neighbours"), [(BEFORE, 7), (6, 0)])
def test_a_killed_device_has_no_neighbours(stage: int, neighbours: int) -> None:
    """Its counter is killed after the target was pinned: before, neighbours came along under the target's pin."""
    kernel, heap = swapped(stage)
    s, vma = kernel.system, heap.vma
    pte = vr.at(stage).module("pagetable").ptep_get(heap.process.mm, vma.start)
    entry = types.pte_to_swp_entry(pte)
    users = s.swap.info[0].users
    assert users.tryget()
    users.kill()
    folio = vr.at(stage).module("readahead").swap_vma_readahead(s, entry, vma, vma.start + 3)
    users.resurrect()
    users.put()
    assert folio is not None
    assert kernel.vmstat["swap_ra"] == neighbours
    assert users.count == 0
    vr.at(stage).module("folio").folio_put(s, folio)
    kernel.check()


@given(st.integers(1, 2**40), st.integers(0, 23), st.integers(0, 7), st.integers(-512, 512))
def test_a_pte_moves_as_before(offset: int, number: int, flags: int, delta: int) -> None:
    """Through the slot and back: the same PTE as adding to it, with soft-dirty, exclusive and uffd-wp bits."""
    offset = max(offset, 600)
    pte = types.swp_entry_to_pte(types.swp_entry(number, offset), flags << 4)
    moved = AT.module("pagetable").pte_move_swp_offset(None, pte, delta)
    assert moved == pte + (delta << 8)


def test_old_names_are_gone() -> None:
    """Every physical function has its new name, in code and in text."""
    old = (
        "get_swap_device|put_swap_device|get_swap_page_of_type|swap_entry_put_locked|swap_entries_\\w+|"
        "cluster_alloc_swap_entry|SWAP_ENTRY_INVALID|swp_swap_info"
    )
    for path, source in kernel_sources("6"):
        assert not re.findall(rf"\b(?:{old})\b", source), path


def test_two_bridges() -> None:
    """Two functions make one of the other; every cast to a slot or from one stands there or in types."""
    assert signatures(6)["bridge"] == sorted(BRIDGES)
    assert signatures(BEFORE)["slot"] == []
    for path, source in kernel_sources("6"):
        assert path in ("mm/types.py", "mm/bridge.py") or "SwpSlot(" not in source, path


def test_where_places_become_names() -> None:
    """The list of places where the physical side needs to know whose page a slot holds."""
    known = {
        "swap_alloc:folio_alloc_swap",
        "slot_reclaim:__try_to_reclaim_swap",
        "swap_map:swap_range_free",
        "swap_map:swap_slots_free",
        "readahead:swap_cluster_readahead",
        "swapoff:unuse_swap_cache",
        "pagetable:pte_move_swp_offset",
    }
    looking = {"check", "views"}
    callers = bridge_callers(6)["swp_slot_to_swp_entry"]
    assert {caller for caller in callers if caller.partition(":")[0] not in looking} == known


@pytest.mark.slow
@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_mistakes_are_found_from_this_stage_on(mistake: str) -> None:
    """What is computed by hand is an integer, and an integer is neither name nor place."""
    assert mix_up(BEFORE, mistake).messages == []
    assert len(mix_up(6, mistake).messages) == (mistake != "place computed by hand")


@pytest.mark.slow
def test_forgotten_crossings_are_found() -> None:
    """Leave all of them out: the type checker objects in every function that had one."""
    for row in forgotten(6).rows:
        assert (row["missed"], row["found"]) == ("", row["functions"])
        assert row["found"]


@pytest.mark.slow
def test_no_arithmetic_outside_types() -> None:
    """Entries and slots are calculated with in types, and in two loops over the entries of one folio."""
    known = by_hand(6)
    assert known.keys() <= {"types", "check", "swap_cache"}
    assert known.get("swap_cache", []) == ["__swap_cache_replace_folio", "swap_cache_store"]
    coded = [path for path, source in kernel_sources("6") if re.search("SWP_TYPE_SHIFT|SWP_OFFSET_MASK", source)]
    assert coded == ["mm/types.py"]


def test_the_header_declares_what_hibernation_needs() -> None:
    """swap_slot_free_nr stands in the physical group; the bridges are outside of the part for kernels with swap."""
    names = {group: {f.__name__ for f in functions} for group, functions in AT.module("swap_h").SWAP_H.items()}
    assert "swap_slot_free_nr" in names["physical allocator and device (mm/swapfile.c)"]
    assert not any(bridge in group for bridge in BRIDGES for group in names.values())
