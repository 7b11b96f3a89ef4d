"""The life of an entry: what each operation makes of pin, count, cache and mark, and in which order an entry ends."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vswap_calls import desc_of, is_marked, noted, pin_count
from vswap_costs import Counted
from vswap_layer import STAGES

import vswap_ref as vr

LATER = [stage for stage in STAGES if stage >= 13]


@pytest.fixture(params=LATER)
def kernel(request: pytest.FixtureRequest) -> Counted:
    """A kernel with a device at each stage from 13 on, its locks validated."""
    return Counted(request.param, locks="validated", zswap="lz4")


def test_a_descriptor_is_filled_up() -> None:
    """The new fields take the padding: the same 32 bytes, one of them left."""
    dtype, before = (vr.at(stage).module("vswap.descriptor").swp_desc for stage in (13, 12))
    fields = {name: dtype.fields[name][1] for name in dtype.names}
    assert (dtype.itemsize, before.itemsize) == (32, 32)
    assert fields == {
        "slot": 0,
        "zswap_entry": 8,
        "swap_cache": 16,
        "swap_count": 24,
        "memcgid": 28,
        "in_swapcache": 30,
    }


def test_the_order_in_which_an_entry_ends() -> None:
    """Compressed copy, charge, physical slot, then the virtual one; afterwards nothing of it is left anywhere."""
    kernel = Counted(13, locks="validated", zswap="lz4")
    entry = kernel.evicted()
    slot = kernel.call("swp_entry_to_swp_slot", entry)
    zentry = kernel.call("zswap_entry_alloc", entry, b"compressed", None)
    kernel.call("zswap_entry_store", entry, zentry)
    kernel.s.zswap.stored_pages += 1
    desc, index = desc_of(kernel, entry)
    cluster, owner = kernel.s.vswap.cluster_map.load(entry >> 9), desc.memcgid[index]
    assert owner == kernel.owner.id
    names = ("zswap_entry_free", "mem_cgroup_uncharge_swap_by_id", "swap_slot_free_nr", "release_vswap_slot")
    with noted(kernel, *names) as calls:
        kernel.call("swap_free_nr", entry, 1)
    assert calls == [
        ("zswap_entry_free", zentry),
        ("mem_cgroup_uncharge_swap_by_id", owner, 1),
        ("swap_slot_free_nr", slot, 1),
        ("release_vswap_slot", cluster, entry),
    ]
    assert (kernel.s.vswap.used, len(kernel.s.zswap.entries), kernel.owner.swap.usage) == (0, 0, 0)
    assert kernel.call("swp_slot_to_swp_entry", slot) == kernel.call("swp_entry_to_swp_slot", entry) == 0
    assert (cluster.count, cluster.refcnt, cluster.cached) == (0, 1, True)


def on_disk(kernel: Counted, order: int) -> int:
    """The first entry of a cached folio with physical slots behind it, one user for each page."""
    folio = kernel.swapped(order)
    if int(kernel.stage.id) > 13:
        assert kernel.call("vswap_alloc_swap_slot", folio)
    return int(folio.swap)


def test_a_batch_with_a_survivor_and_a_cached_one(kernel: Counted) -> None:
    """One lock for all: the first is freed, the second keeps a user, the third is the cache's alone and marked."""
    kernel.swapped()
    first = on_disk(kernel, 2)
    slots = [kernel.call("swp_entry_to_swp_slot", first + i) for i in range(4)]
    assert kernel.call("swap_duplicate", first + 1) == 0
    for i in (0, 1):
        kernel.call("swapcache_clear", first + i, 1)
    locks = kernel.kernel.cost.snapshot()
    assert kernel.call("vswap_free_nr_any_cache_only", first, 3)
    assert kernel.kernel.cost.since(locks)["cl_lock"] == 1
    assert [pin_count(kernel, first + i) for i in range(4)] == [None, (0, 1), (1, 0), (1, 1)]
    assert [is_marked(kernel, slot) for slot in slots] == [False, False, True, False]
    assert kernel.call("swap_duplicate", first + 2) == 0
    assert not is_marked(kernel, slots[2])


def test_a_duplicate_over_a_hole_is_undone(kernel: Counted) -> None:
    """The third of three is free: an error, the counts as before, after a second lock."""
    first = kernel.evicted(2)
    kernel.call("swap_free_nr", first + 2, 1)
    locks = kernel.kernel.cost.snapshot()
    assert kernel.call("swap_duplicate_nr", first, 3) == -errno.ENOENT
    assert kernel.kernel.cost.since(locks)["cl_lock"] == 2
    assert [pin_count(kernel, first + i) for i in range(4)] == [(0, 1), (0, 1), None, (0, 1)]
    assert kernel.call("swap_duplicate", first + 2) == -errno.ENOENT


