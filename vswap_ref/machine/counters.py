"""Event counters with the kernel's names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


class Counters(dict[str, int]):
    """Counters with a fixed set of names, in order, 0 at first; an unknown name is a KeyError that suggests one.

    A wrong name that is plainly assigned, or is among the ``values``, is found by whoever looks next: ``check_names``,
    ``snapshot``, ``since``, ``text`` raise.  What is counted with every page is counted in a plain dict instead, which
    Python is faster with, and looked at as ``Counters(names, values)``.
    """

    def __init__(self, names: Iterable[str], values: Mapping[str, int] | None = None) -> None:
        super().__init__(dict.fromkeys(names, 0))
        self.size = len(self)
        if values is not None:
            self.update(values)

    def __missing__(self, name: str) -> int:
        raise self._unknown(name, self)

    def check_names(self) -> None:
        """KeyError if a name was assigned that is no counter."""
        if len(self) != self.size:
            names = list(self)
            raise self._unknown(names[self.size], names[: self.size])

    @staticmethod
    def _unknown(name: str, known: Iterable[str]) -> KeyError:
        import difflib

        close = difflib.get_close_matches(str(name), known, 1)
        return KeyError(f"no counter {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))

    def __reduce__(self) -> tuple[type[Counters], tuple[list[str]], None, None, object]:
        self.check_names()
        return Counters, (list(self),), None, None, iter(self.items())

    def snapshot(self) -> dict[str, int]:
        """All values now."""
        self.check_names()
        return dict(self)

    def since(self, before: dict[str, int]) -> dict[str, int]:
        """What has changed since a snapshot."""
        self.check_names()
        return {name: value - before[name] for name, value in self.items() if value != before[name]}

    def text(self) -> str:
        """One "name value" line each, as in /proc/vmstat."""
        self.check_names()
        return "".join(f"{name} {value}\n" for name, value in self.items())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td style='text-align:right'>{value:,}</td></tr>"
            for name, value in self.items()
            if value
        )
        return f"<table><thead><tr><th>counter</th><th>value</th></tr></thead><tbody>{rows}</tbody></table>"
