"""The XArray's node count against a tree that is really built."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswap_ref.machine import Faults, XArray

INDEX = st.one_of(st.integers(0, 130), st.sampled_from([4095, 4096, 262143, 262144, 1 << 24]))


def naive_nodes(indices: set[int]) -> int:
    """Nodes of a 64-way tree: a lone index 0 needs none; otherwise one for each distinct prefix up to the root."""
    if not indices or indices == {0}:
        return 0
    nodes, level = 0, indices
    while True:
        level = {index >> 6 for index in level}
        nodes += len(level)
        if level == {0}:
            return nodes


@given(st.lists(st.tuples(st.booleans(), INDEX), max_size=60))
def test_nodes_are_those_of_a_tree(steps: list[tuple[bool, int]]) -> None:
    """After any stores and erases the count is that of a tree built from scratch, and contents are a dict's."""
    array: XArray[str] = XArray()
    oracle: dict[int, str] = {}
    for store, index in steps:
        if store:
            assert array.store(index, f"v{index}") == oracle.get(index)
            oracle[index] = f"v{index}"
        else:
            assert array.erase(index) == oracle.pop(index, None)
        assert array.nodes == naive_nodes(set(oracle))
    assert list(array.items()) == sorted(oracle.items())
    assert (len(array), array.empty, array.nbytes) == (len(oracle), not oracle, 576 * array.nodes)


@given(st.lists(st.tuples(INDEX, st.integers(1, 200), st.sampled_from(["one", "two", None])), max_size=12))
def test_a_range_is_many_stores(steps: list[tuple[int, int, str | None]]) -> None:
    """store_range does to entries and nodes what single stores do, whatever was there; missing_nodes foretells them."""
    array: XArray[str] = XArray()
    oracle: dict[int, str] = {}
    for first, nr, value in steps:
        expected = array.nodes + array.missing_nodes(first, nr)
        array.store_range(first, nr, value)
        for index in range(first, first + nr):
            oracle.pop(index, None)
            if value is not None:
                oracle[index] = value
        assert array.nodes == naive_nodes(set(oracle))
        assert value is None or array.nodes == expected
    assert list(array.items()) == sorted(oracle.items())
    for index in oracle:
        array.erase(index)
    assert (array.nodes, array.empty) == (0, True)


def test_a_range_gets_all_its_nodes_or_none() -> None:
    """130 indices in four leaves, a leaf for index 0, three nodes above: the last is refused, nothing has changed."""
    faults = Faults()
    faults.declare("xa_node", "a node")
    array: XArray[int] = XArray(faults, "xa_node")
    array.store(0, 1)
    assert array.missing_nodes(4095, 130) == 8
    faults.fail("xa_node", nth=8)
    with pytest.raises(MemoryError):
        array.store_range(4095, 130, 2)
    assert (list(array.items()), array.nodes) == ([(0, 1)], 0)
    array.store_range(4095, 130, 2)
    assert (len(array), array.nodes, array.missing_nodes(4095, 130)) == (131, naive_nodes(set(array)), 0)


def test_a_full_tree_of_16384_entries() -> None:
    """256 leaves, 4 nodes above them and a root: 9.2 bytes an entry."""
    array: XArray[int] = XArray()
    for index in range(16384):
        array.store(index, index)
    assert array.nodes == 256 + 4 + 1


def test_a_failing_node_changes_nothing() -> None:
    """A store that needs a node fails; one that does not succeeds."""
    faults = Faults()
    faults.declare("xa_node", "a node")
    array: XArray[int] = XArray(faults, "xa_node")
    array.store(1, 1)
    faults.fail("xa_node", nth=1, times=100)
    with pytest.raises(MemoryError):
        array.store(64, 2)
    assert (list(array.items()), array.nodes) == ([(1, 1)], 1)
    assert array.store(2, 2) is None


def test_alloc_and_cmpxchg() -> None:
    """The lowest free index; an exchange only of what was expected."""
    array: XArray[Any] = XArray()
    assert [array.alloc("a", 1, 3) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(OverflowError):
        array.alloc("b", 1, 3)
    array.erase(2)
    assert array.alloc("c", 1, 3) == 2
    assert array.cmpxchg(2, "x", "y") == "c"
    assert array.cmpxchg(2, array.load(2), None) == "c"
    assert array.load(2) is None
    assert array.store(1, None) == "a"
    assert list(array) == [3]


class Named(XArray[str]):
    """With attributes of its own, one of them in a slot."""

    __slots__ = ("__dict__", "slot")


@pytest.mark.parametrize("make", [XArray, Named])
@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy, lambda array: pickle.loads(pickle.dumps(array))])
def test_a_copy_looks_into_itself(make: type[XArray[str]], twin_of: Callable[[XArray[str]], XArray[str]]) -> None:
    """``load`` belongs to an array's own entries, whatever became of the array before."""
    array = make()
    array.store(70, "old")
    if isinstance(array, Named):
        array.slot, array.free = "slot", "free"
    twin = twin_of(twin_of(array))
    assert (twin.load(70), twin.load(71), twin.nodes, type(twin)) == ("old", None, 2, make)
    twin.store(70, "new")
    assert twin.load(70) == "new"
    if twin_of is not copy.copy:
        assert array.load(70) == "old"
    if isinstance(twin, Named):
        assert (twin.slot, twin.free) == ("slot", "free")


def test_a_word_that_is_put_together_again_is_the_same() -> None:
    """cmpxchg compares words, not the Python objects that stand for them."""
    tree: XArray[int] = XArray()
    tree.store(5, int("12345678901"))
    assert tree.cmpxchg(5, int("12345678901"), None) == 12345678901
    assert 5 not in tree
