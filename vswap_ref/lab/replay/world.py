"""The world around the layer while a trace is replayed: a kernel's state with the trace's folios, cgroups and devices.

The state is the stage's own; what the layer calls outside itself is replaced by stand-ins (see ``neighbours``) that
note each call, and answer as the trace says where the answer is not the layer's business: which physical slots the
allocator finds, which allocations fail.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from errno import EBUSY, ENOMEM
from typing import Any

from vswap_ref.machine import PercpuRef, Tally
from vswap_ref.machine.counters import MEMCG_STAT
from vswap_ref.series.stages import LoadedStage

from .effects import MARKS, Effect
from .shape import CPUS

CLUSTER = 512
OFFSET_BITS = 58
CACHE_ONLY = 1 << 63
"""The mark in a word of the reverse map: only the swap cache uses the slot."""

FAILING = {
    "vswap_cluster_alloc": "kmem_cache_zalloc",
    "vswap_desc_alloc": "vzalloc",
    "vswap_cluster_id": "xa_alloc",
    "vswap_map_node": "xa_node",
}
"""The model's fault-injection sites, and the names of the same allocations in traces."""


class OutOfStep(AssertionError):
    """The layer asked the world for something that the recorded one did not ask for."""


class ReverseMap(array):  # type: ignore[type-arg]
    """A physical cluster's table that notes every word written to it; ``first`` is the place of its first slot."""

    first: tuple[int, int]
    fx: list[Effect]

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write a word, or a run of them.  A word that names the entry that it had is a mark, or takes it off."""
        run = index if isinstance(index, slice) else slice(index, index + 1)
        before = self[run]
        super().__setitem__(index, value)
        for i, old in zip(range(*run.indices(len(self))), before, strict=True):
            slot, entry = (self.first[0], self.first[1] + i), self[i] & ~CACHE_ONLY
            if entry and entry == old & ~CACHE_ONLY:
                self.fx.append((MARKS[self[i] < CACHE_ONLY], slot, 1))
            else:
                self.fx.append(("rmap_set", slot, 1, self[i]))


@dataclass(slots=True, eq=False)
class World:
    """A stage's state and what the trace has put into it.

    ``functions`` are the stage's by name, its classes too.  ``fx`` are the effects of the current operation, ``slots``
    the physical slots that it will be given: (order, slot), ``runs`` those that are freed together (to 12): (first, n).
    """

    stage: LoadedStage
    level: int
    s: Any
    functions: dict[str, Any]
    fx: list[Effect] = field(default_factory=list)
    slots: list[tuple[int, int]] = field(default_factory=list)
    runs: list[tuple[int, int]] = field(default_factory=list)
    folios: dict[int, Any] = field(default_factory=dict)
    cgroups: dict[int, Any] = field(default_factory=dict)
    zswap: dict[int, Any] = field(default_factory=dict)
    """Compressed copies: id in the trace -> the stage's zswap entry."""
    zswap_ids: dict[Any, int] = field(default_factory=dict)
    """The other way."""
    failing: dict[str, list[int]] = field(default_factory=dict)
    """Name of an allocation -> [how many succeed first, how many fail then]."""
    phys: dict[int, set[int]] = field(default_factory=dict)
    """Device -> its used slots."""
    swap_map: dict[int, list[int]] = field(default_factory=dict)
    """Levels 9 to 12: physical slot -> [count, held by the swap cache]."""
    swap_cache: dict[int, Any] = field(default_factory=dict)
    """Level 9: entry -> folio or shadow."""
    zswap_tree: dict[int, Any] = field(default_factory=dict)
    """Levels 9 and 10: entry -> zswap entry."""
    swap_cgroup: dict[int, int] = field(default_factory=dict)
    """Levels 9 to 11: entry -> id of a cgroup."""
    order: int = 0
    """Order of the folio that is being swapped out."""

    def __getattr__(self, name: str) -> Any:
        """A function of the stage by its kernel name, called with the state first: ``world.put_swap_folio(...)``."""
        try:
            function = self.functions[name]
        except KeyError:
            raise AttributeError(f"stage {self.stage.id} has no function {name!r}") from None
        return lambda *args: function(self.s, *args)

    def note(self, *effect: Any) -> None:
        """Write down a call to the outside."""
        self.fx.append(effect)


