"""One seeded workload that reaches every operation of the face; it notes all that a user can see of it.

``play(stage)`` boots several small kernels, takes each through a tour of all operations and then through random ones.
What is chosen depends on the seed and on nothing else as long as two stages behave alike.
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import vswap_ref as vr
from vswap_ref.machine import PAGE_SIZE, BlockDevice, PercpuRef

from .final_state import describe

BREAKS = "the kernel breaks"
PAGES = 32
SHARED_PAGES = 12
LIMITS = (None, "48K", "160K", "512K", "max")
ADVICE = ("cold", "dontneed", "free", "pageout", "pageout", "willneed", "hugepage", "nohugepage")
CONTENTS = [
    bytes(PAGE_SIZE),
    b"\xff" * PAGE_SIZE,
    b"text" * (PAGE_SIZE // 4),
    bytes(range(256)) * (PAGE_SIZE // 256),
    random.Random(0).randbytes(PAGE_SIZE),
]
ZSWAP_CHANGES: list[dict[str, Any]] = [
    {"compressor": "deflate"},
    {"max_pool_percent": 1},
    {"shrinker": True},
    {"enabled": False, "shrinker": False},
    {"enabled": True, "max_pool_percent": 4},
    {"compressor": "lz4", "shrinker": True},
]
SMALL_FOLIOS = {"16K": "always", "32K": "inherit", "64K": "madvise"}


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, what it gave (a value or an exception), the counters that it moved, the time afterwards.

    ``requests`` to devices, in order; requests to allocate, and primitive operations such as locks, by name;
    ``state`` is filled where all of the kernel's state is noted.
    """

    world: str
    operation: str
    result: str
    vmstat: dict[str, int]
    clock_ns: int
    requests: tuple[str, ...] = ()
    allocations: dict[str, int] = field(default_factory=dict)
    cost: dict[str, int] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"[{self.world}] {self.operation}"


@dataclass(frozen=True, slots=True)
class World:
    """A kernel to boot: its devices (new ones each time), its options, huge pages, pages of each process."""

    devices: Callable[[], list[BlockDevice]]
    options: dict[str, Any]
    thp: str = "never"
    pages: int = PAGES


def fragmented() -> BlockDevice:
    """A swap file in four pieces of blocks smaller than a page."""
    return vr.SwapFile("512K", vr.Ssd("8M"), fragments=[(9, 600), (900, 200), (700, 101), (2000, 123)], block_size=512)


WORLDS = {
    "large folios": World(
        lambda: [vr.Ssd("4M"), vr.Disk("1M", bad_pages=[3, 4, 77])],
        {"ram": "3M", "zswap": vr.Zswap("lz4", max_pool_percent=4)},
        thp="always",
        pages=64,
    ),
    "one cluster, version 1": World(
        lambda: [vr.Pmem("2M", bad_pages=range(9, 20)), vr.Zram("1M")],
        {"memcg": "v1", "page_cluster": 0, "zswap": None},
        thp="madvise",
    ),
    "file": World(lambda: [fragmented()], {"zswap": "zstd", "locks": "validated", "swappiness": 100}),
    "no room": World(lambda: [vr.Ssd("128K"), vr.Disk("96K")], {"ram": "256K", "memcg": None}, pages=24),
}


def shown(value: object) -> str:
    """A result as text: long bytes by length and checksum, tables by their rows, all else as Python shows it."""
    if isinstance(value, bytes | bytearray):
        return repr(bytes(value)) if len(value) <= 16 else f"{len(value)} bytes, checksum {zlib.crc32(value):08x}"
    if hasattr(value, "rows"):
        return shown(value.rows)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    return str(value) if isinstance(value, str | int) else repr(value)


