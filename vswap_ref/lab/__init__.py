"""Experiments: real page contents, recorded access traces, runs over them, widgets.

Uses only the public face and its counters.  Names load when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .corpus import corpora, load_corpus, page_source
    from .metadata import MetadataTable, metadata_table
    from .paging import Comparison, Record, compare, run
    from .schedules import Interleavings, interleave
    from .trace import AccessTrace, load_trace, traces

__all__ = [
    "AccessTrace",
    "Comparison",
    "Interleavings",
    "MetadataTable",
    "Record",
    "compare",
    "corpora",
    "interleave",
    "load_corpus",
    "load_trace",
    "metadata_table",
    "page_source",
    "run",
    "traces",
]

_HOMES = {
    "corpus": ("corpora", "load_corpus", "page_source"),
    "metadata": ("MetadataTable", "metadata_table"),
    "paging": ("Comparison", "Record", "compare", "run"),
    "schedules": ("Interleavings", "interleave"),
    "trace": ("AccessTrace", "load_trace", "traces"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
