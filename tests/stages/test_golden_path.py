"""What every stage must do, whatever it is made of: contents come back, sharing works, nothing is left behind."""

from __future__ import annotations

import random

import pytest

import vswap_ref as vr
from vswap_ref.kernel import Kernel, Process
from vswap_ref.lab.defects import VERSION_1_RECLAIM, has_defect, image_pages
from vswap_ref.machine import PAGE_SIZE
from vswap_ref.machine.locks import LockdepError
from vswap_ref.series.stages import LoadedStage

pytestmark = pytest.mark.stages(0, every=True)

PAGES = 48
DEVICES = {"disk": vr.Disk, "ssd": vr.Ssd, "pmem": vr.Pmem, "zram": vr.Zram}


def content(page: int) -> bytes:
    """Zeros, noise, and what compresses, in turn."""
    noise = random.Random(page)
    return (bytes(PAGE_SIZE), noise.randbytes(PAGE_SIZE), noise.randbytes(64) * 64)[page % 3]


def filled(kernel: Kernel, cgroup: object = None, pages: int = PAGES) -> Process:
    """A process that has written all its pages."""
    app = kernel.spawn("app", cgroup)  # type: ignore[arg-type]
    heap = app.mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap.write_page(page, content(page))
    return app


def push_out(app: Process) -> None:
    """Nothing of it stays in memory."""
    app.madvise(app.mappings[0], "pageout")
    app.kernel.drain()
    app.kernel.reclaim(PAGES * PAGE_SIZE)


def intact(app: Process) -> bool:
    """All pages read as written."""
    heap = app.mappings[0]
    return all(heap.read_page(page) == content(page) for page in range(heap.pages))


def end(kernel: Kernel) -> None:
    """Without processes no slot, no page and no compressed copy is in use."""
    for process in list(kernel.processes):
        process.exit()
    kernel.drain()
    while kernel.reclaim("256K"):
        kernel.drain()
    kernel.check()
    assert (kernel.system.memory.used, kernel.system.zswap.stored_pages) == (0, 0)
    assert all(row["Used"] == 0 for row in kernel.swaps().rows)


def test_the_kernel_is_that_of_the_stage(stage: LoadedStage) -> None:
    """Otherwise all below would look at one stage many times."""
    assert Kernel is vr.Kernel is stage.Kernel
    assert Kernel.__module__ == f"vswap_ref._stages.s{stage.id}.kernel"


@pytest.mark.parametrize("zswap", [None, "lz4"])
@pytest.mark.parametrize("device", sorted(DEVICES))
def test_out_and_in(device: str, zswap: str | None) -> None:
    """Pages go out and come back, are written again, and go out once more."""
    kernel = Kernel(ram="1M", swap=[DEVICES[device]("1M")], zswap=zswap, debug=True)
    app = filled(kernel)
    for _ in range(2):
        push_out(app)
        assert "resident" not in app.mappings[0].where().counts()
        assert intact(app)
        app.mappings[0].write_page(1, content(1))
    end(kernel)


def test_memory_is_too_small() -> None:
    """Twice as much as there is memory."""
    kernel = Kernel(ram="256K", swap=[vr.Ssd("1M")], zswap="lz4", debug=True)
    app = filled(kernel, pages=128)
    assert "resident" in app.mappings[0].where()
    assert sum(kernel.vmstat[name] for name in ("zswpout", "pswpout", "swpout_zero")) > 64
    assert intact(app)
    end(kernel)


def test_a_child_keeps_what_its_parent_had() -> None:
    """Copy on write through swap: each sees its own."""
    kernel = Kernel(ram="1M", swap=[vr.Ssd("1M")], debug=True)
    app = filled(kernel)
    push_out(app)
    child = app.fork()
    app.mappings[0].write_page(0, content(1))
    push_out(app)
    assert intact(child)
    assert app.mappings[0].read_page(0) == content(1)
    end(kernel)


@pytest.mark.parametrize("zswap", [None, "lz4"])
def test_swapoff_brings_everything_back(zswap: str | None) -> None:
    """From one device, with another there to take its place or without."""
    kernel = Kernel(ram="1M", swap=[vr.Ssd("512K"), vr.Pmem("512K")], zswap=zswap, debug=True)
    app = filled(kernel)
    for number in (0, 1):
        push_out(app)
        kernel.swapoff(number)
        assert intact(app)
    assert not kernel.swaps().rows
    end(kernel)


def test_shared_memory() -> None:
    """What one process wrote another reads after both pages and first mapping went away."""
    kernel = Kernel(ram="1M", swap=[vr.Ssd("1M")], zswap="lz4", debug=True)
    shm = kernel.shmem(8 * PAGE_SIZE)
    writer, reader = kernel.spawn("writer"), kernel.spawn("reader")
    view = writer.mmap(shm)
    for page in range(8):
        view.write_page(page, content(page))
    writer.madvise(view, "pageout")
    other = reader.mmap(shm)
    writer.exit()
    assert [other.read_page(page) for page in range(8)] == [content(page) for page in range(8)]
    shm.unlink()
    end(kernel)


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_a_cgroup_pays_and_is_paid_back(version: str, stage: LoadedStage) -> None:
    """Its limit holds; when its process ends nothing is charged.  Where version 1 stands still in reclaim, it does."""
    kernel = Kernel(ram="1M", swap=[vr.Ssd("1M")], memcg=version, debug=True)
    group = kernel.cgroup("group", memory_max="64K")
    if version == "v1" and has_defect(VERSION_1_RECLAIM, stage.id):
        with pytest.raises(LockdepError, match="recursive locking: vswap_cluster"):
            filled(kernel, group)
        return
    app = filled(kernel, group)
    assert group.memory_current <= 64 << 10
    assert intact(app)
    app.exit()
    kernel.drain()
    assert (group.memory_current, group.swap_current, group.memsw_current) == (0, 0, 0)


def test_large_folios() -> None:
    """In one piece out, and back."""
    kernel = Kernel(ram="2M", swap=[vr.Zram("2M")], thp=vr.Thp("always", {"64K": "always"}), debug=True)
    app = filled(kernel)
    assert 4 in app.mappings[0].orders()
    push_out(app)
    assert intact(app)
    end(kernel)


def test_an_image_of_memory(stage: LoadedStage) -> None:
    """Saved, read back, its slots free again."""
    kernel = Kernel(ram="1M", swap=[vr.Ssd("1M")], debug=True)
    filled(kernel)
    with kernel.hibernate(image_pages(stage.id, 8)) as image:
        assert set(image.read()) <= {content(page) for page in range(PAGES)}
    end(kernel)


def test_a_copy_goes_on_alone() -> None:
    """Both have their contents and their own counters."""
    kernel = Kernel(ram="1M", swap=[vr.Ssd("1M")], zswap="lz4")
    push_out(filled(kernel))
    twin = kernel.copy()
    out = kernel.vmstat["pswpin"] + kernel.vmstat["zswpin"]
    assert intact(twin.processes[0])
    assert kernel.vmstat["pswpin"] + kernel.vmstat["zswpin"] == out
    assert intact(kernel.processes[0])
