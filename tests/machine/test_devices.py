"""Devices keep what is written, codecs give it back, counters and fault injection count right."""

from __future__ import annotations

import copy
import pickle
import random
import sys
from errno import EINVAL

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswap_ref.machine import (
    PAGE_SIZE,
    Bitmap,
    Counters,
    Disk,
    Faults,
    Pmem,
    RequestQueue,
    Ssd,
    SwapFile,
    Tally,
    Zram,
    format_size,
    get_codec,
    parse_size,
)

KINDS = [Disk, Ssd, Pmem, Zram, lambda size: SwapFile(size, on=Ssd("2M"))]
PAGE = st.one_of(
    st.just(bytes(PAGE_SIZE)),
    st.binary(min_size=16, max_size=16).map(lambda b: b * 256),
    st.integers(0, 99).map(lambda n: random.Random(n).randbytes(PAGE_SIZE)),
)


@pytest.mark.parametrize("make", KINDS)
def test_what_is_written_is_read(make: type[Ssd]) -> None:
    """The last write wins; a page never written is zero; a later change of the source is not seen."""
    device = make("1M")
    data = bytearray(b"x" * PAGE_SIZE)
    device.write(3, data)
    data[0] = 0
    assert device.read(3) == b"x" * PAGE_SIZE
    assert device.read(4) == bytes(PAGE_SIZE)
    device.write(3, random.Random(0).randbytes(PAGE_SIZE))
    assert device.read(3) == random.Random(0).randbytes(PAGE_SIZE)
    with pytest.raises(OSError, match="outside"):
        device.read(device.pages)


@pytest.mark.parametrize("make", KINDS)
def test_failures_come_as_ordered(make: type[Ssd]) -> None:
    """So many, for these pages, and then no more."""
    device = make("1M")
    device.fail_reads(pages=[5], times=2)
    device.read(4)
    for _ in range(2):
        with pytest.raises(OSError, match="read error on page 5"):
            device.read(5)
    device.read(5)
    device.fail_writes()
    with pytest.raises(OSError, match="write error"):
        device.write(0, bytes(PAGE_SIZE))
    device.write(0, bytes(PAGE_SIZE))


