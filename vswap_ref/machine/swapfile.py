"""A swap file: blocks of a file system, possibly scattered over a device."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from errno import EIO
from itertools import accumulate, pairwise

from .blockdev import BlockDevice, DeviceStats, mkswap
from .units import PAGE_SIZE, format_size, parse_pages

Fragment = tuple[int | None, int]
"""A run of a file's blocks: first block on the device (None: a hole), number of blocks."""

BLOCK_SIZES = (512, 1024, 2048, 4096)


class SwapFile(BlockDevice):
    """A swap file on another device: its speed, but no slots for large folios.

    ``on`` is the device below.  ``fragments`` are the runs of blocks, each of ``block_size`` bytes, that the file
    system gave to the file, in the order of the file: (first block, blocks), or (None, blocks) for a hole.  Without
    them the file takes the first run of pages that no other file on the device has.  Statistics are those of ``on``.
    """

    kind = "swapfile"
    is_block = False

    def __init__(
        self,
        size: int | str,
        on: BlockDevice,
        name: str | None = None,
        fragments: Sequence[Fragment] | None = None,
        block_size: int = PAGE_SIZE,
    ) -> None:
        if on.backing is not on:
            raise ValueError(f"on={on!r}: expected a block device, not a file")
        if block_size not in BLOCK_SIZES:
            raise ValueError(f"block_size={block_size!r}: expected one of {BLOCK_SIZES}")
        if parse_pages(size, "size", least=2) > on.pages:
            raise ValueError(f"size={size!r}: larger than the device below ({format_size(on.size)})")
        self.on = on
        self.block_size = block_size
        nr_blocks = parse_pages(size, "size") * PAGE_SIZE // block_size
        self.fragments = list(fragments) if fragments is not None else [self._first_room(nr_blocks)]
        self._claim(nr_blocks)
        self._starts = [0, *accumulate(nr for _, nr in self.fragments)]
        self.rotational, self.synchronous = on.rotational, on.synchronous
        self.stable_writes, self.can_discard = on.stable_writes, on.can_discard
        self.queue_depth, self.page_transfer_ns = on.queue_depth, on.page_transfer_ns
        super().__init__(size, name or f"/swapfile-on-{on.kind}", on.contentless)

    def format(self, bad_pages: Iterable[int]) -> None:
        """The header goes to the file's first page, unless a hole is there."""
        done, self.on.stats = self.on.stats, DeviceStats()
        if self.fragments[0][0] is not None:
            mkswap(self, bad_pages)
        self.stats = self.on.stats = done

    @property
    def backing(self) -> BlockDevice:
        """The block device that holds the pages."""
        return self.on

    @property
    def fill(self) -> int:
        """Bytes in use on the device below."""
        return self.on.fill

    def bmap(self, block: int) -> int | None:
        """The device's block that holds a block of the file; None for a hole."""
        index = bisect_right(self._starts, block) - 1
        start = self.fragments[index][0]
        return None if start is None else start + block - self._starts[index]

    def _load(self, page: int) -> bytes | bytearray:
        """Content of a page of the file; a hole reads as zeros."""
        self._check(page, "read")
        data = bytearray()
        for place in self._places(page):
            part = bytes(PAGE_SIZE) if place is None else self.on.read(place[0])[place[1] :]
            data += part[: self.block_size]
        return data

    def write(self, page: int, data: bytes | bytearray | memoryview) -> None:
        """Write a page of the file.  OSError(EIO) for a hole: a swap file does not grow."""
        self._check(page, "write", len(data))
        if self.block_size == PAGE_SIZE and (block := self.bmap(page)) is not None:
            self.on.write(block, data)
            return
        for number, place in enumerate(self._places(page)):
            if place is None:
                raise OSError(EIO, f"page {page} of {self.name} is a hole")
            whole = bytearray(self.on.read(place[0]))
            whole[place[1] : place[1] + self.block_size] = data[number * self.block_size :][: self.block_size]
            self.on.write(place[0], whole)

    def discard(self, page: int, nr: int) -> None:
        """Discard the pages on the device below."""
        for below in self._pages_below(range(page, page + nr)):
            self.on.discard(below, 1)

    def read_ns(self, page: int, nr: int) -> int:
        """As the device below, at the place of the first page."""
        return self.on.read_ns(min(self._pages_below([page]), default=0), nr)

    def write_ns(self, page: int, nr: int) -> int:
        """As the device below, at the place of the first page."""
        return self.on.write_ns(min(self._pages_below([page]), default=0), nr)

    def fail_reads(self, pages: Iterable[int] | None = None, times: int = 1, nth: int = 1) -> None:
        """As the device's, for the pages below those of the file (None: all of the file)."""
        self.on.fail_reads(self._pages_below(range(self.pages) if pages is None else pages), times, nth)

    def fail_writes(self, pages: Iterable[int] | None = None, times: int = 1, nth: int = 1) -> None:
        """As the device's, for the pages below those of the file (None: all of the file)."""
        self.on.fail_writes(self._pages_below(range(self.pages) if pages is None else pages), times, nth)

    def fail_discards(self, times: int = 1, nth: int = 1) -> None:
        """As the device's."""
        self.on.fail_discards(times, nth)

    def _places(self, page: int) -> Iterator[tuple[int, int] | None]:
        """Page and byte within it on the device below, for each block of a page of the file."""
        per_page = PAGE_SIZE // self.block_size
        for block in range(page * per_page, (page + 1) * per_page):
            below = self.bmap(block)
            yield None if below is None else divmod(below * self.block_size, PAGE_SIZE)

    def _pages_below(self, pages: Iterable[int]) -> set[int]:
        """Pages of the device that hold blocks of these pages of the file."""
        return {place[0] for page in pages for place in self._places(page) if place is not None}

    def _first_room(self, nr_blocks: int) -> Fragment:
        """The first run of pages on the device that no file has."""
        at, wanted = 0, nr_blocks * self.block_size
        for start, end in sorted(self.on.claimed):
            if at + wanted <= start:
                break
            at = max(at, -(-end // PAGE_SIZE) * PAGE_SIZE)
        return at // self.block_size, nr_blocks

    def _claim(self, nr_blocks: int) -> None:
        """Take the fragments' place on the device; ValueError if they do not fit, or another file is there."""
        if any(nr < 1 or (start is not None and start < 0) for start, nr in self.fragments):
            raise ValueError(f"fragments={self.fragments!r}: expected (first block or None, blocks >= 1)")
        if (total := sum(nr for _, nr in self.fragments)) != nr_blocks:
            raise ValueError(f"fragments={self.fragments!r}: {total} blocks; the size needs {nr_blocks}")
        ranges = sorted((s * self.block_size, (s + nr) * self.block_size) for s, nr in self.fragments if s is not None)
        if ranges and ranges[-1][1] > self.on.size:
            raise ValueError(f"fragments={self.fragments!r}: beyond {self.on.name} ({format_size(self.on.size)})")
        taken = sorted([*self.on.claimed, *ranges])
        if any(end > start for (_, end), (start, _) in pairwise(taken)):
            raise ValueError(f"fragments={self.fragments!r}: overlap with each other or another file")
        self.on.claimed = taken
