"""Sections of code that only matter to who validates or schedules: elsewhere they cost next to nothing."""

from __future__ import annotations


class UnmarkedSection:
    """A section, as RCU read sections and those with interrupts off are, that leaves no mark.

    Every look-up enters one, so both ends are functions in C: ``bool()`` and ``"".format(type, error, traceback)``,
    whose results a ``with`` statement ignores.
    """

    __slots__ = ()

    __enter__ = staticmethod(bool)
    __exit__ = staticmethod("".format)
