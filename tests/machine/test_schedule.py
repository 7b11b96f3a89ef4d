"""The scheduler explores interleavings: the same choices always give the same run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, permutations
from math import comb

import pytest

from vswap_ref.machine import (
    DeadlockError,
    Exploration,
    LivelockError,
    LockdepError,
    Locks,
    Rcu,
    Scheduler,
    at_random,
    follow,
    parse_schedule,
    relax,
    switch_point,
    wait_until,
)

Body = Callable[[], object]


def steps(name: str, nr: int, seen: list[str]) -> Body:
    """A task of ``nr`` steps, with a switch point between two of them."""

    def body() -> None:
        for step in range(nr):
            if step:
                switch_point(f"{name}{step}")
            seen.append(name)

    return body


def explore(make: Callable[[], Sequence[Body]], preemptions: int | None = None, **options: object) -> list[Scheduler]:
    """Run the tasks in every schedule."""
    exploration, runs = Exploration(preemptions), []
    for choices in exploration:
        runs.append(Scheduler(make(), follow(choices), **options))  # type: ignore[arg-type]
        runs[-1].run()
        exploration.add(runs[-1].decisions)
    return runs


@pytest.mark.parametrize("sizes", [(2, 2), (3, 4), (1, 5), (2, 2, 2)])
def test_every_interleaving_comes_once(sizes: tuple[int, ...]) -> None:
    """Two tasks of m and n steps have (m + n over m) interleavings; three, the multinomial number."""
    orders: list[str] = []

    def make() -> list[Body]:
        seen: list[str] = []
        orders_of_run.append(seen)
        return [steps("abc"[i], nr, seen) for i, nr in enumerate(sizes)]

    orders_of_run: list[list[str]] = []
    runs = explore(make)
    orders = ["".join(seen) for seen in orders_of_run]
    assert len(orders) == comb(sum(sizes), sizes[0]) * comb(sum(sizes[1:]), sizes[1])
    assert sorted(orders) == sorted(
        {"".join(p) for p in permutations("".join("abc"[i] * n for i, n in enumerate(sizes)))}
    )
    assert len({run.schedule for run in runs}) == len(runs)


@pytest.mark.parametrize("bound", [0, 1, 2, 3])
def test_the_bound_counts_preemptions(bound: int) -> None:
    """Of all interleavings those remain that stop a task before its end at most so many times, fewest first."""

    def preemptions(order: str) -> int:
        runs = [(name, len(list(run))) for name, run in groupby(order)]
        left = {"a": 4, "b": 3}
        stopped = 0
        for name, nr in runs:
            left[name] -= nr
            stopped += left[name] > 0
        return stopped

    expected = [preemptions("".join(p)) for p in set(permutations("aaaabbb"))]
    seen: list[list[str]] = []

    def make() -> list[Body]:
        seen.append([])
        return [steps("a", 4, seen[-1]), steps("b", 3, seen[-1])]

    runs = explore(make, bound)
    used = [sum(made.preempts for made in run.decisions) for run in runs]
    assert used == [preemptions("".join(order)) for order in seen] == sorted(used)
    assert len(runs) == sum(nr <= bound for nr in expected)


def racy(lock: bool) -> tuple[Body, list[int]]:
    """A task that adds one to a counter in two steps, with or without a lock around them."""
    locks, counter = Locks("scheduled"), [0]
    guard = locks.spinlock("counter")

    def body() -> None:
        if lock:
            with guard:
                add()
        else:
            add()

    def add() -> None:
        value = counter[0]
        switch_point("between load and store")
        counter[0] = value + 1

    return body, counter


def test_a_lost_update_is_found() -> None:
    """Without the lock, one preemption loses an update; with it, none does in any schedule."""

    def results(lock: bool, preemptions: int | None) -> dict[str, int]:
        counters: list[list[int]] = []

        def make() -> list[Body]:
            body, counter = racy(lock)
            counters.append(counter)
            return [body, body]

        runs = explore(make, preemptions)
        assert all(run.error is None for run in runs)
        return {run.schedule: counter[0] for run, counter in zip(runs, counters, strict=True)}

    assert set(results(True, None).values()) == {2}
    assert set(results(False, 0).values()) == {2}
    assert sorted(schedule for schedule, value in results(False, 1).items() if value == 1) == ["a1b1", "b1a1"]


def abba(locks: Locks) -> list[Body]:
    """Two tasks that take two locks in opposite order."""
    a, b = locks.spinlock("A"), locks.spinlock("B")

    def nest(outer: object, inner: object) -> Body:
        def body() -> None:
            with outer, inner:  # type: ignore[attr-defined]
                pass

        return body

    return [nest(a, b), nest(b, a)]


def test_a_deadlock_says_who_holds_what() -> None:
    """One preemption is enough; the schedule leads there again; nothing hangs."""
    runs = explore(lambda: abba(Locks("scheduled")), 1)
    dead = [run for run in runs if run.error is not None]
    assert dead
    assert len(dead) < len(runs)
    message = "a waits for B#0, held by b, holds A#0; b waits for A#0, held by a, holds B#0"
    for run in dead:
        again = Scheduler(abba(Locks("scheduled")), follow(parse_schedule(run.schedule)))
        assert isinstance(again.run(), DeadlockError)
        assert str(again.error) == str(run.error) == message
        assert not any(task.is_alive() for task in run.tasks)


def test_seeds_and_schedules_repeat_a_run() -> None:
    """The same seed makes the same choices; the text of a run's choices makes them again; seeds differ."""

    def play(choose: Callable[[Sequence[int]], int]) -> Scheduler:
        locks, seen = Locks("scheduled"), []
        ci = locks.spinlock("ci")

        def body(name: str) -> Body:
            def run() -> None:
                for _ in range(4):
                    with ci:
                        seen.append(name)

            return run

        scheduler = Scheduler([body("a"), body("b"), body("c")], choose)
        assert scheduler.run() is None
        scheduler.trace.append(("seen", "".join(seen)))
        return scheduler

    runs = [play(at_random(seed)) for seed in range(20)]
    for seed, run in enumerate(runs):
        assert play(at_random(seed)).trace == run.trace
        again = play(follow(parse_schedule(run.schedule)))
        assert (again.trace, again.schedule) == (run.trace, run.schedule)
    assert len({run.schedule for run in runs}) == 20
    assert play(follow([])).schedule == "a1"


