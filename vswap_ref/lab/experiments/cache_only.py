"""Slots that only the swap cache holds, and an allocator that wants them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vswap_ref.display import escape, picture

from .lifecycle import Rig

FILLS = {"the cache's alone": True, "fresh": False}


@dataclass(frozen=True, slots=True)
class Scan:
    """Slots that only folios in the cache hold, and an allocator that wants four of them."""

    stage: str
    fill: int
    kind: str
    marked: int
    candidate: bool
    freed: int
    slots: int

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        asked = "yes" if self.candidate else "no"
        names = {"stage": self.stage, "in use, %": self.fill, "slots are": self.kind, "marked": self.marked}
        return names | {"scan asks for reclaim": asked, "slots freed": self.freed}

    def __repr__(self) -> str:
        said = f"the scan asks for reclaim, {self.freed} slots freed" if self.candidate else "the scan refuses"
        return f"stage {self.stage}, {self.fill} % in use, {self.kind}, {self.marked} slots marked: {said}"

    def _repr_html_(self) -> str:
        width = 480 * self.fill / 100
        gone = 480 * self.freed / self.slots
        colour = "#1f9bb5" if self.marked else "#9a8fd8"
        bars = (
            f"<rect width='480' height='20' fill='#88888833'/><rect width='{width:.0f}' height='20' fill='{colour}'/>"
            f"<rect width='{gone:.1f}' height='20' fill='#2e9e5b'/>"
            "<line x1='240' x2='240' y1='0' y2='24' stroke='currentColor' stroke-dasharray='3'/>"
        )
        return f"<p>{escape(repr(self))}. Green: freed; dashed: half.</p>{picture(bars, repr(self), 480, 24)}"


def scan(fill: int = 60, kind: str = "the cache's alone", stage: int | str = 13) -> Scan:
    """Fill a device of 2,048 slots to a share with folios of 16 pages that nobody maps, then scan the first four.

    kind: "fresh" folios were never mapped; "the cache's alone" had a user, who has gone.
    """
    if kind not in FILLS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(FILLS)}")
    rig = Rig(stage)
    si, slots = rig.s.swap.info[0], 2048
    for _ in range(slots * fill // 100 // 16):
        folio = rig.folio(4)
        assert not rig.call("folio_alloc_swap", folio)
        if FILLS[kind]:
            for page in range(16):
                assert not rig.call("swap_duplicate", folio.swap + page)
            rig.call("swap_free_nr", folio.swap, 16)
        folio.locked = False
    offset = next(index for index in range(0, slots, 512) if si.swap_map[index + 16] and not index % 512 and index)
    marked = sum(rig.functions["swap_cache_only"](si, i) for i in range(1, slots)) if int(rig.stage.id) >= 13 else 0
    used = sum(map(bool, si.swap_map))
    _, candidate = rig.call("cluster_scan_range", si, offset, 4)
    if candidate:
        ci = rig.functions["swap_cluster_lock"](rig.s, si, offset)
        assert rig.call("cluster_reclaim_range", si, ci, offset, 4)
        rig.functions["swap_cluster_unlock"](ci)
    return Scan(str(stage), fill, kind, marked, candidate, used - sum(map(bool, si.swap_map)), slots)
