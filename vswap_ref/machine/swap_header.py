"""The header page of a swap area, as mkswap(8) writes it: the user's side of the on-disk format."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from .units import PAGE_SIZE

INFO_OFFSET = 1024
"""Bytes left to boot sectors; then version, last page, number of bad pages, UUID (16), label (16), padding (468)."""

MAX_SWAP_BADPAGES = (PAGE_SIZE - 10 - INFO_OFFSET - 512) // 4


def swap_header(last_page: int, bad_pages: Iterable[int] = (), version: int = 1, byteorder: str = "little") -> bytes:
    """A header page: ``last_page`` is the highest page number; ``byteorder`` "big" is another machine's header.

    ValueError for a byte order that does not exist, numbers that are no 32-bit numbers, or more bad pages than fit.
    """
    if byteorder not in ("little", "big"):
        raise ValueError(f"byteorder={byteorder!r}: expected 'little' or 'big'")
    bad = list(bad_pages)
    for name, values in (("last_page", [last_page]), ("version", [version]), ("bad_pages", bad)):
        if not all(isinstance(value, int) and 0 <= value < 1 << 32 for value in values):
            raise ValueError(f"{name}={values!r}: expected numbers from 0 to 2**32 - 1")
    if len(bad) > MAX_SWAP_BADPAGES:
        raise ValueError(f"bad_pages: {len(bad)} of them; a header page has room for {MAX_SWAP_BADPAGES}")
    order = "<" if byteorder == "little" else ">"
    page = bytearray(PAGE_SIZE)
    struct.pack_into(f"{order}3I", page, INFO_OFFSET, version, last_page, len(bad))
    struct.pack_into(f"{order}{len(bad)}I", page, INFO_OFFSET + 512, *bad)
    page[-10:] = b"SWAPSPACE2"
    return bytes(page)
