"""The virtual layer alone, call by call, as its callers use it: how long, and how many primitive operations.

``data/costs`` has the figures of the real mm/vswap.c for the same life cycles; ``LIFE_CYCLES`` names them by row.
"""

from __future__ import annotations

import contextlib
import csv
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import vswap_ref as vr

from .floor import timed

COSTS = Path(__file__).parents[1] / "data" / "costs"
STAGE = 14
CLUSTER = 512
NAMES = {"remove_mapping": "__vswap_remove_mapping"}
"""What a class would mangle."""
NEIGHBOURS = ("mem_cgroup_uncharge_swap_by_id", "memcg1_swapout", "zswap_entry_free", "zswap_entries_free")
"""Functions outside the layer that it calls on a page's way, beside the charge."""


class Layer:
    """A kernel of a stage with one device and one cgroup, whose functions are called one by one."""

    def __init__(self, stage: int = STAGE) -> None:
        self.stage = vr.at(stage)
        self.kernel = self.stage.Kernel(ram="256M", swap=[vr.Ssd("64M")], zswap="lz4", cpus=1)
        self.s = self.kernel.system
        self.owner = self.kernel.cgroup("owner").memcg

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A function of the stage by its name, with the system as its first argument already."""
        function = functools.partial(self.stage.find(NAMES.get(name, name)), self.s)
        setattr(self, name, function)
        return function

    def folio(self, order: int = 0) -> Any:
        """A charged, locked folio that may be swapped out."""
        folio = self.folio_alloc(order)
        assert self.mem_cgroup_charge(folio, self.owner) == 0
        folio.swapbacked = folio.uptodate = folio.locked = True
        return folio

    def swapped(self, order: int = 0) -> Any:
        """A folio in the swap cache, with one user for each of its entries."""
        folio = self.folio(order)
        assert self.folio_alloc_swap(folio) == 0
        self.swap_shmem_alloc(folio.swap, folio.nr_pages)
        return folio

    def compressed(self, entry: int) -> Any:
        """A compressed page, charged and on its list, that no slot has yet."""
        zentry = self.zswap_entry_alloc(entry, b"compressed", self.owner)
        self.zswap_publish(zentry)
        return zentry

    def evict(self, folio: Any) -> int:
        """A folio leaves the swap cache, frozen, and leaves a shadow; returns its entry."""
        entry, folio.refcount, folio.dirty = folio.swap, 0, False
        self.swap_cache_lock_irq(entry)
        self.remove_mapping(folio, entry, 1)
        return int(entry)


OUT = [
    "folio_alloc_swap",
    "swap_duplicate",
    "folio_free_swap",
    "vswap_prepare_writeout",
    "zswap_entry_store",
    "swap_cache_lock_irq",
    "__vswap_remove_mapping",
]
"""The calls that take a page out to zswap."""

IN = [
    "tryget_swap_entry",
    "swap_cache_get_folio",
    "swap_cache_get_folio",
    "swap_entry_swapped",
    "swapcache_prepare",
    "vswap_folio_backed",
    "lookup_swap_cgroup_id",
    "swap_cache_add_folio",
    "swap_zeromap_batch",
    "zswap_entry_load",
    "vswap_store_folio",
    "swap_free_nr",
    "vswap_swapfile_backed",
    "folio_free_swap",
    "put_swap_entry",
]
"""The calls that bring it back, the only user of its entry."""


def swap_out(k: Layer, *pages: tuple[Any, Any]) -> Callable[[], object]:
    """Make the calls of ``OUT`` for each (folio, its page in zswap); nothing but them takes time."""
    s, (alloc, duplicate, free_swap, prepare, store, lock, remove) = k.s, map(k.stage.find, OUT)

    def run() -> None:
        for folio, zentry in pages:
            alloc(s, folio)
            entry = folio.swap
            duplicate(s, entry)
            free_swap(s, folio)
            prepare(s, entry, folio)
            store(s, entry, zentry)
            folio.refcount = 0
            lock(s, entry)
            remove(s, folio, entry, 1)

    return run


def fault_in(k: Layer, *pages: tuple[Any, int]) -> Callable[[], object]:
    """Make the calls of ``IN`` for each (new folio, entry)."""
    s, functions = k.s, map(k.stage.find, IN)
    tryget, get, again, swapped, pin, by_folio, cgroup, add, zeros, load, store, free, on_device, drop, put = functions

    def run() -> None:
        for folio, entry in pages:
            _, si = tryget(s, entry)
            get(s, entry)
            again(s, entry)
            swapped(s, entry)
            pin(s, entry, 1)
            by_folio(s, entry, 1)
            cgroup(s, entry)
            add(s, folio, entry)
            zeros(s, entry, 1)
            load(s, entry)
            store(s, entry, folio)
            free(s, entry, 1)
            on_device(s, entry, 1)
            drop(s, folio)
            put(s, entry, si)

    return run


def row_1(k: Layer) -> Callable[[], object]:
    """Out to zswap; the cluster is there and cached."""
    k.swapped()
    return swap_out(k, (k.folio(), k.compressed(0)))


def row_2(k: Layer) -> Callable[[], object]:
    """In from zswap; the cluster lives on."""
    k.swapped()
    swap_out(k, (k.folio(), k.compressed(0)))()
    return fault_in(k, (k.folio(), k.swapped().swap - 1))


def row_8(k: Layer) -> Callable[[], object]:
    """A fork refers to 512 entries, one by one."""
    entry = k.swapped(9).swap
    return lambda: [k.swap_duplicate(entry + i) for i in range(CLUSTER)]


def row_9(k: Layer) -> Callable[[], object]:
    """One of two users of 512 entries goes."""
    entry = k.swapped(9).swap
    k.swap_shmem_alloc(entry, CLUSTER)
    return lambda: k.swap_free_nr(entry, CLUSTER)


def last_users(k: Layer, folio: Any) -> Callable[[], object]:
    """A large folio is evicted; then the last user of each of its entries goes."""
    entry = k.evict(folio)
    return lambda: k.free_swap_and_cache_nr(entry, CLUSTER)


def row_11(k: Layer) -> Callable[[], object]:
    """The last user of 512 entries goes, which are on a device in a row; so does the cluster."""
    folio = k.swapped(9)
    k.vswap_alloc_swap_slot(folio)
    return last_users(k, folio)


def row_12(k: Layer) -> Callable[[], object]:
    """The same with 512 compressed pages."""
    folio = k.swapped(9)
    for i in range(CLUSTER):
        k.zswap_entry_store(folio.swap + i, k.compressed(folio.swap + i))
    return last_users(k, folio)


def row_13(k: Layer) -> Callable[[], object]:
    """The same with zeros."""
    folio = k.swapped(9)
    k.swap_zeromap_folio_set(folio)
    return last_users(k, folio)


def row_14(k: Layer) -> Callable[[], object]:
    """511 single pages, a compressed one and one on a device in turn; the cluster lives on, for its first page."""
    while k.swapped().swap % CLUSTER:
        pass
    folios = [k.swapped() for _ in range(CLUSTER - 1)]
    first = folios[0].swap
    for i, folio in enumerate(folios):
        if i % 2:
            k.zswap_entry_store(folio.swap, k.compressed(folio.swap))
        else:
            k.vswap_alloc_swap_slot(folio)
        k.evict(folio)
    return lambda: k.free_swap_and_cache_nr(first, CLUSTER - 1)


def row_15(k: Layer) -> Callable[[], object]:
    """50 look-ups of one entry."""
    s, entry, swapcount = k.s, k.swapped().swap, k.stage.find("swp_swapcount")
    return lambda: [swapcount(s, entry) for _ in range(50)]


def row_18(k: Layer) -> Callable[[], object]:
    """A slot is taken and given up."""
    k.swapped()
    folio = k.folio()
    return lambda: (k.folio_alloc_swap(folio), k.folio_free_swap(folio))


def row_19(k: Layer) -> Callable[[], object]:
    """A large folio gets a cluster."""
    folio = k.folio(9)
    return lambda: k.folio_alloc_swap(folio)


def row_20(k: Layer) -> Callable[[], object]:
    """A large folio gives its cluster up."""
    folio = k.folio(9)
    k.folio_alloc_swap(folio)
    return lambda: k.folio_free_swap(folio)


LIFE_CYCLES = {name.removeprefix("row_"): row for name, row in list(globals().items()) if name.startswith("row_")}
"""Row of data/costs/events.csv -> what prepares a layer for it and returns the calls that it counts."""


def recorded_events(level: str = "20") -> dict[str, dict[str, int]]:
    """Row -> counts of the real code, with the first ``level`` patches; before patch 22 there is no look-up cache."""
    with (COSTS / "events.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["level"] == level]
    return {row["row"]: {name: int(value) for name, value in list(row.items())[3:]} for row in rows}


def recorded_ns(what: str, level: str = "20") -> float:
    """The shortest time of the real code, in ns."""
    with (COSTS / "times.csv").open(encoding="utf-8", newline="") as file:
        (time,) = [row["min_ns"] for row in csv.DictReader(file) if (row["what"], row["level"]) == (what, level)]
    return float(time)


def least_us(row: str, times: int = 20, stage: int = STAGE) -> float:
    """Processor time that a row's calls take at least, in microseconds: one after the other, in warm caches."""
    layer = Layer(stage)
    prepared = [LIFE_CYCLES[row](layer) for _ in range(times)]
    return min(timed(run) for run in prepared) * 1e6


