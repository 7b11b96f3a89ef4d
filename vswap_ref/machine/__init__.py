"""What a kernel stands on: locks, RCU, per-CPU references, XArray, bitmaps, clock, devices, codecs, counters.

Nothing here knows anything of swap but the header that mkswap(8) writes.  All state is in the objects; there is none
in the modules.
"""

from .arena import Arena
from .bitmap import Bitmap
from .blockdev import BlockDevice, DeviceStats, Disk, Pmem, RequestQueue, Ssd, Zram, mkswap
from .clock import Clock
from .codecs import Codec, get_codec
from .counters import MEMCG_STAT, MTHP_STAT, VMSTAT, ZSWAP_DEBUGFS, Counters, Tally
from .faults import Faults
from .locked_xarray import LockedXArray
from .locks import LockdepError, Locks, LockStat
from .newtype import NewType
from .percpu import PerCpu, PercpuRef
from .rcu import Rcu
from .schedule import (
    DeadlockError,
    Exploration,
    LivelockError,
    ScheduleError,
    Scheduler,
    Task,
    at_random,
    follow,
    parse_schedule,
    relax,
    switch_point,
    wait_until,
)
from .swap_header import swap_header
from .swapfile import SwapFile
from .units import PAGE_SHIFT, PAGE_SIZE, format_size, parse_pages, parse_size
from .xarray import XArray

__all__ = [
    "MEMCG_STAT",
    "MTHP_STAT",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "VMSTAT",
    "ZSWAP_DEBUGFS",
    "Arena",
    "Bitmap",
    "BlockDevice",
    "Clock",
    "Codec",
    "Counters",
    "DeadlockError",
    "DeviceStats",
    "Disk",
    "Exploration",
    "Faults",
    "LivelockError",
    "LockStat",
    "LockdepError",
    "LockedXArray",
    "Locks",
    "NewType",
    "PerCpu",
    "PercpuRef",
    "Pmem",
    "Rcu",
    "RequestQueue",
    "ScheduleError",
    "Scheduler",
    "Ssd",
    "SwapFile",
    "Tally",
    "Task",
    "XArray",
    "Zram",
    "at_random",
    "follow",
    "format_size",
    "get_codec",
    "mkswap",
    "parse_pages",
    "parse_schedule",
    "parse_size",
    "relax",
    "swap_header",
    "switch_point",
    "wait_until",
]
