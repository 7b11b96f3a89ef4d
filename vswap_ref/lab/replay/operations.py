"""The operations of a trace: what each does to the world, and the form in which a trace writes its result."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from itertools import groupby
from typing import Any

from . import cgroups
from .reader import Operation, TraceError
from .shape import REMARKS
from .world import (
    World,
    given_runs,
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
    world.slots, world.runs = given_slots(operation.calls), given_runs(operation.calls)
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
            return lambda: change_world(world, operation, arguments)
        null = "null" in KERNEL[op] and arguments.pop("null", 0)
        check_names(arguments, [name for name in KERNEL[op] if name != "null"])
        values = [to_model(world, name, arguments[name]) for name in KERNEL[op] if name in arguments]
    except (KeyError, TypeError, IndexError) as error:
        what = f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)
        raise TraceError(f"line {operation.line}, {operation}: {what}") from None
    if "folio" in arguments:
        world.order = world.folios[arguments["folio"]].order
    if op == "swp_slot_to_swp_entry":
        values = [swp_slot(*values)]
    return lambda: without_pointer(to_trace(world, op, getattr(world, op)(*values)), null)


def check_names(arguments: Arguments, names: list[str]) -> None:
    """TypeError unless the arguments have these names."""
    if arguments.keys() != set(names):
        raise TypeError(f"expected arguments {names or 'none'}, got {list(arguments)}")


def without_pointer(result: Any, null: bool) -> Any:
    """What swap_zeromap_batch returns to a caller that gave it no place for its second answer."""
    return [result[0], False] if null else result


def change_world(world: World, operation: Operation, arguments: Arguments) -> None:
    """Do what a trace says about the world around the layer.  TraceError if that cannot be."""
    try:
        ENVIRONMENT[operation.op](world, **arguments)
    except (LookupError, ValueError) as error:
        what = f"{error} is unknown" if isinstance(error, KeyError) else f"impossible now: {error}"
        raise TraceError(f"line {operation.line}, {operation}: {what}") from None


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


ENTRY, RANGE, FOLIO, BATCH = ("entry",), ("entry", "nr"), ("folio",), ("entry", "max_nr")

KERNEL: dict[str, tuple[str, ...]] = {
    "vswap_init": (),
    "vswap_exit": (),
    "vswap_cpu_dead": ("cpu",),
    "folio_alloc_swap": FOLIO,
    "folio_free_swap": FOLIO,
    "put_swap_folio": ("folio", "entry"),
    "swp_entry_to_swp_slot": ENTRY,
    "swp_slot_to_swp_entry": ("type", "off"),
    "tryget_swap_entry": ENTRY,
    "put_swap_entry": ("entry", "si"),
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
    "swap_cache_add_folio": ("folio", "entry"),
    "swap_cache_del_folio": FOLIO,
    "__swap_cache_del_folio": ("folio", "entry", "shadow"),
    "__swap_cache_replace_folio": ("old", "new"),
    "__vswap_remove_mapping": ("folio", "entry", "shadow"),
    "zswap_entry_store": ("entry", "zswap"),
    "zswap_entry_load": ENTRY,
    "zswap_entry_erase": ENTRY,
    "zswap_entry_free": ("zswap",),
    "zswap_empty": ENTRY,
    "lookup_swap_cgroup_id": ENTRY,
    "swap_cgroup_clear": RANGE,
    "vswap_cgroup_batch": BATCH,
    "memcg1_swapin": RANGE,
    "memcg1_swapout": ("folio", "entry"),
    "vswap_alloc_swap_slot": FOLIO,
    "vswap_store_folio": ("entry", "folio"),
    "vswap_prepare_writeout": ("entry", "folio"),
    "swap_zeromap_folio_set": FOLIO,
    "swap_zeromap_batch": ("entry", "max_nr", "null"),
    "vswap_swapfile_backed": RANGE,
    "vswap_folio_backed": RANGE,
    "vswap_can_swapin_thp": RANGE,
    "vswap_same_cluster": ("entry1", "entry2"),
}
"""Operations that are kernel functions: their arguments in the kernel's order.

``null``, which may be absent: there is no pointer for a second answer.  A device and an offset make a physical slot.
"""


def memcg_mode(world: World, v: int) -> None:
    """Version of cgroups; 0: disabled."""
    world.s.memcg.enabled, world.s.memcg.memsw = v > 0, v == 1


def memcg(world: World, id: int, parent: int = 1, max: int | None = None) -> None:
    """A new cgroup."""
    new_cgroup(world, id, world.s.memcg.by_id[parent], max)


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
    new.refcount, new.swap, new.memcg = ref, swap, cgroup_of(world, memcg)
    set_flags(new, flags, True)
    if world.s.memcg.memsw and new.memcg is not None and charge:
        cgroups.charge(new.memcg, "memsw", 1 << order)


def cgroup_of(world: World, id: int) -> Any:
    """A cgroup by its id; 0: none."""
    return world.s.memcg.by_id[id] if id else None


def folio_set(
    world: World,
    id: int,
    set: int = 0,
    clear: int = 0,
    ref: int | None = None,
    dref: int = 0,
    swap: int | None = None,
    order: int | None = None,
    memcg: int | None = None,
) -> None:
    """Change a folio."""
    changed = world.folios[id]
    set_flags(changed, set, True)
    set_flags(changed, clear, False)
    changed.refcount = (changed.refcount if ref is None else ref) + dref
    changed.swap = changed.swap if swap is None else swap
    changed.order = changed.order if order is None else order
    changed.nr_pages = 1 << changed.order
    if memcg is not None:
        changed.memcg = cgroup_of(world, memcg)


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
    """Interrupts are on again.  At level 9 they always were: the swap cache and its lock are not in the layer."""
    if world.level > 9:
        if not world.s.locks.lockdep.task.irqs_off:
            raise ValueError("interrupts are on")
        world.s.locks.irqs_off.__exit__(None, None, None)


def device(world: World, type: int) -> None:
    """A device is off, or on again: the recorded allocator knows, and look-ups still work."""
    world.s.swap.info[type].max  # noqa: B018 - it must be there


def recorder(world: World, policy: int, seed: int = 0) -> None:
    """How the recorder's allocator chose slots: they are in the trace."""


def change_cpu(world: World, cpu: int) -> None:
    """What follows runs on another cpu: each line names it."""


def remark(world: World, **arguments: Any) -> None:
    """For the reader."""


ENVIRONMENT: dict[str, Callable[..., None]] = {
    "env.memcg_mode": memcg_mode,
    "env.memcg": memcg,
    "env.memcg_set": memcg_set,
    "env.memcg_offline": memcg_offline,
    "env.swapon": swapon,
    "env.swapoff": device,
    "env.swapon_again": device,
    "env.phys": recorder,
    "env.cpu": change_cpu,
    "env.fail": fail,
    "env.folio": folio,
    "env.folio_set": folio_set,
    "env.folio_gone": folio_gone,
    "env.zswap": zswap,
    "env.suspend": suspend,
    "env.local_irq_enable": local_irq_enable,
    **dict.fromkeys(REMARKS, remark),
}
"""Operations that change the world around the layer."""
