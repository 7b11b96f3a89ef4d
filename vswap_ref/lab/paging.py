"""Page an access trace over real contents through a stage, and keep what happened."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from vswap_ref import series
from vswap_ref.display import legend_html, picture, table_html, table_text
from vswap_ref.machine import PAGE_SIZE, BlockDevice, Ssd, format_size, parse_size

from .corpus import PageSource, page_source
from .trace import AccessTrace, load_trace

LEAST_RAM = 64 * PAGE_SIZE
PROGRESS_FROM = 50_000


@dataclass(frozen=True, slots=True)
class Record:
    """What happened when a workload ran: its settings, the counters that moved, where the pages ended up.

    ``virtual_ns`` is time on the virtual clock; ``letter`` and ``exact`` are bytes of swap metadata at the end;
    ``slots`` are slots of devices in use at the end, ``stored`` the pages in zswap.  A workload that is a function has
    no ``accesses``, and its ``footprint`` is what it leaves mapped.
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
    stored: int
    virtual_ns: int
    letter: int
    exact: int

    @property
    def major_per_thousand(self) -> float:
        """Major faults in a thousand accesses; 0 without accesses."""
        return 1000 * self.vmstat.get("pgmajfault", 0) / max(1, self.accesses)

    def rows(self) -> list[dict[str, Any]]:
        """The figures as tidy rows: what, value."""
        settings = ("trace", "stage", "pages", "ram", "zswap", "seed", "accesses", "footprint", "slots", "stored")
        rows = [{"what": name, "value": getattr(self, name)} for name in settings]
        rows.append({"what": "major faults per 1000", "value": round(self.major_per_thousand, 2)})
        rows.append({"what": "virtual ms", "value": round(self.virtual_ns / 1e6, 1)})
        rows.append({"what": "metadata bytes", "value": self.letter})
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
        figures, counters = self.rows()[8:13], table_html(self.rows()[13:])
        summary = f"{len(self.vmstat)} counters of /proc/vmstat that moved"
        return (
            f"<p>{escape(head)}</p>{self.bar()}{legend_html(self.where)}{table_html(figures)}"
            f"<details><summary>{summary}</summary>{counters}</details>"
        )

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


FIGURES = {
    "slots": "device slots in use",
    "stored": "pages in zswap",
    "pswpout": "pages written",
    "pswpin": "pages read",
    "pgmajfault": "major faults",
    "swap_ra": "pages read ahead",
    "metadata bytes": "metadata bytes",
    "virtual ms": "virtual ms",
}
"""What a comparison draws -> how it is called."""
PLOT_COLOURS = ("#88888899", "#3f6fb0")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One workload on two stages.  Shows itself as a plot of the main figures and a table of what differs."""

    first: Record
    second: Record

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two columns."""
        first, second = f"stage {self.first.stage}", f"stage {self.second.stage}"
        return first, second + " again" * (first == second)

    def rows(self) -> list[dict[str, Any]]:
        """One row a figure, the two stages side by side."""
        values = [{row["what"]: row["value"] for row in record.rows()} for record in (self.first, self.second)]
        first, second = self.names
        return [
            {"what": name, first: values[0].get(name, 0), second: values[1].get(name, 0)}
            for name in {**values[0], **values[1]}
        ]

    def tidy(self) -> list[dict[str, Any]]:
        """One row a stage and figure: what, stage, value; for data frames and plots."""
        return [
            {"what": row["what"], "stage": name.removeprefix("stage "), "value": row[name]}
            for row in self.rows()
            for name in self.names
        ]

    def different(self) -> list[dict[str, Any]]:
        """The rows whose values differ, the stages' own names aside."""
        first, second = self.names
        return [row for row in self.rows() if row["what"] != "stage" and row[first] != row[second]]

    def figures(self) -> list[dict[str, Any]]:
        """The rows that are drawn: the main figures that are not 0 at both stages."""
        rows, names = {row["what"]: row for row in self.rows()}, self.names
        return [
            row | {"what": title}
            for figure, title in FIGURES.items()
            if (row := rows.get(figure)) and any(row[name] for name in names)
        ]

    def to_json(self) -> str:
        """Both records, as a JSON text."""
        return json.dumps({"first": asdict(self.first), "second": asdict(self.second)}, indent=1)

    def plot(self) -> str:
        """The main figures as pairs of bars, each pair to a scale of its own, as SVG."""
        y, parts, rows = 0, "", self.figures()
        for row in rows:
            parts += f"<text x='0' y='{y + 20}' fill='currentColor' font-size='13'>{escape(row['what'])}</text>"
            most = max(row[name] for name in self.names)
            for name, colour in zip(self.names, PLOT_COLOURS, strict=True):
                width = 300 * row[name] / most
                parts += f"<rect x='150' y='{y}' width='{width:.1f}' height='13' fill='{colour}'/>"
                text = escape(f"{row[name]:,}, {name}")
                parts += f"<text x='{156 + width:.0f}' y='{y + 11}' fill='currentColor' font-size='12'>{text}</text>"
                y += 15
            y += 7
        alt = "; ".join(f"{row['what']} {' and '.join(f'{row[name]:,}' for name in self.names)}" for row in rows)
        return picture(parts, f"{' and '.join(self.names)}: {alt}", 640, y)

    def __repr__(self) -> str:
        return f"{self.first.trace}\n{table_text(self.figures())}"

    def _repr_html_(self) -> str:
        head = f"{self.first.trace} in {format_size(self.first.ram)}: {' and '.join(self.names)}"
        return f"<p>{escape(head)}</p>{self.plot()}<p>All that differs:</p>{table_html(self.different())}"


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
    record = observe(kernel, accesses.name, lambda kernel: replay(heap, accesses, source, progress))
    return replace(
        record,
        stage=stage_name(stage),
        pages=pages if isinstance(pages, str) else getattr(pages, "__name__", "function"),
        accesses=len(accesses),
        footprint=accesses.footprint,
    )


