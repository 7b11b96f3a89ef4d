"""Backings: what gives them up, in which calls, which runs are uniform, and who may have a place on a device."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vswap_calls import desc_of, noted, pin_count
from vswap_costs import Counted
from vswap_layer import STAGES

import vswap_ref as vr

LATER = [stage for stage in STAGES if stage >= 14]
SWAPFILE, ZERO, ZSWAP, FOLIO = range(4)
RELEASING = ("zswap_entry_free", "swap_slot_free_nr")


@pytest.fixture(params=LATER)
def kernel(request: pytest.FixtureRequest) -> Counted:
    """A kernel with a device at each stage from 14 on, its locks validated."""
    return Counted(request.param, locks="validated", zswap="lz4")


def test_a_descriptor_shrinks() -> None:
    """Slot and compressed copy share a word: 24 bytes."""
    dtype = vr.at(14).module("vswap.descriptor").swp_desc
    fields = {name: dtype.fields[name][1] for name in dtype.names}
    assert dtype.itemsize == 24
    assert fields["slot"] == fields["zswap_entry"] == 0
    assert (fields["swap_cache"], fields["swap_count"], fields["memcgid"]) == (8, 16, 20)


def copy_of(kernel: Counted, entry: int) -> Any:
    """A compressed page, in the pool."""
    zentry = kernel.call("zswap_entry_alloc", entry, b"compressed", None)
    kernel.s.zswap.stored_pages += 1
    return zentry


def back(kernel: Counted, entry: int, kind: int, slot: int = 0) -> Any:
    """Let an entry have a backing, past all functions; returns its compressed page if that is what it is."""
    desc, index = desc_of(kernel, entry)
    zentry = copy_of(kernel, entry) if kind == ZSWAP else None
    desc.type[index] = kind
    desc.slot[index] = kernel.s.zswap.entries.alloc(zentry) if zentry is not None else slot
    return zentry


def mixture(kernel: Counted, kinds: list[tuple[int, int]]) -> tuple[int, list[Any]]:
    """(first entry of a cached folio of 16 pages whose first entries have these backings, their compressed pages)."""
    folio = kernel.folio(4)
    assert kernel.call("folio_alloc_swap", folio) == 0
    entry = int(folio.swap)
    return entry, [back(kernel, entry + i, *kind) for i, kind in enumerate(kinds)]


def released(kernel: Counted, entry: int, nr: int) -> list[tuple[Any, ...]]:
    """The calls by which backings are given up."""
    cluster = kernel.s.vswap.cluster_map.load(entry >> 9)
    with noted(kernel, *RELEASING, run=False) as calls, cluster.lock:
        kernel.call("release_backing", cluster, entry, nr)
    return calls


def test_the_order_in_which_backings_go(kernel: Counted) -> None:
    """A run of slots is freed only after the entry that ended it: the compressed page between two runs goes first."""
    kinds = [(SWAPFILE, 5), (SWAPFILE, 6), (ZSWAP, 0), (SWAPFILE, 7), (SWAPFILE, 8), (SWAPFILE, 20)]
    entry, copies = mixture(kernel, kinds)
    assert released(kernel, entry, 6) == [
        ("zswap_entry_free", copies[2]),
        ("swap_slot_free_nr", 5, 2),
        ("swap_slot_free_nr", 7, 2),
        ("swap_slot_free_nr", 20, 1),
    ]
    desc, index = desc_of(kernel, entry)
    assert [desc.slot[index + i] for i in range(6)] == [0] * 6
    assert [desc.type[index + i] for i in range(6)] == [kind for kind, _ in kinds]
    assert len(kernel.s.zswap.entries) == 0


KINDS = st.lists(
    st.one_of(
        st.tuples(st.just(SWAPFILE), st.integers(1, 6)), st.tuples(st.sampled_from((ZERO, ZSWAP, FOLIO)), st.just(0))
    ),
    min_size=1,
    max_size=16,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LATER), KINDS)
def test_any_mixture_goes_in_maximal_runs(stage: int, kinds: list[tuple[int, int]]) -> None:
    """Neighbours in the range that are neighbours on the device are one call, nothing else is."""
    kernel = Counted(stage, zswap="lz4")
    entry, copies = mixture(kernel, kinds)
    calls = released(kernel, entry, len(kinds))
    expected, run = [], 0
    for i, (kind, slot) in enumerate([*kinds, (FOLIO, 0)]):
        goes_on = kind == SWAPFILE and run and slot == kinds[i - 1][1] + 1
        if run and not goes_on:
            expected.append((kinds[i - run][1], run))
            run = 0
        run += kind == SWAPFILE
    assert [call[1:] for call in calls if call[0] == "swap_slot_free_nr"] == expected
    assert [call[1] for call in calls if call[0] == "zswap_entry_free"] == [copy for copy in copies if copy]
    desc, index = desc_of(kernel, entry)
    assert not any(desc.slot[index + i] for i in range(16))


def same(kinds: list[tuple[int, int]], i: int) -> bool:
    """Backing ``i`` goes on as the first one began."""
    kind, slot = kinds[0]
    return kinds[i] == (kind, slot + i if kind == SWAPFILE else 0)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LATER), KINDS)
def test_a_uniform_run_is_the_longest_prefix(stage: int, kinds: list[tuple[int, int]]) -> None:
    """What asks for one backing of a range is true for exactly the prefixes that have one."""
    kernel = Counted(stage, zswap="lz4")
    entry, _ = mixture(kernel, kinds)
    uniform = next((i for i in range(len(kinds)) if not same(kinds, i)), len(kinds))
    for nr in range(1, len(kinds) + 1):
        answers = {name: kernel.call(name, entry, nr) for name in ("vswap_swapfile_backed", "vswap_folio_backed")}
        assert answers["vswap_swapfile_backed"] == (nr <= uniform and kinds[0][0] == SWAPFILE)
        assert answers["vswap_folio_backed"] == (nr <= uniform and kinds[0][0] == FOLIO)
        assert kernel.call("vswap_can_swapin_thp", entry, nr) == (nr <= uniform and kinds[0][0] in (SWAPFILE, ZERO))
    zeros = [kind == ZERO for kind, _ in kinds]
    length = next((i for i, zero in enumerate(zeros) if zero != zeros[0]), len(zeros))
    assert kernel.call("swap_zeromap_batch", entry, len(kinds)) == (length, zeros[0])
    assert not any(cluster.lock.locked() for _, cluster in kernel.s.vswap.cluster_map.items())


def test_no_entry_has_no_backing(kernel: Counted) -> None:
    """Entry 0, and slots that are not allocated."""
    entry, _ = mixture(kernel, [])
    for name in ("vswap_swapfile_backed", "vswap_folio_backed", "vswap_can_swapin_thp"):
        assert not kernel.call(name, 0, 1)
        assert not kernel.call(name, entry + 15, 2)
    assert kernel.call("swap_zeromap_batch", 1 << 30, 4) == (0, False)


def test_swapping_out_takes_no_slot_of_a_device(kernel: Counted) -> None:
    """A fresh entry is backed by its folio alone, and is charged all the same up to patch 17."""
    free = kernel.s.swap.nr_swap_pages
    folio = kernel.swapped(2)
    assert kernel.call("vswap_folio_backed", folio.swap, 4)
    assert kernel.call("swp_entry_to_swp_slot", folio.swap) == 0
    assert kernel.s.swap.nr_swap_pages == free


def test_a_place_on_a_device_is_found_once(kernel: Counted) -> None:
    """Slots in a row, both ways linked; asked again, the same place; without room, no change."""
    folio = kernel.swapped(2)
    entry = int(folio.swap)
    slot = kernel.call("vswap_alloc_swap_slot", folio)
    assert slot
    assert kernel.call("vswap_alloc_swap_slot", folio) == slot
    assert [kernel.call("swp_slot_to_swp_entry", slot + i) for i in range(4)] == [entry + i for i in range(4)]
    assert [kernel.call("swp_entry_to_swp_slot", entry + i) for i in range(4)] == [slot + i for i in range(4)]
    assert kernel.call("vswap_swapfile_backed", entry, 4)
    full = Counted(int(kernel.stage.id), size="64K")
    other = full.swapped(9)
    assert full.call("vswap_alloc_swap_slot", other) == 0
    assert full.call("vswap_folio_backed", other.swap, 512)


def test_half_a_store_is_undone(kernel: Counted) -> None:
    """Two of four pages go to zswap, the third does not: then the folio is all there is, and all slots are free."""
    folio = kernel.swapped(2)
    entry, free = int(folio.swap), kernel.s.swap.nr_swap_pages
    slot = kernel.call("vswap_alloc_swap_slot", folio)
    copies = [copy_of(kernel, entry + i) for i in range(2)]
    with noted(kernel, *RELEASING) as calls:
        for i, zentry in enumerate(copies):
            kernel.call("zswap_entry_store", entry + i, zentry)
        kernel.call("vswap_prepare_writeout", entry, folio)
    assert calls == [
        ("swap_slot_free_nr", slot, 1),
        ("swap_slot_free_nr", slot + 1, 1),
        *(("zswap_entry_free", zentry) for zentry in copies),
        ("swap_slot_free_nr", slot + 2, 2),
    ]
    assert kernel.call("vswap_folio_backed", entry, 4)
    assert (kernel.s.swap.nr_swap_pages, len(kernel.s.zswap.entries)) == (free, 0)


@pytest.mark.parametrize("kind", [SWAPFILE, ZERO, ZSWAP, FOLIO])
def test_preparing_leaves_what_can_be_written_as_one(kernel: Counted, kind: int) -> None:
    """Slots in a row stay, the folio stays; zeros and compressed pages are given up."""
    entry, _ = mixture(kernel, [(kind, 8 + i if kind == SWAPFILE else 0) for i in range(16)])
    folio = kernel.call("swap_cache_get_folio", entry)
    with noted(kernel, *RELEASING, run=False) as calls:
        kernel.call("vswap_prepare_writeout", entry, folio)
    assert len(calls) == (16 if kind == ZSWAP else 0)
    assert kernel.call("vswap_swapfile_backed" if kind == SWAPFILE else "vswap_folio_backed", entry, 16)


def test_a_page_of_zeros_needs_nothing(kernel: Counted) -> None:
    """What was behind it goes; the page is counted."""
    folio = kernel.swapped(1)
    free = kernel.s.swap.nr_swap_pages
    assert kernel.call("vswap_alloc_swap_slot", folio)
    kernel.call("swap_zeromap_folio_set", folio)
    assert kernel.s.swap.nr_swap_pages == free
    assert kernel.call("swap_zeromap_batch", folio.swap, 2) == (2, True)
    assert kernel.s.vmstat["swpout_zero"] == kernel.owner.stat["swpout_zero"] == 2


def test_a_write_back_that_fails_puts_the_copy_back(kernel: Counted) -> None:
    """A place on the device was found, the copy does not decompress: the place is free, the same copy is behind it."""
    folio = kernel.swapped()
    entry, free = int(folio.swap), kernel.s.swap.nr_swap_pages
    zentry = copy_of(kernel, entry)
    kernel.call("zswap_entry_store", entry, zentry)
    slot = kernel.call("vswap_alloc_swap_slot", folio)
    assert slot
    assert kernel.call("zswap_entry_load", entry) is None
    kernel.call("zswap_entry_store", entry, zentry)
    assert kernel.call("zswap_entry_load", entry) is zentry
    assert kernel.s.swap.nr_swap_pages == free
    kernel.call("swap_cache_del_folio", folio)
    assert pin_count(kernel, entry) == (0, 1)
    kernel.call("swap_free_nr", entry, 1)
    assert (len(kernel.s.zswap.entries), kernel.s.zswap.stored_pages) == (0, 0)


def test_a_pin_holds_the_cluster_of_a_dead_entry(kernel: Counted) -> None:
    """It succeeds without a device, and for an entry that is free as long as its cluster lives, which then lives on."""
    first = kernel.evicted(9)
    for i in range(1, 512):
        kernel.call("swap_free_nr", first + i, 1)
    assert kernel.call("tryget_swap_entry", first + 7) == (True, None)
    kernel.call("swap_free_nr", first, 1)
    cluster = kernel.s.vswap.cluster_map.load(first >> 9)
    assert (cluster.count, cluster.refcnt) == (0, 1)
    kernel.call("put_swap_entry", first, None)
    assert kernel.s.vswap.cluster_map.load(first >> 9) is None
    assert kernel.call("tryget_swap_entry", first) == (False, None)


def test_a_pin_has_the_device_if_there_is_one(kernel: Counted) -> None:
    """A pinned device has to be let go as well."""
    folio = kernel.swapped()
    kernel.call("vswap_alloc_swap_slot", folio)
    si = kernel.s.swap.info[0]
    assert kernel.call("tryget_swap_entry", folio.swap) == (True, si)
    assert si.users.count == 1
    kernel.call("put_swap_entry", folio.swap, si)
    assert si.users.count == 0


def test_a_failed_charge_is_a_rejection() -> None:
    """At the cgroup's limit: nothing is used, and the pages are counted as rejected."""
    kernel = Counted(14, locks="validated")
    kernel.owner.swap.max = 3
    folio = kernel.folio(2)
    refs = kernel.owner.id_refs
    assert kernel.call("folio_alloc_swap", folio) == -errno.ENOMEM
    assert (kernel.s.vswap.used, kernel.s.vswap.alloc_reject, kernel.owner.id_refs) == (0, 4, refs)
    assert (folio.swapcache, folio.swap) == (False, 0)


def test_everything_comes_back_from_a_mixture(kernel: Counted) -> None:
    """Entries of four kinds end in one call: slots, copies and charge are what they were."""
    free, usage = kernel.s.swap.nr_swap_pages, kernel.owner.swap.usage
    first = 0
    for kind in range(4):
        folio = kernel.swapped()
        first = first or int(folio.swap)
        assert int(folio.swap) == first + kind
        if kind == SWAPFILE:
            assert kernel.call("vswap_alloc_swap_slot", folio)
        elif kind == ZERO:
            kernel.call("swap_zeromap_folio_set", folio)
        elif kind == ZSWAP:
            kernel.call("zswap_entry_store", first + kind, copy_of(kernel, first + kind))
        if kind != FOLIO:
            kernel.call("swap_cache_del_folio", folio)
        else:
            folio.locked = False
    kernel.call("free_swap_and_cache_nr", first, 4)
    assert (kernel.s.swap.nr_swap_pages, len(kernel.s.zswap.entries)) == (free, 0)
    assert (kernel.s.vswap.used, kernel.owner.swap.usage) == (0, usage)