def new_world(stage: LoadedStage, level: int) -> World:
    """A kernel of the stage, in the state before anything is initialised, with nothing in it."""
    functions = {name: value for module in stage.modules() for name, value in vars(module).items()}
    config = functions["Config"](cpus=CPUS)
    s = functions["start_kernel"](config, 1 << 30, "validated", list(range(CPUS)))
    world = World(stage, level, s, functions)
    s.faults.should_fail = lambda site: should_fail(world, site)
    note_ids(world, s.vswap.cluster_map)
    return world


@contextmanager
def replaced(world: World, standins: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Let every module of the stage call the stand-ins instead of its own functions, until the end of the block."""
    saved = []
    for module in world.stage.modules():
        for name in standins.keys() & vars(module).keys():
            saved.append((module, name, getattr(module, name)))
            setattr(module, name, standins[name])
    before = dict(world.functions)
    world.functions.update(standins)
    try:
        yield
    finally:
        world.functions.clear()
        world.functions.update(before)
        for module, name, value in saved:
            setattr(module, name, value)


def should_fail(world: World, site: str) -> bool:
    """Does an allocation fail?  Notes those that a trace shows."""
    what = FAILING.get(site)
    fails = what is not None and take_failure(world, what)
    if what == "kmem_cache_zalloc":
        world.note(what, "vswap_cluster", int(not fails))
    elif what == "vzalloc":
        world.note(what, CLUSTER * world.functions["swp_desc"].itemsize, int(not fails))
    elif what == "xa_alloc" and fails:
        world.note(what, int(world.order == 9), -1, -EBUSY)
    return fails


def take_failure(world: World, what: str) -> bool:
    """Count an attempt to allocate; True if it fails.  The kernel asks twice for a node of the map, the model once."""
    skip, count = world.failing.get(what, (0, 0))
    attempts = 2 if what == "xa_node" else 1
    world.failing[what] = [skip - 1, count] if skip else [0, max(0, count - attempts)]
    return not skip and count >= attempts


def note_ids(world: World, cluster_map: Any) -> None:
    """Let the map of clusters note which ids it gives and takes."""

    class NotingMap(type(cluster_map)):  # type: ignore[misc]
        __slots__ = ()

        def alloc(self, value: Any, low: int, high: int) -> int:
            """Note the id, or that there is no memory."""
            try:
                cluster_id: int = super().alloc(value, low, high)
            except MemoryError:
                world.note("xa_alloc", low, -1, -ENOMEM)
                raise
            world.note("xa_alloc", low, cluster_id, 0)
            return cluster_id

        def erase(self, index: int) -> Any:
            """Note that a cluster is gone."""
            world.note("vswap_cluster_free", index)
            return super().erase(index)

    cluster_map.__class__ = NotingMap


def synchronize_rcu(world: World) -> None:
    """A grace period ends: the memory of dead clusters goes."""
    for _ in range(world.s.rcu.pending):
        world.note("vfree")
        world.note("kmem_cache_free", "vswap_cluster")
    world.s.rcu.synchronize()


LARGEST = 1 << 22
"""Slots of the largest device: 16 GiB."""


def swapon(world: World, type: int, max: int) -> None:
    """A device of ``max`` slots, free from 1 on, at its place among the devices, in whatever order they come."""
    if not 1 < max <= LARGEST:
        raise ValueError(f"a device of {max} slots")
    s, info = world.s, world.functions["SwapInfo"]
    needed = {item.name for item in fields(info) if item.default is MISSING and item.default_factory is MISSING}
    locks = {name: s.locks.spinlock(f"si_{name}") for name in needed if name.endswith("lock")}
    users = PercpuRef()
    users.resurrect()
    si = info(type=type, users=users, max=max, pages=max - 1, **locks)
    si.cluster_info = [physical_cluster(world, type, index) for index in range(-(-max // CLUSTER))]
    s.swap.info += [None] * (type + 1 - len(s.swap.info))
    s.swap.info[type] = si
    world.phys[type] = set()


def physical_cluster(world: World, type_: int, index: int) -> Any:
    """A physical cluster with a table that notes what is written to it."""
    table = ReverseMap("Q", bytes(8 * CLUSTER))
    table.first, table.fx = (type_, index * CLUSTER), world.fx
    return world.functions["SwapClusterInfo"](index, world.s.locks.spinlock("ci_lock"), table=table)


def swp_slot(type_: int, offset: int) -> int:
    """A physical slot as the model writes it."""
    return type_ << OFFSET_BITS | offset


def place(slot: int) -> tuple[int, int]:
    """A physical slot as traces write it: (device, offset)."""
    return slot >> OFFSET_BITS, slot & (1 << OFFSET_BITS) - 1


def new_cgroup(world: World, id_: int, parent: Any, limit: int | None) -> Any:
    """A cgroup; the root is there from the beginning."""
    groups = world.s.memcg
    if id_ != 1:
        group = world.functions["Memcg"](id_, str(id_), parent or groups.root, Tally(MEMCG_STAT))
        group.swap.max = limit
        groups.by_id[id_] = group
    world.cgroups[id_] = groups.by_id[id_]
    return groups.by_id[id_]


FLAGS = {"L": "locked", "U": "uptodate", "C": "swapcache", "W": "writeback", "D": "dirty", "B": "swapbacked"}
"""A folio's flags: letters of a result, in its order, and the model's fields; as bits from 1 up."""


def set_flags(folio: Any, bits: int, value: bool) -> None:
    """Set or clear flags of a folio."""
    for bit, name in enumerate(FLAGS.values()):
        if bits >> bit & 1:
            setattr(folio, name, value)


def flags_of(folio: Any) -> str:
    """The letters of the flags that are set."""
    return "".join(letter for letter, name in FLAGS.items() if getattr(folio, name))


def new_folio(world: World, pfn: int, order: int) -> Any:
    """A folio whose page frame number is its id in the trace."""
    mem_map = world.s.memory.mem_map
    mem_map += [None] * (pfn + 1 - len(mem_map))
    world.folios[pfn] = mem_map[pfn] = folio = world.functions["Folio"](pfn, order, bytearray())
    folio.nr_pages = 1 << order
    return folio


def next_slot(world: World, order: int) -> int:
    """The physical slot that the recorded allocator found; 0 if it found none."""
    if not world.slots:
        raise OutOfStep(f"asks for physical slots of order {order} where the recorded layer asked for none")
    recorded, slot = world.slots.pop(0)
    if slot and place(slot)[0] not in world.phys:
        raise OutOfStep(f"is given a slot of device {place(slot)[0]}, which is not on")
    if recorded != order:
        raise OutOfStep(f"asks for physical slots of order {order}, not {recorded}")
    return slot


def given_slots(calls: Iterable[Effect]) -> list[tuple[int, int]]:
    """What the recorded allocator answered during an operation: (order, slot)."""
    answers = (effect for effect in calls if effect[0] == "swap_slot_alloc")
    return [(effect[1], swp_slot(*effect[2]) if effect[2] else 0) for effect in answers]


def next_run(world: World, slot: int) -> int:
    """How many slots from this one on the recorder freed together, before the layer could tell (to 12)."""
    first, nr = world.runs.pop(0) if world.runs else (0, 0)
    if first != slot:
        raise OutOfStep(f"frees slot {place(slot)}, where the recorded one freed {place(first) if nr else 'none'}")
    return nr


def given_runs(calls: Iterable[Effect]) -> list[tuple[int, int]]:
    """Slots that the recorded swap map freed together during an operation: (first, how many)."""
    return [(swp_slot(*effect[1]), effect[2]) for effect in calls if effect[0] == "swap_slots_free"]
