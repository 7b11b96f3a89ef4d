"""Record counters of a real kernel for data/real-kernel: runs workload.c in a memory cgroup and writes CSV rows.

    sudo python3 record.py "disk 64 256 2 seq 0 zttr 0 1 0" ... > more.csv

A workload is written as in the columns: device limit_mb mb passes pattern writes mix thp seed zswap.  Needs Linux with
cgroup v1 memory, gcc, util-linux, no other swap in use; ``disk`` is a 1 GiB swap file in the current folder, ``zram``
the device /dev/zram0.  Counters are differences of /proc/vmstat, so nothing else should swap meanwhile.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

PARAMETERS = ("device", "limit_mb", "mb", "passes", "pattern", "writes", "mix", "thp", "seed", "zswap")
COUNTERS = (
    "workingset_refault_anon",
    "pswpin",
    "pswpout",
    "pgmajfault",
    "pgsteal_anon",
    "thp_swpout",
    "thp_swpout_fallback",
    "swap_ra",
    "swap_ra_hit",
    "swpin_zero",
    "swpout_zero",
    "zswpin",
    "zswpout",
    "zswpwb",
    "pgscan_anon",
    "pgactivate",
    "pgdeactivate",
    "workingset_activate_anon",
    "workingset_restore_anon",
)
CGROUP = Path("/sys/fs/cgroup/memory/vswap-ref-record")
ZSWAP = Path("/sys/module/zswap/parameters/enabled")
REPETITIONS = 2


def command(*words: object) -> None:
    """Run a command quietly; CalledProcessError if it fails."""
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def vmstat() -> dict[str, int]:
    """/proc/vmstat as numbers."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


@contextmanager
def swap_area(device: str) -> Iterator[None]:
    """A fresh swap area of 1 GiB, in use inside the block."""
    if device == "zram":
        area = Path("/dev/zram0")
        Path("/sys/block/zram0/reset").write_text("1")
        Path("/sys/block/zram0/comp_algorithm").write_text("lz4")
        Path("/sys/block/zram0/disksize").write_text("1G")
    else:
        area = Path("swapfile").absolute()
        command("dd", "if=/dev/zero", f"of={area}", "bs=1M", "count=1024", "status=none")
        area.chmod(0o600)
    command("mkswap", area)
    command("swapon", area)
    try:
        yield
    finally:
        command("swapoff", area)


@contextmanager
def limited(limit_mb: int) -> Iterator[str]:
    """A cgroup with a memory limit; gives the file that processes enter it by."""
    CGROUP.mkdir(exist_ok=True)
    (CGROUP / "memory.limit_in_bytes").write_text(f"{limit_mb}M")
    try:
        yield str(CGROUP / "cgroup.procs")
    finally:
        CGROUP.rmdir()


def measure(parameters: list[str]) -> dict[str, int]:
    """Run one workload and return what the counters moved."""
    device, limit_mb, *arguments, zswap = parameters
    with swap_area(device), limited(int(limit_mb)) as procs:
        ZSWAP.write_text("Y" if zswap == "1" else "N")
        before = vmstat()
        program = f"echo $$ > {procs}; exec ./workload {' '.join(arguments)}"
        usage = getrusage(RUSAGE_CHILDREN)
        begin = time.monotonic()
        command("sh", "-c", program)
        elapsed = time.monotonic() - begin
        after = vmstat()
        user = getrusage(RUSAGE_CHILDREN).ru_utime - usage.ru_utime
        print(f"{' '.join(parameters)}: {elapsed:.2f} s, {user:.2f} s of it in the program", file=sys.stderr)
        ZSWAP.write_text("N")
    return {name: after[name] - before[name] for name in COUNTERS if name in after}


def main(workloads: list[str]) -> None:
    """Write a CSV row for each repetition of each workload."""
    command("gcc", "-O1", "-o", "workload", Path(__file__).with_name("workload.c"))
    writer = csv.DictWriter(sys.stdout, [*PARAMETERS, "rep", *COUNTERS])
    writer.writeheader()
    for workload in workloads:
        parameters = workload.split()
        for repetition in range(1, REPETITIONS + 1):
            row = dict(zip(PARAMETERS, parameters, strict=True))
            writer.writerow({**row, "rep": repetition, **measure(parameters)})
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
