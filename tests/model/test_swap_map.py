"""The swap map and its continuation against plain counts.

An oracle knows for each slot how many users it has, whether it is cached and whether shmem owns it.  Every answer and
every byte must follow from that.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from errno import EEXIST, EINVAL, ENOENT, ENOMEM
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import vswap_ref as vr
from vswap_ref.lab.experiments.counts import (
    FUNCTIONS,
    STATES,
    describe,
    fork_count,
    fork_without_memory,
    transition,
    unmap_without_memory,
)

BEFORE = vr.at(8)
"""The last stage at which the name of a page is its place."""
swap_map = BEFORE.module("swap_map")
check_clusters, check_device_counters = map(BEFORE.find, ("check_clusters", "check_device_counters"))
check_totals, cluster_alloc_swap_slot = map(BEFORE.find, ("check_totals", "cluster_alloc_swap_slot"))
add_swap_count_continuation, swp_swapcount = map(BEFORE.find, ("add_swap_count_continuation", "swp_swapcount"))
SWAP_HAS_CACHE, SWAP_MAP_BAD, SWAP_MAP_SHMEM = map(BEFORE.find, ("SWAP_HAS_CACHE", "SWAP_MAP_BAD", "SWAP_MAP_SHMEM"))
SwpEntry, swp_entry = map(BEFORE.find, ("SwpEntry", "swp_entry"))

SLOTS = 1536
duplicate = swap_map.__swap_duplicate  # a name that a class would mangle
TIMES = st.sampled_from([1, 1, 1, 2, 61, 62, 63, 64, 8000, 8064])


@dataclass
class Slot:
    """What the oracle knows of a used slot."""

    users: int = 0
    cached: bool = True
    shmem: bool = False

    def drop_user(self) -> None:
        """One user less."""
        self.shmem = False
        self.users = max(0, self.users - 1)

    @property
    def used(self) -> bool:
        """Somebody needs the slot."""
        return self.cached or self.shmem or self.users > 0


def levels_needed(users: int) -> int:
    """Continuation pages that a count takes: digits of base 128 above the one of base 63."""
    above, levels = users // 63, 0
    while above:
        above >>= 7
        levels += 1
    return levels


def low_digit(users: int) -> int:
    """The byte that a count should have: digit of base 63, flag if there is more."""
    return users % 63 | (0x80 if users > 62 else 0)


class SwapMapMachine(RuleBasedStateMachine):
    """Ranges of slots are allocated, counted up and down, claimed for the cache and released."""

    @initialize(zswap=st.booleans())
    def boot(self, zswap: bool) -> None:
        """A device of three clusters, slot 0 of which has an entry that is not 0: the second device."""
        devices = [vr.Pmem("8K", name="/dev/small"), vr.Pmem(SLOTS * 4096)]
        self.kernel = BEFORE.Kernel(ram="1M", swap=devices, zswap="lz4" if zswap else None, cpus=1)
        self.system = self.kernel.system
        self.si = self.system.swap.info[1]
        self.oracle: dict[int, Slot] = {}
        self.pages = 0

    def entry(self, offset: int) -> SwpEntry:
        """Entry of a slot of the device under test."""
        return swp_entry(1, offset)

    def pick(self, data: Any) -> int:
        """A used slot: one of few, at the ends of ranges and clusters, so that the same ones are met again."""
        used = sorted(self.oracle)
        ends = [i for i in used if i - 1 not in self.oracle or i + 1 not in self.oracle or i % 512 in (0, 511)]
        return int(data.draw(st.sampled_from(ends[:4] + ends[-4:]), "slot"))

    def pick_range(self, data: Any, clusters: int = 1) -> range:
        """Neighbouring used slots, all that there are in one cluster (or more), or a part of them."""
        first = last = self.pick(data)
        while last + 1 in self.oracle and (last + 1) // 512 < first // 512 + clusters:
            last += 1
        return range(first, data.draw(st.sampled_from([last + 1, last + 1, (first + last) // 2 + 1]), "stop"))

    def forget_unused(self, slots: range) -> None:
        """Slots that nobody needs any more are free."""
        for offset in slots:
            if not self.oracle[offset].used:
                del self.oracle[offset]

    @rule(order=st.sampled_from([0, 0, 1, 3, 9]))
    def allocate(self, order: int) -> None:
        """Free, aligned slots are found, and claimed for the cache."""
        offset = cluster_alloc_swap_slot(self.system, self.si, order, SWAP_HAS_CACHE)
        if offset:
            assert offset % (1 << order) == 0
            assert not self.oracle.keys() & set(range(offset, offset + (1 << order)))
            self.oracle |= {i: Slot() for i in range(offset, offset + (1 << order))}

    @precondition(lambda self: self.oracle)
    @rule(data=st.data(), times=TIMES, failing=st.booleans())
    def share(self, data: Any, times: int, failing: bool) -> None:
        """One user more, again and again; -ENOMEM exactly when a new page is needed and there is none."""
        offset = self.pick(data)
        slot = self.oracle[offset]
        if failing:
            self.kernel.faults.fail("swap_continuation_alloc", times=10**6)
        for _ in range(times if not slot.shmem else 1):
            needs_page = levels_needed(slot.users + 1) > self.pages
            result = swap_map.swap_duplicate(self.system, self.entry(offset))
            if needs_page and failing and not slot.shmem:
                assert result == -ENOMEM
                break
            assert result == 0
            slot.users += not slot.shmem
            self.pages = max(self.pages, levels_needed(slot.users))
        self.kernel.faults.clear()

    @precondition(lambda self: self.oracle)
    @rule(data=st.data())
    def share_range(self, data: Any) -> None:
        """One user more for each slot of a range, as after the unmapping of a large folio."""
        for offset in self.pick_range(data):
            slot = self.oracle[offset]
            if not slot.shmem and levels_needed(slot.users + 1) <= self.pages:
                assert swap_map.swap_duplicate(self.system, self.entry(offset)) == 0
                slot.users += 1

    @precondition(lambda self: self.oracle)
    @rule(data=st.data(), near=st.booleans(), failing=st.booleans())
    def make_room(self, data: Any, near: bool, failing: bool) -> None:
        """A page is added only for a slot whose next user needs one; others have changed in between."""
        offset = self.pick(data)
        slot = self.oracle[offset]
        if near and not slot.shmem:
            for _ in range(62 - slot.users % 63):
                assert swap_map.swap_duplicate(self.system, self.entry(offset)) == 0
                slot.users += 1
        at_largest = not slot.shmem and slot.users % 63 == 62
        if failing:
            self.kernel.faults.fail("swap_continuation_alloc")
        result = add_swap_count_continuation(self.system, self.entry(offset))
        self.kernel.faults.clear()
        assert result == (-ENOMEM if at_largest and failing else 0)
        if at_largest and not failing:
            self.pages = max(self.pages, levels_needed(slot.users + 1))

    @precondition(lambda self: self.oracle)
    @rule(data=st.data(), times=TIMES)
    def put(self, data: Any, times: int) -> None:
        """One user less, again and again; the last one frees the slot."""
        offset = self.pick(data)
        slot = self.oracle[offset]
        for _ in range(min(times, slot.users) or int(slot.shmem)):
            swap_map.swap_free(self.system, self.entry(offset))
            slot.drop_user()
        self.forget_unused(range(offset, offset + 1))

    @precondition(lambda self: self.oracle)
    @rule(data=st.data())
    def put_range(self, data: Any) -> None:
        """One user less of each slot of a range, across clusters; the answer: is some slot cache-only now?"""
        slots = self.pick_range(data, clusters=3)
        if all(self.oracle[i].users or self.oracle[i].shmem for i in slots):
            for i in slots:
                self.oracle[i].drop_user()
            cache_only = any(self.oracle[i].cached and not self.oracle[i].users for i in slots)
            offset, nr = slots.start, len(slots)
            assert swap_map.swap_slots_put_map_nr(self.system, self.si, offset, nr) == cache_only
            self.forget_unused(slots)

    @precondition(lambda self: self.oracle)
    @rule(data=st.data())
    def prepare(self, data: Any) -> None:
        """The cache flag of a range is claimed: of all slots, or of none if one has it."""
        chosen = self.pick_range(data)
        slots = [self.oracle[i] for i in chosen]
        taken = any(slot.cached for slot in slots)
        result = swap_map.swapcache_prepare(self.system, self.entry(chosen.start), len(slots))
        assert result == (-EEXIST if taken else 0)
        for slot in slots:
            slot.cached |= not taken

    @precondition(lambda self: self.oracle)
    @rule(data=st.data())
    def clear(self, data: Any) -> None:
        """The cache flag of a range is given up; slots without users are free."""
        slots = self.pick_range(data)
        if all(self.oracle[i].cached for i in slots):
            swap_map.swapcache_clear(self.system, self.si, self.entry(slots.start), len(slots))
            for i in slots:
                self.oracle[i].cached = False
            self.forget_unused(slots)

    @precondition(lambda self: self.oracle)
    @rule(data=st.data())
    def give_to_shmem(self, data: Any) -> None:
        """Claimed slots without users become shmem's; they cannot be shared."""
        chosen = self.pick_range(data)
        slots = [self.oracle[i] for i in chosen]
        if all(slot.cached and not slot.users and not slot.shmem for slot in slots):
            swap_map.swap_shmem_alloc(self.system, self.entry(chosen.start), len(slots))
            for slot in slots:
                slot.shmem = True
            assert duplicate(self.system, self.entry(chosen.start), 1, 1) == -EINVAL

    @precondition(lambda self: self.oracle and self.pages)
    @rule(data=st.data(), byte=st.integers(0, 255))
    def nobody_reads_unused_digits(self, data: Any, byte: int) -> None:
        """Continuation pages are not zeroed: scribble over every digit that no flag says is in use."""
        offset = self.pick(data)
        for page in self.si.continuation[0][levels_needed(self.oracle[offset].users) :]:
            page[offset] = byte

    @rule(offset=st.integers(0, SLOTS - 1))
    def a_free_slot_has_no_users(self, offset: int) -> None:
        """Free and bad slots: counting answers -ENOENT, taking off is ignored."""
        if offset in self.oracle:
            return
        before = self.si.swap_map[offset]
        for usage in (1, SWAP_HAS_CACHE, SWAP_MAP_SHMEM):
            assert duplicate(self.system, self.entry(offset), usage, 1) == -ENOENT
        assert swap_map.swap_duplicate(self.system, self.entry(offset)) == 0
        swap_map.swap_free(self.system, self.entry(offset))
        assert self.si.swap_map[offset] == before

    @invariant()
    def the_map_says_what_the_oracle_knows(self) -> None:
        """Byte for byte; counts are exact; clusters and counters agree."""
        if not hasattr(self, "kernel"):
            return
        expected = bytearray(SLOTS)
        expected[0] = SWAP_MAP_BAD
        for offset, slot in self.oracle.items():
            count = SWAP_MAP_SHMEM if slot.shmem else low_digit(slot.users)
            expected[offset] = count | (SWAP_HAS_CACHE if slot.cached else 0)
            if slot.users > 60:
                assert swp_swapcount(self.system, self.entry(offset)) == slot.users
        assert self.si.swap_map == expected
        assert len(self.si.continuation.get(0, [])) == self.pages
        check_device_counters(self.system, self.si)
        check_clusters(self.si)
        check_totals(self.system)
        self.kernel.locks.assert_none_held()


