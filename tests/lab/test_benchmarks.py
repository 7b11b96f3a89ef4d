"""The benchmarks count in the model what was counted in the real code."""

from __future__ import annotations

import pytest

from benchmarks import layer

RECORD = {"xa_load": 1, "cl_lock": 1, "rcu_lock": 2}
"""Recording the cgroup looks the entry up again; a later patch does it while the slot is taken."""

UNCHARGE = {"memcg_uncharge_calls": 1, "rcu_lock": 1}
"""An entry is charged wherever its page is, until a later patch charges places on a device only."""

UNCHARGE_DEVICE = {"rcu_lock": 1}
"""The real code's stand-in for the memory controller has no RCU section when it looks the cgroup up."""


def times(nr: int, counts: dict[str, int]) -> dict[str, int]:
    return {name: nr * count for name, count in counts.items()}


MORE: dict[str, list[dict[str, int]]] = {
    "1": [RECORD],
    "2": [UNCHARGE],
    "11": [times(512, UNCHARGE_DEVICE)],
    "12": [times(512, UNCHARGE)],
    "13": [times(512, UNCHARGE)],
    # Here the cluster of 512 keeps a page; in the recording it was one of 511, which died with the last of them.
    "14": [times(256, UNCHARGE_DEVICE), times(255, UNCHARGE), {"xa_lock": -1}],
    "18": [RECORD, UNCHARGE],
    "19": [RECORD],
    "20": [times(512, UNCHARGE)],
}
"""Row -> what stage 14 does and the code with 20 patches does not."""


@pytest.mark.parametrize("row", layer.LIFE_CYCLES)
def test_the_model_does_what_the_real_code_does(row: str) -> None:
    """Locks, RCU sections, look-ups, references, words of the reverse map: the same number, with what is known."""
    expected = layer.recorded_events()[row]
    for more in MORE.get(row, []):
        expected = {name: count + more.get(name, 0) for name, count in expected.items()}
    counts = layer.events(row)
    assert {name: counts[name] for name in counts if name != "vswap_used"} == {
        name: count for name, count in expected.items() if name != "vswap_used"
    }


def test_the_share_of_a_cycle_is_that_of_its_calls() -> None:
    """What is timed does what is counted: afterwards nothing is left in zswap, and no slot in use but the first."""
    k = layer.Layer()
    first = k.swapped().swap + 1
    folio = k.folio()
    layer.swap_out(k, (folio, k.compressed(first)))()
    assert (k.s.zswap.stored_pages, k.s.vswap.used, folio.swapcache, folio.swap) == (1, 2, False, 0)
    back = k.folio()
    layer.fault_in(k, (back, first))()
    assert (k.s.zswap.stored_pages, k.s.vswap.used, back.swapcache, back.dirty) == (0, 1, False, True)


def test_recorded_times_are_found_by_name() -> None:
    """The shortest of a level."""
    assert layer.recorded_ns("swp_swapcount, same cluster") == 8.3
    assert layer.recorded_ns("swp_swapcount, alternating two clusters", "22") == 24.6
