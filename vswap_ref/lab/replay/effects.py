"""What the layer does to the world outside: calls, in their order.

Traces write n calls with consecutive arguments as one, where each call could as well be for one slot; both sides are
compared slot by slot there.  Calls whose size matters (a range of slots freed at once) stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Effect = tuple[Any, ...]
STATS = {"NR_FILE_PAGES": "nr_file_pages", "NR_SWAPCACHE": "nr_swapcached", "SWPOUT_ZERO": "swpout_zero"}
"""Counters whose sum over the operation a trace has, and their names in vmstat."""

MARKS = ("swap_rmap_mark_cache_only", "swap_rmap_clear_cache_only")


def in_order(fx: Sequence[Sequence[Any]]) -> list[Effect]:
    """The calls among a trace's effects, one by one; without sums, and without what no model can show.

    That is: the memory of a cluster that could not be created is not freed, Python collects it.
    """
    effects: list[Effect] = []
    failed = False
    for effect in unfold(fx):
        name = effect[0]
        if name in ("stat", "objcg_stat") or (failed and name in ("vfree", "kmem_cache_free")):
            continue
        failed = (name == "vzalloc" and not effect[2]) or (name == "xa_alloc" and effect[3] != 0)
        effects.append(tuplify(effect))
    return effects


def unfold(fx: Sequence[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    """Effects without repetition counts and without runs of slots."""
    for effect in fx:
        name = effect[0]
        if name == "*":
            for _ in range(effect[1]):
                yield from unfold([effect[2]])
        elif name == "rmap_set":
            (type_, offset), nr, entry = effect[1:]
            yield from ((name, (type_, offset + i), entry + i if entry else 0) for i in range(nr))
        elif name == "zswap_entry_free":
            yield from ((name, effect[1] + i) for i in range(effect[2]))
        elif name in MARKS:
            (type_, offset), nr = effect[1:]
            yield from ((name, (type_, offset + i)) for i in range(nr))
        else:
            yield effect


def tuplify(value: Any) -> Any:
    """Lists, at any depth, as tuples."""
    return tuple(map(tuplify, value)) if isinstance(value, list | tuple) else value


def sums(fx: Sequence[Sequence[Any]]) -> dict[str, int]:
    """The counters that an operation moved: name -> by how much; a cgroup's as "name of cgroup id"."""
    found: dict[str, int] = {}
    for effect in fx:
        if effect[0] == "stat":
            found[effect[1]] = found.get(effect[1], 0) + effect[2]
        elif effect[0] == "objcg_stat":
            name = f"{effect[2]} of cgroup {effect[1]}"
            found[name] = found.get(name, 0) + effect[3]
    return {name: value for name, value in found.items() if value}


def show(effect: Effect) -> str:
    """An effect as a call."""
    return f"{effect[0]}({', '.join(map(str, effect[1:]))})"