def test_a_range_is_pinned_as_a_whole_or_not_at_all(kernel: Counted) -> None:
    """Somebody has the third pinned, or it is free: the first two are not pinned afterwards."""
    first = kernel.evicted(2)
    assert kernel.call("swapcache_prepare", first + 2, 1) == 0
    assert kernel.call("swapcache_prepare", first, 3) == -errno.EEXIST
    assert [pin_count(kernel, first + i) for i in range(4)] == [(0, 1), (0, 1), (1, 1), (0, 1)]
    kernel.call("swap_free_nr", first + 2, 1)
    assert kernel.call("swapcache_prepare", first + 2, 1) == -errno.EEXIST
    kernel.call("swapcache_clear", first + 2, 1)
    assert kernel.call("swapcache_prepare", first, 4) == -errno.ENOENT
    assert [kernel.call("non_swapcache_batch", first + i, 4 - i) for i in range(4)] == [2, 1, 0, 1]
    assert kernel.call("non_swapcache_batch", 0, 4) == 0


def test_a_failed_charge_leaves_everything_as_it_was() -> None:
    """At the cgroup's limit: both slots are given back, nothing of the folio has changed, no rejection is counted."""
    kernel = Counted(13, locks="validated")
    kernel.owner.swap.max = 3
    folio = kernel.folio(2)
    before = (kernel.s.swap.nr_swap_pages, folio.refcount)
    assert kernel.call("folio_alloc_swap", folio) == -errno.ENOMEM
    assert (kernel.s.swap.nr_swap_pages, folio.refcount) == before
    assert (folio.swapcache, folio.swap, kernel.s.vswap.used, kernel.s.vswap.alloc_reject) == (False, 0, 0, 0)
    assert kernel.owner.swap.usage == 0


@pytest.mark.parametrize("users", [0, 1])
def test_reclaim_removes_and_frees_in_one_section(kernel: Counted, users: int) -> None:
    """A folio that nobody refers to ends with its entries; one that somebody has leaves its shadow."""
    folio = kernel.folio(2)
    assert kernel.call("folio_alloc_swap", folio) == 0
    entry, refs = int(folio.swap), folio.refcount
    if users:
        assert kernel.call("swap_duplicate_nr", entry, 4) == 0
    kernel.call("swap_cache_lock_irq", entry)
    kernel.call("__vswap_remove_mapping", folio, entry, 77)
    assert [pin_count(kernel, entry + i) for i in range(4)] == [(0, 1) if users else None] * 4
    assert kernel.call("swap_cache_get_shadow", entry + 3) == (77 if users else None)
    assert (folio.swap, folio.swapcache, folio.refcount) == (0, False, refs)
    assert kernel.s.vmstat["nr_swapcached"] == 0
    kernel.s.locks.assert_none_held()


def test_a_count_needs_no_pages(kernel: Counted) -> None:
    """A thousand references are a number in the descriptor."""
    entry = kernel.evicted()
    for _ in range(1000):
        assert kernel.call("swap_duplicate", entry) == 0
    assert kernel.call("swp_swapcount", entry) == kernel.call("__swap_count", entry) == 1001
    kernel.call("swap_free_nr", entry, 1)
    assert desc_of(kernel, entry)[0].swap_count[entry & 511] == 1000


def test_a_reference_that_nobody_has_cannot_be_dropped(kernel: Counted) -> None:
    """The kernel would count on from 2**32: a bug of the caller that the model does not hide."""
    folio = kernel.folio()
    assert kernel.call("folio_alloc_swap", folio) == 0
    with pytest.raises(ValueError, match="invalid value"):
        kernel.call("swap_free_nr", folio.swap, 1)


def test_512_slots_are_freed_under_one_lock(kernel: Counted) -> None:
    """Before: one by one, three locks for each."""
    entry = kernel.evicted(9)
    assert kernel.of("swap_free_nr", entry, 512)["cl_lock"] == 1
    assert kernel.s.vswap.used == 0


def test_unused_cache_goes_with_its_last_user(kernel: Counted) -> None:
    """A range over two folios, one locked by somebody: the other is taken out of the cache, and its entries end."""
    one, two = kernel.swapped(1), kernel.swapped(1)
    first, second = int(one.swap), int(two.swap)
    assert second == first + 2
    one.locked = False
    kernel.call("free_swap_and_cache_nr", first, 4)
    assert [pin_count(kernel, first + i) for i in range(4)] == [None, None, (1, 0), (1, 0)]
    assert (one.swapcache, one.dirty, two.swapcache) == (False, True, True)
    assert kernel.call("folio_free_swap", two)
    assert kernel.s.vswap.used == 0


