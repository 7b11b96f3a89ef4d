"""Every allocation and every device request fails once, at several places of a workload that reaches them all.

The sites are those that the kernel itself declares: a new one is tested without a change here, and must be reached.
Plain Linux is tested, and every stage with virtual slots: the latest at more places of the workload than the others,
and of those each at some sites only, a site at some stages, unless the run is deep.
"""

from __future__ import annotations

import errno
import random
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest

import vswap_ref as vr
from vswap_ref.lab.defects import VERSION_1_RECLAIM, VERSION_1_SWAPCACHED, has_defect, stages_with
from vswap_ref.machine import PAGE_SIZE, BlockDevice, LockdepError
from vswap_ref.series import at
from vswap_ref.series.stages import latest, main_line

PAGES = 72
SHARED_PAGES = 12
CHILDREN = 66
PLACES = (0.0, 0.5, 1.0)
"""Where in the sequence of requests the failing one is: first, middle, last."""

LATEST = latest()
FIRST_WITH_VIRTUAL_SLOTS = 9
FIRST_WITH_CGROUP_ID_IN_DESCRIPTOR = 12
STAGES = ["0", *(stage for stage in main_line() if int(stage) >= FIRST_WITH_VIRTUAL_SLOTS)]
SITES = {stage: sorted(at(stage).Kernel().faults.docs) for stage in STAGES}


def marks(stage: str, site: str) -> list[pytest.MarkDecorator]:
    """The latest stage is tested always, of the others every third in turn from site to site; all in a deep run."""
    if stage == LATEST:
        return []
    chosen = (STAGES.index(stage) + zlib.crc32(site.encode())) % 3 == 0
    return [pytest.mark.slow] if chosen else [pytest.mark.deep]


SITES_OF_STAGES = [
    pytest.param(stage, site, id=f"{stage}-{site}", marks=marks(stage, site))
    for stage in STAGES
    for site in SITES[stage]
]
"""(stage, site)."""

DEVICES: dict[str, Callable[[], BlockDevice]] = {
    "disk": lambda: vr.Disk("1M"),
    "ssd": lambda: vr.Ssd("1M"),
    "pmem": lambda: vr.Pmem("1M"),
    "zram": lambda: vr.Zram("1M"),
    "file": lambda: vr.SwapFile("1M", on=vr.Ssd("1M")),
}
LEGAL_ERRNO = {errno.EIO, errno.EINTR, errno.ENOMEM}


def content(page: int, version: int) -> bytes:
    """Every fourth page is zero, every fourth does not compress."""
    noise = random.Random(page * 1000 + version)
    return (bytes(PAGE_SIZE), noise.randbytes(PAGE_SIZE), noise.randbytes(64) * 64, noise.randbytes(8) * 512)[page % 4]


