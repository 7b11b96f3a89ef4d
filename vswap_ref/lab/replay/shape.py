"""What may stand in a line of a trace: names, kinds and limits.

A line that keeps them can be wrong in what it claims, and that is compared.  What is outside would be done or passed
over in a way that nobody meant: negative counts of slots, a device of a million million slots, an argument that no
operation has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CPUS = 4
"""Simulated CPUs of the recorder."""

ENTRIES = range(1 << 41)
COUNTS = range(1 << 16)
"""Slots or pages of one call."""
IDS = range(1 << 20)
"""Folios and compressed copies: the model keeps a place for each number."""
DEVICES = range(32)
OFFSETS = range(1 << 40)
CGROUPS = range(1 << 16)
REFERENCES = range(1 - (1 << 20), 1 << 20)
FLAGS, SWITCH, WORD = range(1 << 6), range(2), range(1 << 63)

ARGUMENTS: dict[str, range] = {
    **dict.fromkeys(("entry", "entry1", "entry2", "swap"), ENTRIES),
    **dict.fromkeys(("nr", "max_nr"), COUNTS),
    **dict.fromkeys(("each", "n"), COUNTS[1:]),
    **dict.fromkeys(("folio", "old", "new", "id", "zswap"), IDS),
    **dict.fromkeys(("memcg", "parent"), CGROUPS),
    **dict.fromkeys(("count", "skip", "ref"), IDS),
    **dict.fromkeys(("flags", "set", "clear"), FLAGS),
    **dict.fromkeys(("charge", "null"), SWITCH),
    **dict.fromkeys(("policy", "seed", "max"), WORD),
    "dref": REFERENCES,
    "type": DEVICES,
    "si": range(-1, DEVICES.stop),
    "off": OFFSETS,
    "order": range(10),
    "cpu": range(CPUS),
    "v": range(3),
    "shadow": range(-1, WORD.stop),
}
"""Arguments of operations and what they may be; ``what`` is a name."""

FALLIBLE = ("kmem_cache_zalloc", "vzalloc", "xa_alloc", "xa_node", "swap_slot_alloc")
"""Allocations that can be made to fail."""

EFFECTS: dict[str, tuple[str, ...]] = {
    "kmem_cache_zalloc": ("name int",),
    "vzalloc": ("int int",),
    "xa_alloc": ("int int int",),
    "vswap_cluster_free": ("int",),
    "vfree": ("",),
    "kmem_cache_free": ("name",),
    "swap_slot_alloc": ("int slot int", "int none int int"),
    "swap_slot_free_nr": ("slot count",),
    "swap_slots_free": ("slot count",),
    "rmap_set": ("slot count entry",),
    "swap_rmap_mark_cache_only": ("slot count",),
    "swap_rmap_clear_cache_only": ("slot count",),
    "zswap_entry_free": ("int count",),
    "mem_cgroup_get_swap_memcgid": ("int int",),
    "mem_cgroup_id_put_many": ("int int",),
    "mem_cgroup_try_charge_swap": ("int int int", "int int int int int"),
    "mem_cgroup_uncharge_swap": ("int int", "int int int"),
    "mem_cgroup_uncharge_swap_by_id": ("int int",),
    "memcg1_swapout": ("int int int",),
    "swap_cgroup_record": ("int int int",),
    "swap_cache_add_folio": ("int int",),
    "swap_cache_clear_shadow": ("int int",),
    "swap_slot_tryget_swap_info": ("slot int",),
    "swap_slot_put_swap_info": ("int",),
    "folio_put": ("int int",),
    "stat": ("name int",),
    "objcg_stat": ("int name int",),
}
"""Calls to the outside, and the kinds of what is written about each."""

REMARKS = ("state", "sizes", "note")
"""Operations that do nothing."""

STATE = ("clusters", "pcpu", "partial", "used", "alloc_reject", "folios", "memcgs", "phys", "held")
LINE = {"i", "cpu", "op", "args", "ret", "fx", "clusters"}
"""Fields that every operation has."""


def is_int(value: Any, allowed: range | None = None) -> bool:
    """A whole number (true and 1.0 are none), within limits if there are any."""
    return type(value) is int and (allowed is None or value in allowed)


def whole(name: str, value: Any, allowed: range) -> None:
    """ValueError unless a value is a whole number within limits."""
    if not is_int(value, allowed):
        raise ValueError(f"{name} is {value!r}: expected a whole number from {allowed[0]} to {allowed[-1]}")


def check_arguments(arguments: dict[str, Any]) -> None:
    """ValueError for an argument that no operation has, or one that is of the wrong kind or out of all bounds."""
    for name, value in arguments.items():
        if name == "what":
            if value not in FALLIBLE:
                raise ValueError(f"argument 'what' is {value!r}: expected one of {', '.join(FALLIBLE)}")
        elif name in ARGUMENTS:
            whole(f"argument {name!r}", value, ARGUMENTS[name])
        else:
            raise ValueError(f"argument {name!r}: no operation has it")


def check_effects(effects: Sequence[Any]) -> None:
    """ValueError for a call to the outside that is none, or is not written as it should be."""
    for effect in effects:
        if not isinstance(effect, list) or not effect or not isinstance(effect[0], str):
            raise ValueError(f"effect {effect!r}: expected a list that begins with a name")
        if effect[0] == "*":
            if len(effect) != 3 or not is_int(effect[1], COUNTS[1:]):
                raise ValueError(f"effect {effect!r}: expected ['*', how often, effect]")
            check_effects(effect[2:])
        elif not any(fits(effect[1:], kinds.split()) for kinds in EFFECTS.get(effect[0], ())):
            raise ValueError(f"effect {effect!r}: expected {' or '.join(EFFECTS.get(effect[0], ['a known call']))}")


def fits(values: list[Any], kinds: list[str]) -> bool:
    """Are values of these kinds?"""
    return len(values) == len(kinds) and all(KINDS[kind](value) for kind, value in zip(kinds, values, strict=True))


def is_slot(value: Any) -> bool:
    """A physical slot: [device, offset]."""
    return isinstance(value, list) and len(value) == 2 and is_int(value[0], DEVICES) and is_int(value[1], OFFSETS)


KINDS = {
    "int": is_int,
    "count": lambda value: is_int(value, COUNTS[1:]),
    "entry": lambda value: is_int(value, ENTRIES),
    "name": lambda value: isinstance(value, str),
    "none": lambda value: value is None,
    "slot": is_slot,
}


def check_plain(name: str, value: Any) -> None:
    """ValueError if a part of the state is neither whole number, text, null, list nor object of such."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            check_plain(name, part)
    elif value is not None and type(value) not in (int, str):
        raise ValueError(f"{name}: {value!r}: expected a whole number")


def check_cost(cost: Any) -> None:
    """ValueError unless the events of an operation are counts by name."""
    if not isinstance(cost, dict) or not all(is_int(value, IDS) for value in cost.values()):
        raise ValueError(f"cost is {cost!r}: expected counts of events")


def check_line(line: dict[str, Any]) -> None:
    """ValueError for a line that has not the fields of an operation, or impossible ones."""
    if line.keys() - LINE - {"cost", *STATE}:
        raise ValueError(f"unknown fields {sorted(line.keys() - LINE - {'cost', *STATE})}")
    if LINE - line.keys():
        raise ValueError(f"no field {min(LINE - line.keys())!r}")
    if line["op"] not in REMARKS:
        check_arguments(line["args"])
    check_effects(line["fx"])
    for name in STATE:
        check_plain(name, line.get(name))
    if (line["op"].startswith("env.") or line["op"] in REMARKS) == ("cost" in line):
        raise ValueError("expected field 'cost' with the operations of the kernel, and only with them")
    check_cost(line.get("cost", {}))
