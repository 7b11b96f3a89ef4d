"""The experiment on the cost ledger: what one page costs in primitive operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vswap_ref.display import Figure, Table
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Ssd

CONTENT = {"device": b"data" * 1024, "zero": bytes(PAGE_SIZE), "zswap": b"data" * 1024}


@dataclass(frozen=True, slots=True)
class CostRecord:
    """What a page in one kind of store cost in each step of its life."""

    store: str
    steps: dict[str, dict[str, int]]

    @property
    def table(self) -> Table:
        """One row a primitive, one column a step."""
        names = dict.fromkeys(name for costs in self.steps.values() for name in costs)
        rows: list[dict[str, object]] = [
            {"primitive": name} | {step: costs.get(name, 0) for step, costs in self.steps.items()} for name in names
        ]
        return Table(f"one page, {self.store}", rows)

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def page_cost(store: str = "device", memcg: str | None = "v2", stage: int | str = 0) -> CostRecord:
    """Swap one page out to a store ("device", "zero", "zswap"), fault it in by a read, and unmap it."""
    zswap = "lz4" if store == "zswap" else None
    kernel = kernel_class(stage)(ram="4M", swap=[Ssd("8M")], zswap=zswap, memcg=memcg, page_cluster=0)
    app = kernel.spawn("app")
    first, heap = app.mmap(PAGE_SIZE), app.mmap(PAGE_SIZE)
    for mapping, content in ((first, CONTENT["device"]), (heap, CONTENT[store])):
        mapping.write_page(0, content)
        before = kernel.cost.snapshot()
        app.madvise(mapping, "pageout")
        kernel.drain()
        kernel.reclaim(PAGE_SIZE)
    steps = {"swap out": kernel.cost.since(before)}
    actions: dict[str, Callable[[], None]] = {"fault in": lambda: heap.touch(0), "free": heap.munmap}
    for name, action in actions.items():
        before = kernel.cost.snapshot()
        action()
        steps[name] = kernel.cost.since(before)
    return CostRecord(store, steps)


def side_by_side(*stores: str) -> Table:
    """``page_cost`` of several stores in one table: in each step a number for each store, in their order."""
    costs = [page_cost(store).steps for store in stores]
    names = sorted({name for steps in costs for step in steps.values() for name in step})
    rows = [
        {"primitive": name}
        | {step: Figure(" | ".join(str(steps[step].get(name, 0)) for steps in costs)) for step in costs[0]}
        for name in names
    ]
    return Table(f"one page: {' | '.join(stores)}", rows)
