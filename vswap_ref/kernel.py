"""The face: a kernel to boot, processes to run, devices to swap to.  One text for every stage.

Everything below is reached through one module, ``mm.api``.  Bad input raises ValueError or OSError and changes
nothing; memory that cannot be found raises ``OutOfMemory`` where a kernel would kill a process.
"""

from __future__ import annotations

import errno
import io
import json
import operator
import pickle
import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vswap_ref import display
from vswap_ref.machine import (
    PAGE_SIZE,
    BlockDevice,
    Clock,
    Counters,
    Faults,
    Locks,
    format_size,
    get_codec,
    parse_pages,
    parse_size,
)

from .mm import api

OutOfMemory = api.OutOfMemory
InvariantError = api.InvariantError

booted: weakref.WeakSet[Kernel] = weakref.WeakSet()
"""Kernels of this stage, so that redefining a class can mark them stale."""

ADVICE = ("cold", "dontneed", "free", "pageout", "willneed")
"""What ``Process.madvise`` knows."""

TEXT = b"swapped out     " * (PAGE_SIZE // 16)
"""Content of a page, for whom the content does not matter."""

_LOCK_TYPE = type(threading.Lock())


@dataclass(frozen=True, slots=True)
class Zswap:
    """zswap's parameters: compressor ("lz4", "zstd", "deflate", "lzo"), limits in percent, shrinker on or off."""

    compressor: str = "lz4"
    max_pool_percent: int = 20
    accept_threshold_percent: int = 90
    shrinker: bool = False

    def __post_init__(self) -> None:
        get_codec(self.compressor)
        for name in ("max_pool_percent", "accept_threshold_percent"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 <= value <= 100:
                raise ValueError(f"{name}={value!r}: expected an int from 0 to 100")


@dataclass(frozen=True, slots=True)
class Thp:
    """Transparent huge pages, as in sysfs.

    enabled: "always", "madvise" or "never", for the sizes that inherit it: 2M, unless ``sizes`` says otherwise.
    sizes: settings of single sizes, 16K to 2M: "always", "inherit", "madvise" or "never", e.g. ``{"64K": "always"}``.
    defrag: who may reclaim memory for a large folio: "always", "madvise" (mappings that asked for it) or "never".
    """

    enabled: str = "madvise"
    sizes: dict[int | str, str] = field(default_factory=dict)
    defrag: str = "madvise"

    def __post_init__(self) -> None:
        check_choice("enabled", self.enabled, ("always", "madvise", "never"))
        check_choice("defrag", self.defrag, ("always", "madvise", "never"))
        for size, setting in self.sizes.items():
            thp_order(size)
            check_choice(f"sizes[{size!r}]", setting, ("always", "inherit", "madvise", "never"))

    @property
    def orders(self) -> dict[int, str]:
        """Settings by order: a folio of order n has 2**n pages."""
        return {thp_order(size): setting for size, setting in self.sizes.items()}


@dataclass(frozen=True, slots=True)
class Event:
    """One operation of the face: when it began and ended (virtual ns), and the counters that it moved."""

    begin: int
    end: int
    operation: str
    detail: str
    vmstat: dict[str, int]


class Kernel:
    """A running kernel.

    ram: size of memory (int or "64M").  swap: devices, in order.  zswap: a Zswap, a compressor's name or "off".
    cpus: 1 to 64.  memcg: "v2", "v1" or None.  seed: kept for workloads.  swappiness: 0 to 200.  page_cluster:
    readahead of 2**page_cluster pages, 0 to 5.  debug: check invariants after every operation.  locks: "plain",
    "validated" or "scheduled" (for ``vr.interleave``).  thp: a Thp, or "never", "madvise" or "always": whether faults
    may bring in folios of 2M.
    """

    def __init__(
        self,
        ram: int | str = "64M",
        swap: Sequence[BlockDevice] | BlockDevice = (),
        zswap: Zswap | str | None = None,
        cpus: int = 2,
        memcg: str | None = "v2",
        seed: int = 0,
        swappiness: int = 60,
        page_cluster: int = 3,
        debug: bool = False,
        locks: str = "plain",
        thp: Thp | str = "never",
    ) -> None:
        devices = [swap] if isinstance(swap, BlockDevice) else list(swap)
        if zswap == "off":
            zswap = None
        self.zswap = Zswap(zswap) if isinstance(zswap, str) else zswap
        self.thp = Thp(thp) if isinstance(thp, str) else thp
        if not hasattr(thp, "orders") and not isinstance(thp, str):
            raise ValueError(f"thp={thp!r}: expected a Thp, 'never', 'madvise' or 'always'")
        check_choice("memcg", memcg, ("v2", "v1", None))
        check_range("cpus", cpus, 1, 64)
        check_range("swappiness", swappiness, 0, 200)
        check_range("page_cluster", page_cluster, 0, 5)
        pages = parse_pages(ram, "ram", least=64)
        config = api.Config(cpus, swappiness, page_cluster, memcg, debug)
        self.seed = seed
        self.events: list[Event] = []
        self.processes: list[Process] = []
        self.shared: list[Shmem] = []
        self.devices: dict[int, BlockDevice] = {}
        self.image: Hibernation | None = None
        self.online_cpus = list(range(cpus))
        self.system = api.boot(config, pages * PAGE_SIZE, locks, self.online_cpus)
        api.set_thp(self.system, self.thp.enabled, self.thp.defrag, self.thp.orders)
        self.root = Cgroup(self, self.system.memcg.root)
        if self.zswap is not None:
            api.zswap_enable(self.system, self.zswap.compressor)
            self.system.zswap.max_pool_percent = self.zswap.max_pool_percent
            self.system.zswap.accept_threshold_percent = self.zswap.accept_threshold_percent
            self.system.zswap.shrinker_enabled = self.zswap.shrinker
        for device in devices:
            self.swapon(device)
        booted.add(self)

    # --- cgroups and processes -------------------------------------------------------------------------------------

    def cgroup(
        self,
        name: str,
        parent: Cgroup | None = None,
        memory_max: int | str | None = None,
        swap_max: int | str | None = None,
        zswap_max: int | str | None = None,
        zswap_writeback: bool = True,
        memory_high: int | str | None = None,
        swap_high: int | str | None = None,
    ) -> Cgroup:
        """A new memory cgroup below ``parent`` (None: the root).  Limits are sizes; None or "max": unlimited.

        OSError if the name is taken (EEXIST), the parent deleted (ENODEV), or all ids are in use (ENOSPC).
        """
        check_name(name)
        limits = [parse_limit(memory_max, "memory_max"), parse_limit(swap_max, "swap_max")]
        highs = [parse_limit(memory_high, "memory_high"), parse_limit(swap_high, "swap_high")]
        zswap_limit = parse_limit(zswap_max, "zswap_max")
        if self.system.memcg.memsw and [limits[1], zswap_limit, *highs] != [None] * 4:
            raise ValueError("cgroup version 1 limits neither swap nor zswap alone, and has no high; set memsw_max")
        above = self._online(parent).memcg
        if any(child.name == name and child.online for child in above.children):
            raise OSError(errno.EEXIST, f"a cgroup named {name!r} exists below {above.name or '/'!r}")
        memcg = api.mem_cgroup_css_alloc(self.system, name, above)
        if memcg is None:
            raise OSError(errno.ENOSPC, f"cgroup {name!r}: all ids are in use")
        memcg.memory.max, memcg.swap.max = limits
        memcg.zswap_max = zswap_limit
        memcg.zswap_writeback = zswap_writeback
        api.cgroup_file_write(self.system, memcg, "memory.high", highs[0])
        api.cgroup_file_write(self.system, memcg, "memory.swap.high", highs[1])
        return Cgroup(self, memcg)

    def _online(self, group: Cgroup | None) -> Cgroup:
        """The cgroup, or for None the root.  OSError if it was deleted, ValueError if it is none of this kernel's."""
        if group is None:
            return self.root
        if not isinstance(group, Cgroup) or group.kernel is not self:
            raise ValueError(f"cgroup={group!r}: expected a cgroup of this kernel, or None for its root")
        if not group.online:
            raise OSError(errno.ENODEV, f"cgroup {group.name!r} was deleted")
        return group

    def spawn(self, name: str, cgroup: Cgroup | None = None, cpu: int | None = None) -> Process:
        """A new process, without memory yet, in a cgroup (None: the root), on a CPU (None: the first online)."""
        cpu = self.online_cpus[0] if cpu is None else cpu
        check_choice("cpu", cpu, self.online_cpus)
        group = self._online(cgroup)
        process = Process(self, name, group, api.mm_alloc(self.system, group.memcg), cpu)
        self.processes.append(process)
        return process

    def shmem(self, size: int | str, name: str | None = None) -> Shmem:
        """A new shared memory object, all zeros, to be mapped: ``app.mmap(shm)``.  OSError if the name exists."""
        pages = parse_pages(size, "size")
        names = [shm.name for shm in self.shared if shm.linked]
        if name is None:
            name = next(free for n in range(len(names) + 1) if (free := f"shm{n}") not in names)
        check_name(name)
        if name in names:
            raise OSError(errno.EEXIST, f"a shared object named {name!r} exists")
        shm = Shmem(self, api.shmem_get_inode(self.system, name, pages))
        self.shared.append(shm)
        return shm

    def cpu_offline(self, cpu: int) -> None:
        """Take a CPU offline; its processes go on on the first one that is left.  ValueError for the last."""
        check_choice("cpu", cpu, self.online_cpus if len(self.online_cpus) > 1 else ())
        self.online_cpus.remove(cpu)
        for process in self.processes:
            if process.cpu == cpu:
                process.cpu = self.online_cpus[0]
        api.cpu_down(self.system, cpu)

    # --- swap devices ----------------------------------------------------------------------------------------------

    def swapon(self, device: BlockDevice, priority: int = -1, discard: str | None = None) -> int:
        """Use a device or swap file for swap; returns its number.

        priority: 0 to 32767, higher is used first; -1: after all others, in turn with its like.  discard: tell the
        device which pages are empty, "once" (all of them now), "pages" (each cluster that becomes empty) or "both";
        devices that cannot forget ignore it.  OSError: EBUSY in use already, EINVAL no usable header (see
        ``vr.mkswap``) or a file with holes, EPERM 24 devices are in use, EIO, ENOMEM; then nothing has changed.
        """
        if not isinstance(device, BlockDevice):
            raise ValueError(f"device={device!r}: expected a block device such as Ssd('1G')")
        check_range("priority", priority, -1, 32767)
        check_choice("discard", discard, (None, "once", "pages", "both"))
        number = self._run("swapon", device.name, api.swapon, device, api.swap_flags(priority, discard))
        raise_errno(number, f"swapon {device.name} (priority {priority})")
        self.devices[number] = device
        return int(number)

    def swapoff(self, device: int | BlockDevice) -> None:
        """Bring everything back from a device and stop using it.  A page that cannot be read is lost.

        OSError(ENOMEM) if it does not fit in memory, OSError(EINTR) if a signal comes (``k.faults.fail("signal")``) or
        a hibernation image is on it; then it stays in use.
        """
        numbers = [n for n, known in self.devices.items() if n == device or known is device]
        if not numbers:
            raise OSError(errno.EINVAL, f"swapoff: {device!r} is not in use; in use are {list(self.devices)}")
        err = self._run("swapoff", str(numbers[0]), api.swapoff, numbers[0])
        raise_errno(err, f"swapoff {self.devices[numbers[0]].name}")
        del self.devices[numbers[0]]

    # --- zswap -----------------------------------------------------------------------------------------------------

    def set_zswap(
        self,
        compressor: str | None = None,
        enabled: bool | None = None,
        max_pool_percent: int | None = None,
        accept_threshold_percent: int | None = None,
        shrinker: bool | None = None,
    ) -> None:
        """Change zswap's parameters while it runs; None leaves one as it is.

        A new compressor is for new pages, old ones stay as they are.  Disabled, zswap takes no new pages and still
        gives back what it has.  Enabling it for the first time without a compressor takes lz4.
        """
        named = {
            "compressor": compressor,
            "max_pool_percent": max_pool_percent,
            "accept_threshold_percent": accept_threshold_percent,
            "shrinker": shrinker,
        }
        given = {name: value for name, value in named.items() if value is not None}
        wanted = replace(self.zswap or Zswap(), **given)  # type: ignore[arg-type]
        z = self.system.zswap
        if enabled or (z.pool is None and compressor is not None):
            api.zswap_enable(self.system, wanted.compressor)
        elif compressor is not None:
            api.zswap_compressor_param_set(self.system, compressor)
        if enabled is not None:
            z.enabled = enabled
        z.max_pool_percent = wanted.max_pool_percent
        z.accept_threshold_percent = wanted.accept_threshold_percent
        z.shrinker_enabled = wanted.shrinker
        self.zswap = wanted

    def zswap_parameters(self) -> dict[str, str]:
        """zswap's module parameters as text."""
        return api.zswap_parameters(self.system)

    def zswap_debugfs(self) -> dict[str, int]:
        """The files of debugfs zswap/: reasons for rejection, bytes of the pools, stored pages."""
        return api.zswap_debugfs(self.system)

    def debugfs(self) -> dict[str, dict[str, int]]:
        """What swap shows in /sys/kernel/debug, by directory: "zswap", and "vswap" where the kernel has it."""
        return api.debugfs(self.system)

    def hibernate(self, pages: int | None = None, device: int | None = None) -> Hibernation:
        """Save the first ``pages`` page frames in use (None: all) to a device (None: the first); use it with ``with``.

        OSError: ENOSPC without enough free slots, EBUSY while another image exists, ENODEV without a device, EIO.
        """
        used = self.system.memory.used
        nr = used if pages is None else pages
        check_range("pages", nr, 0, used)
        number = api.find_first_swap(self.system) if device is None else device
        raise_errno(number, "hibernate")
        check_choice("device", number, self.devices)
        raise_errno(self._run("hibernate", f"{nr} pages", api.swsusp_write, number, nr), f"hibernate {nr} pages")
        self.image = Hibernation(self, number, nr)
        return self.image

    # --- reclaim and time ------------------------------------------------------------------------------------------

    def reclaim(self, size: int | str, cgroup: Cgroup | None = None) -> int:
        """Reclaim memory from a cgroup (None: everywhere), as memory.reclaim does; returns bytes freed."""
        pages = parse_pages(size, "size")
        target = self._online(cgroup).memcg
        freed = self._run("reclaim", format_size(pages * PAGE_SIZE), api.do_try_to_free_pages, target, pages, "direct")
        return int(freed) * PAGE_SIZE

    def drain(self) -> None:
        """Let time pass until no I/O is in flight, and background work is done."""
        while api.swap_io_wait_one(self.system):
            pass
        api.run_deferred_work(self.system)

    # --- looking ---------------------------------------------------------------------------------------------------

    @property
    def vmstat(self) -> Counters:
        """The counters of /proc/vmstat, as they are now."""
        api.refresh_vmstat(self.system)
        return self.system.vmstat.snapshot()

    @property
    def cost(self) -> Counters:
        """Counts of primitive operations since boot: lock acquisitions, look-ups, reference counts."""
        return api.primitive_counts(self.system)

    @property
    def faults(self) -> Faults:
        """Fault injection: ``k.faults.fail("swap_table_alloc", nth=3)``."""
        return self.system.faults

    @property
    def clock(self) -> Clock:
        """The virtual clock."""
        return self.system.clock

    @property
    def locks(self) -> Locks:
        """The lock factory, with its validator."""
        return self.system.locks

    def meminfo(self) -> display.Table:
        """Swap-related lines of /proc/meminfo, in bytes."""
        return display.Table("meminfo", [{"name": n, "bytes": b} for n, b in api.meminfo(self.system).items()])

    def memory(self) -> display.Ledger:
        """Bytes of swap metadata by structure, as the cover letter counts and exactly."""
        return display.Ledger(api.memory_ledger(self.system))

    def swaps(self) -> display.Table:
        """One row a swap device, as in /proc/swaps."""
        return display.Table("swaps", api.proc_swaps(self.system))

    def thp_stats(self) -> display.Table:
        """One row a size of large folios: its setting, folios of it now, and its counters (in folios)."""
        return display.Table("large folios", api.mthp_stats(self.system))

    def clusters(self, device: int = 0) -> display.ClusterMap:
        """The physical clusters of a device: which list each is on and what every slot holds."""
        if device not in self.devices:
            raise ValueError(f"device={device!r}: expected one of {list(self.devices)}")
        return display.ClusterMap(self.devices[device].name, api.cluster_map(self.system, device))

    def proc_swaps(self) -> str:
        """The text of /proc/swaps."""
        lines = ["Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority"]
        for row in self.swaps().rows:
            kib = [int(row[name]) // 1024 for name in ("Size", "Used")]
            lines.append(f"{row['Filename']:<40}{row['Type']:<16}{kib[0]:<16}{kib[1]:<16}{row['Priority']}")
        return "\n".join(lines) + "\n"

    def proc_vmstat(self) -> str:
        """The text of /proc/vmstat."""
        return self.vmstat.text()

    def check(self) -> None:
        """Assert every invariant of the subsystem; InvariantError names the one that is broken."""
        api.check(self.system)

    def trace(self, path: str | Path) -> None:
        """Write the operations so far as a Chrome trace (open it in a trace viewer)."""
        rows = [
            {
                "name": f"{event.operation} {event.detail}",
                "ph": "X",
                "ts": event.begin / 1000,
                "dur": (event.end - event.begin) / 1000,
                "pid": 1,
                "tid": 1,
                "args": event.vmstat,
            }
            for event in self.events
        ]
        Path(path).write_text(json.dumps({"traceEvents": rows}, indent=1))

    def copy(self) -> Kernel:
        """An independent copy of the whole kernel: its processes, memory, devices and clock."""
        buffer = io.BytesIO()
        _KernelPickler(buffer).dump(self)
        twin = pickle.loads(buffer.getvalue())
        assert isinstance(twin, Kernel)
        booted.add(twin)
        return twin

    def _run(self, operation: str, detail: str, function: Any, *args: Any) -> Any:
        """Call into the kernel, record the event, and check the invariants if debugging."""
        before, begin = self.system.vmstat.snapshot(), self.system.clock.ns
        try:
            return function(self.system, *args)
        finally:
            moved = self.system.vmstat.snapshot().since(before)
            self.events.append(Event(begin, self.system.clock.ns, operation, detail, moved))
            if self.system.config.debug:
                api.check(self.system)

    def _repr_html_(self) -> str:
        return display.kernel_html(self)

    def __repr__(self) -> str:
        info = api.meminfo(self.system)
        shown = ", ".join(f"{name}={format_size(nr_bytes)}" for name, nr_bytes in info.items())
        return f"<Kernel {shown}>"


class Hibernation:
    """An image of memory on a swap device.  Its slots are in use, and cached slots are kept, until ``release``."""

    def __init__(self, kernel: Kernel, device: int, pages: int) -> None:
        self.kernel = kernel
        self.device = device
        self.pages = pages

    def read(self) -> list[bytes]:
        """The saved pages, read back from the device."""
        if not self.active:
            raise OSError(errno.EINVAL, "the image was released")
        return api.swsusp_read(self.kernel.system)

    @property
    def active(self) -> bool:
        """Not released."""
        return self.kernel.image is self

    def release(self) -> None:
        """The image is not needed any more: its slots are free.  May be called again."""
        if self.active:
            self.kernel.image = None
            self.kernel._run("release image", f"{self.pages} pages", api.swsusp_free)

    def __enter__(self) -> Hibernation:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Hibernation: {self.pages} pages on device {self.device}>"


class Cgroup:
    """A memory cgroup.  Limits may be set at any time: sizes, or None for unlimited."""

    def __init__(self, kernel: Kernel, memcg: api.Memcg) -> None:
        self.kernel = kernel
        self.memcg = memcg

    @property
    def name(self) -> str:
        """Its name; "/" for the root."""
        return self.memcg.name or "/"

    @property
    def memory_current(self) -> int:
        """Bytes of memory charged (compressed pages included)."""
        return self.memcg.memory.usage * PAGE_SIZE

    @property
    def swap_current(self) -> int:
        """Bytes of swap charged: every slot counts, also those whose page is in zswap or zero."""
        return self.memcg.swap.usage * PAGE_SIZE

    @property
    def zswap_current(self) -> int:
        """Bytes of compressed pages."""
        return self.memcg.zswap_bytes

    @property
    def memory_peak(self) -> int:
        """Highest memory_current so far."""
        return self.memcg.memory.watermark * PAGE_SIZE

    @property
    def swap_peak(self) -> int:
        """Highest swap_current so far."""
        return self.memcg.swap.watermark * PAGE_SIZE

    @property
    def online(self) -> bool:
        """Not deleted."""
        return self.memcg.online

    @property
    def gone(self) -> bool:
        """Deleted, and no memory and no slot is charged to it any more."""
        return not self.memcg.online and self.memcg not in self.kernel.system.memcg.dying

    @property
    def memory_max(self) -> int | None:
        """Limit of memory in bytes, or None.  Setting it reclaims down to it as far as possible; it holds in any case.

        OSError above the limit of memory + swap (version 1).
        """
        return to_bytes(self.memcg.memory.max)

    @memory_max.setter
    def memory_max(self, value: int | str | None) -> None:
        self._not_root()
        limit, together = parse_limit(value, "memory_max"), self.memcg.memsw.max
        if together is not None and (limit is None or limit > together):
            raise OSError(errno.EINVAL, f"memory_max={value!r}: above memsw_max")
        self._write("memory.max", limit)

    @property
    def memory_high(self) -> int | None:
        """Limit in bytes above which the cgroup reclaims and is slowed down, or None (version 2)."""
        return to_bytes(self.memcg.memory.high)

    @memory_high.setter
    def memory_high(self, value: int | str | None) -> None:
        self._not_root()
        self._version("v2", "memory_high")
        self._write("memory.high", parse_limit(value, "memory_high"))

    @property
    def swap_max(self) -> int | None:
        """Limit of swap in bytes, or None.  What is swapped out already stays."""
        return to_bytes(self.memcg.swap.max)

    @swap_max.setter
    def swap_max(self, value: int | str | None) -> None:
        self._not_root()
        self._version("v2", "swap_max")
        self._write("memory.swap.max", parse_limit(value, "swap_max"))

    @property
    def swap_high(self) -> int | None:
        """Limit of swap in bytes above which the cgroup is slowed down, or None (version 2).  What is out stays."""
        return to_bytes(self.memcg.swap.high)

    @swap_high.setter
    def swap_high(self, value: int | str | None) -> None:
        self._not_root()
        self._version("v2", "swap_high")
        self._write("memory.swap.high", parse_limit(value, "swap_high"))

    @property
    def memsw_current(self) -> int:
        """Bytes of memory and swap charged together (version 1)."""
        return self.memcg.memsw.usage * PAGE_SIZE

    @property
    def memsw_max(self) -> int | None:
        """Limit of memory + swap in bytes, or None (version 1).  OSError below what is used, or below memory_max."""
        return to_bytes(self.memcg.memsw.max)

    @memsw_max.setter
    def memsw_max(self, value: int | str | None) -> None:
        self._not_root()
        self._version("v1", "memsw_max")
        limit = parse_limit(value, "memsw_max")
        if limit is not None and self.memcg.memory.max is not None and limit < self.memcg.memory.max:
            raise OSError(errno.EINVAL, f"memsw_max={value!r}: below memory_max")
        if limit is not None and limit < self.memcg.memsw.usage:
            raise OSError(errno.EBUSY, f"memsw_max={value!r}: {format_size(self.memsw_current)} are in use")
        self.memcg.memsw.max = limit

    @property
    def zswap_max(self) -> int | None:
        """Limit of compressed bytes, or None."""
        return to_bytes(self.memcg.zswap_max)

    @zswap_max.setter
    def zswap_max(self, value: int | str | None) -> None:
        self._not_root()
        self._version("v2", "zswap_max")
        self.memcg.zswap_max = parse_limit(value, "zswap_max")

    @property
    def zswap_writeback(self) -> bool:
        """zswap may write this cgroup's pages to disk (and the ancestors' settings allow it)."""
        return self.memcg.zswap_writeback

    @zswap_writeback.setter
    def zswap_writeback(self, value: bool) -> None:
        self.kernel._online(self)
        self.memcg.zswap_writeback = bool(value)

    @property
    def events(self) -> dict[str, int]:
        """memory.events and memory.swap.events (as "swap.max") that happened in it and below it."""
        return dict(self.memcg.events)

    @property
    def files(self) -> dict[str, str]:
        """Its memory files, name to text: ``group.files["memory.swap.max"]``."""
        return api.cgroup_files(self.kernel.system, self.memcg)

    def memory_stat(self) -> str:
        """The text of memory.stat."""
        return self.files["memory.stat"]

    def delete(self) -> None:
        """Remove it.  OSError(EBUSY) while it has processes or children, and for the root.

        What is charged to it stays charged until it is freed (see ``gone``); its compressed pages pass to the parent.
        """
        self.kernel._online(self)
        err = self.kernel._run("rmdir", self.name, api.mem_cgroup_css_offline, self.memcg)
        raise_errno(err, f"cgroup {self.name!r} has processes or children, or is the root")

    def _write(self, name: str, limit: int | None) -> None:
        """Write a limit in pages to one of its files."""
        detail = f"{name} {'max' if limit is None else limit * PAGE_SIZE}"
        self.kernel._run("cgroup", detail, api.cgroup_file_write, self.memcg, name, limit)

    def _not_root(self) -> None:
        self.kernel._online(self)
        if self.memcg.parent is None:
            raise ValueError("the root cgroup has no limits")

    def _version(self, version: str, name: str) -> None:
        if self.kernel.system.config.memcg != version:
            raise ValueError(f"{name}: only with cgroup version {version[1]}")

    def __repr__(self) -> str:
        return f"<Cgroup {self.name}: memory {format_size(self.memory_current)}, swap {format_size(self.swap_current)}>"


class Process:
    """A process: an address space in a cgroup, on a CPU."""

    def __init__(self, kernel: Kernel, name: str, cgroup: Cgroup, mm: api.Mm, cpu: int) -> None:
        self.kernel = kernel
        self.name = name
        self.cgroup = cgroup
        self.cpu = cpu
        self.mappings: list[Mapping] = []
        self._mm: api.Mm | None = mm

    @property
    def mm(self) -> api.Mm:
        """Its address space; OSError(ESRCH) after exit."""
        if self._mm is None:
            raise OSError(errno.ESRCH, f"process {self.name!r} has exited")
        return self._mm

    @property
    def rss(self) -> int:
        """Bytes of its memory that are present; shared pages count in each process that has them mapped."""
        return (self.mm.anonpages + self.mm.shmempages) * PAGE_SIZE

    @property
    def swap(self) -> int:
        """Bytes of its anonymous memory that are swapped out (VmSwap)."""
        return self.mm.swapents * PAGE_SIZE

    def mmap(self, what: int | str | Shmem) -> Mapping:
        """Map ``what`` bytes of anonymous memory (whole pages), all zeros until written; or a shared object, whole.

        OSError(ENOENT) for an object without a name.
        """
        if isinstance(what, Shmem):
            mapping = Mapping(self, api.shmem_mmap(self.mm, what.mappable_by(self)))
        else:
            mapping = Mapping(self, api.mmap_region(self.mm, parse_pages(what, "size")))
        self.mappings.append(mapping)
        return mapping

    def mmap_swapped(self, size: int | str, page: bytes = TEXT) -> Mapping:
        """Map ``size`` bytes that are swapped out at once, as if ``page`` had been written to every page.

        Goes through the slot allocator and reclaim in folios of 2 MiB, so that a device larger than memory (best a
        ``contentless`` one) fills in seconds, for studies of metadata.  Pages of such a folio share their compressed
        copy, which is on no list: zswap does not write them back, and ``check()`` says so.  ValueError unless ``page``
        is one page; OSError(ENOMEM) if it does not fit, then nothing stays mapped.
        """
        if len(page) != PAGE_SIZE:
            raise ValueError(f"page: expected {PAGE_SIZE} bytes, got {len(page)}")
        mapping = self.mmap(size)
        err = self.kernel._run("mmap_swapped", self.name, api.swap_out_mapping, mapping.vma, page)
        if err:
            mapping.munmap()
        raise_errno(err, f"mmap_swapped({size!r})")
        return mapping

    def fork(self, name: str | None = None) -> Process:
        """A child that shares all memory copy-on-write; its mappings are in the same order as the parent's."""
        kernel = self.kernel
        mm = kernel._run("fork", self.name, api.dup_mm, self.mm)
        if mm is None:
            raise OSError(errno.ENOMEM, f"fork of {self.name!r}")
        child = Process(kernel, name or f"{self.name}-child", self.cgroup, mm, self.cpu)
        vmas = {vma.start: vma for vma in mm.vmas}
        child.mappings = [Mapping(child, vmas[mapping.vma.start]) for mapping in self.mappings]
        kernel.processes.append(child)
        return child

    def madvise(self, mapping: Mapping, advice: str, start: int = 0, stop: int | None = None) -> int:
        """Advise on the pages of the bytes [start, stop) of a mapping.  Returns pages dealt with.

        "pageout" pushes them out now, "cold" lets them go first, "willneed" reads them into the swap cache.  "free":
        they may be kept or read as zeros until they are written again.  "dontneed": they are zeros at once.
        "hugepage", "nohugepage": ask for large folios, or for none; for whole mappings only.
        """
        check_choice("advice", advice, (*ADVICE, "hugepage", "nohugepage"))
        begin, end = self._pages("madvise", mapping, start, stop)
        self.kernel.system.cpu = self.cpu
        if advice not in ADVICE:
            if end - begin != mapping.pages:
                raise ValueError(f"start={start!r}, stop={stop!r}: {advice} is for a whole mapping")
            return int(self.kernel._run("madvise", advice, api.hugepage_madvise, mapping.vma, advice == "hugepage"))
        result = int(self.kernel._run("madvise", advice, api.do_madvise, self.mm, begin, end, advice))
        raise_errno(result, f"madvise {advice}: not for memory of a file")
        return result

    def mincore(self, mapping: Mapping, start: int = 0, stop: int | None = None) -> display.Residency:
        """For each page of the bytes [start, stop) of a mapping: is it in memory?  Touches nothing.

        In a page table, in a page cache, or up to date in the swap cache.
        """
        begin, end = self._pages("mincore", mapping, start, stop)
        return display.Residency(self.name, api.do_mincore(self.kernel.system, self.mm, begin, end))

    def move_pages(self, source: Mapping, target: Mapping, start: int = 0, stop: int | None = None) -> int:
        """Move the pages of the bytes [start, stop) of a mapping to the same place in another one (UFFDIO_MOVE).

        Returns bytes moved: less than asked for if a page cannot be moved.  OSError if that is the first one: EEXIST
        (the target has a page there), ENOENT (the source has none), EBUSY (it is shared), EINVAL (shared memory).
        """
        begin, end = self._pages("move_pages", source, start, stop)
        self._pages("move_pages", target, 0, None)
        if end - source.vma.start > target.pages:
            raise ValueError(f"target={target!r}: too short for the pages up to {end - source.vma.start}")
        if source.vma.file is not None or target.vma.file is not None:
            raise OSError(errno.EINVAL, "move_pages: not for shared memory")
        self.kernel.system.cpu = self.cpu
        to = target.vma.start + begin - source.vma.start
        moved = int(self.kernel._run("move_pages", self.name, api.move_pages, target.vma, to, begin, end - begin))
        raise_errno(moved, f"move of page {begin - source.vma.start}")
        return moved * PAGE_SIZE

    def _pages(self, call: str, mapping: Mapping, start: int, stop: int | None) -> tuple[int, int]:
        """Page numbers [begin, end) of a byte range of one of its mappings."""
        if not isinstance(mapping, Mapping):
            raise ValueError(f"{call}: {mapping!r}: expected a mapping, as mmap returns it")
        if mapping.process is not self or not mapping.mapped:
            raise OSError(errno.ENOMEM, f"{call}: not a mapping of process {self.name!r}")
        first, last, _ = slice(start, stop).indices(len(mapping))
        begin = mapping.vma.start + first // PAGE_SIZE
        return begin, max(begin, mapping.vma.start - (-last // PAGE_SIZE))

    def move(self, cgroup: Cgroup | None) -> None:
        """Move it to another cgroup (None: the root).

        What it has stays charged to the old one; what it allocates, to the new.
        """
        group = self.kernel._online(cgroup)
        err = api.cgroup_attach_task(self.mm, group.memcg)
        raise_errno(err, f"move of {self.name!r} to {group.name!r}")
        self.cgroup = group

    def exit(self) -> None:
        """End: all its memory and swap entries are dropped."""
        self.kernel._run("exit", self.name, api.exit_mmap, self.mm)
        self._mm = None
        for mapping in self.mappings:
            mapping.mapped = False
        self.mappings.clear()
        self.kernel.processes.remove(self)

    def __repr__(self) -> str:
        if self._mm is None:
            return f"<Process {self.name}: exited>"
        return f"<Process {self.name}: rss {format_size(self.rss)}, swap {format_size(self.swap)}>"


class Mapping:
    """A range of memory, used like a bytearray: ``m[0:5] = b"hello"``, ``bytes(m[0:5])``, ``m[7]``."""

    def __init__(self, process: Process, vma: api.Vma) -> None:
        self.process = process
        self.vma = vma
        self.pages = vma.end - vma.start
        self.mapped = True
        """Not unmapped, and the process lives."""

    def __len__(self) -> int:
        return self.pages * PAGE_SIZE

    def __getitem__(self, where: int | slice) -> int | bytes:
        start, stop = self._range(where)
        data = bytearray()
        while start < stop:
            content, first = self._access(start // PAGE_SIZE, write=False)
            end = min(stop, (start // PAGE_SIZE + 1) * PAGE_SIZE)
            first += start % PAGE_SIZE
            data += content[first : first + end - start]
            start = end
        return bytes(data) if isinstance(where, slice) else data[0]

    def __setitem__(self, where: int | slice, value: int | bytes | bytearray | memoryview) -> None:
        start, stop = self._range(where)
        data = bytes((value,)) if isinstance(value, int) else bytes(value)
        if len(data) != stop - start:
            raise ValueError(f"value has {len(data)} bytes, the range {stop - start}")
        done = 0
        while done < len(data):
            page, offset = divmod(start + done, PAGE_SIZE)
            content, first = self._access(page, write=True)
            part = data[done : done + PAGE_SIZE - offset]
            content[first + offset : first + offset + len(part)] = part
            done += len(part)

    def touch(self, page: int, write: bool = False) -> None:
        """Access one page (its number in the mapping) as a load or store would, without changing it."""
        self._check_page(page)
        if self.vma.file is not None:
            self._within_object(page + 1)
        self._access(page, write)

    def write_page(self, page: int, data: bytes) -> None:
        """Replace the whole content of one page."""
        self._check_page(page)
        self[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = data

    def read_page(self, page: int) -> bytes:
        """The whole content of one page."""
        self._check_page(page)
        return bytes(self[page * PAGE_SIZE : (page + 1) * PAGE_SIZE])

    def where(self) -> display.PageMap:
        """Where each page is: unmapped, zeropage, resident, swapcache, zero, zswap, swapfile or lost.  Only looks.

        For shared memory: where the object's pages are, whether mapped here or not (see Shmem.where).
        """
        system, mm = self.process.kernel.system, self.process.mm
        if self.vma.file is not None:
            pages = range(min(self.pages, self.vma.file.i_size))
            return display.PageMap(
                self.vma.file.name, [api.shmem_page_location(system, self.vma.file, i) for i in pages]
            )
        places = [api.page_location(system, mm, addr) for addr in range(self.vma.start, self.vma.end)]
        return display.PageMap(self.process.name, places)

    def orders(self) -> list[int | None]:
        """The order of the folio that each page is mapped to: 0 for a single page; None where none is present."""
        return api.folio_orders(self.process.kernel.system, self.process.mm, self.vma.start, self.vma.end)

    def munmap(self) -> None:
        """Unmap it; its memory and swap entries are dropped."""
        if not self.mapped:
            raise OSError(errno.EINVAL, "munmap: already unmapped")
        self.process.kernel._run("munmap", self.process.name, api.do_munmap, self.process.mm, self.vma)
        self.process.mappings.remove(self)
        self.mapped = False

    def _range(self, where: int | slice) -> tuple[int, int]:
        """First byte and end of an index or a slice without step; checks that the mapping is usable."""
        self._check_mapped()
        if not isinstance(where, slice):
            byte = operator.index(where)
            if not -len(self) <= byte < len(self):
                raise IndexError(f"byte {byte} of a mapping of {len(self)} bytes")
            where = slice(byte % len(self), byte % len(self) + 1)
        start, stop, step = where.indices(len(self))
        if step != 1:
            raise ValueError(f"slice step {step}: only 1 is possible")
        self._within_object(-(-stop // PAGE_SIZE) if stop > start else 0)
        return start, max(start, stop)

    def _check_page(self, page: int) -> None:
        """IndexError unless it is the number of a page of the mapping, which must be usable."""
        if not 0 <= operator.index(page) < self.pages:
            raise IndexError(f"page={page!r}: the mapping has pages 0 to {self.pages - 1}")
        self._check_mapped()

    def _check_mapped(self) -> None:
        """OSError(EFAULT) after munmap, or the end of the process."""
        if not self.mapped:
            raise OSError(errno.EFAULT, "access to memory that is not mapped")

    def _within_object(self, end: int) -> None:
        """OSError(EFAULT), for the bus error, unless the pages below ``end`` lie in the shared object."""
        inode = self.vma.file
        if inode is not None and end > inode.i_size:
            pages = f"page {end - 1} is beyond the end of shared object {inode.name!r} of {inode.i_size} pages"
            raise OSError(errno.EFAULT, f"bus error: {pages}")

    def _access(self, page: int, write: bool) -> tuple[bytearray, int]:
        process, vma = self.process, self.vma
        system = process.kernel.system
        system.cpu = process.cpu
        content = api.access_page(system, vma.mm, vma.start + page, write)
        if system.config.debug:
            api.check(system)
        return content

    def __repr__(self) -> str:
        shared = f" of shared object {self.vma.file.name!r}" if self.vma.file is not None else ""
        return f"<Mapping of {self.process.name}: {self.pages} pages{shared}>"

    def _repr_html_(self) -> str:
        return self.where()._repr_html_()


class Shmem:
    """A shared memory object (a file on tmpfs): processes that map it see the same pages.

    It lives as long as it has a name or a mapping; its pages are paid for by the cgroup that touched them first.
    """

    def __init__(self, kernel: Kernel, inode: api.ShmemInode) -> None:
        self.kernel = kernel
        self.inode = inode

    @property
    def name(self) -> str:
        """Its name, also after it was unlinked."""
        return self.inode.name

    @property
    def linked(self) -> bool:
        """It still has its name."""
        return bool(self.inode.nlink)

    @property
    def size(self) -> int:
        """Bytes from the first page to the end."""
        return self.inode.i_size * PAGE_SIZE

    @property
    def resident(self) -> int:
        """Bytes in the page cache."""
        return self.inode.nrpages * PAGE_SIZE

    @property
    def swapped(self) -> int:
        """Bytes in swap."""
        return self.inode.swapped * PAGE_SIZE

    def truncate(self, size: int | str) -> None:
        """Change its size (whole pages).  What is cut off is gone, touching it a bus error; what is added is zeros.

        OSError(ENOENT) if the object has ended.
        """
        pages = parse_pages(size, "size")
        self._alive("truncate")
        self.kernel._run("truncate", self.name, api.shmem_setattr, self.inode, pages)

    def punch_hole(self, start: int, stop: int | None = None) -> None:
        """Drop the bytes [start, stop), whole pages (None: to the end); they read as zeros again."""
        first, last, _ = slice(start, stop).indices(self.size)
        for name, value, byte in (("start", start, first), ("stop", stop, last)):
            if byte % PAGE_SIZE:
                raise ValueError(f"{name}={value!r}: expected a multiple of {PAGE_SIZE}")
        self._alive("punch_hole")
        pages = (first // PAGE_SIZE, max(first, last) // PAGE_SIZE)
        self.kernel._run("punch_hole", self.name, api.shmem_truncate_range, self.inode, *pages)

    def unlink(self) -> None:
        """Remove its name: nobody can map it any more, and it ends with its last mapping.  OSError(ENOENT) if gone."""
        if not self.linked:
            raise OSError(errno.ENOENT, f"shared object {self.name!r} is unlinked already")
        self.kernel._run("unlink", self.name, api.shmem_unlink, self.inode)
        self.kernel.shared.remove(self)

    def where(self) -> display.PageMap:
        """Where each page is: hole, resident, swapcache, zero, zswap, swapfile or lost.  Touches nothing."""
        system, pages = self.kernel.system, range(self.inode.i_size)
        return display.PageMap(self.name, [api.shmem_page_location(system, self.inode, page) for page in pages])

    def charged(self) -> display.Table:
        """Who pays: one row a cgroup, bytes of memory and of swap."""
        charges = api.shmem_charges(self.kernel.system, self.inode)
        rows = [{"cgroup": name, "memory": memory, "swap": swap} for name, (memory, swap) in charges.items()]
        return display.Table(f"{self.name}: charged to", rows)

    def mappable_by(self, process: Process) -> api.ShmemInode:
        """The kernel's object, for a process to map; raises if it is of another kernel, or has no name any more."""
        if process.kernel is not self.kernel:
            raise ValueError(
                f"mmap: shared object {self.name!r} belongs to another kernel than process {process.name!r}"
            )
        if not self.linked:
            raise OSError(errno.ENOENT, f"mmap: shared object {self.name!r} was unlinked")
        return self.inode

    def _alive(self, what: str) -> None:
        if self.inode not in self.kernel.system.shmem.inodes:
            raise OSError(errno.ENOENT, f"{what}: shared object {self.name!r} is gone")

    def __repr__(self) -> str:
        state = "" if self.linked else ", unlinked"
        sizes = f"resident {format_size(self.resident)}, swapped {format_size(self.swapped)}"
        return f"<Shmem {self.name}: {format_size(self.size)}, {sizes}, {len(self.inode.i_mmap)} mappings{state}>"

    def _repr_html_(self) -> str:
        return self.where()._repr_html_() + self.charged()._repr_html_()


class _KernelPickler(pickle.Pickler):
    """Pickles a kernel between operations: no lock is held, so a lock is replaced by a new one."""

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, _LOCK_TYPE):
            return threading.Lock, ()
        return NotImplemented


def parse_limit(value: int | str | None, name: str) -> int | None:
    """A limit in pages (rounded down) from a size; None or "max": no limit."""
    if value is None or value == "max":
        return None
    return parse_size(value, name) // PAGE_SIZE


def thp_order(size: int | str) -> int:
    """The order of a large folio of ``size`` bytes; ValueError for sizes that anonymous memory does not have."""
    order = (parse_size(size, "size") // PAGE_SIZE).bit_length() - 1
    if not 2 <= order <= 9 or PAGE_SIZE << order != parse_size(size, "size"):
        raise ValueError(f"size={size!r}: expected a power of two from 16K to 2M")
    return order


def to_bytes(pages: int | None) -> int | None:
    """Pages as bytes; None stays None."""
    return None if pages is None else pages * PAGE_SIZE


def check_name(name: object) -> None:
    """ValueError unless ``name`` can be the name of a file."""
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"name={name!r}: expected a non-empty name without '/'")


def check_range(name: str, value: object, low: int, high: int) -> None:
    """ValueError unless ``value`` is an int in [low, high]."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: expected an int from {low} to {high}")


def check_choice(name: str, value: object, legal: Iterable[object]) -> None:
    """ValueError unless ``value`` is one of the legal ones."""
    choices = list(legal)
    if value not in choices:
        legal_ones = f"one of {', '.join(map(repr, choices))}" if choices else "another state: nothing is legal now"
        raise ValueError(f"{name}={value!r}: expected {legal_ones}")


def raise_errno(result: int, what: str) -> None:
    """Turn a negative errno into an OSError."""
    if result < 0:
        raise OSError(-result, f"{what}: {errno.errorcode[-result]}")
