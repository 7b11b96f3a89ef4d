"""What the experiments of the chapter on virtual slots teach."""

from __future__ import annotations

import pytest

from vswap_ref.lab.experiments.virtual_clusters import (
    cluster_film,
    cluster_life,
    cluster_zero,
    first_values,
    fragments,
    free_cost,
    layer_memory,
    runs,
    story_table,
    stranded,
)


@pytest.mark.parametrize("cpus", [2, 4])
def test_every_state_of_a_cluster_occurs(cpus: int) -> None:
    """Cached, full, in transit, partial, orphaned, of the highest order, dead."""
    cells = [{}, *story_table(cluster_film(cpus).scenes).rows]
    first = [str(row["cluster 1"]).partition(" by ")[0] for row in cells[1:]]
    assert first[:8] == [
        "1 cached",
        "512 full",
        "512 full",
        "512 full",
        "412 partial",
        "412 partial",
        "413 cached",
        "413 cached",
    ]
    new = f"cluster {cpus}"
    assert [cells[3][new], cells[4][new]] == ["1 on no list", "1 cached by CPU 0"]
    orphan = "cluster 0" if cpus == 2 else f"cluster {cpus - 1}"
    assert [cells[step][orphan].strip() for step in (5, 6, 8, 9)] == [
        f"1 cached by CPU {cpus - 1}",
        "1 on no list",
        "1 on no list",
        "",
    ]
    assert cells[8][f"cluster {cpus + 1}"] == "512 on no list"
    assert {str(value).partition(" by ")[0] for name, value in cells[10].items() if name != "step"} <= {"0 cached", " "}


def test_a_scene_shows_itself() -> None:
    """Cluster 1 at the step where a part of it has been freed: two runs of slots."""
    scene = cluster_life(5)
    assert scene.cluster(1) == {"cluster": 1, "order": 0, "count": 412, "refcnt": 412, "state": "partial"}
    assert scene.cluster(7) == {}
    assert list(runs(scene.bits[1])) == [(0, 201), (301, 512)]
    assert "412 partial" in scene._repr_html_()


def test_runs_of_bits() -> None:
    """First and end of each."""
    assert list(runs(bytes([1, 1, 0, 1]))) == [(0, 2), (3, 4)]
    assert list(runs(bytes(8))) == []
    assert list(runs(bytes([1]))) == [(0, 1)]


def test_first_values() -> None:
    """Those of the allocator of the kernel."""
    assert [row["value"] for row in first_values().rows] == ["512", "513", "1024", "1536", "16"]


def test_cluster_zero_is_let_go_one_request_late() -> None:
    """512 less one run, at every order; used up it is still cached."""
    rows = cluster_zero().rows
    assert [row["slots"] for row in rows] == [512 - (1 << order) for order in range(9)]
    assert {(row["used up"], row["asked again"]) for row in rows} == {("cached by CPU 0", "full")}


@pytest.mark.parametrize("pages", [32, 480])
def test_free_pages_are_no_room_for_a_folio(pages: int) -> None:
    """The same number of pages, of each folio some or of some folios all; both look like room."""
    spread, whole = fragments(pages), fragments(pages, "whole folios")
    assert (spread.count, spread.state) == (whole.count, whole.state) == (512 - pages, "partial")
    assert (spread.gained, whole.gained) == (0, pages // 16)
    assert spread.state_after == "full"


def test_cpus_that_die_leave_a_cluster_each() -> None:
    """None of them is on a list."""
    gone, stayed = stranded(10), stranded(10, cpus_die=False)
    assert (gone.clusters, gone.cached) == (10, 0)
    assert (stayed.clusters, stayed.cached) == (1, 1)


def test_freeing_slot_by_slot() -> None:
    """Two locks a slot and one look-up; unmapping asks three more a page."""
    before, after = free_cost(stage=8), free_cost(stage=9)
    assert (before.costs["cl_lock"], before.costs["cache_lock"]) == (0, 1)
    assert (after.costs["cl_lock"], after.costs["cache_lock"]) == (1025, 512)
    assert free_cost("unmapping").costs["cl_lock"] == 2560


def test_bytes_a_page() -> None:
    """8.22 and the map's nodes when dense, 4,208 and the nodes for a page alone."""
    dense = layer_memory("dense", 9).per_page - layer_memory("dense", 8).per_page
    sparse = layer_memory("sparse", 9).per_page - layer_memory("sparse", 8).per_page
    assert dense == pytest.approx(8.22 + 0.035, abs=0.01)
    assert sparse == 4208 + 18