class Watch:
    """What kernels do that only their machine sees: requests to devices, in order, and pins of devices."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.pins = dict.fromkeys(("device pins", "device unpins"), 0)

    def since(self, pins: dict[str, int]) -> dict[str, int]:
        """Pins since a copy of ``pins`` was made, those that are 0 left out."""
        return {name: nr - pins[name] for name, nr in self.pins.items() if nr != pins[name]}

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch every block device and every device's reference counter."""
        load, write, discard = BlockDevice._load, BlockDevice.write, BlockDevice.discard
        tryget, put = PercpuRef.tryget, PercpuRef.put

        def noted_load(device: BlockDevice, page: int) -> bytes | bytearray:
            data = load(device, page)
            self.requests.append(f"read {device.name}[{page}] {zlib.crc32(data):08x}")
            return data

        def noted_write(device: BlockDevice, page: int, data: bytes | bytearray | memoryview) -> None:
            self.requests.append(f"write {device.name}[{page}] {zlib.crc32(data):08x}")
            write(device, page, data)

        def noted_discard(device: BlockDevice, page: int, nr: int) -> None:
            self.requests.append(f"discard {device.name}[{page}] {nr} pages")
            discard(device, page, nr)

        def noted_tryget(users: PercpuRef) -> bool:
            got = tryget(users)
            self.pins["device pins"] += got
            return got

        def noted_put(users: PercpuRef) -> None:
            self.pins["device unpins"] += 1
            put(users)

        with (
            patch.multiple(BlockDevice, _load=noted_load, write=noted_write, discard=noted_discard),
            patch.multiple(PercpuRef, tryget=noted_tryget, put=noted_put),
        ):
            yield