class Workload:
    """A kernel in which everything is short, what has been written, and which errors were seen."""

    def __init__(self, device: BlockDevice, zswap: bool = True, memcg: str = "v2", stage: str = LATEST) -> None:
        self.stage = at(stage)
        pool = self.stage.Zswap("lz4", max_pool_percent=10) if zswap else None
        self.kernel: vr.Kernel = self.stage.Kernel(ram="256K", zswap=pool, locks="validated", memcg=memcg)
        self.device, self.spare = device, vr.Ssd("512K")
        self.written: dict[tuple[Any, int], bytes] = {}
        self.errors: list[BaseException] = []
        self.calls: dict[str, int] = {}

    def run(self) -> None:
        """Write, push out, read back, fork, change devices, end; the invariants hold after each step."""
        for step in (
            self.start,
            self.fill,
            self.age,
            self.verify,
            self.share,
            self.fork_many,
            self.read_ahead,
            self.move,
        ):
            step()
            self.kernel.check()
            self.kernel.locks.assert_none_held()
        stats = self.device.stats
        self.calls = {**self.kernel.faults.calls, "read": stats.reads, "write": stats.writes}

    def attempt(self, action: Callable[[], object]) -> bool:
        """Do something; False if it failed with an error that a program may see, and that says something."""
        try:
            action()
        except (self.stage.OutOfMemory, OSError) as error:
            if not str(error) or (isinstance(error, OSError) and error.errno not in LEGAL_ERRNO):
                raise
            self.errors.append(error)
            self.kernel.check()
            return False
        return True

    def start(self) -> None:
        """The swap device is there at the second try at the latest."""
        while not self.kernel.devices:
            self.attempt(lambda: self.kernel.swapon(self.device))
        group = self.kernel.cgroup("group")
        group.memory_max = "128K"
        self.app = self.kernel.spawn("app", cgroup=group)
        self.heap = self.app.mmap(PAGES * PAGE_SIZE)

    def write(self, heap: Any, page: int, version: int) -> None:
        """Write a page; if that fails it keeps its content."""
        data = content(page, version)
        if self.attempt(lambda: heap.write_page(page, data)):
            self.written[heap.process, page] = data

    def read(self, heap: Any, page: int) -> None:
        """A page reads as written, or with an error."""
        seen: list[bytes] = []
        if self.attempt(lambda: seen.append(heap.read_page(page))):
            assert seen == [self.written.get((heap.process, page), bytes(PAGE_SIZE))]

    def fill(self) -> None:
        """More than memory holds."""
        for page in range(PAGES):
            self.write(self.heap, page, 0)

    def age(self) -> None:
        """Change some pages, push all out, let writes end."""
        for page in range(0, PAGES, 3):
            self.write(self.heap, page, 1)
        self.attempt(lambda: self.app.madvise(self.heap, "pageout"))
        self.kernel.drain()
        self.attempt(lambda: self.kernel.reclaim("64K"))

    def verify(self) -> None:
        """All pages of all processes."""
        for process in self.kernel.processes:
            for page in range(process.mappings[0].pages):
                self.read(process.mappings[0], page)

    def share(self) -> None:
        """A shared object is written, pushed out and read back by another process; then both have gone."""
        shm = self.kernel.shmem(SHARED_PAGES * PAGE_SIZE)
        writer, reader = self.kernel.spawn("writer"), self.kernel.spawn("reader")
        heap, view = writer.mmap(shm), reader.mmap(shm)
        for page in range(SHARED_PAGES):
            self.write(heap, page, 4)
        self.attempt(lambda: writer.madvise(heap, "pageout"))
        self.kernel.drain()
        for page in range(SHARED_PAGES):
            self.written[reader, page] = self.written.pop((writer, page), bytes(PAGE_SIZE))
            self.read(view, page)
        for process in (writer, reader):
            process.exit()
        shm.unlink()

    def fork_many(self) -> None:
        """One swapped page with more users than fit in a byte of the swap map; then they leave, or write."""
        parent = self.kernel.spawn("parent")
        heap = parent.mmap(PAGE_SIZE)
        self.write(heap, 0, 2)
        self.attempt(lambda: parent.madvise(heap, "pageout"))
        self.kernel.drain()
        for _ in range(CHILDREN):
            if self.attempt(parent.fork):
                child = self.kernel.processes[-1]
                if (parent, 0) in self.written:
                    self.written[child, 0] = self.written[parent, 0]
        for child in self.kernel.processes[2:4]:
            self.write(child.mappings[0], 0, 3)
        self.read(heap, 0)
        for child in self.kernel.processes[4:]:
            child.exit()

    def read_ahead(self) -> None:
        """Into the swap cache, and out of it."""
        self.attempt(lambda: self.app.madvise(self.heap, "pageout"))
        self.kernel.drain()
        self.attempt(lambda: self.app.madvise(self.heap, "willneed"))
        self.verify()

    def move(self) -> None:
        """A second device takes over from the first; a swapoff that fails leaves everything in service."""
        while self.spare not in self.kernel.devices.values():
            self.attempt(lambda: self.kernel.swapon(self.spare, priority=5))
        self.attempt(lambda: self.kernel.swapoff(self.device))
        self.age()
        self.verify()

    def finish(self, may_be_lost: int = 0) -> None:
        """Without failures all is readable; when all processes and devices have gone, nothing is left.

        may_be_lost: how many pages swapoff may not have been able to read.
        """
        kernel = self.kernel
        kernel.faults.clear()
        lost = 0
        errors = len(self.errors)
        for process in kernel.processes:
            for page, place in enumerate(process.mappings[0].where()):
                if place == "lost":
                    lost += 1
                else:
                    self.read(process.mappings[0], page)
        assert self.errors[errors:] == []
        assert lost <= may_be_lost
        for process in list(kernel.processes):
            process.exit()
        kernel.drain()
        kernel.reclaim("256K")  # folios whose last user left while they were written
        for number in list(kernel.devices):
            kernel.swapoff(number)
        kernel.check()
        assert leftovers(self.stage, kernel) == {}


