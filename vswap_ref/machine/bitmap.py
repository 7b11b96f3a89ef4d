"""Bitmaps, kept as one byte a bit so that runs are found and filled at C speed."""

from __future__ import annotations


class Bitmap:
    """``size`` bits, all clear at first.  ``nbytes`` is what the kernel's bitmap takes."""

    __slots__ = ("bits",)

    def __init__(self, size: int) -> None:
        self.bits = bytearray(size)

    def __len__(self) -> int:
        return len(self.bits)

    @property
    def nbytes(self) -> int:
        """Kernel size in bytes: whole 64-bit words."""
        return -(-len(self.bits) // 64) * 8

    @property
    def weight(self) -> int:
        """Set bits."""
        return self.bits.count(1)

    def test(self, index: int) -> bool:
        """The bit at an index."""
        return self.bits[index] == 1

    def set(self, index: int) -> None:
        """Set a bit."""
        self.bits[index] = 1

    def clear(self, index: int) -> None:
        """Clear a bit."""
        self.bits[index] = 0

    def set_range(self, start: int, nr: int) -> None:
        """Set ``nr`` bits.  IndexError beyond the end."""
        if nr == 1:
            self.bits[start] = 1
            return
        if start + nr > len(self.bits):
            raise IndexError(f"bits {start} to {start + nr - 1} of {len(self.bits)}")
        self.bits[start : start + nr] = b"\1" * nr

    def clear_range(self, start: int, nr: int) -> None:
        """Clear ``nr`` bits.  IndexError beyond the end."""
        if nr == 1:
            self.bits[start] = 0
            return
        if start + nr > len(self.bits):
            raise IndexError(f"bits {start} to {start + nr - 1} of {len(self.bits)}")
        self.bits[start : start + nr] = bytes(nr)

    def all_equal(self, start: int, nr: int) -> bool:
        """The ``nr`` bits are all set or all clear."""
        return self.bits.count(self.bits[start], start, start + nr) == nr

    def find_next(self, start: int = 0) -> int:
        """First set bit at or after ``start``; -1 if none."""
        return self.bits.find(1, start)

    def find_zero_run(self, nr: int, align: int = 1, start: int = 0) -> int:
        """First run of ``nr`` clear bits that begins at a multiple of ``align``, at or after ``start``; -1 if none."""
        if nr == align == 1:
            return self.bits.find(0, start)
        zeros = bytes(nr)
        at = self.bits.find(zeros, start)
        while at >= 0 and at % align:
            at = self.bits.find(zeros, at + align - at % align)
        return at
