# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The header of a swap area: what swapon believes about a device.

Kernel homes: mm/swapfile.c (read_swap_header), include/linux/swap.h (union swap_header).  The first 1,024 bytes of
the page belong to boot sectors, the last ten are the magic.
"""

from __future__ import annotations

from errno import EINVAL
from struct import unpack_from
from typing import NamedTuple

from vswap_ref.machine import PAGE_SIZE, BlockDevice

SWAP_HEADER_INFO = 1024
SWAP_HEADER_BADPAGES = 1536
SWAP_HEADER_MAGIC = b"SWAPSPACE2"
MAX_SWAP_BADPAGES = (PAGE_SIZE - len(SWAP_HEADER_MAGIC) - SWAP_HEADER_BADPAGES) // 4
SWAPFILE_MAXIMUM_SIZE = (1 << 32) - 1


class SwapHeader(NamedTuple):
    """What a header page says (union swap_header.info)."""

    last_page: int
    nr_badpages: int
    badpages: tuple[int, ...]


def parse_swap_header(page: bytes) -> SwapHeader | None:
    """The numbers in a header page; None without the magic, or for a version other than 1 in either byte order."""
    if page[-len(SWAP_HEADER_MAGIC) :] != SWAP_HEADER_MAGIC:
        return None
    for order in "<>":
        version, last_page, nr_badpages = unpack_from(f"{order}3I", page, SWAP_HEADER_INFO)
        if version == 1:
            listed = min(nr_badpages, MAX_SWAP_BADPAGES)
            return SwapHeader(last_page, nr_badpages, unpack_from(f"{order}{listed}I", page, SWAP_HEADER_BADPAGES))
    return None


def read_swap_header(swap_file: BlockDevice, header: SwapHeader) -> int:
    """How many pages a swap area has, the header included; 0 if swapon must refuse it."""
    if not header.last_page:
        return 0
    maxpages = min(SWAPFILE_MAXIMUM_SIZE, header.last_page + 1)
    if swap_file.pages < maxpages:
        return 0
    if header.nr_badpages and not swap_file.is_block:
        return 0
    return maxpages if header.nr_badpages <= MAX_SWAP_BADPAGES else 0


def read_header_page(swap_file: BlockDevice) -> SwapHeader | int:
    """Read page 0 of a device or file: its header, -EINVAL if it has none that is known, or the errno of the read."""
    try:
        return parse_swap_header(swap_file.read(0)) or -EINVAL
    except OSError as error:
        return -(error.errno or EINVAL)
