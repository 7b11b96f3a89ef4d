"""Many slots that are freed in columns leave and cost what they leave and cost one by one."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from vswap_costs import Counted

from vswap_ref.lab.final_state import describe

pytestmark = pytest.mark.stages(14, until=14)


def prepared(locks: str, seed: int, kinds: str, order: int, memcg: str | None) -> tuple[Counted, list[int], list[Any]]:
    """A kernel with folios of one size swapped out, each slot backed by one of ``kinds``; (kernel, entries, folios)."""
    rng = random.Random(seed)
    k = Counted(14, memcg=memcg, size="8M", zswap="lz4", locks=locks)
    entries, kept = [], []
    for number in range(max(800 >> order, 2)):
        k.owner = k.kernel.cgroup(f"other{number}").memcg if memcg and rng.random() < 0.02 else k.owner
        folio = k.swapped(order)
        entries += range(folio.swap, folio.swap + (1 << order))
        back(k, folio, rng.choice(kinds))
        if rng.random() < 0.03:
            k.call("swap_duplicate", folio.swap)
        if "F" in kinds and rng.random() < 0.5:
            kept.append(folio)
            continue
        folio.dirty, folio.refcount = False, 0
        k.call("swap_cache_lock_irq", folio.swap)
        k.call("__vswap_remove_mapping", folio, folio.swap, rng.choice((None, 1)))
    return k, sorted(entries), kept


def back(k: Counted, folio: Any, kind: str) -> None:
    """Put a folio's content somewhere."""
    if kind == "S":
        assert k.call("vswap_alloc_swap_slot", folio)
    elif kind == "Z":
        k.call("swap_zeromap_folio_set", folio)
    elif kind == "C":
        for page in range(folio.nr_pages):
            packed = random.Random(folio.swap + page).randbytes(40 + page % 50)
            zentry = k.call("zswap_entry_alloc", folio.swap + page, packed, folio.memcg)
            k.call("zswap_publish", zentry)
            k.call("zswap_entry_store", folio.swap + page, zentry)


def freed(locks: str, seed: int, kinds: str, order: int, memcg: str | None) -> tuple[list[Any], dict[str, int]]:
    """States while ranges of entries are freed, and what that cost."""
    k, entries, kept = prepared(locks, seed, kinds, order, memcg)
    before, states = k.kernel.cost, []
    gaps = (place for place in range(1, len(entries)) if entries[place] != entries[place - 1] + 1)
    cuts = {0, len(entries), *gaps, *random.Random(seed).sample(range(len(entries)), 3)}
    for first, end in pairwise(sorted(cuts)):
        k.call("free_swap_and_cache_nr", entries[first], end - first)
        states.append((describe(k.s), list(k.s.vmstat.values()), [folio.refcount for folio in kept]))
    return states, k.kernel.cost.since(before)


@pytest.mark.parametrize("order", [0, 2, 9])
@pytest.mark.parametrize(
    ("kinds", "memcg"), [("S", "v2"), ("C", "v2"), ("Z", "v2"), ("SCZ", "v2"), ("SCZ", "v1"), ("SCZF", None)]
)
def test_columns_and_rows_agree(kinds: str, order: int, memcg: str | None) -> None:
    """Validated locks make the model go one by one; nothing else may be different."""
    at_once, one_by_one = (freed(locks, 0, kinds, order, memcg) for locks in ("plain", "validated"))
    assert len(at_once[0]) > 2
    for number, (first, second) in enumerate(zip(at_once[0], one_by_one[0], strict=True)):
        assert first == second, number
    assert at_once[1] == one_by_one[1]


def test_columns_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a range of a process's entries, and up to the last slot of a cluster."""
    k, entries, _ = prepared("plain", 1, "Z", 9, "v2")
    calls = []
    free_batch = k.find("vswap_free_batch")
    lifecycle = k.stage.module("vswap.lifecycle")
    monkeypatch.setattr(lifecycle, "vswap_free_batch", lambda s, c, e, n: (calls.append(n), free_batch(s, c, e, n)))
    k.call("swap_free_nr", entries[0], 20)
    k.call("swap_free_nr", entries[20], 1)
    assert calls == [19]
