"""An XArray with its own lock: who takes it, once, and who does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from vswap_ref.machine import Faults, LockdepError, LockedXArray, Locks, Rcu, Scheduler, at_random

CHANGES: dict[str, Callable[[LockedXArray[str]], object]] = {
    "store": lambda xa: xa.store(3, "new"),
    "store nothing": lambda xa: xa.store(1, None),
    "store a range": lambda xa: xa.store_range(60, 80, "new"),
    "erase": lambda xa: xa.erase(1),
    "erase what is not there": lambda xa: xa.erase(2),
    "exchange": lambda xa: xa.cmpxchg(1, "old", "new"),
    "exchange for nothing": lambda xa: xa.cmpxchg(1, "old", None),
    "exchange refused": lambda xa: xa.cmpxchg(1, "other", "new"),
    "allocate": lambda xa: xa.alloc("new", 1, 9),
}
LOOKS: dict[str, Callable[[LockedXArray[str]], object]] = {
    "load": lambda xa: xa.load(1),
    "empty": lambda xa: xa.empty,
    "contains": lambda xa: 1 in xa,
    "items": lambda xa: list(xa.items()),
    "nodes": lambda xa: (xa.nodes, xa.nbytes, xa.height, len(xa), xa.missing_nodes(64)),
}


def array(kind: str, faults: Faults | None = None) -> tuple[LockedXArray[str], Locks, Rcu]:
    """An array with one object, at index 1, and the locks that its own was made by."""
    locks, rcu = Locks(kind), Rcu(kind)
    xa: LockedXArray[str] = LockedXArray(locks, rcu, "tree", faults)
    xa.store(1, "old")
    return xa, locks, rcu


@pytest.mark.parametrize("kind", ["plain", "validated"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_takes_the_lock_once(kind: str, change: str) -> None:
    """It would hang, or be reported, if it took the lock again; it is seen to nest in a lock that is held."""
    xa, locks, _ = array(kind)
    with locks.spinlock("outer"):
        CHANGES[change](xa)
    assert not xa.xa_lock.locked()
    if kind == "validated":
        assert locks.lockdep.inside["outer"] == {"tree"}
        with xa.xa_lock, pytest.raises(LockdepError, match="recursive locking: tree"):
            CHANGES[change](xa)


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_takes_no_lock(look: str) -> None:
    """It is not even noticed by a validator, while somebody holds the lock."""
    xa, _, rcu = array("validated")
    with xa.xa_lock:
        LOOKS[look](xa)
    assert rcu.read.last == (1 if look == "load" else 0)
    assert not rcu.read.depth


def test_what_a_change_does_is_what_it_does_without_a_lock() -> None:
    """Each of them, one after the other, also where the lock-free ones call each other."""
    xa, _, _ = array("plain")
    answers = [change(xa) for change in CHANGES.values()]
    assert answers == [None, "old", None, None, None, None, None, None, 1]
    assert dict(xa.items()) == {1: "new", 3: "new"} | dict.fromkeys(range(60, 140), "new")


def test_a_failing_store_gives_the_lock_back() -> None:
    """No memory for a node."""
    faults = Faults()
    faults.declare("xa_node", "a node")
    xa, locks, _ = array("validated", faults)
    faults.fail("xa_node")
    with pytest.raises(MemoryError):
        xa.store(1 << 20, "far away")
    locks.assert_none_held()
    assert dict(xa.items()) == {1: "old"}


@pytest.mark.parametrize(("arrays", "meet"), [(1, True), (2, False)])
def test_two_cpus_meet_on_one_array_only(arrays: int, meet: bool) -> None:
    """Scheduled: two tasks that store find the lock of one array taken, those of two arrays never."""
    contentions = 0
    for seed in range(20):
        locks, rcu = Locks("scheduled"), Rcu("scheduled")
        made: list[LockedXArray[int]] = [LockedXArray(locks, rcu, "tree") for _ in range(arrays)]

        def store(number: int, made: list[Any] = made) -> None:
            for index in range(4):
                made[number % len(made)].store(100 * number + index, index)

        assert Scheduler([partial(store, 0), partial(store, 1)], at_random(seed)).run() is None
        stat = locks.lockdep.stat["tree"]
        assert stat.acquisitions == 8
        assert sum(map(len, made)) == 8
        contentions += stat.contentions
    assert (contentions > 0) == meet
