"""Validated locks find what can deadlock before it does."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from vswap_ref.machine import LockdepError, Locks, PerCpu, PercpuRef, Rcu


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


def test_another_task_holds_for_itself() -> None:
    """What one thread holds is neither an outer lock of another, nor the other's to release or to rely on."""
    locks = Locks("validated")
    a, b = locks.spinlock("a"), locks.spinlock("b")
    with b, a:
        pass

    def other() -> None:
        with pytest.raises(LockdepError, match="a must be held"):
            locks.assert_held(a)
        with pytest.raises(LockdepError, match="a released but not held"):
            a.release()
        with b:
            locks.assert_held(b)

    failures: list[BaseException] = []
    with a:
        thread = threading.Thread(target=run_and_note, args=(other, failures))
        thread.start()
        thread.join()
    assert failures == []
    locks.assert_none_held()


def run_and_note(function: Callable[[], None], failures: list[BaseException]) -> None:
    """Run, and keep what went wrong."""
    try:
        function()
    except BaseException as error:
        failures.append(error)


def test_tasks_need_not_be_threads() -> None:
    """A scheduler says who runs; "still held" looks at every task."""
    locks, running = Locks("validated"), ["first"]
    locks.lockdep.current = lambda: running[0]
    lock = locks.spinlock("ci")
    lock.acquire()
    running[0] = "second"
    with pytest.raises(LockdepError, match="ci must be held"):
        locks.assert_held(lock)
    with pytest.raises(LockdepError, match="still held: ci"):
        locks.assert_none_held()
    running[0] = "first"
    lock.release()


@pytest.mark.parametrize("handler_first", [True, False])
@pytest.mark.parametrize("blocking", [True, False])
def test_an_interrupt_takes_what_others_take_with_interrupts_on(handler_first: bool, blocking: bool) -> None:
    """In whichever order the two are seen; with interrupts off everywhere else nothing is wrong."""
    locks = Locks("validated")
    lru = locks.spinlock("lru")

    def take(irqs_off: bool) -> None:
        context = locks.irqs_off if irqs_off else nullcontext()
        with context:
            assert lru.acquire(blocking=blocking)
            lru.release()

    def handle() -> None:
        with locks.interrupt, lru:
            pass

    take(irqs_off=True)
    first, second = (handle, lambda: take(irqs_off=False)) if handler_first else (lambda: take(irqs_off=False), handle)
    first()
    take(irqs_off=True)
    with pytest.raises(LockdepError, match="inconsistent lock state: lru"):
        second()


def test_an_irq_safe_lock_has_no_unsafe_one_inside() -> None:
    """An interrupt that wants the outer lock would wait for a task that was interrupted under the inner one."""
    locks = Locks("validated")
    lru, ci, si = (locks.spinlock(name) for name in ("lru", "ci", "si"))
    with locks.interrupt, lru:
        pass
    with locks.irqs_off, lru, ci:
        pass
    with si:
        pass
    with locks.irqs_off, ci, pytest.raises(LockdepError, match="lru -> ci -> si nest"), si:
        pass


def test_a_handler_leaves_nothing_held() -> None:
    """And it holds nothing of what the task that it has interrupted holds."""
    locks = Locks("validated")
    ci, lru = locks.spinlock("ci"), locks.spinlock("lru")
    with ci:
        with locks.interrupt, pytest.raises(LockdepError, match="ci must be held"):
            locks.assert_held(ci)
        locks.assert_held(ci)
    with pytest.raises(LockdepError, match="interrupt handler leaves with lru"), locks.interrupt:
        lru.acquire()


def test_plain_kernels_have_no_interrupts() -> None:
    """Nothing is tracked, nothing is slow."""
    locks = Locks()
    lock = locks.spinlock("lru")
    with locks.interrupt, lock:
        locks.assert_held(lock)
    with lock, locks.irqs_off:
        pass
    assert not locks.lockdep.tasks


def test_each_cpu_has_its_own() -> None:
    """An object and a lock for every CPU; a CPU that goes offline keeps its object, but is not visited."""
    online = [0, 1, 2]
    percpu = PerCpu(online, list, lambda: Locks("validated").local_lock("pcp"))
    percpu[1].append("x")
    assert list(percpu) == [[], ["x"], []]
    with percpu.local_lock[1]:
        assert [lock.locked() for lock in percpu.local_lock] == [False, True, False]
    online.remove(1)
    assert list(percpu.online()) == [(0, []), (2, [])]
    assert percpu[1] == ["x"]
    twin = pickle.loads(pickle.dumps(PerCpu(online, list, int)))
    assert (twin, twin.online_cpus) == ([[], []], [0, 2])


def test_unknown_kind() -> None:
    """The message lists the kinds."""
    with pytest.raises(ValueError, match="locks='fast': expected one of plain, validated, scheduled"):
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


def test_sections_of_plain_kernels_leave_no_mark() -> None:
    """They nest in any order, errors pass through them, and they can be copied."""
    locks, rcu = Locks("plain"), Rcu("plain")
    for section in (rcu.read, locks.irqs_off, locks.interrupt, pickle.loads(pickle.dumps(rcu.read))):
        with pytest.raises(ZeroDivisionError), section, section:
            1 / 0  # noqa: B018
        section.__enter__()
        section.__exit__(None, None, None)
    with rcu.read:
        rcu.synchronize()
