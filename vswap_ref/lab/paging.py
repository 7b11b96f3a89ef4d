"""Page an access trace over real contents through a stage, and keep what happened."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from vswap_ref import series
from vswap_ref.display import legend_html, picture, table_html
from vswap_ref.machine import PAGE_SIZE, BlockDevice, Ssd, format_size, parse_size

from .corpus import PageSource, page_source
from .trace import AccessTrace, load_trace

LEAST_RAM = 64 * PAGE_SIZE
PROGRESS_FROM = 50_000


@dataclass(frozen=True, slots=True)
class Record:
    """What happened when a trace ran: its settings, the counters that moved, where the pages ended up.

    ``virtual_ns`` is time on the virtual clock; ``letter`` and ``exact`` are bytes of swap metadata at the end;
    ``slots`` are swap slots in use at the end.
    """

    trace: str
    stage: str
    pages: str
    ram: int
    swap: tuple[str, ...]
    zswap: str | None
    seed: int
    accesses: int
    footprint: int
    vmstat: dict[str, int]
    where: dict[str, int]
    slots: int
    virtual_ns: int
    letter: int
    exact: int

    @property
    def major_per_thousand(self) -> float:
        """Major faults in a thousand accesses."""
        return 1000 * self.vmstat.get("pgmajfault", 0) / self.accesses

    def rows(self) -> list[dict[str, Any]]:
        """The figures as tidy rows: what, value."""
        settings = ("trace", "stage", "pages", "ram", "zswap", "seed", "accesses", "footprint", "slots")
        rows = [{"what": name, "value": getattr(self, name)} for name in settings]
        rows.append({"what": "major faults per 1000", "value": round(self.major_per_thousand, 2)})
        rows.append({"what": "virtual ms", "value": round(self.virtual_ns / 1e6, 1)})
        return rows + [{"what": name, "value": value} for name, value in self.vmstat.items()]

    def to_json(self) -> str:
        """Everything, as a JSON text."""
        return json.dumps(asdict(self), indent=1)

    def __repr__(self) -> str:
        return (
            f"{self.trace} on stage {self.stage}, ram {format_size(self.ram)}, zswap {self.zswap}: "
            f"{self.vmstat.get('pgmajfault', 0)} major faults, {self.slots} slots in use, {self.where}"
        )

    def _repr_html_(self) -> str:
        head = f"{self.trace}: {self.accesses:,} accesses to {self.footprint:,} pages in {format_size(self.ram)}"
        return f"<p>{escape(head)}</p>{self.bar()}{legend_html(self.where)}{table_html(self.rows()[8:])}"

    def bar(self) -> str:
        """Where the pages ended up, as one bar."""
        from vswap_ref.display import COLOURS

        x, rects, total = 0.0, "", sum(self.where.values())
        for place, nr in self.where.items():
            width = 640 * nr / total
            rects += f"<rect x='{x:.1f}' y='0' width='{width:.1f}' height='20' fill='{COLOURS[place]}'/>"
            x += width
        alt = "where the pages are at the end: " + ", ".join(f"{place} {nr}" for place, nr in self.where.items())
        return picture(rects, alt, 640, 22)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One workload on two stages."""

    first: Record
    second: Record

    def rows(self) -> list[dict[str, Any]]:
        """One row a figure, the two stages side by side."""
        values = [{row["what"]: row["value"] for row in record.rows()} for record in (self.first, self.second)]
        names = {**values[0], **values[1]}
        keys = [f"stage {record.stage}" for record in (self.first, self.second)]
        if keys[0] == keys[1]:
            keys[1] += " again"
        return [{"what": name, keys[0]: values[0].get(name, 0), keys[1]: values[1].get(name, 0)} for name in names]

    def _repr_html_(self) -> str:
        return table_html(self.rows())


