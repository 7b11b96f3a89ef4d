"""What a patch changes in the two ledgers: primitive operations of one page, bytes of a filled device."""

from __future__ import annotations

from typing import Any

from vswap_ref.display import Figure, Table
from vswap_ref.lab.metadata import metadata_table

from .cost import page_cost


def arrow(old: int, new: int) -> Figure:
    """An old and a new number."""
    return Figure(f"{old:,} -> {new:,}" if old != new else f"{old:,}")


def cost_changes(before: int, after: int, stores: tuple[str, ...] = ("zswap", "device")) -> Table:
    """The primitives of one page's life that a patch changes, a row for each and each store."""
    rows: list[dict[str, Any]] = []
    for store in stores:
        old, new = (page_cost(store, stage=stage).steps for stage in (before, after))
        for name in dict.fromkeys(name for costs in (*old.values(), *new.values()) for name in costs):
            pairs = {step: (old[step].get(name, 0), new[step].get(name, 0)) for step in old}
            if any(a != b for a, b in pairs.values()):
                rows.append(
                    {"page in": store, "primitive": name} | {step: arrow(*pair) for step, pair in pairs.items()}
                )
    return Table("costs", rows)


def byte_changes(before: int, after: int, size: str = "64M", percent: int = 100) -> Table:
    """The rows of the byte ledger that a patch changes, on a device that is used to a share, exactly."""
    rows: list[dict[str, Any]] = []
    for backend in ("zswap", "swapfile"):
        ledgers = [metadata_table(size, stage, [percent], [backend]).points[0].ledger for stage in (before, after)]
        old, new = ({row[0]: row[3] for row in ledger.rows} | {"total": ledger.exact} for ledger in ledgers)
        for name in dict.fromkeys([*new, *old]):
            a, b = old.get(name, 0), new.get(name, 0)
            if a != b:
                rows.append({"pages in": backend, "structure": name, "bytes": arrow(a, b)})
    return Table("bytes", sorted(rows, key=lambda row: (row["pages in"] != "zswap", row["structure"] == "total")))
