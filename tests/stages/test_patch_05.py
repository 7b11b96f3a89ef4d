"""Patch 5: is_swap_cached, and the move of a swapped-out page that asks it."""

from __future__ import annotations

from errno import EAGAIN

import pytest

import vswap_ref as vr
from vswap_ref.lab.experiments.move_race import Mover, move_race, spin
from vswap_ref.machine import PAGE_SIZE

AT = vr.at(5)


def test_it_is_bit_six_for_every_byte() -> None:
    """Counts, bad slots, continued counts, shared memory: only the cache flag matters; nothing is changed."""
    kernel = AT.Kernel(ram="1M", swap=[vr.Ssd("1M"), vr.Ssd("1M")])
    s, swap_map = kernel.system, AT.module("swap_map")
    entry = AT.module("types").swp_entry(1, 9)
    before = kernel.cost.snapshot()
    for byte in range(256):
        s.swap.info[1].swap_map[9] = byte
        assert swap_map.is_swap_cached(s, entry) == bool(byte >> 6 & 1)
        assert s.swap.info[1].swap_map[9] == byte
    assert kernel.cost.snapshot() == before
    assert s.swap.info[1].users.count == 0


def test_a_swap_in_that_has_begun_is_not_in_the_cache() -> None:
    """After swapcache_prepare the answer is yes although a look-up finds nothing; after swapcache_clear it is no."""
    mover = Mover(5)
    swap_map = AT.module("swap_map")
    assert not swap_map.is_swap_cached(mover.s, mover.entry)
    swap_map.swapcache_prepare(mover.s, mover.entry, 1)
    assert swap_map.is_swap_cached(mover.s, mover.entry)
    assert mover.cached() is None
    assert mover.move_swap_pte() == -EAGAIN
    swap_map.swapcache_clear(mover.s, mover.s.swap.info[0], mover.entry, 1)
    assert not swap_map.is_swap_cached(mover.s, mover.entry)
    assert mover.move_swap_pte() == 0
    assert mover.target.read_page(0)[:8] == b"movable "


@pytest.mark.parametrize("seed", range(2))
def test_a_cached_folio_implies_it(seed: int) -> None:
    """At the end of a random program every folio in the swap cache has its slots marked."""
    kernel = AT.Kernel(ram="512K", swap=[vr.Pmem("256K"), vr.Ssd("256K")], zswap="lz4", debug=True)
    app = kernel.spawn("app")
    heap = app.mmap(40 * PAGE_SIZE)
    for page in range(40):
        heap.write_page(page, bytes((page + seed,)) * PAGE_SIZE)
    app.madvise(heap, "pageout", 0, (20 + seed) * PAGE_SIZE)
    app.madvise(heap, "willneed", 0, 5 * PAGE_SIZE)
    folios = [folio for folio in kernel.system.memory.mem_map if folio is not None and folio.swapcache]
    assert folios
    assert all(AT.module("swap_map").is_swap_cached(kernel.system, folio.swap) for folio in folios)


def test_only_the_swap_map_is_asked() -> None:
    """The mover does not read the device's bytes itself any more."""
    before, after = (vr.at(stage).sources()["mm/userfaultfd.py"] for stage in (4, 5))
    assert ".swap_map[" in before
    assert ".swap_map[" not in after


def test_the_flag_catches_a_page_that_went_in_and_out() -> None:
    """With the test the move is refused and nothing changes; without it entry and folio disagree."""
    safe, unsafe = move_race("in, written, out", tested=True), move_race("in, written, out", tested=False)
    assert (safe.error, safe.pte, safe.consistent) == (-EAGAIN, "source", True)
    assert (unsafe.error, unsafe.pte, unsafe.folio, unsafe.consistent) == (0, "target", "source", False)
    for meanwhile, error in (("nothing", 0), ("read ahead", -EAGAIN)):
        record = move_race(meanwhile)
        assert (record.error, record.consistent, record.content_kept) == (error, True, True)
    assert safe.content_kept


def test_a_refused_move_succeeds_with_the_folio() -> None:
    """The next attempt finds the folio and gives it the new address."""
    mover = Mover(5)
    mover.source.touch(0)
    mover.source[0] = ord("m")
    mover.app.madvise(mover.source, "pageout")
    assert mover.move_swap_pte() == -EAGAIN
    assert mover.app.move_pages(mover.source, mover.target) == PAGE_SIZE
    assert mover.cached().index == mover.target.vma.start
    assert mover.target.read_page(0)[:8] == b"movable "
    mover.kernel.check()


def test_a_changed_entry_stops_the_move() -> None:
    """The page came back, or the target was filled: -EAGAIN, and nothing is moved."""
    for fill in (False, True):
        mover = Mover(5)
        if fill:
            mover.target.write_page(0, b"x" * PAGE_SIZE)
        else:
            mover.source.touch(0)
        assert mover.move_swap_pte() == -EAGAIN
        assert mover.source.read_page(0)[:8] == b"movable "


def test_a_folio_of_another_entry_stops_the_move() -> None:
    """What was found in the cache must still belong to the entry."""
    mover = Mover(5)
    userfaultfd = AT.module("userfaultfd")
    mover.source.touch(0)
    stranger = mover.cached()
    mover.app.madvise(mover.source, "pageout")
    mover.kernel.reclaim("64K")
    stranger.swapcache = False
    move = userfaultfd.PageMove(mover.vma, mover.vma.start, *mover.tables, mover.pte)
    assert userfaultfd.move_swap_pte(mover.s, move, mover.s.swap.info[0], stranger) == -EAGAIN
    assert mover.tables[2][mover.tables[3]] == 0


@pytest.mark.parametrize(("io_us", "move_us", "refused"), [(1, 1, 1), (10, 1, 10), (10, 3, 4), (100, 2, 50)])
def test_refusals_follow_the_time_of_the_read(io_us: int, move_us: int, refused: int) -> None:
    """The mover spins: one refusal a round for as long as the flag is held, then it succeeds."""
    assert spin(io_us, move_us).refused == refused
    assert not spin(io_us, move_us).cached


def test_the_header_declares_it() -> None:
    """The last of the lifecycle group, from this stage on."""
    before, after = (vr.at(stage).module("swap_h").LIFECYCLE for stage in (4, 5))
    assert [function.__name__ for function in after] == [*(function.__name__ for function in before), "is_swap_cached"]
