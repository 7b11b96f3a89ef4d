"""Tasks of the face in many orders: what is found, that it is found again, and that nothing is left behind."""

from __future__ import annotations

import re
from typing import Any

import pytest

import vswap_ref as vr
from vswap_ref.lab.experiments.interleavings import PLANTS, SCENES, two_cpus
from vswap_ref.lab.experiments.lock_partitioning import lock_partitioning
from vswap_ref.machine import PAGE_SIZE, DeadlockError, ScheduleError, switch_point
from vswap_ref.series.live_stage import LiveStage
from vswap_ref.series.notebook import Cell
from vswap_ref.series.stages import checkout_series


def small(**options: Any) -> Any:
    """A kernel with one process on each of two CPUs, which share no memory."""
    kernel = vr.Kernel(**{"ram": "1M", "swap": [vr.Ssd("1M")], "locks": "scheduled", "page_cluster": 0} | options)
    for cpu in (0, 1):
        heap = kernel.spawn(f"app{cpu}", cpu=cpu).mmap(4 * PAGE_SIZE)
        heap.write_page(0, bytes((65 + cpu,)) * PAGE_SIZE)
    return kernel


def out_and_in(number: int) -> Any:
    """A task: push a page out, and read it back."""

    def task(kernel: Any) -> None:
        app = kernel.processes[number]
        app.madvise(app.mappings[0], "pageout", 0, PAGE_SIZE)
        assert app.mappings[0].read_page(0) == bytes((65 + number,)) * PAGE_SIZE

    return task


