"""What the experiments of the chapter on decoupling teach."""

from __future__ import annotations

import pytest

from vswap_ref.lab.experiments.backings import MIXTURES, RANGE, kinds_beside, life_of_a_page, mixture, three_kinds
from vswap_ref.lab.experiments.no_device import (
    HEAP_PAGES,
    fragments,
    large_read,
    late_device,
    locks,
    no_device,
    sized,
)
from vswap_ref.machine import PAGE_SIZE


@pytest.mark.parametrize(("zero", "compressible", "other"), [(20, 30, 10), (0, 5, 0), (7, 0, 0), (0, 0, 3)])
def test_only_what_is_written_takes_slots(zero: int, compressible: int, other: int) -> None:
    """Slots: all before, the other pages after; all else is equal."""
    before, after = kinds_beside(zero, compressible, other).records
    total = zero + compressible + other
    assert (before.slots, after.slots) == (total, other)
    for record in (before, after):
        assert (record.entries, record.stored, record.charged) == (total, compressible, total)


def test_one_page_has_four_backings_behind_one_number() -> None:
    """In the order told, and the page table does not notice."""
    life = life_of_a_page()
    assert life.backings == ["-", "folio", "zswap", "device", "zeros", "-"]
    assert len(life.entries) == 1
    assert [(moment.slots, moment.stored) for moment in life.moments] == [
        (0, 0),
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 0),
        (0, 0),
        (0, 0),
    ]
    assert [moment.step for moment in life.moments if moment.cached] == ["pushed out, refused", "read"]


@pytest.mark.parametrize("name", MIXTURES)
def test_freeing_never_cares_and_reading_is_all_or_one(name: str) -> None:
    """A batch to read is the whole range, if it is of one readable kind, or a page."""
    record = mixture(name)
    assert record.entries == list(range(record.entries[0], record.entries[0] + RANGE))
    assert record.to_free == RANGE
    assert record.to_read == (RANGE if set(record.kinds) in ({"S"}, {"Z"}) else 1)
    assert mixture(name, 13).to_read == RANGE


@pytest.mark.parametrize("incompressible", [0, 10, 80])
def test_nothing_needs_a_device(incompressible: int) -> None:
    """What zswap refuses is in memory, in the cache; the rest is gone.  Before, a device is needed and not written."""
    after = no_device(incompressible)
    assert no_device(incompressible, 13).where == {"resident": 100}
    assert after.where == no_device(incompressible, 13, device=True).where
    assert no_device(incompressible, 13, device=True).slots == 100
    assert after.slots == no_device(incompressible, 14, device=True).slots == 0
    assert after.where.get("swapcache", 0) == incompressible
    assert after.scanned >= incompressible
    assert after.reclaimed == 0


@pytest.mark.parametrize("slots", [31, 80])
def test_places_are_taken_as_pages_are_written_back(slots: int) -> None:
    """Never more slots than pages written back, never more than there are, and none at the beginning."""
    rows = late_device(slots).rows
    assert rows[1]["slots in use"] == 0
    for row in rows:
        assert row["slots in use"] == row["written back"] == 64 - row["in zswap"] <= slots
    assert rows[-1]["in zswap"] == (0 if slots > 64 else 64 - rows[-1]["slots in use"])
    assert rows[-1]["written back"] >= min(64, slots - 1)


def test_a_swap_file_has_a_right_size_only_before() -> None:
    """Too small: out of memory, with memory to spare.  Enough: wasted.  After: none is needed."""
    small, enough, none = sized("8M", 13), sized("12M", 13), sized(0, 14)
    assert not small.survived
    assert small.used == small.swap - PAGE_SIZE == small.wasted - PAGE_SIZE
    assert enough.survived
    assert none.survived
    assert enough.used == enough.entries == none.entries > small.swap
    assert small.written == enough.written == none.written == none.used == 0
    assert none.pages == HEAP_PAGES
    assert none.metadata < enough.metadata
    assert none.pool < none.entries // 2


def test_large_folios_find_no_place_and_are_not_split() -> None:
    """With every other slot free nothing leaves any more, and reclaim looks in vain; with a free half all is equal."""
    before, after = fragments(13), fragments(14)
    assert (before.split, before.pages_out, before.stuck) == (8, 128, 0)
    assert (after.split, after.pages_out, after.stuck, after.freed) == (0, 0, 128, 0)
    assert after.scanned >= 2 * after.stuck
    assert [fragments(stage, fragmented=False).whole for stage in (13, 14)] == [8, 8]


def test_zeros_come_one_by_one_now() -> None:
    """From a synchronous device they came as one folio; text still does; a mixture never did."""
    came = {(stage, content): large_read(content, stage).largest for stage in (13, 14) for content in LARGEST}
    assert [came[13, content] for content in LARGEST] == [16, 16, 1]
    assert [came[14, content] for content in LARGEST] == list(LARGEST.values())


LARGEST = {"text": 16, "zeros": 1, "one of zeros": 1}


def test_locks() -> None:
    """The table of the patch's cost: no lock of a device for what is on none."""
    assert locks(13)["out to zswap"] == (9, 2)
    assert locks(14) == {"out to zswap": (7, 0), "out to a device": (8, 1), "unmap 512": (1, 0)}


def test_records_show_themselves() -> None:
    """As text and HTML with the numbers in them."""
    for record in (three_kinds(14, 1, 2, 3), kinds_beside(1, 2, 3), mixture(), no_device(10), sized(PAGE_SIZE * 64)):
        assert record._repr_html_()
        assert repr(record)
    assert "0x200" in life_of_a_page()._repr_html_()