def test_a_schedule_that_does_not_fit() -> None:
    """Of another program, or with another text: ValueError, no guess."""
    with pytest.raises(ValueError, match="schedule='a0': expected letters"):
        parse_schedule("a0")
    run = Scheduler([steps("a", 2, []), steps("b", 2, [])], follow(parse_schedule("a3")))
    assert "at step 2 task a cannot run, only b" in str(run.run())


def test_contention_is_counted() -> None:
    """A task that finds a lock taken counts once, trylock too; of which lock in the class, the class knows."""
    locks = Locks("scheduled")
    first, second = locks.spinlock("ci"), locks.spinlock("ci")
    tried: list[bool] = []

    def holder() -> None:
        with second:
            switch_point("long")

    def trier() -> None:
        tried.append(second.acquire(blocking=False))
        with first, second:
            pass

    Scheduler([holder, trier], follow(parse_schedule("a2b9"))).run()
    stat = locks.lockdep.stat["ci"]
    assert tried == [False]
    assert (stat.made, stat.acquisitions, stat.contentions, dict(stat.where)) == (2, 4, 2, {1: 2})
    with first:
        pass
    assert stat.acquisitions == 4
    locks.assert_none_held()


def test_locks_work_outside_of_a_run() -> None:
    """Like plain ones; what would hang says so; a release checks."""
    locks = Locks("scheduled")
    lock = locks.spinlock("si")
    with lock:
        locks.assert_held(lock)
        assert not lock.acquire(blocking=False)
        with pytest.raises(AssertionError, match="si#0, held by the caller: there is no other task"):
            lock.acquire()
    with pytest.raises(LockdepError, match="si must be held"):
        locks.assert_held(lock)
    with pytest.raises(LockdepError, match="si released but not held"):
        lock.release()
    with locks.irqs_off, locks.interrupt, lock:
        pass
    assert not relax("x")


def test_an_atomic_section_keeps_its_cpu() -> None:
    """While a spin lock is held, and while one is waited for, no other task runs on that CPU."""

    def orders(cpus: Sequence[int]) -> set[str]:
        seen: list[list[str]] = []

        def make() -> list[Body]:
            lock, order = Locks("scheduled").spinlock("ci"), []
            seen.append(order)

            def section() -> None:
                with lock:
                    order.append("a")
                    switch_point("inside")
                    order.append("A")

            return [section, lambda: order.append("b")]

        explore(make, cpus=cpus)
        return {"".join(order) for order in seen}

    assert orders([0, 1]) == {"aAb", "abA", "baA"}
    assert orders([0, 0]) == {"aAb", "baA"}


