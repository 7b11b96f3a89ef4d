"""Patch 2: the header is sorted, and nothing else has happened."""

from __future__ import annotations

import inspect
from typing import Any

import vswap_ref as vr
from vswap_ref.lab.experiments.header import ABSENT, GROUPS, name_map


def declared(stage: int) -> dict[str, str]:
    """Name -> signature of what the header declares."""
    groups = vr.at(stage).module("swap_h").SWAP_H.values()
    functions = [function for group in groups for function in group]
    assert len(set(functions)) == len(functions), "each once"
    return {function.__name__: str(inspect.signature(function)) for function in functions}


def functions_of(stage: int) -> dict[tuple[str, str], str]:
    """(Module, name) -> source of every function and class of a stage."""
    texts: dict[tuple[str, str], str] = {}
    for path in vr.at(stage).sources():
        if path.startswith("mm/") and not path.endswith("__init__.py"):
            module: Any = vr.at(stage).module(path[3:-3])
            for name, value in vars(module).items():
                if (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == module.__name__:
                    texts[path, name] = inspect.getsource(value)
    return texts


def test_names_and_signatures_are_those_of_the_stage_before() -> None:
    """Of the header, and of everything in the model."""
    assert declared(2) == declared(1)
    assert functions_of(2) == functions_of(1)


def test_only_the_table_differs() -> None:
    """One module, and in it one name."""
    before, after = vr.at(1).sources(), vr.at(2).sources()
    assert [path for path in after if after[path] != before.get(path)] == ["mm/swap_h.py"]
    assert before.keys() == after.keys()


def test_the_groups_are_the_kernels() -> None:
    """The table has the header's names in its order, without those that the model has no function for."""
    groups = vr.at(2).module("swap_h").SWAP_H
    known = {name for path, name in functions_of(2)}
    assert [title.split(" (")[0] for title in groups] == list(GROUPS)
    for functions, names in zip(groups.values(), GROUPS.values(), strict=True):
        assert [function.__name__ for function in functions] == [name for name in names if name in known]
    assert sum(map(len, GROUPS.values())) == 32
    assert len(declared(2)) == 26


def test_the_lifecycle_is_complete() -> None:
    """All eleven names exist; they are the list of what will move."""
    files = name_map("lifecycle").files()
    assert len(files) == 11
    assert all(row == ["mm/swapfile.c"] * 3 for row in files.values())


def test_the_name_map_tells_files_apart() -> None:
    """A function's own home goes before its module's; what the model lacks is grey."""
    cache, physical = name_map("swap cache").files(), name_map("physical allocator and device").files()
    assert cache["free_swap_cache"] == ["mm/swap_state.c"] * 3
    assert cache["free_pages_and_swap_cache"] == [ABSENT] * 3
    assert physical["swap_folio_sector"] == ["mm/page_io.c"] * 3
    assert physical["get_nr_swap_pages"] == [ABSENT] * 3
