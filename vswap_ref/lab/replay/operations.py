"""The operations of a trace: what each does to the world, and the form in which a trace writes its result."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from itertools import groupby
from typing import Any

from . import cgroups
from .reader import Operation, TraceError
from .world import (
    World,
    given_slots,
    new_cgroup,
    new_folio,
    place,
    set_flags,
    swapon,
    swp_slot,
    synchronize_rcu,
)

Arguments = dict[str, Any]
STEPPING = {"entry": 1, "id": 1, "folio": 1, "zswap": 1}
"""Arguments that go up when an operation is repeated (``each``)."""


def execute(world: World, operation: Operation) -> Any:
    """Do an operation; its result as a trace writes it.  Its effects are in ``world.fx`` afterwards.

    TraceError for an operation that does not exist, or arguments that it does not have; whatever the model raises.
    """
    world.fx.clear()
    world.s.cpu = operation.cpu
    world.slots = given_slots(operation.calls)
    arguments = dict(operation.args)
    times = arguments.pop("each", None)
    results = [prepare(world, operation, step(arguments, i))() for i in range(1 if times is None else times)]
    if not operation.changes.get("held"):
        synchronize_rcu(world)
    if times is None:
        return results[0]
    return run_length(results, void=operation.op not in ZSWAP_RESULTS or world.level >= 14)


def prepare(world: World, operation: Operation, arguments: Arguments) -> Callable[[], Any]:
    """The operation as a call without arguments."""
    op = operation.op
    try:
        if op in ENVIRONMENT:
            signature(ENVIRONMENT[op]).bind(world, **arguments)
            return partial(ENVIRONMENT[op], world, **arguments)
        values = [to_model(world, name, value) for name, value in KERNEL[op](arguments)]
    except (KeyError, TypeError, IndexError) as error:
        what = f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)
        raise TraceError(f"line {operation.line}, {operation}: {what}") from None
    if "folio" in arguments:
        world.order = world.folios[arguments["folio"]].order
    return lambda: to_trace(world, op, getattr(world, op)(*values))


def step(arguments: Arguments, i: int) -> Arguments:
    """The arguments of repetition ``i``."""
    return {name: value + i if i and name in STEPPING else value for name, value in arguments.items()}


def run_length(results: list[Any], void: bool) -> Any:
    """Results of repetitions as [result, how often] in order, nothing found written as 0; None if there are none."""
    if void and all(result is None for result in results):
        return None
    return [[value, len(list(same))] for value, same in groupby(0 if result is None else result for result in results)]


def to_model(world: World, name: str, value: Any) -> Any:
    """An argument of a trace as the model takes it."""
    if name in ("folio", "old", "new"):
        return world.folios[value]
    if name == "zswap":
        return world.zswap[value]
    if name == "si":
        return None if value < 0 else world.s.swap.info[value]
    if name == "shadow":
        return None if value < 0 else value << 1 | 1
    return value


def to_trace(world: World, op: str, result: Any) -> Any:
    """A result of the model as a trace writes it."""
    if op in SLOT_RESULTS:
        return list(place(result)) if result else None
    if op == "tryget_swap_entry":
        return [result[0], -1 if result[1] is None else result[1].type]
    if op in ("swap_cache_add_folio", "swap_cache_get_shadow"):
        shadow = result[-1] if isinstance(result, tuple) else result
        return None if shadow is None else shadow >> 1
    if op == "swap_cache_get_folio":
        return None if result is None else result.pfn
    if op in ZSWAP_RESULTS:
        return None if result is None else world.zswap_ids[result]
    return list(result) if isinstance(result, tuple) else result


SLOT_RESULTS = ("swp_entry_to_swp_slot", "vswap_alloc_swap_slot")
ZSWAP_RESULTS = ("zswap_entry_store", "zswap_entry_load", "zswap_entry_erase")


def by_name(*names: str) -> Callable[[Arguments], list[tuple[str, Any]]]:
    """Arguments in the order of the kernel's parameters."""
    return lambda arguments: [(name, arguments[name]) for name in names]


def slot_argument(arguments: Arguments) -> list[tuple[str, Any]]:
    """A physical slot from its device and offset."""
    return [("slot", swp_slot(arguments["type"], arguments["off"]))]


ENTRY, RANGE, FOLIO = by_name("entry"), by_name("entry", "nr"), by_name("folio")
BATCH = by_name("entry", "max_nr")

