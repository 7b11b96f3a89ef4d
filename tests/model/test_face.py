"""The face: what it refuses, with which message, and that nothing has changed then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vswap_ref as vr
from vswap_ref.machine import PAGE_SIZE

pytestmark = pytest.mark.stages(0)


@pytest.fixture
def kernel() -> vr.Kernel:
    """A small kernel with a process of eight pages, two of them swapped out."""
    kernel = vr.Kernel(ram="1M", swap=[vr.Ssd("1M")], zswap="lz4", debug=True)
    heap = kernel.spawn("app").mmap("32K")
    heap[0:2] = b"ab"
    heap[PAGE_SIZE : PAGE_SIZE + 2] = b"cd"
    heap.process.madvise(heap, "pageout")
    return kernel


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ram": "lots"}, "ram='lots'"),
        ({"ram": "1K"}, "ram='1K'"),
        ({"ram": -4096}, "ram=-4096"),
        ({"cpus": 0}, "cpus=0: expected an int from 1 to 64"),
        ({"swappiness": 201}, "swappiness=201"),
        ({"page_cluster": True}, "page_cluster=True"),
        ({"memcg": "v3"}, "memcg='v3': expected one of 'v2', 'v1', None"),
        ({"zswap": "gzip"}, "compressor='gzip': expected one of lz4"),
        ({"locks": "none"}, "locks='none': expected one of plain, validated"),
        ({"swap": ["disk"]}, "expected a block device"),
    ],
)
def test_boot_refuses_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    """The message names argument, value and what is legal."""
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        vr.Kernel(**arguments)


@pytest.mark.parametrize("size", ["1K", "5000", 0, "0"])
def test_devices_refuse_bad_sizes(size: Any) -> None:
    """A device has whole pages, at least two."""
    with pytest.raises(ValueError, match=f"size={size!r}"):
        vr.Ssd(size)


def test_zswap_percentages_are_checked() -> None:
    """Limits are percentages."""
    with pytest.raises(ValueError, match="max_pool_percent=101"):
        vr.Zswap("lz4", max_pool_percent=101)


def test_refused_operations_change_nothing(kernel: vr.Kernel) -> None:
    """Every refusal leaves counters and structures as they were."""
    process = kernel.processes[0]
    heap = process.mappings[0]
    other = kernel.spawn("other").mmap("4K")
    foreign: Any = vr.Kernel(ram="1M").root
    page: Any = 0.5
    name: Any = "web"  # where a cgroup or a mapping is expected
    refusals = [
        (ValueError, lambda: kernel.spawn("x", cgroup=name)),
        (ValueError, lambda: kernel.cgroup("x", parent=name)),
        (ValueError, lambda: kernel.reclaim("4K", cgroup=name)),
        (ValueError, lambda: kernel.reclaim("4K", cgroup=foreign)),
        (ValueError, lambda: process.move(name)),
        (ValueError, lambda: process.madvise(name, "pageout")),
        (OSError, lambda: kernel.swapon(kernel.devices[0])),
        (ValueError, lambda: kernel.swapon(vr.Ssd("1M"), priority=40000)),
        (OSError, lambda: kernel.swapoff(7)),
        (ValueError, lambda: kernel.spawn("x", cpu=9)),
        (ValueError, lambda: kernel.cpu_offline(2)),
        (ValueError, lambda: kernel.cgroup("a/b")),
        (ValueError, lambda: kernel.cgroup("a", memory_max="-1")),
        (ValueError, lambda: process.mmap(100)),
        (ValueError, lambda: process.madvise(heap, "sleep")),
        (OSError, lambda: process.madvise(other, "pageout")),
        (ValueError, lambda: heap.__setitem__(slice(0, 3), b"12345")),
        (ValueError, lambda: heap[0:8:2]),
        (IndexError, lambda: heap[len(heap)]),
        (IndexError, lambda: heap.touch(8)),
        (IndexError, lambda: heap.read_page(8)),
        (IndexError, lambda: heap.read_page(-1)),
        (IndexError, lambda: heap.write_page(8, bytes(4096))),
        (TypeError, lambda: heap.touch(page)),
        (TypeError, lambda: heap.read_page(page)),
        (TypeError, lambda: heap[page]),
        (ValueError, lambda: kernel.faults.fail("nowhere")),
        (ValueError, lambda: kernel.root.__setattr__("memory_max", "1M")),
        (ValueError, lambda: kernel.clusters(5)),
    ]
    before = (kernel.vmstat.snapshot(), repr(kernel), len(kernel.processes))
    for kind, refused in refusals:
        with pytest.raises(kind):
            refused()
        kernel.check()
    assert (kernel.vmstat.snapshot(), repr(kernel), len(kernel.processes)) == before


def test_use_after_exit_and_munmap(kernel: vr.Kernel) -> None:
    """What is gone says so."""
    process = kernel.processes[0]
    heap = process.mappings[0]
    heap.munmap()
    for access in (lambda: heap[0:1], lambda: heap.touch(0), lambda: heap.read_page(0)):
        with pytest.raises(OSError, match="not mapped"):
            access()
    process.exit()
    with pytest.raises(OSError, match="has exited"):
        process.mmap("4K")


def test_a_copy_is_independent(kernel: vr.Kernel) -> None:
    """Writing in the copy leaves the original alone, and both stay consistent."""
    twin = kernel.copy()
    twin.processes[0].mappings[0][0:2] = b"XY"
    assert kernel.processes[0].mappings[0][0:2] == b"ab"
    assert twin.processes[0].mappings[0][0:2] == b"XY"
    kernel.check()
    twin.check()


def test_trace_is_a_chrome_trace(kernel: vr.Kernel, tmp_path: Path) -> None:
    """Operations with begin, duration and the counters that they moved."""
    kernel.trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["name"].split()[0] for event in events] == ["swapon", "madvise"]
    assert events[1]["args"]["zswpout"] == 2


def test_cpus_go_offline_one_by_one(kernel: vr.Kernel) -> None:
    """Processes move to a CPU that is left; the last one stays."""
    process = kernel.spawn("second", cpu=1)
    kernel.cpu_offline(1)
    assert process.cpu == 0
    process.mmap("8K")[0] = 1
    with pytest.raises(ValueError, match="cpu=1: expected one of 0"):
        kernel.spawn("third", cpu=1)
    with pytest.raises(ValueError, match="nothing is legal now"):
        kernel.cpu_offline(0)
    kernel.check()


def test_out_of_memory_loses_nothing() -> None:
    """Without swap, the page that does not fit raises, the others stay readable."""
    kernel = vr.Kernel(ram="256K", debug=True)
    heap = kernel.spawn("app").mmap("512K")
    written = 0

    def fill() -> None:
        nonlocal written
        for page in range(heap.pages):
            heap.write_page(page, bytes((page + 1,)) * PAGE_SIZE)
            written += 1

    with pytest.raises(vr.OutOfMemory):
        fill()
    assert 0 < written < 64
    assert all(heap.read_page(page)[0] == page + 1 for page in range(written))


def test_text_views(kernel: vr.Kernel) -> None:
    """The views have the kernel's lines."""
    assert "zswpout 2\n" in kernel.proc_vmstat()
    assert kernel.proc_swaps().splitlines()[1].split()[:2] == ["/dev/ssd", "partition"]
    assert kernel.meminfo()["SwapTotal"] == 255 * PAGE_SIZE
    assert "zswapped 8192\n" in kernel.root.memory_stat()
    assert "<svg" in kernel.processes[0].mappings[0]._repr_html_()
    assert "cluster 0: " in repr(kernel.clusters())
