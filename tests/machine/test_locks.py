"""Validated locks find what can deadlock before it does."""

from __future__ import annotations

import threading

import pytest

from vswap_ref.machine import LockdepError, Locks, PercpuRef, Rcu


def test_plain_locks_are_bare() -> None:
    """Nothing stands between the model and the interpreter's own lock."""
    assert type(Locks("plain").spinlock("x")) is type(threading.Lock())


def test_a_cycle_of_three_classes_is_reported() -> None:
    """a in b, b in c were seen; c in a is the cycle, and the message shows the chain."""
    locks = Locks("validated")
    a, b, c = (locks.spinlock(name) for name in "abc")
    for outer, inner in ((a, b), (b, c)):
        with outer, inner:
            pass
    with c, pytest.raises(LockdepError, match=r"a wanted while c is held.*a -> b -> c"):
        a.acquire()
    locks.assert_none_held()


def test_one_class_twice_is_recursion() -> None:
    """Two locks of one class may not nest; a trylock may."""
    locks = Locks("validated")
    first, second = locks.spinlock("ci"), locks.spinlock("ci")
    with first:
        with pytest.raises(LockdepError, match="recursive"):
            second.acquire()
        assert second.acquire(blocking=False)
        second.release()


def test_release_and_held_are_checked() -> None:
    """Only a held lock can be released, and assert_held looks."""
    locks = Locks("validated")
    lock = locks.spinlock("si")
    with pytest.raises(LockdepError, match="released but not held"):
        lock.release()
    with pytest.raises(LockdepError, match="si must be held"):
        locks.assert_held(lock)
    with lock:
        locks.assert_held(lock)
        with pytest.raises(LockdepError, match="still held: si"):
            locks.assert_none_held()


def test_unknown_kind() -> None:
    """The message lists the kinds."""
    with pytest.raises(ValueError, match="locks='fast': expected one of plain, validated"):
        Locks("fast")


def test_rcu_callbacks_wait_for_readers() -> None:
    """Callbacks run at the grace period; one inside a read section could never end."""
    rcu, seen = Rcu("validated"), []
    rcu.call(seen.append, 1)
    with rcu.read, rcu.read, pytest.raises(RuntimeError, match="read section"):
        rcu.synchronize()
    assert (seen, rcu.pending) == ([], 1)
    rcu.synchronize()
    assert (seen, rcu.pending) == ([1], 0)


def test_percpu_ref_dies_and_comes_back() -> None:
    """Dead at first and after kill; zero only when all are put."""
    ref = PercpuRef()
    assert not ref.tryget()
    ref.resurrect()
    assert ref.tryget()
    ref.kill()
    assert not ref.tryget()
    assert not ref.is_zero
    ref.put()
    assert ref.is_zero
    with pytest.raises(RuntimeError):
        ref.put()