def cycle_us(pages: int = 256, rounds: int = 20, stage: int = STAGE) -> tuple[float, float]:
    """Processor time of rows 1 and 2 for a page, in microseconds, half a cluster at a time in warm caches."""
    k, outs, ins = Layer(stage), [], []
    first = k.swapped().swap + 1
    for _ in range(rounds):
        entries = range(first, first + pages)
        outs.append(timed(swap_out(k, *[(k.folio(), k.compressed(entry)) for entry in entries])))
        ins.append(timed(fault_in(k, *[(k.folio(), entry) for entry in entries])))
    return min(outs) / pages * 1e6, min(ins) / pages * 1e6


@contextlib.contextmanager
def stand_ins(stage: int = STAGE) -> Iterator[None]:
    """zswap and cgroups do nothing when the layer calls them, as where the real code was measured.

    A charge still records the cgroup in the slots: that is the layer's part of it.
    """
    loaded = vr.at(stage)
    record = loaded.find("swap_cgroup_record")

    def charge(s: Any, folio: Any, entry: int) -> int:
        record(s, folio, folio.memcg.id, entry)
        return 0

    def nothing(*_: Any) -> None: ...

    replaced = {"mem_cgroup_try_charge_swap": charge, **dict.fromkeys(NEIGHBOURS, nothing)}
    with contextlib.ExitStack() as stack:
        for home in [module for module in loaded.modules() if ".vswap." in module.__name__]:
            for name in replaced.keys() & vars(home).keys():
                stack.enter_context(mock.patch.object(home, name, replaced[name]))
        yield


def events(row: str, stage: int = STAGE) -> dict[str, int]:
    """Counts of the model for a row, under the names of the file."""
    layer = Layer(stage)
    run = LIFE_CYCLES[row](layer)
    before = layer.kernel.cost
    run()
    moved = layer.kernel.cost.since(before)
    return {name: moved.get(name, 0) for name in recorded_events()[row]}
