"""What the experiments of the chapter on the swap cache in the descriptor teach."""

from __future__ import annotations

import pytest

from vswap_ref.lab.experiments.descriptor_cache import fault_in, life_of_a_field, reclaim_under, refused
from vswap_ref.lab.experiments.global_cache import famine
from vswap_ref.lab.experiments.virtual_clusters import free_cost, layer_memory

SEEDS = range(6)


def test_cpus_meet_only_in_one_cluster() -> None:
    """Each in its own: never.  All in one: often; alone: never."""
    apart, together = fault_in("one each", seeds=SEEDS), fault_in("one for all", seeds=SEEDS)
    assert apart.of("vswap_cluster")["acquisitions"] == together.of("vswap_cluster")["acquisitions"] > 1000
    assert apart.of("vswap_cluster")["contentions"] == 0
    assert together.share("vswap_cluster") > 5
    assert fault_in("one for all", cpus=1, seeds=SEEDS).of("vswap_cluster")["contentions"] == 0


def test_the_tree_was_met_even_apart() -> None:
    """Whoever's cluster it is."""
    record = fault_in("one each", stage=9)
    assert record.of("swap_cache")["contentions"] > 0
    assert record.of("vswap_cluster")["contentions"] == 0


def test_the_life_of_a_field() -> None:
    """Folio, shadow, folio, nothing; freed; another folio.  Look-ups agree with the word."""
    rows = life_of_a_field().rows
    kinds = [str(row["word"]).split()[0] for row in rows]
    assert kinds == ["folio", "shadow", "folio", "nothing", "nothing", "folio"]
    assert [row["get_folio"] for row in rows] == [
        row["word"] if kind == "folio" else "-" for row, kind in zip(rows, kinds, strict=True)
    ]
    assert [row["get_shadow"] for row in rows] == ["shadow" if kind == "shadow" else "-" for kind in kinds]
    assert [row["refaults"] for row in rows] == [0, 0, 1, 1, 1, 1]
    assert rows[0]["word"] != rows[5]["word"]


def test_a_dead_word_is_not_seen() -> None:
    """The folio stays in memory; its word stays, too."""
    (row,) = refused().rows
    assert (str(row["word"]).split()[0], row["get_folio"], row["get_shadow"]) == ("folio", "-", "-")
    assert str(row["step"]).endswith("resident")


@pytest.mark.parametrize(("stage", "works"), [(8, True), (9, True), (10, False), (11, False), (12, True)])
def test_version_1_waits_for_itself(stage: int, works: bool) -> None:
    """From this patch to the next but one; version 2 does not."""
    outcome = reclaim_under("v1", stage).outcome
    assert outcome == "works" if works else "vswap_cluster taken while vswap_cluster is held" in outcome
    assert reclaim_under("v2", stage).outcome == "works"


def test_adding_does_not_fail() -> None:
    """The requests for nodes that failed are not made."""
    assert (famine(100, 9).lost > 10, famine(100, 10).lost) == (True, 0)


def test_the_ledgers() -> None:
    """Less when dense, more when sparse; one lock less a slot freed."""
    dense, sparse = (layer_memory(name, 10).per_page - layer_memory(name, 9).per_page for name in ("dense", "sparse"))
    assert -1.5 < dense < -1
    assert sparse == 4096 - layer_memory("sparse", 9).bytes["swap cache"] / 32
    before, after = free_cost(stage=9).costs, free_cost(stage=10).costs
    assert (before["cl_lock"], after["cl_lock"], after["cache_lock"]) == (1025, 1025, 0)