def leftovers(stage: Any, kernel: vr.Kernel) -> dict[str, object]:
    """Whatever is not back at zero, by name."""
    s, vmstat = kernel.system, kernel.vmstat
    gauges = ("nr_anon_pages", "nr_inactive_anon", "nr_active_anon", "nr_file_pages", "nr_swapcached", "nr_zswapped")
    left: dict[str, object] = {name: vmstat[name] for name in gauges}
    left |= {f"{t}.{name}": getattr(getattr(s, t), name) for t, name in totals(int(stage.id))}
    left["mms"] = s.mms
    if int(stage.id) >= FIRST_WITH_VIRTUAL_SLOTS:
        clusters = s.vswap.cluster_map.items()
        left |= {f"virtual cluster {n}": cluster.count or not cluster.cached for n, cluster in clusters}
        left["vswap.used"] = s.vswap.used
    left["compressed pages"] = list(stage.find("zswap_items")(s))
    for memcg in s.memcg.by_id.values():
        counters = (memcg.memory.usage, memcg.swap.usage, memcg.memsw.usage, memcg.zswap_bytes, memcg.nr_swap)
        names = ("anon", "zswapped") if wrong_swapcached(stage, s) else ("anon", "swapcached", "zswapped")
        gauges_of_group = {name: memcg.stat[name] for name in names}
        left[f"cgroup {memcg.name}"] = any((*counters, memcg.id_refs - 1, *gauges_of_group.values()))
    return {name: value for name, value in left.items() if value}


def wrong_swapcached(stage: Any, s: Any) -> bool:
    """This statistic of cgroups is known to be wrong."""
    return bool(s.memcg.memsw) and has_defect(VERSION_1_SWAPCACHED, stage.id)


def totals(stage: int) -> list[tuple[str, str]]:
    """(part of the state, counter or container) that a stage has and that must be empty."""
    return TOTALS + [("swap", "cgroup")] * (stage < FIRST_WITH_CGROUP_ID_IN_DESCRIPTOR)


TOTALS = [
    ("memory", "used"),
    ("swap", "nr_swap_pages"),
    ("swap", "total_swap_pages"),
    ("swap", "nr_rotate_swap"),
    ("swap", "active_head"),
    ("swap", "avail_head"),
    ("zswap", "stored_pages"),
    ("zswap", "stored_incompressible"),
    ("zswap", "pool_bytes"),
    ("io", "inflight"),
]


@lru_cache
def undisturbed(device: str = "ssd", zswap: bool = True, memcg: str = "v2", stage: str = LATEST) -> Workload:
    """The workload without a failure, at rest before its processes end."""
    workload = Workload(DEVICES[device](), zswap, memcg, stage)
    workload.run()
    return workload


def nth_of(calls: int, place: float) -> int:
    """The number of the request at a place of a sequence."""
    assert calls, "never reached"
    return 1 + int((calls - 1) * place)


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_fails_and_nothing_is_left_without_injection(stage: str) -> None:
    """What is seen below is the injection's doing; and the workload does what it says."""
    workload = Workload(vr.Ssd("1M"), stage=stage)
    workload.run()
    assert workload.errors == []
    vmstat = workload.kernel.vmstat
    assert all(vmstat[name] for name in ("pswpin", "pswpout", "swpin_zero", "zswpin", "zswpout", "zswpwb", "swap_ra"))
    workload.finish()