KERNEL: dict[str, Callable[[Arguments], list[tuple[str, Any]]]] = {
    "vswap_init": by_name(),
    "vswap_exit": by_name(),
    "vswap_cpu_dead": by_name("cpu"),
    "folio_alloc_swap": FOLIO,
    "folio_free_swap": FOLIO,
    "put_swap_folio": by_name("folio", "entry"),
    "swp_entry_to_swp_slot": ENTRY,
    "swp_slot_to_swp_entry": slot_argument,
    "tryget_swap_entry": ENTRY,
    "put_swap_entry": by_name("entry", "si"),
    "swap_duplicate": ENTRY,
    "swap_shmem_alloc": RANGE,
    "swap_free_nr": RANGE,
    "free_swap_and_cache_nr": RANGE,
    "swp_swapcount": ENTRY,
    "__swap_count": ENTRY,
    "swap_entry_swapped": ENTRY,
    "is_swap_cached": ENTRY,
    "swapcache_prepare": RANGE,
    "swapcache_clear": RANGE,
    "non_swapcache_batch": BATCH,
    "swap_cache_lock": ENTRY,
    "swap_cache_unlock": ENTRY,
    "swap_cache_lock_irq": ENTRY,
    "swap_cache_unlock_irq": ENTRY,
    "swap_cache_get_folio": ENTRY,
    "swap_cache_get_shadow": ENTRY,
    "swap_cache_add_folio": by_name("folio", "entry"),
    "swap_cache_del_folio": FOLIO,
    "__swap_cache_del_folio": by_name("folio", "entry", "shadow"),
    "__swap_cache_replace_folio": by_name("old", "new"),
    "__vswap_remove_mapping": by_name("folio", "entry", "shadow"),
    "zswap_entry_store": by_name("entry", "zswap"),
    "zswap_entry_load": ENTRY,
    "zswap_entry_erase": ENTRY,
    "zswap_entry_free": by_name("zswap"),
    "zswap_empty": ENTRY,
    "lookup_swap_cgroup_id": ENTRY,
    "swap_cgroup_clear": RANGE,
    "vswap_cgroup_batch": BATCH,
    "memcg1_swapin": RANGE,
    "memcg1_swapout": by_name("folio", "entry"),
    "vswap_alloc_swap_slot": FOLIO,
    "vswap_store_folio": by_name("entry", "folio"),
    "vswap_prepare_writeout": by_name("entry", "folio"),
    "swap_zeromap_folio_set": FOLIO,
    "swap_zeromap_batch": BATCH,
    "vswap_swapfile_backed": RANGE,
    "vswap_folio_backed": RANGE,
    "vswap_can_swapin_thp": RANGE,
    "vswap_same_cluster": by_name("entry1", "entry2"),
}
"""Operations that are kernel functions: how the model's arguments follow from the trace's."""


def memcg_mode(world: World, v: int) -> None:
    """Version of cgroups; 0: disabled."""
    world.s.memcg.enabled, world.s.memcg.memsw = v > 0, v == 1


def memcg(world: World, id: int, parent: int = 1, max: int | None = None) -> None:
    """A new cgroup."""
    new_cgroup(world, id, world.s.memcg.by_id.get(parent), max)


def memcg_set(world: World, id: int, max: int) -> None:
    """Change swap.max."""
    world.s.memcg.by_id[id].swap.max = max


def memcg_offline(world: World, id: int) -> None:
    """A cgroup is deleted: only what refers to its id keeps it."""
    world.s.memcg.by_id[id].id_refs -= 1
    world.s.memcg.by_id[id].online = False


def fail(world: World, what: str, count: int = 1, skip: int = 0) -> None:
    """Let allocations fail."""
    world.failing[what] = [skip, count]


def folio(
    world: World, id: int, order: int, memcg: int, flags: int, ref: int = 1, swap: int = 0, charge: int = 1
) -> None:
    """A new folio; version 1 charges it."""
    new = new_folio(world, id, order)
    new.refcount, new.swap, new.memcg = ref, swap, world.s.memcg.by_id.get(memcg)
    set_flags(new, flags, True)
    if world.s.memcg.memsw and new.memcg is not None and charge:
        cgroups.charge(new.memcg, "memsw", 1 << order)


def folio_set(world: World, id: int, **changes: int) -> None:
    """Change a folio."""
    changed = world.folios[id]
    set_flags(changed, changes.get("set", 0), True)
    set_flags(changed, changes.get("clear", 0), False)
    changed.refcount = changes.get("ref", changed.refcount) + changes.get("dref", 0)
    changed.swap, changed.order = changes.get("swap", changed.swap), changes.get("order", changed.order)
    changed.nr_pages = 1 << changed.order
    if "memcg" in changes:
        changed.memcg = world.s.memcg.by_id.get(changes["memcg"])


def folio_gone(world: World, id: int) -> None:
    """A folio is freed."""
    gone = world.folios.pop(id)
    if world.s.memcg.memsw and gone.memcg is not None:
        cgroups.charge(gone.memcg, "memsw", -(1 << gone.order))
    world.s.memory.mem_map[id] = None


def zswap(world: World, id: int, n: int = 1, entry: int = 0) -> None:
    """Compressed copies exist."""
    for i in range(n):
        copy = world.functions["ZswapEntry"](entry + i, 0, None, b"", None)
        world.zswap[id + i] = copy
        world.zswap_ids[copy] = id + i


def suspend(world: World, v: int) -> None:
    """A hibernation image is being written (pm_suspended_storage)."""
    world.s.power.suspended_storage = bool(v)


def local_irq_enable(world: World) -> None:
    """Interrupts are on again."""
    world.s.locks.irqs_off.__exit__(None, None, None)


def nothing(world: World, **arguments: Any) -> None:
    """What does not concern the model: the recorder's allocator, the cpu (each line names it)."""


ENVIRONMENT: dict[str, Callable[..., None]] = {
    "env.memcg_mode": memcg_mode,
    "env.memcg": memcg,
    "env.memcg_set": memcg_set,
    "env.memcg_offline": memcg_offline,
    "env.swapon": lambda world, type, max: swapon(world, type, max),
    "env.swapoff": nothing,
    "env.swapon_again": nothing,
    "env.phys": nothing,
    "env.cpu": nothing,
    "env.fail": fail,
    "env.folio": folio,
    "env.folio_set": folio_set,
    "env.folio_gone": folio_gone,
    "env.zswap": zswap,
    "env.suspend": suspend,
    "env.local_irq_enable": local_irq_enable,
    "state": nothing,
    "sizes": nothing,
    "note": nothing,
}
"""Operations that change the world around the layer."""
