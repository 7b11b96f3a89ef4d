"""Which functions the layer calls, in which order: every module of a stage calls a note-taker instead."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vswap_costs import Counted


@contextmanager
def noted(kernel: Counted, *names: str, run: bool = True) -> Iterator[list[tuple[Any, ...]]]:
    """The calls of these functions as (name, arguments without the state), in their order; ``run``: and do them."""
    calls: list[tuple[Any, ...]] = []
    saved = []

    def wrap(name: str, function: Any) -> Any:
        @functools.wraps(function)
        def note(s: Any, *args: Any) -> Any:
            calls.append((name, *args))
            return function(s, *args) if run else None

        return note

    for module in kernel.stage.modules():
        for name in names:
            if hasattr(module, name):
                saved.append((module, name, getattr(module, name)))
                setattr(module, name, wrap(name, getattr(module, name)))
    try:
        yield calls
    finally:
        for module, name, function in saved:
            setattr(module, name, function)


def desc_of(kernel: Counted, entry: int) -> tuple[Any, int]:
    """(descriptors, index) of an entry."""
    return kernel.s.vswap.cluster_map.load(entry >> 9).desc, entry & 511


def pin_count(kernel: Counted, entry: int) -> tuple[int, int] | None:
    """(pin, count) of an entry; None if it is not allocated."""
    cluster = kernel.s.vswap.cluster_map.load(entry >> 9)
    if cluster is None or not cluster.bitmap.test(entry & 511):
        return None
    return cluster.desc.in_swapcache[entry & 511], cluster.desc.swap_count[entry & 511]


def is_marked(kernel: Counted, slot: int) -> bool:
    """The mark "cache only" of a physical slot."""
    ci = kernel.s.swap.info[slot >> 58].cluster_info[(slot & 0xFFFFFFFF) >> 9]
    return bool(kernel.find("swap_rmap_is_cache_only")(ci, slot & 0xFFFFFFFF))
