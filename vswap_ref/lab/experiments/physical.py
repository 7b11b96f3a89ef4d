"""Experiments of the chapter on physical slots: what the type checker sees, who takes what, and how often is pinned."""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import copytree

import vswap_ref
from vswap_ref.display import Figure, Table
from vswap_ref.machine import PAGE_SIZE, PercpuRef, Ssd

DOWN, UP = "swp_entry_to_swp_slot", "swp_slot_to_swp_entry"
BRIDGES = (DOWN, UP)
OPAQUE = r"class \1:\n    def __init__(self, value: int) -> None: ..."
"""What NewType is replaced by: an object that knows no arithmetic."""

STUBS = """
class System: ...
def swap_cache_get_folio(s: System, entry: SwpEntry) -> object: ...
def read_block(s: System, offset: int) -> None: ...
"""
MISTAKES = {
    "place used as a name": (
        "neighbour = swp_entry(swp_type(entry), swp_offset(entry) + 1)\nswap_cache_get_folio(s, neighbour)",
        "slot = swp_entry_to_swp_slot(s, entry)\n"
        "neighbour = swp_slot(swp_slot_type(slot), swp_slot_offset(slot) + 1)\n"
        "swap_cache_get_folio(s, neighbour)",
    ),
    "name used as a place": (
        "read_block(s, swp_offset(entry))",
        "read_block(s, swp_slot_offset(entry))",
    ),
    "name compared with a place": (
        "assert entry == swp_entry(0, 7)",
        "assert entry == swp_slot(0, 7)",
    ),
    "place computed by hand": (
        "read_block(s, entry & SWP_OFFSET_MASK)",
        "read_block(s, entry & SWP_OFFSET_MASK)",
    ),
}
"""A mistake -> how it is written before there are slots, and with them."""


@cache
def cache_folder() -> tempfile.TemporaryDirectory[str]:
    """Where mypy keeps what it knows of the standard library, until this process ends."""
    return tempfile.TemporaryDirectory()


def mypy(*arguments: str) -> list[str]:
    """Messages of ``mypy --strict``, without its summary."""
    from mypy.api import run

    quiet = ("--no-error-summary", "--no-color-output", "--no-pretty")
    options = ("--strict", "--config-file=", f"--cache-dir={cache_folder().name}", *quiet)
    return run([*options, *arguments])[0].splitlines()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A mistake as it is written at a stage, and what the type checker says about it."""

    stage: str
    mistake: str
    code: str
    messages: list[str]

    def __repr__(self) -> str:
        said = "\n".join(self.messages) or "no complaint"
        return f"stage {self.stage}: {self.mistake}\n{re.sub('^', '    ', self.code, flags=re.M)}\n{said}"

    def _repr_html_(self) -> str:
        said = "<br>".join(self.messages) or "no complaint"
        return f"<p>stage {self.stage}: {self.mistake}</p><pre>{self.code}</pre><p>{said}</p>"


def mix_up(stage: int | str = 6, mistake: str = "place used as a name") -> Verdict:
    """Plant a mistake in a small extract of a stage: its module ``types``, its bridges, and one function."""
    sources = vswap_ref.at(stage).sources()
    types, bridge = sources["mm/types.py"], sources.get("mm/bridge.py", "")
    bridges = "\n\n".join(ast.unparse(node) for node in ast.parse(bridge).body if isinstance(node, ast.FunctionDef))
    code = MISTAKES[mistake][bool(bridges)]
    body = re.sub("^", "    ", code, flags=re.M)
    program = f"{types}\n{STUBS}\n{bridges}\n\ndef planted(s: System, entry: SwpEntry) -> None:\n{body}\n"
    messages = [line.partition(": ")[2] for line in mypy("-c", program)]
    return Verdict(str(stage), mistake, code, messages)


@cache
def checked(stage: str, opaque: bool = False, forget: bool = False) -> tuple[tuple[str, str, str], ...]:
    """(module, function, message) of everything that mypy says about a stage's kernel.

    ``opaque``: entries and slots are objects without any arithmetic.  ``forget``: every bridge is left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "vswap_ref")
        copytree(Path(vswap_ref.__file__).parent / "machine", package / "machine")
        (package / "mm").mkdir()
        (package / "__init__.py").touch()
        for path, text in kernel_sources(stage):
            if opaque and path == "mm/types.py":
                text = re.sub(r"^(Swp\w+) = NewType\(.*$", OPAQUE, text, flags=re.M)
            if forget and path != "mm/bridge.py":
                text = without_bridges(text)
            (package / path).write_text(text, encoding="utf-8")
        lines = mypy("--follow-imports=silent", str(package / "mm"))
        return tuple(sorted(located(package, lines)))


def kernel_sources(stage: str) -> Iterator[tuple[str, str]]:
    """(path, text) of a stage's modules in mm/."""
    return ((path, text) for path, text in sorted(vswap_ref.at(stage).sources().items()) if path.startswith("mm/"))


class Forgetful(ast.NodeTransformer):
    """Replaces the call of a bridge by what it was given."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """One call."""
        self.generic_visit(node)
        return node.args[1] if isinstance(node.func, ast.Name) and node.func.id in BRIDGES else node


def without_bridges(text: str) -> str:
    """A module that uses names for places and places for names."""
    return ast.unparse(Forgetful().visit(ast.parse(text)))


def located(package: Path, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """mypy's messages with the function that each is about."""
    for line in lines:
        if ": note: " in line:
            continue
        match = re.match(r"(?:.*/)?vswap_ref/(mm/.*\.py):(\d+): error: (.*)$", line)
        if match is None:
            raise RuntimeError(f"mypy says something else than an error of the kernel: {line}")
        path, number, message = match.groups()
        yield path, enclosing((package / path).read_text("utf-8"), int(number)), message


