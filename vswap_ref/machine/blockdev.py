"""Block devices that keep what is written to them, and tell how long that takes on the virtual clock.

The latencies are round figures of common hardware (each class names its own); they order the devices and make
asynchronous writes end in a sensible sequence.  They are no measurements.

Asking is apart from doing: ``read_ns`` and ``write_ns`` say what a request would take and change nothing; ``read`` and
``write`` do it, and move a disk's head.  A ``RequestQueue`` says when requests end that are in flight together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from errno import EINVAL, EIO

from .codecs import get_codec
from .swap_header import swap_header
from .units import PAGE_SIZE, format_size, parse_pages

ZERO_PAGE = bytes(PAGE_SIZE)


@dataclass(slots=True)
class DeviceStats:
    """What a device has done: reads and writes of one page each, requests to discard and the pages in them.

    ``errors`` are requests that were made to fail.
    """

    reads: int = 0
    writes: int = 0
    discards: int = 0
    discarded: int = 0
    errors: int = 0

    @property
    def bytes_read(self) -> int:
        """Bytes that the device has delivered."""
        return self.reads * PAGE_SIZE

    @property
    def bytes_written(self) -> int:
        """Bytes that the device has taken, before it compresses them."""
        return self.writes * PAGE_SIZE


class RequestQueue:
    """When requests to a device end that are in flight at the same time: up to ``depth`` of them overlap.

    The next one begins when the oldest has ended.  Requests end in order, for their data shares one channel.
    """

    __slots__ = ("ends",)

    def __init__(self, depth: int) -> None:
        self.ends: deque[int] = deque(maxlen=depth)

    def submit(self, now: int, duration: int, transfer: int) -> int:
        """When a request that comes ``now`` ends, in ns: it takes ``duration``, and ``transfer`` of it the channel."""
        ends = self.ends
        end = now + duration
        if ends and ends[-1] > now:
            if len(ends) == ends.maxlen and ends[0] > now:
                end = ends[0] + duration
            if end < ends[-1] + transfer:
                end = ends[-1] + transfer
        ends.append(end)
        return end


class BlockDevice:
    """A device of ``size`` bytes (int or "64M"; a multiple of 4096, at least two pages), formatted by ``mkswap``.

    ``bad_pages`` are listed in its header, so that swap leaves them alone.  ``contentless`` devices keep no data but
    their header: for studies of metadata on devices larger than memory.
    """

    kind = "device"
    rotational = False
    synchronous = False
    stable_writes = False
    can_discard = False
    is_block = True
    wants_free_notify = False
    read_latency_ns = 0
    write_latency_ns = 0
    page_transfer_ns = 0
    queue_depth = 1

    def __init__(
        self, size: int | str, name: str | None = None, contentless: bool = False, bad_pages: Iterable[int] = ()
    ) -> None:
        self.pages = parse_pages(size, "size", least=2)
        self.name = name or f"/dev/{self.kind}"
        self.contentless = contentless
        self.stats = DeviceStats()
        self._content: dict[int, bytearray] = {}
        self._failing: dict[str, Failure] = {}
        self.claimed: list[tuple[int, int]] = []
        self.format(bad_pages)

    def format(self, bad_pages: Iterable[int]) -> None:
        """A new device comes with a header for swap, and has done nothing yet."""
        mkswap(self, bad_pages)
        self.stats = DeviceStats()

    @property
    def backing(self) -> BlockDevice:
        """The block device that holds the pages."""
        return self

    @property
    def size(self) -> int:
        """Bytes."""
        return self.pages * PAGE_SIZE

    @property
    def fill(self) -> int:
        """Bytes of storage that written pages take."""
        return len(self._content) * PAGE_SIZE

    def read(self, page: int) -> bytes:
        """Content of a page; zeros if it was never written.  OSError(EIO) if made to fail."""
        return bytes(self._load(page))

    def read_into(self, page: int, buffer: bytearray | memoryview) -> None:
        """As ``read``, into a buffer of 4096 bytes."""
        buffer[:] = self._load(page)

    def _load(self, page: int) -> bytes | bytearray:
        """Content of a page, not to be changed."""
        if self._failing or not 0 <= page < self.pages:
            self._check(page, "read")
        self.stats.reads += 1
        if self.contentless and page:
            raise OSError(EIO, f"{self.name} keeps no content")
        return self._content.get(page, ZERO_PAGE)

    def write(self, page: int, data: bytes | bytearray | memoryview) -> None:
        """Write a page.  OSError(EIO) if made to fail, OSError(EINVAL) for data that is no page."""
        if self._failing or not 0 <= page < self.pages or len(data) != PAGE_SIZE:
            self._check(page, "write", len(data))
        self.stats.writes += 1
        if self.contentless and page:
            return
        stored = self._content.get(page)
        if stored is None:
            self._content[page] = bytearray(data)
        else:
            stored[:] = data

    def discard(self, page: int, nr: int) -> None:
        """Forget the content of ``nr`` pages.  OSError(EIO) if made to fail."""
        if self._failing:
            self._check(page, "discard")
        self.stats.discards += 1
        self.stats.discarded += nr
        for index in range(page, page + nr) if nr < len(self._content) else list(self._content):
            if page <= index < page + nr:
                self._content.pop(index, None)

    def slot_free_notify(self, page: int) -> None:
        """A swap slot was freed; only a device that compresses in memory cares."""

    def read_ns(self, page: int, nr: int) -> int:
        """Virtual time that reading ``nr`` pages from ``page`` on would take now, alone."""
        return self.read_latency_ns + nr * self.page_transfer_ns

    def write_ns(self, page: int, nr: int) -> int:
        """Virtual time that writing ``nr`` pages from ``page`` on would take now, alone."""
        return self.write_latency_ns + nr * self.page_transfer_ns

    def fail_reads(self, pages: Iterable[int] | None = None, times: int = 1, nth: int = 1) -> None:
        """Let the ``nth`` read from now on (of these pages; None: of any) fail with EIO, and ``times`` - 1 after it.

        Raises ValueError for numbers below 1.
        """
        self._failing["read"] = Failure(pages, times, nth)

    def fail_writes(self, pages: Iterable[int] | None = None, times: int = 1, nth: int = 1) -> None:
        """Let the ``nth`` write from now on (of these pages; None: of any) fail with EIO, and ``times`` - 1 after it.

        Raises ValueError for numbers below 1.
        """
        self._failing["write"] = Failure(pages, times, nth)

    def fail_discards(self, times: int = 1, nth: int = 1) -> None:
        """Let the ``nth`` request to discard from now on fail with EIO, and ``times`` - 1 after it.

        Raises ValueError for numbers below 1.
        """
        self._failing["discard"] = Failure(None, times, nth)

    def _check(self, page: int, request: str, size: int = PAGE_SIZE) -> None:
        if not 0 <= page < self.pages:
            raise OSError(EINVAL, f"page {page} is outside of {self.name} ({self.pages} pages)")
        if size != PAGE_SIZE:
            raise OSError(EINVAL, f"{size} bytes are no page; expected {PAGE_SIZE}")
        failure = self._failing.get(request)
        if failure is not None and failure.hits(page):
            self.stats.errors += 1
            raise OSError(EIO, f"{request} error on page {page} of {self.name}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({format_size(self.size)}, {self.name!r})"

    def _repr_html_(self) -> str:
        from html import escape  # its table of entities takes longer to load than the whole model

        facts = [
            ("size", format_size(self.size)),
            ("holds", format_size(self.fill)),
            ("read", format_size(self.stats.bytes_read)),
            ("written", format_size(self.stats.bytes_written)),
            ("swap-in", "at once, without the swap cache" if self.synchronous else "waits for the device"),
            ("readahead", "by slot (it rotates)" if self.rotational else "by address"),
        ]
        rows = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in facts)
        return f"<table><thead><tr><th>{escape(self.name)}</th><th></th></tr></thead><tbody>{rows}</tbody></table>"


class Failure:
    """Which of the coming requests shall fail; ValueError for numbers below 1."""

    def __init__(self, pages: Iterable[int] | None, times: int, nth: int) -> None:
        if times < 1 or nth < 1:
            raise ValueError(f"times={times}, nth={nth}: expected numbers >= 1")
        self.pages = None if pages is None else frozenset(pages)
        self.due = range(nth, nth + times)
        self.seen = 0

    def hits(self, page: int) -> bool:
        """Count a request; True if it must fail."""
        if self.pages is not None and page not in self.pages:
            return False
        self.seen += 1
        return self.seen in self.due


class Disk(BlockDevice):
    """A rotating disk: 8 ms for a random access, less for a near one, then 100 MB/s."""

    kind = "disk"
    rotational = True
    page_transfer_ns = 40_000
    full_seek_ns = 8_000_000

    def __init__(
        self, size: int | str, name: str | None = None, contentless: bool = False, bad_pages: Iterable[int] = ()
    ) -> None:
        super().__init__(size, name, contentless, bad_pages)
        self._head = 0

    def _load(self, page: int) -> bytes | bytearray:
        """Read a page; the head is behind it then."""
        content = super()._load(page)
        self._head = page + 1
        return content

    def write(self, page: int, data: bytes | bytearray | memoryview) -> None:
        """Write a page; the head is behind it then."""
        super().write(page, data)
        self._head = page + 1

    def read_ns(self, page: int, nr: int) -> int:
        """Seek from where the head is, then transfer."""
        return self._seek_ns(abs(page - self._head)) + nr * self.page_transfer_ns

    write_ns = read_ns

    def _seek_ns(self, distance: int) -> int:
        return 0 if distance == 0 else self.full_seek_ns // 4 + self.full_seek_ns * 3 // 4 * distance // self.pages


class Ssd(BlockDevice):
    """A flash drive: 80 us to read, 20 us to write (into its cache), 32 requests at a time, 2 GB/s for all of them."""

    kind = "ssd"
    can_discard = True
    read_latency_ns = 80_000
    write_latency_ns = 20_000
    page_transfer_ns = 2_000
    queue_depth = 32


class Pmem(BlockDevice):
    """Persistent memory: synchronous, 1 us a page."""

    kind = "pmem"
    synchronous = True
    page_transfer_ns = 1_000


class Zram(BlockDevice):
    """A compressed RAM disk: synchronous, 2 us to compress and 1 us to decompress a page; frees what swap frees."""

    kind = "zram"
    synchronous = True
    stable_writes = True
    wants_free_notify = True
    read_latency_ns = 1_000
    write_latency_ns = 2_000

    def __init__(
        self,
        size: int | str,
        name: str | None = None,
        contentless: bool = False,
        codec: str = "lz4",
        bad_pages: Iterable[int] = (),
    ) -> None:
        self.codec = get_codec(codec)
        super().__init__(size, name, contentless, bad_pages)

    @property
    def fill(self) -> int:
        """Bytes of compressed objects."""
        return sum(map(len, self._content.values()))

    def _load(self, page: int) -> bytes | bytearray:
        """Decompress a page."""
        packed = super()._load(page)
        return packed if len(packed) == PAGE_SIZE else self.codec.decompress(bytes(packed))

    def write(self, page: int, data: bytes | bytearray | memoryview) -> None:
        """Compress a page; one that does not shrink is kept as it is."""
        super().write(page, data)
        packed = self.codec.compress(bytes(data))
        if not self.contentless and len(packed) < PAGE_SIZE:
            self._content[page] = bytearray(packed)

    def slot_free_notify(self, page: int) -> None:
        """Free the compressed copy."""
        self._content.pop(page, None)


def mkswap(
    device: BlockDevice,
    bad_pages: Iterable[int] = (),
    version: int = 1,
    last_page: int | None = None,
    byteorder: str = "little",
) -> None:
    """Write the header of a swap area to page 0 of a device or file, as mkswap(8) does.

    ``bad_pages``: page numbers that swap must not use.  ``last_page``: the highest page number (None: the device's
    last), ``version`` and ``byteorder``: for headers that another program, or another machine, wrote.
    ValueError for bad pages that are listed twice, are page 0 or lie beyond the device, or are too many.
    """
    bad = sorted(bad_pages)
    if any(not isinstance(page, int) or not 0 < page < device.pages for page in bad) or len(set(bad)) < len(bad):
        raise ValueError(f"bad_pages={bad!r}: expected different page numbers from 1 to {device.pages - 1}")
    device.write(0, swap_header(device.pages - 1 if last_page is None else last_page, bad, version, byteorder))
