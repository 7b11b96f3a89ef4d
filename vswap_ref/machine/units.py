"""Sizes: pages, bytes, and the way people write them."""

from __future__ import annotations

import re

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

_SUFFIXES = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_size(value: int | str, name: str = "size") -> int:
    """Bytes from an int or a text such as "64M" (binary units).

    Raises ValueError naming the argument, the value and what is legal.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{name}={value!r}: expected bytes as an int >= 0 or a text such as "64M" or "1.5G"')
    unit = 1 << _SUFFIXES[match[2].upper()]
    return int(match[1]) * unit if match[1].isdecimal() else int(float(match[1]) * unit)


def parse_pages(value: int | str, name: str = "size", least: int = 1) -> int:
    """Whole pages from a size; ValueError if it is no multiple of 4096 bytes or fewer than ``least`` pages."""
    nr_bytes = parse_size(value, name)
    if nr_bytes % PAGE_SIZE or nr_bytes < least * PAGE_SIZE:
        raise ValueError(f"{name}={value!r}: expected a multiple of {PAGE_SIZE} bytes, at least {least} page(s)")
    return nr_bytes >> PAGE_SHIFT


def format_size(nr_bytes: float) -> str:
    """A short text for a number of bytes: 12288 -> "12.0K"."""
    for suffix in ("", "K", "M", "G"):
        if abs(nr_bytes) < 1024:
            return f"{nr_bytes:.0f}{suffix}" if not suffix else f"{nr_bytes:.1f}{suffix}"
        nr_bytes /= 1024
    return f"{nr_bytes:.1f}T"