@pytest.mark.parametrize("stage", STAGES)
def test_every_site_is_reached(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Sites reached / sites existing: a site that no workload reaches is not tested, so extend the workload."""
    faults = undisturbed(stage=stage).kernel.faults
    never = sorted(set(faults.docs) - set(faults.reached))
    with capsys.disabled():
        print(f" stage {stage}: fault sites reached / existing: {len(faults.reached)} / {len(faults.docs)} ", end="")
    assert never == [], f"extend the workload: {never} are never reached"


@pytest.mark.parametrize(("stage", "site"), SITES_OF_STAGES)
def test_an_allocation_fails(stage: str, site: str) -> None:
    """Nothing is lost, no structure disagrees, nothing stays behind."""
    calls = undisturbed(stage=stage).calls[site]
    for place in PLACES if stage == LATEST or calls < len(PLACES) else PLACES[1:2]:
        nth = nth_of(calls, place)
        workload = Workload(vr.Ssd("1M"), stage=stage)
        workload.kernel.faults.fail(site, nth)
        workload.run()
        assert workload.calls[site] >= nth
        workload.finish()


@pytest.mark.parametrize(("stage", "site"), SITES_OF_STAGES)
def test_an_allocation_fails_for_long(stage: str, site: str) -> None:
    """A quarter of all requests, one after the other, on cgroup version 1 where that works."""
    memcg = "v2" if has_defect(VERSION_1_RECLAIM, stage) else "v1"
    calls = undisturbed("pmem", memcg=memcg, stage=stage).calls[site]
    workload = Workload(vr.Pmem("1M"), memcg=memcg, stage=stage)
    workload.kernel.faults.fail(site, nth=nth_of(calls, 0.25), times=1 + calls // 4)
    workload.run()
    workload.finish()


@pytest.mark.parametrize("stage", [str(stage) for stage in stages_with(VERSION_1_RECLAIM)])
def test_why_some_stages_are_tested_on_version_2_alone(stage: str) -> None:
    """The record of the cgroup is found through the virtual slot, whose cluster reclaim has locked."""
    with pytest.raises(LockdepError, match="recursive locking: vswap_cluster"):
        Workload(vr.Pmem("1M"), memcg="v1", stage=stage).run()


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("request_kind", ["read", "write"])
@pytest.mark.parametrize("zswap", [False, True])
@pytest.mark.parametrize("device", sorted(DEVICES))
def test_a_device_request_fails(device: str, zswap: bool, request_kind: str, place: float) -> None:
    """A page that cannot be read is an error now and readable later, or lost if swapoff needed it.

    One that cannot be written stays in memory.
    """
    device_request_fails(LATEST, device, zswap, request_kind, place)


@pytest.mark.slow
@pytest.mark.parametrize("request_kind", ["read", "write"])
@pytest.mark.parametrize("zswap", [False, True])
@pytest.mark.parametrize("device", ["ssd", "zram"])
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != LATEST])
def test_a_device_request_fails_at_a_stage(stage: str, device: str, zswap: bool, request_kind: str) -> None:
    """The same at the other stages, for a device of each kind, in the middle of the workload."""
    device_request_fails(stage, device, zswap, request_kind, PLACES[1])


def device_request_fails(stage: str, device: str, zswap: bool, request_kind: str, place: float) -> None:
    """One request of the workload to its device fails."""
    workload = Workload(DEVICES[device](), zswap, stage=stage)
    arm = workload.device.fail_reads if request_kind == "read" else workload.device.fail_writes
    arm(nth=nth_of(undisturbed(device, zswap, stage=stage).calls[request_kind], place))
    workload.run()
    assert workload.device.stats.errors == 1
    workload.finish(may_be_lost=int(request_kind == "read"))
