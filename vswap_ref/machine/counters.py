"""Event counters with the kernel's names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

VMSTAT = (
    "nr_anon_pages",
    "nr_inactive_anon",
    "nr_active_anon",
    "nr_inactive_file",
    "nr_mapped",
    "nr_file_pages",
    "nr_shmem",
    "nr_swapcached",
    "nr_zswapped",
    "pgalloc_normal",
    "pgfree",
    "pgfault",
    "pgmajfault",
    "pgreuse",
    "pgactivate",
    "pgdeactivate",
    "pgrotated",
    "pglazyfree",
    "pglazyfreed",
    "pgscan_anon",
    "pgsteal_anon",
    "pgscan_direct",
    "pgsteal_direct",
    "pgscan_kswapd",
    "pgsteal_kswapd",
    "allocstall_normal",
    "nr_vmscan_write",
    "pswpin",
    "pswpout",
    "swpin_zero",
    "swpout_zero",
    "zswpin",
    "zswpout",
    "zswpwb",
    "swap_ra",
    "swap_ra_hit",
    "workingset_refault_anon",
    "workingset_activate_anon",
    "workingset_restore_anon",
    "thp_fault_alloc",
    "thp_fault_fallback",
    "thp_fault_fallback_charge",
    "thp_split_page",
    "thp_split_page_failed",
    "thp_deferred_split_page",
    "thp_swpout",
    "thp_swpout_fallback",
    "oom_kill",
)
"""The lines of /proc/vmstat that swap moves.  Events count pages unless the kernel counts folios (thp_*)."""

MEMCG_STAT = (
    "anon",
    "file",
    "shmem",
    "file_mapped",
    "swapcached",
    "zswap",
    "zswapped",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "pgfault",
    "pgmajfault",
    "pgscan",
    "pgsteal",
    "pglazyfree",
    "pglazyfreed",
    "pswpin",
    "pswpout",
    "swpin_zero",
    "swpout_zero",
    "zswpin",
    "zswpout",
    "zswpwb",
    "workingset_refault_anon",
    "workingset_activate_anon",
    "workingset_restore_anon",
    "thp_fault_alloc",
    "thp_swpout",
    "thp_swpout_fallback",
)
"""The lines of a cgroup's memory.stat that swap moves."""

MTHP_STAT = (
    "anon_fault_alloc",
    "anon_fault_fallback",
    "anon_fault_fallback_charge",
    "swpout",
    "swpout_fallback",
    "zswpout",
    "swpin",
    "swpin_fallback",
    "swpin_fallback_charge",
    "split",
    "split_failed",
    "split_deferred",
)
"""Files of hugepages-<size>/stats/ in sysfs that anonymous memory moves: they count folios."""

ZSWAP_DEBUGFS = (
    "pool_limit_hit",
    "reject_reclaim_fail",
    "reject_alloc_fail",
    "reject_kmemcache_fail",
    "reject_compress_fail",
    "reject_compress_poor",
    "decompress_fail",
    "written_back_pages",
)
"""Files of debugfs zswap/ that count events."""


class Tally(Mapping[str, int]):
    """What events are counted in: one attribute for each of a fixed set of names (``tally.pswpin += 1``), 0 at first.

    Read it, and count under a name that is put together, as a mapping (``tally["pswpin"]``).  A name that there is
    not is an AttributeError, or a KeyError that suggests one.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> int: ...
        def __setattr__(self, name: str, value: int) -> None: ...

    def __new__(cls, names: Iterable[str], values: Mapping[str, int] | None = None) -> Tally:
        """ValueError for a name that cannot be an attribute."""
        return object.__new__(tally_class(tuple(names)))

    def __init__(self, names: Iterable[str], values: Mapping[str, int] | None = None) -> None:
        for name in self:
            setattr(self, name, 0)
        self.update(values or {})

    def __getitem__(self, name: str) -> int:
        if name not in self:
            raise unknown(name, self)
        value: int = getattr(self, name)
        return value

    def __setitem__(self, name: str, value: int) -> None:
        if name not in self:
            raise unknown(name, self)
        setattr(self, name, value)

    def __contains__(self, name: object) -> bool:
        return name in type(self).__slots__

    def __iter__(self) -> Iterator[str]:
        return iter(type(self).__slots__)

    def __len__(self) -> int:
        return len(type(self).__slots__)

    def snapshot(self) -> Counters:
        """All values now."""
        return Counters({name: getattr(self, name) for name in self})

    def update(self, values: Mapping[str, int]) -> None:
        """Set some counters."""
        for name, value in values.items():
            self[name] = value

    def __reduce__(self) -> tuple[type[Tally], tuple[list[str], dict[str, int]]]:
        return Tally, (list(self), dict(self.snapshot()))


@cache
def tally_class(names: tuple[str, ...]) -> type[Tally]:
    """The class of tallies with these names: their attributes are slots, which nothing in Python is faster than."""
    bad = [name for name in names if not name.isidentifier() or hasattr(Tally, name)]
    if bad:
        raise ValueError(f"names={bad!r}: expected identifiers that a mapping has no use for")
    return type("Tally", (Tally,), {"__slots__": dict.fromkeys(names)})


class Counters(dict[str, int]):
    """The values of counters at a moment, by name; an unknown name is a KeyError that suggests one."""

    def __missing__(self, name: str) -> int:
        raise unknown(name, self)

    def snapshot(self) -> dict[str, int]:
        """All values as a plain dict."""
        return dict(self)

    def since(self, before: Mapping[str, int]) -> dict[str, int]:
        """What has changed since a snapshot."""
        return {name: value - before[name] for name, value in self.items() if value != before[name]}

    def text(self) -> str:
        """One "name value" line each, as in /proc/vmstat."""
        return "".join(f"{name} {value}\n" for name, value in self.items())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td style='text-align:right'>{value:,}</td></tr>"
            for name, value in self.items()
            if value
        )
        return f"<table><thead><tr><th>counter</th><th>value</th></tr></thead><tbody>{rows}</tbody></table>"


def unknown(name: str, known: Iterable[str]) -> KeyError:
    """The error for a counter that there is not."""
    import difflib

    close = difflib.get_close_matches(str(name), known, 1)
    return KeyError(f"no counter {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
