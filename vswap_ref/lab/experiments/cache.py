"""Experiments of the chapter on the swap cache: the life of one slot, and what a refault's distance tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vswap_ref.display import picture, table_html
from vswap_ref.kernel import Kernel, Process
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Ssd


@dataclass(frozen=True, slots=True)
class SlotLife:
    """Rows (step, byte of the swap map, word of the swap table, references of the folio)."""

    rows: list[dict[str, Any]]

    def __repr__(self) -> str:
        return "\n".join(f"{r['step']:<34}{r['byte']:<7}{r['word']:<10}{r['references']}" for r in self.rows)

    def _repr_html_(self) -> str:
        return table_html(self.rows)


def slot_state(kernel: Kernel, step: str, slot: int = 1) -> dict[str, Any]:
    """Byte, word and folio references of a slot of the first device."""
    si = kernel.system.swap.info[0]
    table = si.cluster_info[slot // 512].table
    word = table[slot % 512] if table is not None else 0
    kind = "null" if word == 0 else "shadow" if word & 1 else "folio"
    folio = kernel.system.memory.mem_map[word >> 1] if kind == "folio" else None
    references = "" if folio is None else str(folio.refcount)
    return {"step": step, "byte": f"0x{si.swap_map[slot]:02x}", "word": kind, "references": references}


def life_of_a_slot(sharers: int = 2) -> SlotLife:
    """Follow slot 1: a page of ``sharers`` processes, swapped out, brought back by one after the other."""
    kernel = kernel_class(0)(ram="4M", swap=[Ssd("4M")], page_cluster=0)
    parent = kernel.spawn("parent")
    heap = parent.mmap(PAGE_SIZE)
    heap.write_page(0, b"once" * (PAGE_SIZE // 4))
    everyone: list[Process] = [parent]
    rows = [slot_state(kernel, "page written, slot free")]
    parent.madvise(heap, "pageout")
    rows.append(slot_state(kernel, "unmapped, write in flight"))
    everyone += [parent.fork(f"child {number}") for number in range(1, sharers)]
    rows.append(slot_state(kernel, f"forked, {sharers} page-table entries"))
    kernel.drain()
    kernel.reclaim(64 * PAGE_SIZE)
    rows.append(slot_state(kernel, "folio freed"))
    for process in everyone:
        process.mappings[0].touch(0)
        rows.append(slot_state(kernel, f"{process.name} reads"))
    for process in everyone[1:]:
        process.exit()
        rows.append(slot_state(kernel, f"{process.name} exits"))
    heap[0] = 1
    rows.append(slot_state(kernel, "parent writes"))
    return SlotLife(rows)


@dataclass(frozen=True, slots=True)
class RefaultRecord:
    """Loops over more memory than there is: refaults, and how many came back soon enough to be made active."""

    memory_percent: int
    refaults: int
    activated: int
    major_faults: int

    def __repr__(self) -> str:
        return (
            f"memory for {self.memory_percent} % of the loop: {self.major_faults} major faults, "
            f"{self.refaults} refaults, {self.activated} activated"
        )

    def _repr_html_(self) -> str:
        share = 100 * self.activated // max(1, self.refaults)
        bars = f"<rect width='400' height='16' fill='#88888844'/><rect width='{4 * share}' height='16' fill='#2e9e5b'/>"
        return f"<p>{self!r}</p>{picture(bars, f'{share} percent of the refaults were activated', 400, 18)}"


def refaults(memory_percent: int = 80, hot_percent: int = 25, loops: int = 6, pages: int = 400) -> RefaultRecord:
    """Loop over ``pages`` pages, touching a hot share twice in each loop, with memory for a part of them.

    A turn takes three seconds, so that the statistics which decide about activation keep up.
    """
    kernel = kernel_class(0)(ram="16M", swap=[Ssd("16M")], page_cluster=0)
    group = kernel.cgroup("loop", memory_max=pages * memory_percent // 100 * PAGE_SIZE)
    heap = kernel.spawn("loop", cgroup=group).mmap(pages * PAGE_SIZE)
    for page in range(pages):
        heap.write_page(page, page.to_bytes(4, "little") * (PAGE_SIZE // 4))
    hot = pages * hot_percent // 100
    for _ in range(loops):
        kernel.clock.advance(3_000_000_000)
        for page in range(pages):
            heap.touch(page)
            heap.touch(page % hot)
    stat = kernel.vmstat
    return RefaultRecord(
        memory_percent, stat["workingset_refault_anon"], stat["workingset_activate_anon"], stat["pgmajfault"]
    )