def test_zram_compresses_and_frees() -> None:
    """Its fill is the compressed size; a freed slot takes nothing."""
    zram = Zram("1M")
    zram.write(1, b"ab" * (PAGE_SIZE // 2))
    zram.write(2, random.Random(1).randbytes(PAGE_SIZE))
    assert PAGE_SIZE < zram.fill < PAGE_SIZE + 200
    zram.slot_free_notify(2)
    assert zram.fill < 200


def test_a_disk_pays_for_distance_and_nothing_for_sequence() -> None:
    """The head's way decides; it goes where pages are read or written, through a file too; asking moves nothing."""
    disk = Disk("64M")
    far = disk.read_ns(16000, 1)
    assert far == disk.read_ns(16000, 1)
    disk.write(16000, bytes(PAGE_SIZE))
    near, next_one = disk.read_ns(16100, 1), disk.write_ns(16001, 1)
    assert far > near > next_one == disk.page_transfer_ns
    SwapFile("1M", on=disk).read(5)
    assert disk.read_ns(6, 1) == disk.page_transfer_ns
    assert Pmem("1M").read_ns(0, 1) < Ssd("1M").read_ns(0, 1) < far


def test_a_queue_overlaps_latencies_but_not_transfers() -> None:
    """Up to its depth; a disk does one thing at a time; an idle queue costs nothing."""
    ssd, disk = RequestQueue(Ssd.queue_depth), RequestQueue(Disk.queue_depth)
    assert [ssd.submit(0, 22, 2) for _ in range(3)] == [22, 24, 26]
    assert ssd.submit(1000, 22, 2) == 1022
    assert [disk.submit(0, 22, 2) for _ in range(3)] == [22, 44, 66]
    assert disk.submit(1000, 22, 2) == 1022
    narrow = RequestQueue(2)
    assert [narrow.submit(0, 22, 0) for _ in range(5)] == [22, 22, 44, 44, 66]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("size", [0, 1, PAGE_SIZE - 1, PAGE_SIZE + 1])
def test_only_whole_pages_are_written(make: type[Ssd], size: int) -> None:
    """Anything else is EINVAL, and the page stays as it is."""
    device = make("1M")
    device.write(7, b"x" * PAGE_SIZE)
    with pytest.raises(OSError, match=f"{size} bytes are no page; expected 4096") as caught:
        device.write(7, bytes(size))
    assert caught.value.errno == EINVAL
    assert device.read(7) == b"x" * PAGE_SIZE
    assert device.stats.writes == 1


@pytest.mark.parametrize("make", KINDS)
def test_the_nth_request_fails(make: type[Ssd]) -> None:
    """Requests for other pages do not count, reads and writes count apart."""
    device = make("1M")
    device.fail_writes(pages=[5], nth=2)
    device.write(5, bytes(PAGE_SIZE))
    device.write(4, bytes(PAGE_SIZE))
    device.read(5)
    with pytest.raises(OSError, match="write error on page 5"):
        device.write(5, bytes(PAGE_SIZE))
    device.write(5, bytes(PAGE_SIZE))


def test_a_file_needs_room_below() -> None:
    """Larger than its device is refused."""
    with pytest.raises(ValueError, match="size='4M'"):
        SwapFile("4M", on=Ssd("2M"))


@pytest.mark.filterwarnings("ignore:compressor 'lzo'")
@pytest.mark.parametrize("name", ["lz4", "zstd", "deflate", "lzo"])
@given(page=PAGE)
def test_codecs_are_lossless(name: str, page: bytes) -> None:
    """Every page comes back; damage is an error."""
    codec = get_codec(name)
    packed = codec.compress(page)
    assert codec.decompress(packed) == page
    with pytest.raises(ValueError, match=name):
        codec.decompress(packed[: len(packed) // 2])


def test_unknown_codec() -> None:
    """The message lists the names."""
    with pytest.raises(ValueError, match="compressor='rar': expected one of lz4, zstd, deflate, lzo"):
        get_codec("rar")
    assert not get_codec("deflate").fallback


def test_a_missing_library_is_replaced_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.warns(RuntimeWarning, match="compressor 'zstd': .*deflate does its work"):
        codec = get_codec("zstd")
    assert codec.fallback
    assert "in place of zstd" in codec.library
    assert codec.decompress(codec.compress(bytes(4096))) == bytes(4096)


def test_a_tally_counts_under_fixed_names() -> None:
    """As attributes and, if the name is put together, as items; it is read like a dict, and survives being copied."""
    tally = Tally(["pswpin", "pswpout"])
    tally.pswpin += 2
    tally["pswp" + "out"] += 3
    tally.update({"pswpin": 4})
    assert dict(tally) == {"pswpin": 4, "pswpout": 3}
    assert (list(tally), len(tally), "pswpin" in tally, "pswpot" in tally) == (["pswpin", "pswpout"], 2, True, False)
    for twin in (pickle.loads(pickle.dumps(tally)), copy.deepcopy(tally)):
        assert twin == tally
        twin.pswpin += 1
        assert twin != tally
    assert type(Tally(["pswpin", "pswpout"])) is type(tally), "one class, or nothing is fast"


def test_a_tally_has_no_other_names() -> None:
    """Whatever is done with one; nor can there be a name that would hide a method."""
    tally = Tally(["pswpin", "pswpout"])
    with pytest.raises(AttributeError, match="pswpot"):
        tally.pswpot = 1
    with pytest.raises(AttributeError, match="pswpot"):
        tally.pswpot += 1
    with pytest.raises(KeyError, match="no counter 'pswpot'; did you mean 'pswpout'"):
        tally["pswpot"] += 1
    with pytest.raises(KeyError, match="no counter 'update'"):
        tally["update"] = 1
    for bad in ("items", "two words"):
        with pytest.raises(ValueError, match=bad):
            Tally(["pswpin", bad])


def test_counters_suggest_names() -> None:
    """What was read from a tally."""
    counters = Tally(["pswpin", "pswpout"], {"pswpin": 2}).snapshot()
    assert type(counters) is Counters
    assert counters.since({"pswpin": 0, "pswpout": 0}) == {"pswpin": 2}
    assert counters.text() == "pswpin 2\npswpout 0\n"
    with pytest.raises(KeyError, match="did you mean 'pswpout'"):
        counters["pswput"] += 1
    assert pickle.loads(pickle.dumps(counters)) == counters


def test_faults_hit_the_nth_request() -> None:
    """Counted from now, for as many as asked."""
    faults = Faults()
    faults.declare("site", "a place")
    faults.declare("elsewhere", "another place")
    assert faults.reached == []
    assert not faults.should_fail("site")
    assert faults.reached == ["site"]
    faults.fail("site", nth=2, times=2)
    assert [faults.should_fail("site") for _ in range(4)] == [False, True, True, False]
    assert faults.report() == [("elsewhere", 0, "another place"), ("site", 5, "a place")]
    with pytest.raises(ValueError, match="nth=0"):
        faults.fail("site", nth=0)


@given(st.sets(st.integers(0, 99)), st.integers(1, 8), st.sampled_from([1, 2, 4, 8]), st.integers(0, 99))
def test_bitmap_finds_the_first_run(used: set[int], nr: int, align: int, start: int) -> None:
    """find_zero_run against a walk."""
    bitmap = Bitmap(100)
    for index in used:
        bitmap.set(index)
    free = [i for i in range(start, 101 - nr) if i % align == 0 and not used & set(range(i, i + nr))]
    assert bitmap.find_zero_run(nr, align, start) == (free[0] if free else -1)
    assert bitmap.weight == len(used)
    assert bitmap.nbytes == 16


def test_ranges_and_pages_are_checked() -> None:
    """A bitmap does not grow, a file discards below, a size is exact."""
    bitmap = Bitmap(10)
    with pytest.raises(IndexError, match="bits 8 to 11 of 10"):
        bitmap.set_range(8, 4)
    with pytest.raises(IndexError):
        bitmap.clear_range(10, 1)
    assert len(bitmap) == 10
    below = Ssd("1M")
    file = SwapFile("1M", on=below)
    file.write(2, b"x" * PAGE_SIZE)
    file.discard(2, 1)
    assert below.read(2) == bytes(PAGE_SIZE)
    assert parse_size(str(2**60 + 1)) == 2**60 + 1


@pytest.mark.parametrize(
    ("text", "size"), [("64M", 64 << 20), ("1.5G", 3 << 29), (4096, 4096), ("12KiB", 12288), ("7", 7)]
)
def test_sizes(text: int | str, size: int) -> None:
    """Texts are binary units."""
    assert parse_size(text) == size
    assert format_size(64 << 20) == "64.0M"


def test_a_device_shows_what_it_is_and_did() -> None:
    device = Ssd("64K", name="/dev/<b>")
    device.write(1, bytes(4096))
    device.read(1)
    device.read(2)
    assert (device.stats.bytes_read, device.stats.bytes_written) == (8192, 4096)
    shown = device._repr_html_()
    assert "/dev/&lt;b&gt;" in shown
    assert "by address" in shown


def test_failing_no_times_is_an_error_and_arms_nothing() -> None:
    device = Ssd("64K")
    for arm in (device.fail_reads, device.fail_writes):
        with pytest.raises(ValueError, match="times=0"):
            arm(times=0)
        with pytest.raises(ValueError, match="nth=0"):
            arm(nth=0)
    device.write(1, bytes(4096))
    assert device.read(1) == bytes(4096)
