"""What the experiments on the life of an entry teach."""

from __future__ import annotations

import pytest

from vswap_ref.lab.experiments.cache_only import scan
from vswap_ref.lab.experiments.fork_storm import fork_storm
from vswap_ref.lab.experiments.freeing import PATHS, lock_order, locks_taken, who_frees_whom
from vswap_ref.lab.experiments.lifecycle import FREE, OPERATIONS, State, end_of_an_entry, golden, lives, refused, walk

CACHED, ALONE = State(1, 0, "fo", 0), State(1, 0, "fo", 1)


def expected(state: State, operation: str) -> tuple[str, State] | None:
    """What the table of lifecycle operations says; None: a bug of the caller."""
    pin, count, word, marked = state
    off = State(0, count, "-" if word == "fo" else word, 0) if count else FREE
    fewer = State(pin, count - 1, word, int(pin and count == 1)) if pin or count > 1 else FREE
    both = {"swap_free": fewer, "free_swap_and_cache_nr": FREE if fewer == ALONE else fewer}
    if operation in both:
        return ("-", both[operation]) if count else None
    if operation == "folio_alloc_swap":
        return ("0", CACHED) if state == FREE else None
    if operation == "swap_duplicate":
        return ("-ENOENT", FREE) if state == FREE else ("0", State(pin, count + 1, word, 0))
    if operation == "swapcache_prepare":
        return ("-EEXIST", state) if pin else ("0", State(1, count, word, 0)) if count else ("-ENOENT", FREE)
    if operation == "__try_to_reclaim_swap":
        answer = "0" if word != "fo" else "1" if marked else "-1"
        return None if state == FREE else (answer, FREE if answer == "1" else state)
    if operation in ("swapcache_clear", "swap_cache_add_folio"):
        after = off if operation == "swapcache_clear" else State(1, count, "fo", marked)
        return ("-", after) if pin and word != "fo" else None
    if word != "fo":
        return None
    if operation == "folio_free_swap":
        return ("False", state) if count else ("True", FREE)
    return ("-", off._replace(word="sh") if operation == "__vswap_remove_mapping" and count else off)


def test_all_lives_are_those_of_the_table() -> None:
    """Every state within three users, every operation: answer and next state; what the table forbids is absent."""
    arrows = lives().arrows
    assert len(arrows) == 20
    for state, steps in arrows.items():
        for operation in OPERATIONS:
            if not (operation == "swap_duplicate" and state.users == 3):
                assert steps.get(operation) == expected(state, operation), (state, operation)
    assert not [state for state in arrows if state.word == "fo" and not state.pin]
    assert not [state for state in arrows if state.marked and (state.users or not state.pin)]


def test_a_walk_refuses_what_is_a_bug_of_the_caller() -> None:
    """And names the operation, the state, and what is known."""
    with pytest.raises(ValueError, match="swap_free: a caller's bug while the entry is P=1 N=0"):
        walk("alloc free")
    with pytest.raises(ValueError, match="'eat': expected one of folio_alloc_swap"):
        walk("alloc eat")


def test_golden_sequences() -> None:
    """Answers, locks, and what is left."""
    found = [(row["answer"], row["locks"], row["after"], row["K"]) for row in golden(13).rows]
    assert found == [
        ("True", 1, "free, (0,1,-), (1,0,-)", "001"),
        ("-ENOENT", 2, "(0,1,-), (0,1,-), free", "000"),
        ("-EEXIST", 2, "(0,1,-), (0,1,-), (1,1,-)", "000"),
        ("-", 1, "free, free", "00"),
        ("-", 1, "(0,1,sh), (0,1,sh)", "00"),
    ]
    ends = ["zswap_entry_free", "mem_cgroup_uncharge_swap_by_id", "swap_slot_free_nr", "vswap_rmap_set"]
    assert end_of_an_entry(13) == [*ends, "swap_map_fill", "release_vswap_slot", "vswap_cluster_put"]
    no = refused(13)
    assert (no.answer, no.before) == (-12, no.after)


def test_the_direction_of_freeing_turns_round() -> None:
    """Physical frees virtual, then virtual frees physical, then there is no physical slot."""
    assert [who_frees_whom(stage).order() for stage in (12, 13, 14)] == [
        ["physical", "virtual", "physical"],
        ["virtual", "physical", "virtual"],
        ["virtual"],
    ]


def test_the_order_of_locks_turns_round() -> None:
    """And the validator objects to the old order at the new stage."""
    before, after = lock_order(12), lock_order(13)
    assert before.nests("ci", "vswap_cluster")
    assert not before.nests("vswap_cluster", "ci")
    assert after.nests("vswap_cluster", "ci")
    assert not after.nests("ci", "vswap_cluster")
    assert before.tried == "no complaint"
    assert "possible circular locking" in after.tried


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (PATHS[0], [(11, 5), (9, 2), (7, 0)]),
        (PATHS[1], [(1536, 0), (1024, 0), (0, 0)]),
        (PATHS[2], [(1537, 1), (1, 512), (1, 0)]),
    ],
)
def test_lock_ledger(path: str, found: list[tuple[int, int]]) -> None:
    """Virtual and physical cluster locks at stages 12, 13 and 14."""
    taken = [locks_taken(stage, path) for stage in (12, 13, 14)]
    assert [(one.virtual, one.physical) for one in taken] == found


@pytest.mark.parametrize(("users", "pages"), [(62, 0), (63, 1), (8063, 1), (8064, 2)])
def test_a_storm_needs_pages_before_and_none_after(users: int, pages: int) -> None:
    """Digits of base 63, then of base 128; after the patch a number."""
    assert fork_storm(users, 12).pages == pages
    assert (fork_storm(users, 13).pages, fork_storm(users, 13).count) == (0, str(users))


def test_only_marked_slots_are_taken_back() -> None:
    """Above half of the device, whole folios; fresh ones at the stage before, and not after."""
    freed = {
        (stage, fill, kind): scan(fill, kind, stage).freed
        for stage in (12, 13)
        for fill in (40, 60)
        for kind in ("the cache's alone", "fresh")
    }
    full = {key: nr for key, nr in freed.items() if key[1] == 60}
    assert not any(nr for key, nr in freed.items() if key[1] == 40)
    assert list(full.values()) == [16, 16, 16, 0]