class Player:
    """Folios of four pages and their entries beside the table of what each operation makes of them."""

    def __init__(self, stage: int) -> None:
        self.kernel = Counted(stage, locks="validated")
        self.state: dict[int, list[Any]] = {}
        """Entry -> [pin, count, what is in the cache: "folio", a shadow or None]."""
        self.folios: dict[int, Any] = {}
        """First entry -> the folio that is in the cache there."""
        self.entries: list[int] = []

    def alloc(self) -> None:
        """A new folio."""
        folio = self.kernel.folio(2)
        if self.kernel.call("folio_alloc_swap", folio):
            return
        first = int(folio.swap)
        self.entries = sorted({*self.entries, *range(first, first + 4)})
        self.state |= {first + i: [1, 0, "folio"] for i in range(4)}
        self.folios[first] = folio

    def drop(self, entry: int) -> None:
        """An entry without pin and count is free."""
        if self.state[entry][:2] == [0, 0]:
            del self.state[entry]

    def duplicate(self, entry: int) -> None:
        """One user more, of an allocated entry."""
        err = self.kernel.call("swap_duplicate", entry)
        assert err == (0 if entry in self.state else -errno.ENOENT)
        if not err:
            self.state[entry][1] += 1

    def free(self, entry: int) -> None:
        """One user less."""
        if self.state.get(entry, [0, 0])[1]:
            pinned, count, _ = self.state[entry]
            hint = self.kernel.call("vswap_free_nr_any_cache_only", entry, 1)
            assert hint == (pinned == 1 and count == 1)
            self.state[entry][1] -= 1
            self.drop(entry)

    def prepare(self, entry: int) -> None:
        """Pin an entry as a reader does, and give it up again."""
        err = self.kernel.call("swapcache_prepare", entry, 1)
        expected = -errno.ENOENT if entry not in self.state else -errno.EEXIST if self.state[entry][0] else 0
        assert err == expected
        if not err:
            self.kernel.call("swapcache_clear", entry, 1)

    def bring_in(self, entry: int) -> None:
        """A swap-in: pin four entries, put a new folio there."""
        first = entry & ~3
        run = range(first, first + 4)
        if all(self.state.get(one, [1])[0] == 0 for one in run):
            assert self.kernel.call("swapcache_prepare", first, 4) == 0
            self.folios[first] = folio = self.kernel.folio(2)
            shadow = next((self.state[one][2] for one in run if self.state[one][2]), None)
            assert self.kernel.call("swap_cache_add_folio", folio, first) == shadow
            for one in run:
                self.state[one][0], self.state[one][2] = 1, "folio"

    def take_out(self, entry: int, how: str) -> None:
        """The folio leaves the cache: deleted, reclaimed with a shadow, or given up because nobody needs it."""
        first = entry & ~3
        folio = self.folios.get(first)
        if folio is None:
            return
        run, left = range(first, first + 4), None
        if how == "give up":
            unused = not any(self.state[one][1] for one in run)
            assert self.kernel.call("folio_free_swap", folio) == unused
            if not unused:
                return
        elif how == "delete":
            self.kernel.call("swap_cache_del_folio", folio)
        else:
            left = 2 * entry + 1
            self.kernel.call("swap_cache_lock_irq", first)
            self.kernel.call("__vswap_remove_mapping", folio, first, left)
        del self.folios[first]
        for one in run:
            self.state[one][0], self.state[one][2] = 0, left
            self.drop(one)

    def check(self) -> None:
        """Every entry is what the table says."""
        kernel = self.kernel
        for entry in self.entries:
            pin, count, cached = self.state.get(entry, [0, 0, None])
            assert kernel.call("is_swap_cached", entry) == bool(pin)
            assert kernel.call("swp_swapcount", entry) == count
            folio = kernel.call("swap_cache_get_folio", entry)
            assert folio is (self.folios[entry & ~3] if cached == "folio" else None)
            if folio is not None:
                folio.refcount -= 1
            assert kernel.call("swap_cache_get_shadow", entry) == (None if cached == "folio" else cached)
            assert (pin_count(kernel, entry) is not None) == (entry in self.state)
            slot = kernel.call("swp_entry_to_swp_slot", entry)
            if slot:
                assert kernel.call("swp_slot_to_swp_entry", slot) == entry
                assert not is_marked(kernel, slot) or (count == 0 and pin)
        assert kernel.s.vswap.used == len(self.state)
        assert kernel.s.vmstat["nr_swapcached"] == 4 * len(self.folios)
        kernel.s.locks.assert_none_held()


OPERATIONS = {
    "alloc": lambda player, entry: player.alloc(),
    "duplicate": Player.duplicate,
    "free": Player.free,
    "prepare": Player.prepare,
    "bring in": Player.bring_in,
    "delete": lambda player, entry: player.take_out(entry, "delete"),
    "reclaim": lambda player, entry: player.take_out(entry, "reclaim"),
    "give up": lambda player, entry: player.take_out(entry, "give up"),
}


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(LATER), st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 99)), max_size=40)
)
def test_every_operation_does_what_the_table_says(stage: int, program: list[tuple[str, int]]) -> None:
    """Random lives of entries against the table of states."""
    player = Player(stage)
    player.alloc()
    for name, pick in program:
        OPERATIONS[name](player, player.entries[pick % len(player.entries)])
        player.check()