@pytest.mark.parametrize("stage", [pytest.param(0, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize("scene", SCENES)
def test_every_schedule_keeps_the_data(scene: str, stage: int) -> None:
    """The model as it is: each schedule with one preemption, then ``check()``."""
    record = two_cpus(scene, stage=stage)
    assert record.complete
    assert record.failures == []
    assert record.runs > 30
    assert set(record.outcomes) == {"data kept"}


@pytest.mark.parametrize(
    ("mistake", "scene", "error"),
    [
        ("PTE compared without its lock", "two faults, synchronous device", "OutOfMemory: no memory for page"),
        ("cache flag not claimed", "fault, and the slot used again", "AssertionError: the page reads as it was before"),
        ("cache not looked at again", "move, swapped in and out", "AssertionError: a cached folio has not noticed"),
        ("cluster list without its lock", "two pages pushed out", "SwapClusterInfo object>"),
    ],
)
def test_a_planted_mistake_is_found_and_found_again(mistake: str, scene: str, error: str) -> None:
    """One preemption is enough; the schedule leads to the same exception, and without the mistake to none."""
    record = two_cpus(scene, mistake, stage=8)
    failure = record.failure
    assert failure is not None
    assert error in repr(failure)
    again = two_cpus(scene, mistake, stage=8, schedule=failure.schedule)
    assert again.failure is not None
    assert (again.failure.schedule, again.failure.trace) == (failure.schedule, failure.trace)
    assert error in repr(again.failure)
    assert re.fullmatch(r"([abc]\d+)+", failure.schedule)
    assert two_cpus(scene, stage=8).failure is None


@pytest.mark.parametrize(("stage", "goes_wrong"), [(8, False), (9, True), (12, True), (13, False)])
def test_a_slot_that_was_translated_too_early(stage: int, goes_wrong: bool) -> None:
    """From 9 to 12 an entry becomes a slot before the slot's cluster is locked: meanwhile it can belong to another one.

    The cache flag is claimed there, and cannot be given back, for the entry has no slot any more.  At 13 the claim
    stands in the entry's own descriptor.
    """
    failure = two_cpus("fault, and the slot used again", stage=stage).failure
    assert (failure is not None) == goes_wrong
    if failure is not None:
        assert isinstance(failure.error, AssertionError)
        assert ("a", "waits for ci#0, held by b") in failure.trace


@pytest.mark.slow
def test_a_fault_can_make_swapoff_fail() -> None:
    """Two preemptions: the fault has given its reference back, its cache flag is still set, and the PTE as before."""
    record = two_cpus("fault, swapoff", preemptions=2)
    assert record.failure is None
    assert set(record.outcomes) == {"data kept", "swapoff: ENOMEM"}


def test_a_lock_left_out_in_a_live_stage() -> None:
    """As in a notebook: a cell replaces a function; the swap map loses an update between two of its lines."""
    series = checkout_series()
    notebook = series.stage("8").notebooks[-1]
    live = LiveStage(series, "8", notebook)
    for cell in series.cells(notebook):
        live.apply(cell)
    text = live.tree["mm/swap_map.py"].definitions["__swap_duplicate"].text

    def search() -> vr.Interleavings:
        def world() -> Any:
            kernel = live.Kernel(ram="1M", swap=[vr.Ssd("1M")], locks="scheduled", page_cluster=0)
            heap = kernel.spawn("parent").mmap(PAGE_SIZE)
            heap.write_page(0, b"shared  " * (PAGE_SIZE // 8))
            heap.process.madvise(heap, "pageout")
            kernel.drain()
            kernel.reclaim("64K")
            kernel.processes[0].fork()
            return kernel

        tasks = [lambda kernel: kernel.processes[0].fork(), lambda kernel: kernel.processes[1].fork()]
        lines = [live.module("swap_map").swap_duplicate_one]
        return vr.interleave(world, tasks, exhaustive=True, preemptions=1, lines=lines)

    assert search().failure is None
    unlocked = text.replace("ci = swap_cluster_lock(s, si, offset)", "").replace("    swap_cluster_unlock(ci)\n", "")
    live.apply(Cell(notebook, 0, 1, f"%%patch mm/swap_map.py\n{unlocked}"))
    failure = search().failure
    assert failure is not None
    assert "count = swap PTEs" in repr(failure)


def test_seeds_and_copies() -> None:
    """A kernel stands for a factory; the same seeds give the same record; the kernel itself stays as it was."""
    kernel = small()
    tasks = [out_and_in(0), out_and_in(1)]
    first = vr.interleave(kernel, tasks, seeds=range(5), after=lambda k: k.vmstat["pgmajfault"])
    second = vr.interleave(small, tasks, seeds=range(5), after=lambda k: k.vmstat["pgmajfault"])
    assert first.failures == second.failures == []
    assert (first.steps, first.locks(), first.outcomes, first.first) == (
        second.steps,
        second.locks(),
        second.outcomes,
        second.first,
    )
    assert sum(first.contentions.values()) == sum(first.by_lock.values()) > 0
    assert kernel.vmstat["pswpout"] == 0


def test_tasks_stay_on_their_cpus() -> None:
    """Whatever process a task acts for: after every switch the kernel runs on the CPU of the task."""
    seen: set[tuple[str, int]] = set()

    def task(name: str) -> Any:
        def run(kernel: Any) -> None:
            for _ in range(3):
                switch_point(name)
                kernel.processes[0].mappings[0].touch(0)
                seen.add((name, kernel.system.cpu))

        return run

    kernels: list[Any] = []

    def make() -> Any:
        kernels.append(small(debug=True, cpus=3))
        return kernels[-1]

    vr.interleave(make, [task("a"), task("b")], seeds=range(5), cpus=[2, 1])
    assert seen == {("a", 2), ("b", 1)}
    for kernel in kernels:
        assert [process.cpu for process in kernel.processes] == [0, 1]
        assert kernel.system.config.debug
        assert "should_fail" not in vars(kernel.faults)
        assert "write" not in vars(kernel.devices[0])


def test_waiting_for_each_other_is_a_failure() -> None:
    """Page-table locks of two processes in opposite order: the record says who holds what."""

    def nest(first: int, second: int) -> Any:
        def task(kernel: Any) -> None:
            with kernel.processes[first].mm.ptl, kernel.processes[second].mm.ptl:
                pass

        return task

    record = vr.interleave(small, [nest(0, 1), nest(1, 0)], exhaustive=True)
    assert record.failure is not None
    assert isinstance(record.failure.error, DeadlockError)
    assert "a waits for ptl#1, held by b, holds ptl#0" in repr(record)
    assert not record.complete


def test_bad_input() -> None:
    """The message says what is expected; a schedule of other tasks is not guessed at."""
    tasks = [out_and_in(0), out_and_in(1)]
    for options, message in (
        ({}, "expected one of seeds"),
        ({"seeds": [1], "exhaustive": True}, "expected one of seeds"),
        ({"schedule": "a1b"}, "expected letters"),
        ({"seeds": [1], "cpus": [0, 5]}, r"cpus=\[0, 5\]: expected 2 of the CPUs \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            vr.interleave(small, tasks, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has plain locks; boot it with locks='scheduled'"):
        vr.interleave(lambda: small(locks="plain"), tasks, seeds=[1])
    with pytest.raises(ScheduleError, match="task c cannot run"):
        vr.interleave(small, tasks, schedule="a1c1")
    with pytest.raises(ValueError, match="expected one of two faults"):
        two_cpus("nothing")
    with pytest.raises(ValueError, match=", ".join(PLANTS)):
        two_cpus(mistake="x")


@pytest.mark.slow
def test_one_lock_for_all_is_where_cpus_meet() -> None:
    """The swap cache: locked cluster by cluster CPUs never meet, in one tree they do; alone they cannot."""
    clusters, tree = lock_partitioning(0), lock_partitioning(1)
    assert clusters.of("ci")["acquisitions"] > 3000
    assert clusters.of("ci")["contentions"] == 0
    assert tree.of("swap_cache")["contentions"] > 50
    assert tree.of("ci")["contentions"] == 0
    last, first = lock_partitioning(9), lock_partitioning(10)
    assert last.of("swap_cache")["contentions"] > 10
    assert (first.of("swap_cache")["acquisitions"], first.of("vswap_cluster")["contentions"]) == (0, 0)
    assert first.of("vswap_cluster")["acquisitions"] > 8000
    assert lock_partitioning(1, cpus=3).share("swap_cache") > tree.share("swap_cache")
    assert lock_partitioning(1, cpus=1).of("swap_cache")["contentions"] == 0
    assert lock_partitioning(1).rows() == tree.rows()
