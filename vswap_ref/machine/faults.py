"""Fault injection: let the n-th request at a named site fail."""

from __future__ import annotations


class Faults:
    """Sites where an allocation or a device call may be made to fail, and how often each was reached."""

    def __init__(self) -> None:
        self.docs: dict[str, str] = {}
        self.calls: dict[str, int] = {}
        self._armed: dict[str, tuple[int, int]] = {}

    def declare(self, site: str, doc: str) -> None:
        """Make a site known."""
        self.docs[site] = doc
        self.calls.setdefault(site, 0)

    def fail(self, site: str, nth: int = 1, times: int = 1) -> None:
        """Let the ``nth`` request from now on fail, and the ``times`` - 1 after it.

        Raises ValueError for an unknown site or a number below 1.
        """
        if site not in self.docs:
            raise ValueError(f"site={site!r}: expected one of {', '.join(sorted(self.docs))}")
        if nth < 1 or times < 1:
            raise ValueError(f"nth={nth}, times={times}: expected numbers >= 1")
        first = self.calls[site] + nth
        self._armed[site] = (first, first + times)

    def clear(self) -> None:
        """Let nothing fail any more."""
        self._armed.clear()

    def should_fail(self, site: str) -> bool:
        """Count a request at a site; True if it must fail."""
        self.calls[site] = count = self.calls[site] + 1
        if not self._armed or site not in self._armed:
            return False
        first, end = self._armed[site]
        return first <= count < end

    @property
    def reached(self) -> list[str]:
        """Sites that were asked at least once, by name; all sites are the keys of ``docs``."""
        return sorted(site for site, count in self.calls.items() if count)

    def report(self) -> list[tuple[str, int, str]]:
        """(site, requests so far, what it allocates), by name."""
        return [(site, self.calls[site], self.docs[site]) for site in sorted(self.docs)]
