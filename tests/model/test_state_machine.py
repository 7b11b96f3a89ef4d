"""Random programs against the model: a dictionary knows the contents, the invariants are checked at each step."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

import vswap_ref as vr
from vswap_ref.kernel import Cgroup, Kernel, Mapping, OutOfMemory, Process, Shmem
from vswap_ref.lab.defects import VERSION_1_RECLAIM, has_defect, image_pages
from vswap_ref.machine import PAGE_SIZE, BlockDevice
from vswap_ref.series import at
from vswap_ref.series.stages import main_line

DEVICES: dict[str, Callable[[str, str], BlockDevice]] = {
    "disk": lambda size, name: vr.Disk(size, name, bad_pages=[5, 6, 20]),
    "ssd": vr.Ssd,
    "worn ssd": lambda size, name: vr.Ssd(size, name, bad_pages=[*range(9, 20), 31]),
    "pmem": lambda size, name: vr.Pmem(size, name, bad_pages=range(2, 9)),
    "zram": vr.Zram,
    "file": lambda size, name: vr.SwapFile(size, vr.Ssd("8M"), name, FRAGMENTS.get(size), 2048),
}
FRAGMENTS = {"128K": [(9, 40), (99, 8), (0, 8), (60, 8)]}
PAGES = 24
THP = {
    "off": vr.Thp("never"),
    "all": vr.Thp("always", {"16K": "always", "32K": "inherit", "64K": "always"}, defrag="always"),
    "light": vr.Thp("never", {"16K": "always", "64K": "always"}),
    "advised": vr.Thp("madvise", {"16K": "madvise", "32K": "inherit"}),
}
SHARED_PAGES = 12
CONTENTS = {
    "zero": bytes(PAGE_SIZE),
    "text": b"text" * 1024,
    "ramp": bytes(range(256)) * 16,
    "same": b"\xff" * PAGE_SIZE,
    "noise": random.Random(0).randbytes(PAGE_SIZE),
    "other noise": random.Random(1).randbytes(PAGE_SIZE),
}


class SwapMachine(RuleBasedStateMachine):
    """Processes write, read, fork, exit, are pushed out, share objects; devices come and go and fail; limits change."""

    stage = ""
    Kernel: type[Any] = Kernel
    OutOfMemory: type[BaseException] = OutOfMemory

    processes = Bundle("processes")
    cgroups = Bundle("cgroups")
    objects = Bundle("objects")

    @initialize(
        target=processes,
        devices=st.lists(st.sampled_from(sorted(DEVICES)), min_size=1, max_size=3),
        zswap=st.sampled_from([None, "lz4", "deflate"]),
        pool_percent=st.sampled_from([2, 20]),
        locks=st.sampled_from(["plain", "validated"]),
        memcg=st.sampled_from(["v2", "v1"]),
        thp=st.sampled_from(sorted(THP)),
        size=st.sampled_from(["128K", "4M"]),
    )
    def boot(
        self, devices: list[str], zswap: str | None, pool_percent: int, locks: str, memcg: str, thp: str, size: str
    ) -> Process:
        """A small kernel, so that memory, swap and the pool all run full; or room for large folios in swap."""
        memcg = "v2" if has_defect(VERSION_1_RECLAIM, self.stage) else memcg
        swap = [DEVICES[name](size, f"/dev/{name}{i}") for i, name in enumerate(devices)]
        parameters = vr.Zswap(zswap, max_pool_percent=pool_percent) if zswap else None
        self.kernel = self.Kernel(ram="256K", swap=swap, zswap=parameters, locks=locks, memcg=memcg, thp=THP[thp])
        self.oracle: dict[tuple[Process, int], bytes] = {}
        self.shared: dict[tuple[Shmem, int], bytes] = {}
        self.given_away: set[tuple[Process, int]] = set()
        self.spares: list[BlockDevice] = []
        self.saved: list[bytes] = []
        return self.start("init", None)

    def start(self, name: str, group: Cgroup | None) -> Process:
        """A process with one mapping."""
        cpus = self.kernel.online_cpus
        process = self.kernel.spawn(name, cgroup=group, cpu=cpus[len(self.kernel.processes) % len(cpus)])
        process.mmap(PAGES * PAGE_SIZE)
        return process

    @rule(
        target=cgroups,
        parents=st.lists(cgroups, max_size=1),
        limit=st.sampled_from([None, "48K", "96K"]),
        swap=st.sampled_from([None, "32K"]),
        wb=st.booleans(),
    )
    def make_cgroup(self, parents: list[Cgroup], limit: str | None, swap: str | None, wb: bool) -> Any:
        """A cgroup with limits, somewhere in the tree."""
        name = f"g{len(self.kernel.events)}-{len(self.kernel.system.memcg.by_id)}"
        parent = parents[0] if parents and parents[0].online else None
        if any(child.name == name for child in (parent or self.kernel.root).memcg.children):
            return multiple()
        if self.kernel.system.config.memcg == "v2":
            return self.kernel.cgroup(name, parent, memory_max=limit, swap_max=swap, zswap_max="8K", zswap_writeback=wb)
        group = self.kernel.cgroup(name, parent, memory_max=limit, zswap_writeback=wb)
        group.memsw_max = "96K" if swap else None
        return group

    @precondition(lambda self: len(self.kernel.processes) < 5)
    @rule(target=processes, group=cgroups)
    def spawn(self, group: Cgroup) -> Any:
        """A process in a cgroup."""
        return self.start("job", group) if group.online else multiple()

    @rule(group=cgroups)
    def delete(self, group: Cgroup) -> None:
        """A cgroup is deleted; what it owned stays charged.  Refused while it is in use."""
        if not group.online:
            return
        in_use = any(process.cgroup is group for process in self.kernel.processes)
        children = any(child.online for child in group.memcg.children)
        if in_use or children:
            with pytest.raises(OSError, match="has processes or children"):
                group.delete()
        else:
            group.delete()

    @rule(process=processes, group=cgroups)
    def move(self, process: Process, group: Cgroup) -> None:
        """A process goes to another cgroup and leaves its memory behind."""
        if process in self.kernel.processes and group.online:
            process.move(group)

    @precondition(lambda self: len(self.kernel.processes) < 5)
    @rule(target=processes, kind=st.sampled_from(sorted(CONTENTS)))
    def spawn_swapped(self, kind: str) -> Any:
        """A process that is swapped out from the beginning; if it does not fit, there is none."""
        process = self.kernel.spawn("sleeper")
        try:
            process.mmap_swapped(PAGES * PAGE_SIZE, CONTENTS[kind])
        except OSError:
            process.exit()
            return multiple()
        self.oracle |= {(process, page): CONTENTS[kind] for page in range(PAGES)}
        return process

    @rule(process=processes, page=st.integers(0, PAGES - 1), kind=st.sampled_from(sorted(CONTENTS)))
    def write(self, process: Process, page: int, kind: str) -> None:
        """Write a page; if memory is out, the old content must still be there."""
        content = CONTENTS[kind]
        if process in self.kernel.processes and self.attempt(lambda m: m.write_page(page, content), process):
            self.oracle[process, page] = content
            self.given_away.discard((process, page))

    @rule(process=processes, page=st.integers(0, PAGES - 1))
    def read(self, process: Process, page: int) -> None:
        """A page reads back as it was written; zeros if it never was, or if it was given away and taken."""
        if process in self.kernel.processes:
            seen: list[bytes] = []
            if self.attempt(lambda m: seen.append(m.read_page(page)), process):
                if (process, page) in self.given_away and seen == [bytes(PAGE_SIZE)]:
                    self.oracle[process, page] = bytes(PAGE_SIZE)
                assert seen == [self.oracle.get((process, page), bytes(PAGE_SIZE))]

    @precondition(lambda self: len(self.kernel.shared) < 3)
    @rule(target=objects, process=processes)
    def make_shared(self, process: Process) -> Shmem:
        """A shared object, mapped by one process."""
        shm = self.kernel.shmem(SHARED_PAGES * PAGE_SIZE)
        if process in self.kernel.processes:
            process.mmap(shm)
        return shm

    @rule(shm=objects, process=processes)
    def map_shared(self, shm: Shmem, process: Process) -> None:
        """One more process maps an object, or once more."""
        if process in self.kernel.processes and shm.linked:
            process.mmap(shm)

    def shared_mapping(self, shm: Shmem, which: int = 0) -> Mapping | None:
        """One of the mappings of an object, the newest first."""
        mappings = [m for process in self.kernel.processes for m in process.mappings if m.vma.file is shm.inode]
        return mappings[-1 - which] if which < len(mappings) else None

    @rule(
        shm=objects,
        which=st.integers(0, 3),
        page=st.integers(0, SHARED_PAGES - 1),
        kind=st.sampled_from(sorted(CONTENTS)),
    )
    def write_shared(self, shm: Shmem, which: int, page: int, kind: str) -> None:
        """Write a page through one of the mappings; beyond the end it is refused."""
        mapping = self.shared_mapping(shm, which)
        if mapping is None:
            return
        if page >= min(mapping.pages, shm.inode.i_size):
            with pytest.raises((OSError, IndexError)):
                mapping.write_page(page, CONTENTS[kind])
        elif self.attempt(lambda m: m.write_page(page, CONTENTS[kind]), mapping.process, mapping):
            self.shared[shm, page] = CONTENTS[kind]

    @rule(shm=objects, which=st.integers(0, 3), page=st.integers(0, SHARED_PAGES - 1))
    def read_shared(self, shm: Shmem, which: int, page: int) -> None:
        """Every mapping shows what was written through any."""
        mapping = self.shared_mapping(shm, which)
        if mapping is not None and page < min(mapping.pages, shm.inode.i_size):
            seen: list[bytes] = []
            if self.attempt(lambda m: seen.append(m.read_page(page)), mapping.process, mapping):
                assert seen == [self.shared.get((shm, page), bytes(PAGE_SIZE))]

    @rule(shm=objects, pages=st.integers(1, SHARED_PAGES))
    def truncate(self, shm: Shmem, pages: int) -> None:
        """Resize an object; what is cut off reads as zeros if it grows again."""
        if shm.inode in self.kernel.system.shmem.inodes:
            shm.truncate(pages * PAGE_SIZE)
            self.forget(shm, pages, SHARED_PAGES)

    @rule(shm=objects, first=st.integers(0, SHARED_PAGES), last=st.integers(0, SHARED_PAGES))
    def punch_hole(self, shm: Shmem, first: int, last: int) -> None:
        """Pages become zeros."""
        if shm.inode in self.kernel.system.shmem.inodes:
            shm.punch_hole(first * PAGE_SIZE, last * PAGE_SIZE)
            self.forget(shm, first, last)

    def forget(self, shm: Shmem, first: int, last: int) -> None:
        """The oracle's side of a hole."""
        for page in range(first, last):
            self.shared.pop((shm, page), None)

    @rule(shm=objects)
    def unlink(self, shm: Shmem) -> None:
        """An object loses its name; its mappings stay."""
        if shm.linked:
            shm.unlink()

    @rule(shm=objects)
    def pageout_shared(self, shm: Shmem) -> None:
        """Push an object out through one of its mappings, or read it ahead if nothing was there to push."""
        mapping = self.shared_mapping(shm)
        if mapping is not None and not mapping.process.madvise(mapping, "pageout"):
            mapping.process.madvise(mapping, "willneed")

    @rule(process=processes, first=st.integers(0, PAGES - 1), last=st.integers(1, PAGES))
    def pageout(self, process: Process, first: int, last: int) -> None:
        """Push a range out."""
        if process in self.kernel.processes:
            process.madvise(process.mappings[0], "pageout", first * PAGE_SIZE, last * PAGE_SIZE)

    @rule(process=processes, first=st.integers(0, PAGES - 1), last=st.integers(1, PAGES))
    def free(self, process: Process, first: int, last: int) -> None:
        """Give a range away: until it is written again it may read as before, or as zeros."""
        if process in self.kernel.processes:
            process.madvise(process.mappings[0], "free", first * PAGE_SIZE, last * PAGE_SIZE)
            self.given_away |= {(process, page) for page in range(first, last)}

    @rule(process=processes, first=st.integers(0, PAGES - 1), last=st.integers(1, PAGES))
    def dontneed(self, process: Process, first: int, last: int) -> None:
        """Drop a range: it is zeros at once."""
        if process in self.kernel.processes:
            process.madvise(process.mappings[0], "dontneed", first * PAGE_SIZE, last * PAGE_SIZE)
            for page in range(first, last):
                self.oracle.pop((process, page), None)
                self.given_away.discard((process, page))

    @rule(process=processes)
    def cold(self, process: Process) -> None:
        """Let half of the memory go first; looking at what is resident changes nothing."""
        if process in self.kernel.processes:
            process.madvise(process.mappings[0], "cold", 0, PAGES // 2 * PAGE_SIZE)
            before = process.rss
            assert len(process.mincore(process.mappings[0])) == PAGES
            assert process.rss == before

    @rule(process=processes, first=st.integers(0, PAGES - 1), last=st.integers(1, PAGES))
    def move_pages(self, process: Process, first: int, last: int) -> None:
        """Move pages to another mapping, page by page, and back; shared and empty ones stay."""
        if process in self.kernel.processes:
            here, there = process.mappings[0], process.mmap(PAGES * PAGE_SIZE)
            for page in range(first, last):
                span = (page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
                try:
                    process.move_pages(here, there, *span)
                except OSError:
                    continue
                assert here.where()[page] == "unmapped"
                assert process.move_pages(there, here, *span) == PAGE_SIZE
            there.munmap()

    @rule(process=processes, advice=st.sampled_from(["hugepage", "nohugepage"]))
    def advise(self, process: Process, advice: str) -> None:
        """Ask for large folios, or for none."""
        if process in self.kernel.processes:
            process.madvise(process.mappings[0], advice)

    @rule(process=processes)
    def willneed(self, process: Process) -> None:
        """Read ahead into the swap cache."""
        if process in self.kernel.processes:
            process.madvise(process.mappings[0], "willneed", 0, 8 * PAGE_SIZE)

    @precondition(lambda self: len(self.kernel.processes) < 5)
    @rule(target=processes, process=processes)
    def fork(self, process: Process) -> Any:
        """A child has the same contents."""
        if process not in self.kernel.processes:
            return multiple()
        child = process.fork()
        for (owner, page), content in list(self.oracle.items()):
            if owner is process:
                self.oracle[child, page] = content
        self.given_away |= {(child, page) for owner, page in self.given_away if owner is process}
        return child

    @rule(process=processes)
    def exit(self, process: Process) -> None:
        """A process ends."""
        if process in self.kernel.processes and len(self.kernel.processes) > 1:
            process.exit()

    @rule(pages=st.integers(1, 32))
    def reclaim(self, pages: int) -> None:
        """Reclaim everywhere."""
        self.kernel.reclaim(pages * PAGE_SIZE)

    @rule()
    def drain(self) -> None:
        """Finish all I/O."""
        self.kernel.drain()

    @rule(group=cgroups, limit=st.sampled_from([None, "32K", "64K", "128K"]))
    def set_memory_max(self, group: Cgroup, limit: str | None) -> None:
        """Change a limit; memory alone cannot have more than memory and swap together."""
        if not group.online:
            return
        if group.memsw_max is None or limit in ("32K", "64K"):
            group.memory_max = limit
        else:
            with pytest.raises(OSError, match="above memsw_max"):
                group.memory_max = limit

    @precondition(lambda self: self.kernel.system.config.memcg == "v2")
    @rule(
        group=cgroups,
        name=st.sampled_from(["memory_high", "swap_max", "swap_high", "zswap_max", "zswap_writeback"]),
        limit=st.sampled_from([None, "0", "16K", "64K"]),
    )
    def set_limit(self, group: Cgroup, name: str, limit: str | None) -> None:
        """Change another limit, also below what is in use."""
        if group.online:
            setattr(group, name, limit)

    @rule(
        compressor=st.sampled_from([None, "lz4", "deflate", "zstd"]),
        enabled=st.sampled_from([None, True, False]),
        percent=st.sampled_from([None, 0, 2, 20]),
        shrinker=st.sampled_from([None, True, False]),
    )
    def set_zswap(self, compressor: str | None, enabled: bool | None, percent: int | None, shrinker: bool) -> None:
        """Change zswap while pages are in it."""
        self.kernel.set_zswap(compressor, enabled, percent, shrinker=shrinker)

    @rule(which=st.integers(0, 2), signal=st.sampled_from([0, 0, 1, 2, 5]))
    def swapoff(self, which: int, signal: int) -> None:
        """Take a device away, or fail with the device in service: no memory, a signal, or an image is on it."""
        if signal:
            self.kernel.faults.fail("signal", nth=signal)
        numbers = list(self.kernel.devices)
        if which < len(numbers):
            device = self.kernel.devices[numbers[which]]
            try:
                self.kernel.swapoff(numbers[which])
            except OSError:
                assert numbers[which] in self.kernel.devices
                assert numbers[which] in [row["number"] for row in self.kernel.swaps().rows]
            else:
                self.spares.append(device)

    @precondition(lambda self: bool(self.spares))
    @rule(priority=st.sampled_from([-1, 5]), discard=st.sampled_from([None, "once", "pages", "both"]))
    def swapon(self, priority: int, discard: str | None) -> None:
        """Bring a device back, or fail with nothing changed."""
        device = self.spares.pop()
        try:
            self.kernel.swapon(device, priority, discard)
        except OSError:
            assert device not in self.kernel.devices.values()
            self.spares.append(device)

    @precondition(lambda self: len(self.kernel.online_cpus) > 1)
    @rule(which=st.integers(0, 1))
    def cpu_offline(self, which: int) -> None:
        """A CPU goes; what it kept must not be missed."""
        self.kernel.cpu_offline(self.kernel.online_cpus[which])

    @rule(pages=st.integers(0, 12), which=st.integers(0, 2))
    def hibernate(self, pages: int, which: int) -> None:
        """Save some of memory to a device, or have no room there."""
        numbers = list(self.kernel.devices)
        pages = image_pages(self.stage, min(pages, self.kernel.system.memory.used))
        if which < len(numbers):
            try:
                image = self.kernel.hibernate(pages, numbers[which])
            except OSError:
                return
            self.saved = image.read()
            assert len(self.saved) == pages

    @precondition(lambda self: self.kernel.image is not None)
    @rule()
    def resume(self) -> None:
        """The image is as it was saved, and its slots are free again."""
        assert self.kernel.image.read() == self.saved
        self.kernel.image.release()

    @rule(times=st.integers(1, 3))
    def writes_fail(self, times: int) -> None:
        """Let the next writes fail: nothing may be lost."""
        for device in self.kernel.devices.values():
            device.fail_writes(times=times)

    @rule(
        site=st.sampled_from(
            [
                "folio_alloc",
                "swap_table_alloc",
                "swap_cache_node",
                "vswap_cluster_alloc",
                "vswap_desc_alloc",
                "vswap_cluster_id",
                "vswap_map_node",
                "zs_malloc",
                "zswap_entry_cache_alloc",
                "xa_node",
                "shmem_xa_node",
            ]
        )
    )
    def allocation_fails(self, site: str) -> None:
        """Let an allocation fail."""
        if site in self.kernel.faults.docs:  # a stage may not have it
            self.kernel.faults.fail(site, nth=1, times=2)

    def attempt(self, action: Any, process: Process, mapping: Mapping | None = None) -> bool:
        """Do something with a process's mapping (its own memory, or the one given); False if memory was out."""
        try:
            action(mapping or process.mappings[0])
        except self.OutOfMemory:
            return False
        return True

    @invariant()
    def invariants_hold(self) -> None:
        """All structures agree, no lock is held."""
        if hasattr(self, "kernel"):
            self.kernel.check()
            self.kernel.locks.assert_none_held()

    def teardown(self) -> None:
        """Nothing was lost, and when all is freed nothing is left."""
        if not hasattr(self, "kernel"):
            return
        self.kernel.faults.clear()
        if self.kernel.image is not None:
            self.resume()
        for process in list(self.kernel.processes):
            for page in range(PAGES):
                self.read(process, page)
        for shm in {shm for shm, _ in self.shared}:
            for page in range(SHARED_PAGES):
                self.read_shared(shm, 0, page)
        for process in list(self.kernel.processes):
            process.exit()
        for shm in list(self.kernel.shared):
            shm.unlink()
        self.kernel.drain()
        while self.kernel.reclaim("256K"):  # folios whose last user left while they were written
            self.kernel.drain()
        self.kernel.check()
        system = self.kernel.system
        assert system.memory.used == 0
        assert system.zswap.stored_pages == 0
        assert system.swap.nr_swap_pages == system.swap.total_swap_pages
        assert all(memcg.memory.usage == memcg.swap.usage == 0 for memcg in system.memcg.by_id.values())
        assert len(system.zswap.pools) <= 1
        self.kernel.drain()
        assert not system.memcg.dying


STAGES = main_line()
EXAMPLES = 60 if os.environ.get("VSWAP_DEEP") else max(6, 60 // len(STAGES))
"""Programs at each stage: the stages share what one stage would have, unless the run is deep."""


def at_stage(stage: str) -> type[Any]:
    """The test case of one stage."""
    kernel = at(stage).kernel
    body = {"stage": stage, "Kernel": kernel.Kernel, "OutOfMemory": kernel.OutOfMemory, "__module__": __name__}
    machine = type(f"SwapMachineAtStage{stage}", (SwapMachine,), body)
    case: type[Any] = machine.TestCase
    case.settings = settings(
        max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return pytest.mark.slow(case)


globals().update({f"TestSwapMachineAtStage{stage}": at_stage(stage) for stage in STAGES})
