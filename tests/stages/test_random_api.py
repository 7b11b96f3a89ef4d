"""Random programs over the functions of the virtual layer, at each stage, against a model of one line per slot.

The recorded traces say what the real code did in some thousand operations.  Here every legal call may follow every
other, with allocations that fail in between: counts, pins and the lookups between names and places must be those of a
plain dictionary, a slot is free exactly when nothing holds it, and what is freed is given back.  At levels 9 to 12 the
swap map is a stand-in (see ``vswap_ref.lab.replay``), so there the layer below it is what is tested.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from vswap_ref.lab.replay.neighbours import standins
from vswap_ref.lab.replay.world import World, new_folio, new_world, place, replaced, set_flags, swapon, synchronize_rcu
from vswap_ref.series.stages import LoadedStage

ORDERS = (0, 0, 0, 0, 1, 2, 4, 9)
SITES = ("kmem_cache_zalloc", "vzalloc", "xa_alloc", "xa_node")
WEIGHTS = {"swap_out": 5, "back": 4, "duplicate": 6, "free": 6, "reclaim": 4, "claim": 4, "pin": 2, "cpu": 2, "fail": 1}
"""How often each step is chosen."""
READY = 51
"""Flags of a folio that may be swapped out: locked, up to date, dirty, swap-backed."""


@dataclass(slots=True)
class Slot:
    """What a dictionary knows of a virtual slot; ``kind`` is its backing, from 14 on."""

    count: int = 0
    pinned: bool = True
    folio: Any = None
    kind: str = "F"


@dataclass(slots=True)
class Program:
    """A world, its slots as they should be, folios in the swap cache by their first entry, and pins on clusters."""

    world: World
    rng: random.Random
    slots: dict[int, Slot] = field(default_factory=dict)
    cached: dict[int, Any] = field(default_factory=dict)
    pins: list[tuple[int, Any]] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)
    ids: int = 0

    def place_for(self, order: int) -> int:
        """A free aligned run of a device's slots, anywhere; 0: the device is full, or pretends to be."""
        nr = 1 << order
        for _ in range(20):
            first = self.rng.randrange(1, 8192 // nr) * nr
            if self.rng.random() > 0.05 and not self.taken & set(range(first, first + nr)):
                self.taken |= set(range(first, first + nr))
                return first
        return 0

    def runs_of(self, entries: list[int]) -> list[tuple[int, int]]:
        """The places of entries, one by one: so the swap map's stand-in frees them (to 12)."""
        return [(self.world.swp_entry_to_swp_slot(entry), 1) for entry in entries]

    def call(self, name: str, *args: Any, freed: list[int] | None = None) -> Any:
        """Call a function of the layer; ``freed`` entries end with it."""
        world = self.world
        world.fx.clear()
        world.runs = self.runs_of(freed or []) if world.level <= 12 else []
        result = getattr(world, name)(*args)
        synchronize_rcu(world)
        for entry in freed or []:
            del self.slots[entry]
        for effect in world.fx:
            if effect[0] in ("swap_slot_free_nr", "swap_slots_free"):
                self.taken -= set(range(effect[1][1], effect[1][1] + effect[2]))
        return result

    def swap_out(self) -> None:
        """A new folio gets slots, or none: then nothing has changed."""
        order = self.rng.choice(ORDERS)
        self.ids += 1
        folio = new_folio(self.world, self.ids, order)
        set_flags(folio, READY, True)
        folio.refcount = 1
        self.world.order = order
        if self.world.level <= 13:
            self.world.slots = [(order, self.place_for(order))]
        used = self.world.s.vswap.used
        err = self.call("folio_alloc_swap", folio)
        if err:
            assert (self.world.s.vswap.used, folio.refcount, folio.swapcache) == (used, 1, False)
            unused = [slot for _, slot in self.world.slots if slot]
            for slot in unused:
                self.taken -= set(range(slot, slot + (1 << order)))
            return
        entries = range(folio.swap, folio.swap + (1 << order))
        assert not self.slots.keys() & set(entries)
        assert folio.swap % (1 << order) == 0 != folio.swap
        self.slots |= {entry: Slot(folio=folio) for entry in entries}
        self.cached[folio.swap] = folio

    def some(self, wanted: Any) -> int | None:
        """One of the slots for which a condition holds."""
        found = [entry for entry, slot in self.slots.items() if wanted(slot)]
        return self.rng.choice(found) if found else None

    def duplicate(self) -> None:
        """One PTE more."""
        entry = self.some(lambda slot: True)
        if entry is not None:
            assert self.call("swap_duplicate", entry) == 0
            self.slots[entry].count += 1

    def free(self) -> None:
        """One PTE less for a run of entries."""
        entry = self.some(lambda slot: slot.count)
        if entry is None:
            return
        nr = 1
        while nr < 8 and entry + nr in self.slots and self.slots[entry + nr].count:
            nr += 1
        run = range(entry, entry + self.rng.randint(1, nr))
        dead = [one for one in run if self.slots[one].count == 1 and not self.slots[one].pinned]
        self.call("swap_free_nr", entry, len(run), freed=dead)
        for one in run:
            if one in self.slots:
                self.slots[one].count -= 1

    def back(self, kinds: str = "FSZC") -> None:
        """A cached folio gets another backing (14), all of its slots the same."""
        if self.world.level < 14 or not self.cached:
            return
        entry, folio = self.rng.choice(sorted(self.cached.items(), key=lambda item: item[0]))
        self.back_by(self.rng.choice(kinds), entry, folio)

    def back_by(self, kind: str, entry: int, folio: Any) -> None:
        """Give a folio's slots a backing; one on a device may not be found, and is not for zeros or copies."""
        slots = [self.slots[entry + i] for i in range(1 << folio.order)]
        if kind == "F":
            self.call("vswap_store_folio", entry, folio)
        elif kind == "Z":
            self.call("swap_zeromap_folio_set", folio)
        elif kind == "C":
            for i in range(len(slots)):
                self.ids += 1
                copy = self.world.functions["ZswapEntry"](entry + i, 0, None, b"", None)
                self.world.zswap[self.ids], self.world.zswap_ids[copy] = copy, self.ids
                self.call("zswap_entry_store", entry + i, copy)
        elif slots[0].kind in "FS":
            self.world.slots = [(folio.order, self.place_for(folio.order))] if slots[0].kind == "F" else []
            kind = "S" if self.call("vswap_alloc_swap_slot", folio) else "F"
        else:
            return
        for slot in slots:
            slot.kind = kind

    def reclaim(self) -> None:
        """A folio leaves the cache, a shadow stays; slots without a PTE end.  One that only its folio has is zeros."""
        if not self.cached:
            return
        entry, folio = self.rng.choice(sorted(self.cached.items(), key=lambda item: item[0]))
        entries = range(entry, entry + (1 << folio.order))
        if self.world.level >= 14 and self.slots[entry].kind == "F":
            self.back_by("Z", entry, folio)
        dead = [one for one in entries if not self.slots[one].count]
        if len(dead) == len(entries) and self.rng.random() < 0.5:
            assert self.call("folio_free_swap", folio, freed=dead)
        else:
            self.remove(folio, entry, dead)
        for one in entries:
            if one in self.slots:
                self.slots[one].pinned, self.slots[one].folio = False, None
        del self.cached[entry]

    def remove(self, folio: Any, entry: int, dead: list[int]) -> None:
        """What __remove_mapping does at this stage."""
        self.call("swap_cache_lock_irq", entry)
        if self.world.level >= 13:
            self.call("__vswap_remove_mapping", folio, entry, 77 << 1 | 1, freed=dead)
            return
        self.call("__swap_cache_del_folio", folio, entry, 77 << 1 | 1)
        self.call("swap_cache_unlock_irq", entry)
        self.call("put_swap_folio", folio, entry, freed=dead)

    def claim(self) -> None:
        """Pin an entry as a reader does, and let go, or bring a folio in."""
        entry = self.some(lambda slot: True)
        if entry is None:
            return
        slot = self.slots[entry]
        err = self.call("swapcache_prepare", entry, 1)
        assert err == (-17 if slot.pinned else 0)
        if err:
            return
        slot.pinned = True
        if self.rng.random() < 0.4:
            slot.pinned = False
            self.call("swapcache_clear", entry, 1, freed=[] if slot.count else [entry])
            return
        self.ids += 1
        folio = new_folio(self.world, self.ids, 0)
        set_flags(folio, READY, True)
        folio.refcount = 1
        shadow = self.call("swap_cache_add_folio", folio, entry)
        shadow = shadow[-1] if isinstance(shadow, tuple) else shadow
        assert shadow in (None, 77 << 1 | 1)
        slot.folio, self.cached[entry] = folio, folio

    def pin(self) -> None:
        """Pin a cluster, or let one go."""
        if self.pins and self.rng.random() < 0.6:
            self.call("put_swap_entry", *self.pins.pop(self.rng.randrange(len(self.pins))))
            return
        entry = self.some(lambda slot: True)
        if entry is not None:
            held, si = self.call("tryget_swap_entry", entry)
            assert held
            self.pins.append((entry, si))

    def cpu(self) -> None:
        """Go on elsewhere; a CPU may die that nobody is on."""
        s = self.world.s
        if self.rng.random() < 0.1:
            self.call("vswap_cpu_dead", self.rng.choice([cpu for cpu in range(4) if cpu != s.cpu]))
        s.cpu = self.rng.randrange(4)

    def fail(self) -> None:
        """The next allocations of a kind fail."""
        self.world.failing = {self.rng.choice(SITES): [self.rng.randrange(2), self.rng.randint(1, 3)]}

    def steps(self) -> Iterator[str]:
        """Operations at random, for ever."""
        weights = {
            "swap_out": 5,
            "back": 4,
            "duplicate": 6,
            "free": 6,
            "reclaim": 4,
            "claim": 4,
            "pin": 2,
            "cpu": 2,
            "fail": 1,
        }
        while True:
            (name,) = self.rng.choices(list(weights), list(weights.values()))
            getattr(self, name)()
            yield name

    def check(self) -> None:
        """Slots, clusters and places are as the dictionary says."""
        world, vswap = self.world, self.world.s.vswap
        clusters = dict(vswap.cluster_map.items())
        allocated = {c.id * 512 + i for c in clusters.values() for i in range(512) if c.bitmap.bits[i]}
        assert allocated == self.slots.keys()
        assert vswap.used == len(allocated)
        assert sum(len(used) for used in world.phys.values()) == len(self.taken)
        cached = [c for cpu in range(4) for c in vswap.percpu[cpu].clusters if c is not None]
        listed = [c for order in vswap.partial_lists for c in order]
        assert len(set(map(id, [*cached, *listed]))) == len(cached) + len(listed)
        for id_, c in clusters.items():
            held = sum(entry >> 9 == id_ for entry, _ in self.pins)
            assert (c.id, c.count) == (id_, sum(c.bitmap.bits))
            assert c.refcnt == c.count + (c in cached) + held > 0
            assert bool(c.cached) == (c in cached)
            assert not (c in listed and (c.cached or c.full))
        for entry, slot in self.slots.items():
            assert world.swp_swapcount(entry) == slot.count
            where = world.swp_entry_to_swp_slot(entry)
            assert not where or world.swp_slot_to_swp_entry(where) == entry
            assert bool(where) == (world.level <= 13 or slot.kind == "S")
            assert world.level <= 10 or (world.zswap_entry_load(entry) is not None) == (slot.kind == "C")
            assert not where or place(where)[1] in self.taken
            folio = world.swap_cache_get_folio(entry)
            assert folio is slot.folio
            if folio is not None:
                folio.refcount -= 1
        assert not world.s.locks.lockdep.task.held
        assert not world.s.locks.lockdep.task.irqs_off


@pytest.mark.stages(9, 14, every=True)
@pytest.mark.parametrize("seed", range(3))
def test_random_calls_keep_a_dictionarys_books(stage: LoadedStage, seed: int) -> None:
    """Four hundred calls, looked at after every tenth; at the end all is freed, and every place given back."""
    world = new_world(stage, int(stage.id))
    with replaced(world, standins(world)):
        world.s.memcg.enabled = False
        world.vswap_init()
        swapon(world, 0, 8192)
        program = Program(world, random.Random(f"{stage.id} {seed}"))
        for number, name in zip(range(400), program.steps(), strict=False):
            if number % 10 == 0:
                program.check()
            assert name
        world.failing = {}
        finish(program)


def finish(program: Program) -> None:
    """Everybody lets go of everything."""
    while program.pins:
        program.call("put_swap_entry", *program.pins.pop())
    while program.cached:
        program.reclaim()
    for entry in sorted(program.slots):
        slot = program.slots[entry]
        if slot.pinned:
            program.call("swapcache_clear", entry, 1, freed=[] if slot.count else [entry])
            slot.pinned = False
        while entry in program.slots:
            program.call("swap_free_nr", entry, 1, freed=[entry] if slot.count == 1 else [])
            slot.count -= 1
    program.check()
    assert (program.world.s.vswap.used, program.taken) == (0, set())