@pytest.mark.parametrize("spins", [True, False])
def test_who_spins_keeps_its_cpu_and_who_sleeps_does_not(spins: bool) -> None:
    """Task a waits on CPU 0 for b on CPU 1: only if a sleeps c can run on CPU 0 meanwhile."""

    def make() -> list[Body]:
        lock, done = Locks("scheduled").spinlock("ci"), []

        def waits() -> None:
            if spins:
                with lock:
                    pass
            else:
                wait_until(lambda: bool(done), "b")
                switch_point("after")

        def holds() -> None:
            with lock:
                switch_point("inside")
            done.append(True)

        return [waits, holds, lambda: switch_point("c")]

    meanwhile = set()
    for run in explore(make, 2, cpus=[0, 1, 0]):
        tasks = [(task, label.startswith("waits for")) for task, label in run.trace]
        if ("a", True) in tasks:
            begin = tasks.index(("a", True))
            end = tasks.index(("a", False), begin)
            meanwhile |= {task for task, _ in tasks[begin + 1 : end]}
    assert meanwhile == ({"b"} if spins else {"b", "c"})


def test_a_grace_period_waits_for_its_readers() -> None:
    """Who has found an object keeps it until the section ends; sections that began later are not waited for."""

    def check(schedule: list[int]) -> tuple[Scheduler, set[str]]:
        rcu, linked, freed, seen = Rcu("scheduled"), [True], [], set()

        def reader() -> None:
            for _ in range(2):
                with rcu.read:
                    found = bool(linked)
                    switch_point("read")
                    if freed:
                        seen.add("used after free" if found else "freed while reading something else")

        def updater() -> None:
            linked.clear()
            rcu.call(freed.append, True)
            rcu.synchronize()

        run = Scheduler([reader, updater], follow(schedule))
        assert run.run() is None
        seen |= {label for task, label in run.trace if task == "b"}
        return run, seen

    exploration, seen = Exploration(None), set()
    for choices in exploration:
        run, labels = check(choices)
        seen |= labels
        exploration.add(run.decisions)
    assert seen == {
        "synchronize_rcu",
        "waits for the end of RCU read sections",
        "freed while reading something else",
    }


def test_an_error_ends_the_run() -> None:
    """The first exception counts; the others are unwound and let go of what they hold."""
    locks = Locks("scheduled")
    lock = locks.spinlock("ci")
    left: list[str] = []

    def fails() -> None:
        switch_point("x")
        raise KeyError("broken")

    def waits() -> None:
        try:
            with lock:
                wait_until(lambda: False, "never")
        finally:
            left.append("unwound")

    run = Scheduler([fails, waits], follow(parse_schedule("b2a2")))
    assert isinstance(run.run(), KeyError)
    assert left == ["unwound"]
    assert not lock.locked()


def test_trying_again_lets_others_go_first() -> None:
    """A task that relaxes sees the others move; two that only relax never end, and are told so."""
    done: list[int] = []

    def polls() -> None:
        while not done:
            assert relax("done")

    run = Scheduler([polls, lambda: (switch_point("x"), done.append(1))], follow([]))
    assert run.run() is None

    def forever() -> None:
        while True:
            relax("for ever")

    assert isinstance(Scheduler([forever, forever], follow([]), max_steps=100).run(), LivelockError)


def test_every_line_can_be_a_switch_point() -> None:
    """A race inside of a function without a lock: only lines show it."""
    counters: list[list[int]] = []

    def add(counter: list[int]) -> None:
        value = counter[0]
        counter[0] = value + 1

    def make() -> list[Body]:
        counters.append([0])
        counter = counters[-1]
        return [lambda: add(counter), lambda: add(counter)]

    explore(make)
    assert {counter[0] for counter in counters} == {2}
    counters.clear()
    runs = explore(make, 1, lines=[add.__code__])
    lost = [run.schedule for run, counter in zip(runs, counters, strict=True) if counter[0] == 1]
    assert sorted(lost) == ["a2b1", "b2a1"]
    assert [label for task, label in runs[0].trace if task == "a"] == ["add:1", "add:2"]