def enclosing(text: str, line: int) -> str:
    """The top-level function or class at a line."""
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.lineno <= line <= (node.end_lineno or 0):
            return node.name
    return ""


def bridge_callers(stage: int | str = 6) -> dict[str, list[str]]:
    """Bridge -> the functions that cross it, as module:name."""
    callers: dict[str, list[str]] = {bridge: [] for bridge in BRIDGES}
    for path, text in kernel_sources(str(stage)):
        for node in ast.parse(text).body:
            names = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
            for bridge in BRIDGES:
                if bridge in names and isinstance(node, ast.FunctionDef):
                    callers[bridge].append(f"{path[3:-3]}:{node.name}")
    return callers


def forgotten(stage: int | str = 6) -> Table:
    """Leave out every crossing, and see which functions the type checker objects to."""
    complaints = {f"{path[3:-3]}:{function}" for path, function, _ in checked(str(stage), forget=True)}
    rows: list[dict[str, object]] = []
    for bridge, functions in bridge_callers(stage).items():
        found = sum(function in complaints for function in functions)
        missed = ", ".join(function for function in functions if function not in complaints)
        rows.append({"left out": bridge, "functions": len(functions), "found": found, "missed": missed})
    return Table("functions in which a conversion was forgotten", rows)


def by_hand(stage: int | str = 6) -> dict[str, list[str]]:
    """Module -> functions that calculate with an entry or a slot themselves; ``types`` is there for that."""
    functions: dict[str, list[str]] = {}
    for path, function, message in checked(str(stage), opaque=True):
        known = functions.setdefault(path[3:-3], [])
        if message.startswith("Unsupported") and function not in known:
            known.append(function)
    return {module: names for module, names in functions.items() if names}


def signatures(stage: int | str = 6) -> dict[str, list[str]]:
    """Functions by what they are given: a name (entry), a place (slot), both, or a bridge's one and other."""
    groups: dict[str, list[str]] = {"entry": [], "slot": [], "bridge": []}
    for _, text in kernel_sources(str(stage)):
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                given = ast.unparse(node.args)
                takes = [kind for kind, name in (("entry", "SwpEntry"), ("slot", "SwpSlot")) if name in given]
                for kind in ["bridge"] if node.name in BRIDGES else takes:
                    groups[kind].append(node.name)
    return {kind: sorted(names) for kind, names in groups.items()}


class CountingRef(PercpuRef):
    """A device's reference count that also counts how often it was taken and given back."""

    __slots__ = ("puts", "tries")

    def __init__(self) -> None:
        super().__init__()
        self.tries = self.puts = 0

    def tryget(self) -> bool:
        """Take a reference, and count it."""
        got = super().tryget()
        self.tries += got
        return got

    def put(self) -> None:
        """Drop a reference, and count it."""
        self.puts += 1
        super().put()


@dataclass(frozen=True, slots=True)
class PinRecord:
    """Pins of devices while swapped pages were touched one after the other."""

    stage: str
    touches: int
    faults: int
    read_ahead: int
    pins: tuple[int, ...]
    releases: tuple[int, ...]

    @property
    def table(self) -> Table:
        """One row a device."""
        rows: list[dict[str, object]] = [
            {"device": number, "pins": pins, "releases": puts, "pins per touch": Figure(f"{pins / self.touches:.3f}")}
            for number, (pins, puts) in enumerate(zip(self.pins, self.releases, strict=True))
        ]
        return Table(f"stage {self.stage}: {self.touches} touches, {self.faults} windows", rows)

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def pins(stage: int | str = 6, page_cluster: int = 3, devices: int = 1) -> PinRecord:
    """Touch 1,024 swapped pages in order, windows in their steady state, and count the pins of each device.

    ``page_cluster``: a window has up to 2**page_cluster pages.  ``devices``: equal ones, which take turns.
    """
    touches, warm_up = 1024, 1024
    disks = [Ssd("16M", name=f"/dev/ssd{number}") for number in range(devices)]
    kernel = vswap_ref.at(stage).Kernel(ram="32M", swap=disks, page_cluster=page_cluster, cpus=1)
    app = kernel.spawn("app")
    heap = app.mmap((warm_up + touches) * PAGE_SIZE)
    for page in range(heap.pages):
        heap.write_page(page, page.to_bytes(2, "little") * (PAGE_SIZE // 2))
    app.madvise(heap, "pageout")
    kernel.drain()
    kernel.reclaim(heap.pages * PAGE_SIZE)
    for page in range(warm_up):
        heap.touch(page)
    counts = [CountingRef() for _ in disks]
    for si, count in zip(kernel.system.swap.info, counts, strict=True):
        si.users = count
        count.resurrect()
    before = kernel.vmstat.snapshot()
    for page in range(warm_up, heap.pages):
        heap.touch(page)
    since = kernel.vmstat.since(before)
    tries, puts = tuple(c.tries for c in counts), tuple(c.puts for c in counts)
    return PinRecord(str(stage), touches, since.get("pgmajfault", 0), since.get("swap_ra", 0), tries, puts)