class Play:
    """One kernel in the hands of a random user."""

    def __init__(
        self,
        stage: Any,
        name: str,
        seed: int,
        sites: Collection[str] = (),
        watch: Watch | None = None,
        image_pages: int = 8,
    ) -> None:
        world = WORLDS[name]
        self.image_pages = image_pages
        self.name, self.pages, self.steps = name, world.pages, list[Step]()
        self.rng = random.Random(f"{name} {seed}")
        self.watch = watch or Watch()
        self.refusals = (OSError, ValueError, IndexError, stage.kernel.OutOfMemory)
        thp = stage.kernel.Thp(world.thp, SMALL_FOLIOS, defrag="always")
        self.kernel = stage.Kernel(**{"ram": "1M", "thp": thp, **world.options})
        self.sites = sorted(sites or self.kernel.faults.docs)
        self.spares: list[BlockDevice] = []
        self.groups: list[Any] = []
        for device in world.devices():
            self.do(f"swapon {device.name}", self.kernel.swapon, device, discard="both")

    # --- steps -----------------------------------------------------------------------------------------------------

    def do(self, operation: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Run one operation and note it; None if it was refused."""
        kernel, value, result = self.kernel, None, ""
        before, cost, calls = kernel.vmstat.snapshot(), kernel.cost, dict(kernel.faults.calls)
        pins, self.watch.requests = dict(self.watch.pins), []
        try:
            value = function(*args, **options)
            result = shown(value)
        except self.refusals as error:
            result = f"{type(error).__name__}: {error}"
        moved, cost = kernel.vmstat.since(before), kernel.cost.since(cost) | self.watch.since(pins)
        calls = {site: nr - calls[site] for site, nr in kernel.faults.calls.items() if nr != calls[site]}
        requests = tuple(self.watch.requests)
        self.steps.append(Step(self.name, operation, result, moved, kernel.clock.ns, requests, calls, cost))
        return value

    def note_state(self) -> None:
        """Note everything that the kernel keeps."""
        state = describe(self.kernel.system)
        self.steps.append(Step(self.name, "state", "", {}, self.kernel.clock.ns, state=state))

    def put(self, target: Any, name: str, value: object) -> None:
        """Set an attribute of the face and read it back."""
        self.do(f"{target.name}.{name} = {value!r}", setattr, target, name, value)
        self.do(f"{target.name}.{name}", getattr, target, name)

    def look(self) -> None:
        """Note everything that can be looked at, and check the invariants."""
        k = self.kernel
        self.do("vmstat", k.proc_vmstat)
        for view in (k.meminfo, k.swaps, k.proc_swaps, k.thp_stats, k.zswap_parameters, k.zswap_debugfs):
            self.do(view.__name__, view)
        for group in (k.root, *self.groups):
            self.do(f"files of {group.name}", lambda group=group: group.files)
            for name in ("memory_current", "swap_current", "zswap_current", "memsw_current", "memory_peak", "events"):
                self.do(f"{group.name}.{name}", getattr, group, name)
        for process in k.processes:
            self.do(repr(process), lambda process=process: (process.rss, process.swap))
            for mapping in process.mappings:
                self.do(f"places in {mapping!r}", mapping.where)
                self.do(f"orders in {mapping!r}", mapping.orders)
        for shm in k.shared:
            self.do(repr(shm), lambda shm=shm: (shm.resident, shm.swapped, list(shm.where()), shm.charged()))
        self.do("check", k.check)
        self.note_state()

    def read_all(self) -> None:
        """Note the content of every page of every mapping."""
        for process in self.kernel.processes:
            for number, mapping in enumerate(process.mappings):
                for page in range(mapping.pages):
                    self.do(f"read {process.name}.{number}[{page}]", mapping.read_page, page)

    # --- the tour --------------------------------------------------------------------------------------------------

    def tour(self) -> None:
        """Every operation once, in an order in which each finds work to do."""
        for part in (self.while_there_is_room, self.image, self.groups_and_processes, self.out_and_in,
                     self.shared_memory, self.split, self.moved_pages, self.zswap_changes, self.failures,
                     self.devices_change, self.unusual_looks):  # fmt: skip
            part()
            self.look()

    def while_there_is_room(self) -> None:
        """On a device of its own, with free clusters: a ramp into zswap; a large folio that is split and moved."""
        number = self.do("swapon first", self.kernel.swapon, vr.Ssd("8M", name="/dev/first"), priority=9)
        ramp = self.do("spawn", self.kernel.spawn, "ramp")
        self.do("mmap_swapped", ramp.mmap_swapped, "2M", CONTENTS[2])
        self.do("exit", ramp.exit)
        was = self.kernel.system.zswap.enabled
        self.do("zswap off", lambda: self.kernel.set_zswap(enabled=False))
        self.split_and_move(self.do("spawn", self.kernel.spawn, "early"))
        self.do("zswap as it was", lambda: self.kernel.set_zswap(enabled=was))
        self.do("swapoff first", self.kernel.swapoff, number)

    def split_and_move(self, process: Any) -> None:
        """A large folio is split in the swap cache, written out, and moved to another mapping while it is in swap."""
        heap, target = (self.do("mmap", process.mmap, 16 * PAGE_SIZE) for _ in range(2))
        self.do("hugepage", process.madvise, heap, "hugepage")
        for page in range(heap.pages):
            self.write(heap, page, 4)
        self.do("pageout", process.madvise, heap, "pageout")
        self.do("touch", heap.touch, 0)
        self.do("drain", self.kernel.drain)
        self.do("pageout of a part", process.madvise, heap, "pageout", 3 * PAGE_SIZE, 7 * PAGE_SIZE)
        self.do("orders", heap.orders)
        self.do("pageout", process.madvise, heap, "pageout")
        self.do("drain", self.kernel.drain)
        self.do("reclaim", self.kernel.reclaim, "64K")
        self.do("move swapped pages", process.move_pages, heap, target)
        self.do("read moved", target.read_page, 7)
        self.do("exit", process.exit)

    def groups_and_processes(self) -> None:
        """A tree of cgroups with processes, which write more than there is room for; one page has many owners."""
        parent = self.do("cgroup", self.kernel.cgroup, "tree", memory_max="640K")
        leaf = self.do("cgroup", self.kernel.cgroup, "leaf", parent, memory_max="96K", zswap_writeback=False)
        self.do("cgroup twice", self.kernel.cgroup, "tree")
        self.groups += [group for group in (parent, leaf) if group is not None]
        for number, group in enumerate([None, *self.groups]):
            self.spawn(f"app{number}", group)
        for process in list(self.kernel.processes):
            for page in range(self.pages):
                self.write(process.mappings[0], page)
        first = self.kernel.processes[0]
        self.do("pageout", first.madvise, first.mappings[0], "pageout")
        for name in self.LIMIT_NAMES:
            for limit in ("96K", None):
                for group in self.groups:
                    self.put(group, name, limit)
                    for page in range(30 if (name, limit) == ("memory_high", "96K") else 2):
                        self.write(self.kernel.processes[-1].mappings[0], page)
        self.do("fork", first.fork)
        self.many_owners()
        self.orphan(self.kernel.processes[1])

    def many_owners(self) -> None:
        """One swapped page gets more owners than a byte can count, twice over; then they leave."""
        parent = self.do("spawn parent", self.kernel.spawn, "parent")
        heap = self.do("mmap", parent.mmap, PAGE_SIZE)
        self.write(heap, 0, 4)
        self.do("pageout", parent.madvise, heap, "pageout")
        self.do("drain", self.kernel.drain)
        children = [self.do("fork", parent.fork) for _ in range(66 if self.name != "file" else 330)]
        for process in (parent, *children):
            self.do("exit", process.exit)

    def orphan(self, heir: Any) -> None:
        """A cgroup is deleted while its memory lives on, in swap; its process is in another one by then."""
        group = self.do("cgroup", self.kernel.cgroup, "orphan")
        if group is not None:
            self.do("delete with a child", heir.cgroup.delete)
            process = self.do("spawn", self.kernel.spawn, "orphan", group)
            heap = self.do("mmap", process.mmap, self.pages * PAGE_SIZE)
            for page in range(self.pages):
                self.write(heap, page)
            self.do("pageout", process.madvise, heap, "pageout", 0, self.pages // 2 * PAGE_SIZE)
            self.do("move", process.move, heir.cgroup)
            self.do("delete", group.delete)
            self.do("reclaim", self.kernel.reclaim, "256K")
            for page in range(0, self.pages, 2):
                self.do("touch", heap.touch, page, write=True)
            self.do("pageout", process.madvise, heap, "pageout")
            self.do("exit", process.exit)
            self.do("state", lambda: (group.online, group.gone))

    def split(self) -> None:
        """Large folios lose a part, are given away in part, and meet reclaim."""
        process = self.do("spawn", self.kernel.spawn, "large")
        heap = self.do("mmap", process.mmap, "256K")
        self.do("hugepage", process.madvise, heap, "hugepage")
        for advice in ("dontneed", "free", "cold", "pageout"):
            self.do("reclaim", self.kernel.reclaim, "512K")
            for page in range(heap.pages):
                self.write(heap, page, 2)
            child = self.do("fork", process.fork)
            self.write(heap, 1, 3)
            self.do("exit", child.exit)
            self.write(heap, 2, 3)
            self.write(heap, heap.pages - 1, 3)
            for first in range(0, heap.pages, 16):
                self.do(advice, process.madvise, heap, advice, (first + 3) * PAGE_SIZE, (first + 7) * PAGE_SIZE)
            self.do("reclaim", self.kernel.reclaim, "256K")
            self.do("drain", self.kernel.drain)
            self.do("pageout", process.madvise, heap, "pageout")
            self.do("drain", self.kernel.drain)
            self.do("reclaim", self.kernel.reclaim, "1M")
            for page in range(0, heap.pages, 4):
                self.do("read", heap.read_page, page)
        self.do("exit", process.exit)

    def spawn(self, name: str, group: Any) -> None:
        """A process with memory, on one of two CPUs."""
        process = self.do(f"spawn {name}", self.kernel.spawn, name, group, cpu=self.rng.choice(self.kernel.online_cpus))
        if process is not None:
            self.do("mmap", process.mmap, self.pages * PAGE_SIZE)

    def write(self, mapping: Any, page: int, kind: int | None = None) -> None:
        """Write one of the contents."""
        content = CONTENTS[self.rng.randrange(len(CONTENTS)) if kind is None else kind]
        self.do(f"write {mapping.process.name}[{page}]", mapping.write_page, page, content)

    def out_and_in(self) -> None:
        """All advice; reclaim, waiting, reading back in order and out of order, writing into what was read."""
        for process in list(self.kernel.processes)[:3]:
            heap = process.mappings[0]
            for advice in dict.fromkeys(ADVICE):
                self.do(f"madvise {advice}", process.madvise, heap, advice)
                if advice in ("free", "pageout"):
                    self.do("reclaim", self.kernel.reclaim, "128K")
                    self.do("drain", self.kernel.drain)
                    self.do("reclaim again", self.kernel.reclaim, "128K")
                for page in range(0, heap.pages, 3):
                    self.write(heap, page)
            self.do("pageout", process.madvise, heap, "pageout")
            self.do("drain", self.kernel.drain)
            self.do("reclaim", self.kernel.reclaim, "1M")
            self.do("mincore", process.mincore, heap)
            for page in (*range(8), *range(heap.pages - 1, 8, -5)):
                self.do("touch", heap.touch, page, write=page % 2 == 0)
            self.do("bytes", lambda heap=heap: (heap[0], heap[-3:], len(heap), heap.mapped))
            self.do("one byte", heap.__setitem__, 5, 7)
            self.do("beyond", heap.touch, heap.pages)

    def shared_memory(self) -> None:
        """An object that two processes map: written, pushed out, read, cut, punched, unlinked."""
        shm = self.do("shmem", self.kernel.shmem, SHARED_PAGES * PAGE_SIZE, "shared")
        views = [self.do("mmap shared", process.mmap, shm) for process in self.kernel.processes[:2]]
        for page in range(SHARED_PAGES):
            self.write(views[0], page)
        for advice in ("pageout", "willneed", "pageout"):
            self.do(f"madvise {advice}", views[0].process.madvise, views[0], advice)
            self.do("mincore", views[0].process.mincore, views[0])
            self.do("drain", self.kernel.drain)
            self.do("reclaim", self.kernel.reclaim, "256K")
        for page in range(0, SHARED_PAGES, 2):
            self.do("read shared", views[1].read_page, page)
        self.do("punch_hole", shm.punch_hole, 2 * PAGE_SIZE, 4 * PAGE_SIZE)
        self.do("truncate", shm.truncate, 8 * PAGE_SIZE)
        self.do("beyond the end", views[0].touch, 9)
        self.do("pageout", views[0].process.madvise, views[0], "pageout")
        self.do("munmap", views[1].munmap)
        self.do("unlink", shm.unlink)
        self.do("unlink again", shm.unlink)
        self.do("state", lambda: (shm.name, shm.linked, shm.size))

    def moved_pages(self) -> None:
        """Pages move to another mapping, from swap, from the swap cache and from memory."""
        process = self.kernel.processes[0]
        target = self.do("mmap", process.mmap, self.pages * PAGE_SIZE)
        source = process.mappings[0]
        for page in range(0, self.pages, 2):
            self.write(source, page)
        self.do("pageout", process.madvise, source, "pageout", 0, 8 * PAGE_SIZE)
        for page in range(self.pages):
            span = page * PAGE_SIZE, (page + 1) * PAGE_SIZE
            self.do(f"move page {page}", process.move_pages, source, target, *span)
            self.do("read moved", target.read_page, page)
        self.do("munmap", target.munmap)

    def zswap_changes(self) -> None:
        """Another compressor, a full pool, writeback, off and on again, in between pages go out and come in."""
        for group in self.groups:
            self.put(group, "memory_max", None)
        for change in ZSWAP_CHANGES:
            self.do(f"set_zswap {change}", lambda change=change: self.kernel.set_zswap(**change))
            for process in self.kernel.processes[:2]:
                for page in range(0, self.pages, 2):
                    self.write(process.mappings[0], page)
                self.do("pageout", process.madvise, process.mappings[0], "pageout")
            self.do("reclaim", self.kernel.reclaim, "512K")
            self.do("drain", self.kernel.drain)

    def failures(self) -> None:
        """Every site where something can fail, and every kind of device request, fails while pages move."""
        devices = list(self.kernel.devices.values())
        arms: list[tuple[str, Callable[..., None]]] = [
            (f"fail {site}", lambda site=site: self.kernel.faults.fail(site, nth=2, times=2)) for site in self.sites
        ]
        arms += [(f"fail_reads {d.name}", lambda d=d: d.fail_reads(times=2)) for d in devices]
        arms += [(f"fail_writes {d.name}", lambda d=d: d.fail_writes(times=2)) for d in devices]
        process = self.kernel.processes[0]
        for name, arm in arms:
            arm()
            for page in range(0, self.pages, 4):
                self.write(process.mappings[0], page)
            self.do(f"pageout, {name}", process.madvise, process.mappings[0], "pageout")
            self.do("drain", self.kernel.drain)
            self.do("reclaim", self.kernel.reclaim, "1M")
            for page in range(0, self.pages, 7):
                self.do("touch", process.mappings[0].touch, page)
        self.kernel.faults.clear()
        self.lost_page()

    def lost_page(self) -> None:
        """swapoff cannot read a page of a shared object."""
        process, shm = self.kernel.processes[0], self.do("shmem", self.kernel.shmem, "8K", "lost")
        view = self.do("mmap shared", process.mmap, shm)
        self.write(view, 0, 4)
        self.do("set_zswap", self.kernel.set_zswap, enabled=False)
        self.do("pageout", process.madvise, view, "pageout")
        self.do("drain", self.kernel.drain)
        self.do("reclaim", self.kernel.reclaim, "64K")
        for number, device in list(self.kernel.devices.items()):
            device.fail_reads()
            self.swapoff(number)
        self.do("read lost", view.read_page, 0)
        while self.spares:
            self.do("swapon again", self.kernel.swapon, self.spares.pop())
        self.do("munmap", view.munmap)
        self.do("unlink", shm.unlink)

    def image(self) -> None:
        """Memory that is swapped out at once; some of memory is saved, reclaim goes on, it is read back."""
        self.spawn("first", None)
        for size, content in (("16K", CONTENTS[4]), ("2M", CONTENTS[2])):
            heap = self.do("mmap_swapped", self.kernel.processes[0].mmap_swapped, size, content)
            if heap is not None:
                self.do("munmap it", heap.munmap)
        for page in range(self.pages):
            self.write(self.kernel.processes[0].mappings[0], page)
        image = self.do("hibernate", self.kernel.hibernate, self.image_pages)
        self.do("hibernate twice", self.kernel.hibernate, 1)
        self.do("reclaim", self.kernel.reclaim, "256K")
        if image is not None:
            with image:
                self.do("image", lambda: (image.active, image.read()))
            self.do("released", image.read)

    def devices_change(self) -> None:
        """A CPU goes; a device comes, others go, with a signal at first; one is full of somebody's pages."""
        self.do("cpu_offline", self.kernel.cpu_offline, self.kernel.online_cpus[-1])
        extra = vr.Pmem("2M", name="/dev/extra")
        self.do("swapon extra", self.kernel.swapon, extra, priority=7)
        self.do("swapon twice", self.kernel.swapon, extra)
        self.push_out()
        for number in list(self.kernel.devices)[:-1]:
            self.kernel.faults.fail("signal", nth=3)
            self.swapoff(number)
            self.kernel.faults.clear()
            self.swapoff(number)
        self.do("swapoff of nothing", self.kernel.swapoff, 17)

    def push_out(self) -> None:
        """All processes out."""
        for process in self.kernel.processes:
            self.do("pageout", process.madvise, process.mappings[0], "pageout")
        self.do("drain", self.kernel.drain)
        self.do("reclaim", self.kernel.reclaim, "1M")

    def swapoff(self, number: int) -> None:
        """A device goes, if it can."""
        device = self.kernel.devices.get(number)
        self.do(f"swapoff {number}", self.kernel.swapoff, number)
        if device is not None and number not in self.kernel.devices:
            self.spares.append(device)

    def unusual_looks(self) -> None:
        """Pictures, ledgers, traces, a copy that goes on alone: run, and not compared."""
        k = self.kernel
        k.copy().reclaim("64K")
        k.trace(os.devnull)
        k.memory()
        k.cost.snapshot()
        k.locks.assert_none_held()
        for number in k.devices:
            k.clusters(number).counts()
        mappings = [mapping for process in k.processes for mapping in process.mappings]
        for item in (k, *mappings, *k.shared, *self.groups, k.image):
            repr(item)
            getattr(item, "_repr_html_", str)()
        for group in self.groups:
            group.memory_stat()
            self.do("state", lambda group=group: (group.online, group.gone, group.swap_peak))

    # --- random operations -----------------------------------------------------------------------------------------

    def wander(self, nr_steps: int) -> None:
        """Random operations, each on something that lives."""
        for number in range(nr_steps):
            self.rng.choice(self.RULES)(self)
            if number % 50 == 49:
                self.do("check", self.kernel.check)

    def any_mapping(self) -> Any:
        """A mapping of some process."""
        return self.rng.choice(self.rng.choice(self.kernel.processes).mappings)

    def random_write(self) -> None:
        """A run of pages."""
        mapping, first = self.any_mapping(), self.rng.randrange(self.pages)
        for page in range(first, first + self.rng.choice((1, 1, 4, 16))):
            self.write(mapping, page)

    def random_read(self) -> None:
        """A run of pages."""
        mapping, first = self.any_mapping(), self.rng.randrange(self.pages)
        for page in range(first, first + self.rng.choice((1, 1, 4, 16))):
            self.do(f"read {mapping.process.name}[{page}]", mapping.read_page, page)

    def random_advice(self) -> None:
        """On a range, or on a whole mapping."""
        mapping, advice = self.any_mapping(), self.rng.choice(ADVICE)
        first, last = (self.rng.randrange(self.pages) * PAGE_SIZE for _ in range(2))
        span = () if advice.endswith("hugepage") else (min(first, last), max(first, last))
        self.do(f"madvise {advice} {span}", mapping.process.madvise, mapping, advice, *span)

    def random_reclaim(self) -> None:
        """Everywhere or in a cgroup."""
        group = self.rng.choice([None, *self.groups])
        self.do("reclaim", self.kernel.reclaim, self.rng.choice(("4K", "64K", "512K")), group)

    def random_process(self) -> None:
        """Fork, exit, a new one, another cgroup."""
        process = self.rng.choice(self.kernel.processes)
        what = self.rng.choice(("fork", "exit", "spawn", "move"))
        if what == "move" and self.groups:
            self.do("move", process.move, self.rng.choice(self.groups))
        elif what == "exit" and len(self.kernel.processes) > 2:
            self.do("exit", process.exit)
        elif len(self.kernel.processes) < 6:
            if what == "fork":
                self.do("fork", process.fork)
            else:
                self.spawn(f"job{len(self.steps)}", self.rng.choice([None, *self.groups]))

    def random_group(self) -> None:
        """A limit changes, a cgroup comes or goes."""
        if len(self.groups) < 4 and self.rng.random() < 0.3:
            group = self.do("cgroup", self.kernel.cgroup, f"group{len(self.steps)}")
            self.groups += [group] if group is not None else []
        elif self.groups:
            group, name = self.rng.choice(self.groups), self.rng.choice(("delete", *self.LIMIT_NAMES))
            if name == "delete":
                self.do(f"delete {group.name}", group.delete)
                self.groups = [group for group in self.groups if group.online]
            else:
                self.put(group, name, self.rng.choice(LIMITS) if name != "zswap_writeback" else self.rng.random() < 0.5)

    def random_shmem(self) -> None:
        """An object comes, is mapped, changes its size, goes."""
        process = self.rng.choice(self.kernel.processes)
        if not self.kernel.shared or self.rng.random() < 0.2:
            self.do("shmem", self.kernel.shmem, SHARED_PAGES * PAGE_SIZE)
        shm, span = self.rng.choice(self.kernel.shared), sorted(self.rng.randrange(SHARED_PAGES) for _ in range(2))
        what = self.rng.choice(("mmap", "mmap", "truncate", "punch_hole", "unlink"))
        if what == "mmap" and len(process.mappings) < 4:
            self.do("mmap shared", process.mmap, shm)
        elif what == "truncate":
            self.do("truncate", shm.truncate, (1 + span[1]) * PAGE_SIZE)
        elif what == "punch_hole":
            self.do("punch_hole", shm.punch_hole, *(page * PAGE_SIZE for page in span))
        elif what == "unlink":
            self.do("unlink", shm.unlink)

    def random_device(self) -> None:
        """A device goes or comes back."""
        if self.spares and self.rng.random() < 0.7:
            device = self.spares.pop()
            if self.do("swapon", self.kernel.swapon, device, self.rng.choice((-1, 5))) is None:
                self.spares.append(device)
        elif self.kernel.devices:
            self.swapoff(self.rng.choice(list(self.kernel.devices)))

    def random_failure(self) -> None:
        """Something fails soon."""
        self.kernel.faults.fail(self.rng.choice(self.sites), self.rng.randint(1, 9))
        for device in self.kernel.devices.values():
            if self.rng.random() < 0.2:
                device.fail_writes(nth=self.rng.randint(1, 9))

    def random_wait(self) -> None:
        """Writes end."""
        self.do("drain", self.kernel.drain)

    RULES = (random_write, random_write, random_write, random_read, random_read, random_read, random_advice,
             random_advice, random_reclaim, random_process, random_group, random_shmem, random_device, random_failure,
             random_wait)  # fmt: skip
    LIMIT_NAMES = ("memory_max", "memory_high", "swap_max", "swap_high", "zswap_max", "memsw_max", "zswap_writeback")

    def farewell(self) -> None:
        """All contents; then everything ends and nothing may be left."""
        self.kernel.faults.clear()
        self.read_all()
        self.look()
        for process in list(self.kernel.processes):
            self.do("exit", process.exit)
        for shm in list(self.kernel.shared):
            self.do("unlink", shm.unlink)
        self.do("drain", self.kernel.drain)
        for number in list(self.kernel.devices):
            self.do("swapoff", self.kernel.swapoff, number)
        self.look()


def play(
    stage: Any,
    seed: int = 0,
    nr_steps: int = 150,
    worlds: Iterable[str] = WORLDS,
    sites: Collection[str] = (),
    image_pages: int = 8,
) -> list[Step]:
    """The whole workload on one stage; returns its steps.

    ``sites``: where allocations fail (empty: everywhere).  ``image_pages``: how many pages are saved for hibernation.
    A kernel that breaks (an assertion fails, something is not found) has a last step that says so.
    """
    steps: list[Step] = []
    for name in worlds:
        watch = Watch()
        with watch.on():
            run = Play(stage, name, seed, sites, watch, image_pages)
            try:
                run.tour()
                run.wander(nr_steps)
                run.farewell()
            except Exception as error:
                words = f"{type(error).__name__}: {error}".partition("\n")[0]
                run.steps.append(Step(name, BREAKS, words, {}, run.kernel.clock.ns))
            steps += run.steps
    return steps