def observe(kernel: Any, name: str, workload: Callable[[Any], object]) -> Record:
    """Run a function on a kernel, and keep what happened."""
    before, begin = kernel.vmstat.snapshot(), kernel.clock.ns
    workload(kernel)
    moved, duration = kernel.vmstat.since(before), kernel.clock.ns - begin
    heaps = [heap for process in kernel.processes for heap in process.mappings if heap.mapped]
    places = [place for heap in heaps for place in heap.where()]
    ledger, zswap = kernel.memory(), kernel.zswap
    return Record(
        trace=name,
        stage="",
        pages="",
        ram=kernel.system.memory.ram_pages * PAGE_SIZE,
        swap=tuple(map(repr, kernel.devices.values())),
        zswap=zswap.compressor if zswap is not None else None,
        seed=kernel.seed,
        accesses=0,
        footprint=len(places),
        vmstat=moved,
        where=dict(sorted(Counter(places).items())),
        slots=sum(row["Used"] for row in kernel.swaps().rows) // PAGE_SIZE,
        stored=kernel.zswap_debugfs()["stored_pages"],
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


Workload = str | Path | AccessTrace | Callable[[Any], object]


def compare(first: int | str, second: int | str, workload: Workload, **options: Any) -> Comparison:
    """Run one workload on two stages with equal settings.

    A trace takes the options of ``run``.  A function is given a new kernel of each stage, and the options are those of
    Kernel; without any: 16 MiB, an Ssd of 64 MiB, and lz4 for zswap.  Each stage gets devices of its own, copies of
    those given.  ValueError for any other workload, and for an unknown stage before either runs.
    """
    for stage in (first, second):
        kernel_class(stage)
    return Comparison(*(run_workload(workload, stage, **deepcopy(options)) for stage in (first, second)))


def run_workload(workload: Workload, stage: int | str, **options: Any) -> Record:
    """A trace or a function on a stage."""
    if isinstance(workload, str | Path | AccessTrace):
        return run(workload, stage=stage, **options)
    if not callable(workload):
        raise ValueError(f"workload={workload!r}: expected a trace (name, file, AccessTrace) or a function of a kernel")
    return run_function(workload, stage, **options)


def run_function(workload: Callable[[Any], object], stage: int | str, **options: Any) -> Record:
    """A workload that is a function, on a kernel of a stage."""
    options = {"ram": "16M", "zswap": "lz4"} | options
    options.setdefault("swap", [Ssd("64M")])
    name = getattr(workload, "__name__", type(workload).__name__)
    return replace(observe(kernel_class(stage)(**options), name, workload), stage=stage_name(stage))