def run(
    trace: str | Path | AccessTrace,
    pages: str | PageSource = "mixed",
    stage: int | str | None = None,
    ram: int | str | None = None,
    swap: Iterable[BlockDevice] | None = None,
    zswap: Any = "lz4",
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> Record:
    """Run a trace: its pages get real contents at first access, stores change them, loads are checked.

    trace: a name that ships ("compile", "sqlite", "sort"), a file or an AccessTrace.  pages: a corpus, "mixed", "zero",
    "random" or a function.  stage: None for the latest.  ram: None for half of the trace's footprint.  swap: None for
    one Ssd of four times the footprint.  Other options go to Kernel.  progress: None shows a bar for long traces if
    tqdm is installed.  Raises AssertionError if data read back differs from data written.
    """
    accesses = load_trace(trace)
    source = page_source(pages, seed)
    size = max(LEAST_RAM, accesses.footprint // 2 * PAGE_SIZE) if ram is None else parse_size(ram, "ram")
    devices = [Ssd(max(64, 4 * accesses.pages) * PAGE_SIZE)] if swap is None else list(swap)
    kernel = kernel_class(stage)(ram=size, swap=devices, zswap=zswap, seed=seed, **options)
    heap = kernel.spawn(accesses.name).mmap(accesses.pages * PAGE_SIZE)
    before, begin = kernel.vmstat.snapshot(), kernel.clock.ns
    replay(heap, accesses, source, progress)
    moved, duration = kernel.vmstat.since(before), kernel.clock.ns - begin
    ledger = kernel.memory()
    return Record(
        trace=accesses.name,
        stage=stage_name(stage),
        pages=pages if isinstance(pages, str) else getattr(pages, "__name__", "function"),
        ram=size,
        swap=tuple(map(repr, devices)),
        zswap=zswap if isinstance(zswap, str) or zswap is None else zswap.compressor,
        seed=seed,
        accesses=len(accesses),
        footprint=accesses.footprint,
        vmstat=moved,
        where=heap.where().counts(),
        slots=sum(row["Used"] for row in kernel.swaps().rows) // PAGE_SIZE,
        virtual_ns=duration,
        letter=ledger.letter,
        exact=ledger.exact,
    )


def kernel_class(stage: int | str | None) -> Any:
    """The Kernel class of a stage; None: the latest."""
    return import_module("vswap_ref.kernel").Kernel if stage is None else series.at(stage).Kernel


def stage_name(stage: int | str | None) -> str:
    """The id of a stage; None: the latest."""
    return series.stages.latest() if stage is None else str(stage)


def replay(heap: Any, trace: AccessTrace, source: PageSource, progress: bool | None) -> None:
    """Access the pages in order.  Every store leaves a mark; every load checks the mark of the last store."""
    marks: dict[int, bytes] = {}
    steps = zip(trace.page.tolist(), trace.write.tolist(), strict=True)
    for number, (page, write) in enumerate(with_progress(steps, len(trace), progress)):
        first = page * PAGE_SIZE
        if page not in marks:
            heap.write_page(page, source(page))
            marks[page] = heap[first : first + 4]
        elif write:
            marks[page] = number.to_bytes(4, "little")
            heap[first : first + 4] = marks[page]
        elif heap[first : first + 4] != marks[page]:
            raise AssertionError(f"access {number}: page {page} reads back {heap[first : first + 4]!r}")


def with_progress(steps: Iterator[Any], total: int, progress: bool | None, unit: str = " accesses") -> Iterable[Any]:
    """The steps behind a progress bar, if one is wanted and tqdm is there."""
    if progress is False or (progress is None and total < PROGRESS_FROM):
        return steps
    try:
        tqdm = import_module("tqdm")
    except ImportError:
        return steps
    bar: Iterable[Any] = tqdm.tqdm(steps, total=total, unit=unit, delay=2, leave=False)
    return bar


def compare(first: int | str, second: int | str, trace: str | Path | AccessTrace, **options: Any) -> Comparison:
    """Run one trace on two stages with equal settings."""
    return Comparison(run(trace, stage=first, **options), run(trace, stage=second, **options))