SwapMapMachine.TestCase.settings = settings(
    max_examples=100 if os.environ.get("VSWAP_DEEP") else 30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestSwapMapMachine = SwapMapMachine.TestCase


@pytest.mark.parametrize("users", [1, 62, 63, 125, 126, 127, 63 * 128 - 1, 63 * 128, 63 * 128 * 2 + 5])
def test_counting_is_exact_at_every_carry(users: int) -> None:
    """Up to the second level of continuation, back to 1, and up again over pages full of rubbish."""
    kernel = BEFORE.Kernel(ram="1M", swap=[vr.Pmem("1M")], cpus=1)
    system, si = kernel.system, kernel.system.swap.info[0]
    entry = SwpEntry(cluster_alloc_swap_slot(system, si, 0, SWAP_HAS_CACHE))
    assert swap_map.swap_duplicate(system, entry) == 0
    for rubbish in (0, 0xFF):
        for page in si.continuation.get(0, []):
            page[entry] = rubbish
        for count in range(2, users + 1):
            assert swap_map.swap_duplicate(system, entry) == 0
            assert swp_swapcount(system, entry) == count
        for count in range(users - 1, 0, -1):
            swap_map.swap_free(system, entry)
            assert swp_swapcount(system, entry) == count
            assert si.swap_map[entry] == SWAP_HAS_CACHE | low_digit(count)
        assert len(si.continuation.get(0, [])) == levels_needed(users)


@pytest.mark.parametrize("cached", [(True, False), (False, True), (False, False), (True, True)])
def test_a_range_across_clusters_answers_for_both(cached: tuple[bool, bool]) -> None:
    """Taking users off two neighbouring clusters tells of cache-only slots in either; the others are free."""
    kernel = BEFORE.Kernel(ram="1M", swap=[vr.Pmem("8M")], cpus=1)
    system, si = kernel.system, kernel.system.swap.info[0]
    for stays in cached:
        offset = cluster_alloc_swap_slot(system, si, 9, SWAP_HAS_CACHE)
        for times in range(2):
            assert duplicate(system, SwpEntry(offset), 1, 512) == 0, times
        if not stays:
            swap_map.swapcache_clear(system, si, SwpEntry(offset), 512)
        assert set(si.swap_map[offset : offset + 512]) == {0x42 if stays else 0x02}
    assert not swap_map.swap_slots_put_map_nr(system, si, 512, 1024)
    assert swap_map.swap_slots_put_map_nr(system, si, 512, 1024) == any(cached)
    assert [si.swap_map[offset] for offset in (512, 1024)] == [0x40 if stays else 0 for stays in cached]


@pytest.mark.parametrize(
    ("users", "pages"), [(1, 0), (61, 0), (62, 1), (63, 1), (125, 1), (8062, 1), (8063, 2), (8126, 2)]
)
def test_room_is_made_once_and_only_when_needed(users: int, pages: int) -> None:
    """However often room is asked for, there is one page for each digit, also if an unused one is full of rubbish."""
    kernel = BEFORE.Kernel(ram="1M", swap=[vr.Pmem("1M")], cpus=1)
    system, si = kernel.system, kernel.system.swap.info[0]
    entry = SwpEntry(cluster_alloc_swap_slot(system, si, 0, SWAP_HAS_CACHE))
    for _ in range(users):
        assert swap_map.swap_duplicate(system, entry) == 0
    for _ in range(3):
        assert add_swap_count_continuation(system, entry) == 0
        levels = si.continuation.get(0, [])
        assert len(levels) == pages
        for page in levels[levels_needed(users) :]:
            page[entry] = 0xFF
    assert swap_map.swap_duplicate(system, entry) == 0
    assert swp_swapcount(system, entry) == users + 1


def test_a_page_serves_4096_neighbours() -> None:
    """Two slots of one page of the map share a continuation page, slots of two pages do not."""
    kernel = BEFORE.Kernel(ram="1M", swap=[vr.Pmem("32M")], cpus=1)
    system, si = kernel.system, kernel.system.swap.info[0]
    offsets = [cluster_alloc_swap_slot(system, si, 9, SWAP_HAS_CACHE) for _ in range(8)]
    assert offsets == [512 * n for n in range(1, 9)]
    for offset, pages in ((512, 1), (4095, 1), (4096, 2)):
        for _ in range(63):
            swap_map.swap_duplicate(system, SwpEntry(offset))
        assert sum(map(len, si.continuation.values())) == pages
        assert kernel.memory()["count continuation"] == (0, 4096 * pages)


def test_every_function_in_every_state() -> None:
    """Bytes and answers of the functions that take one slot."""
    table = {(state, function): transition(state, function) for state in STATES for function in FUNCTIONS}
    answers = {key: (one.after, one.answer) for key, one in table.items()}
    assert answers["free", "swap_duplicate"] == (0x00, "0")  # -ENOENT, reported as success
    assert answers["bad", "swap_duplicate"] == (0x3F, "0")
    assert answers["bad", "swap_free"] == (0x3F, "-")
    assert answers["bad", "swapcache_prepare"] == (0x3F, "-ENOENT")
    assert answers["claimed", "swap_duplicate"] == (0x41, "0")
    assert answers["claimed", "swap_shmem_alloc"] == (0xFF, "-")
    assert answers["claimed", "swap_free"] == (0x40, "a bug in the caller")
    assert answers["1 user", "swapcache_prepare"] == (0x41, "0")
    assert answers["1 user, cached", "swapcache_prepare"] == (0x41, "-EEXIST")
    assert answers["1 user, cached", "swap_free"] == (0x40, "-")
    assert answers["1 user", "swap_free"] == (0x00, "-")
    assert answers["62 users", "swap_duplicate"] == (0x80, "0")
    assert answers["62 users, cached", "swap_duplicate"] == (0xC0, "0")
    assert answers["63 users", "swap_free"] == (0x3E, "-")
    assert answers["shmem", "swap_duplicate"] == (0xBF, "0")  # -EINVAL, reported as success
    assert answers["shmem, cached", "swap_free"] == (0x40, "-")
    assert {one.before for one in table.values()} == {0, 0x3F, 0x40, 1, 0x41, 0x3E, 0x7E, 0x80, 0xBF, 0xFF}
    assert "0x7e" in table["62 users, cached", "swap_free"]._repr_html_()


def test_bytes_in_words() -> None:
    """What a byte says."""
    words = {0: "free", 0x3F: "bad", 0x40: "cached", 0x41: "digit 1, cached", 0x80: "digit 0, continued"}
    words |= {0xBF: "shmem", 0xFF: "shmem, cached", 0xBE: "digit 62, continued", 0xC0: "digit 0, continued, cached"}
    assert {byte: describe(byte) for byte in words} == words


def test_forks_count() -> None:
    """Real processes: 63 need a page, and the page stays when they are gone."""
    assert (fork_count(62).byte, fork_count(62).pages) == (0x3E, 0)
    record = fork_count(64)
    assert (record.byte, record.digits, record.pages, record.counted) == (0x81, (1,), 1, 64)
    assert record.formula == "1 + 1 * 63"
    after = fork_count(64, 60)
    assert (after.byte, after.digits, after.pages, after.counted) == (0x04, (), 1, 4)


@pytest.mark.slow
def test_8064_processes_need_a_second_page() -> None:
    """63 * 128 forks of a process with one page."""
    record = fork_count(63 * 128)
    assert (record.byte, record.digits, record.pages) == (0x80, (0x80, 1), 2)
    assert record.counted == eval(record.formula) == 63 * 128


@pytest.mark.parametrize(
    ("failures", "results"), [(0, ["done", "done"]), (1, ["done", "done"]), (2, ["-ENOMEM", "done"])]
)
def test_fork_tries_twice(failures: int, results: list[str]) -> None:
    """The first try may not sleep, the second may; if both fail, fork fails and nothing has changed."""
    rows = fork_without_memory(62, failures).rows
    assert [row["result"] for row in rows[1:]] == results
    assert rows[1]["byte"] == ("0x3e" if results[0] == "-ENOMEM" else "0x80")


def test_unmap_gives_up_at_62() -> None:
    """Reclaim leaves the page mapped in the other processes, with its data, and goes on when there is memory."""
    rows = unmap_without_memory(70).rows
    assert [(row["result"], row["byte"], row["pages"]) for row in rows] == [
        ("8 mapped", "0x7e", 0),
        ("0 mapped", "0x87", 1),
    ]
