"""A page is moved while another thread swaps it in and out: experiments of the chapter on is_swap_cached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EAGAIN
from typing import Any
from unittest.mock import patch

from vswap_ref.display import picture, table_html
from vswap_ref.machine import PAGE_SIZE, Ssd
from vswap_ref.series import at

CONTENT = b"movable " * (PAGE_SIZE // 8)


class Mover:
    """A kernel with one swapped-out page, and the thread that moves it, between its look-up and its locks."""

    def __init__(self, stage: int | str) -> None:
        self.stage = at(stage)
        self.kernel = self.stage.Kernel(ram="1M", swap=[Ssd("1M")], page_cluster=0)
        self.app = self.kernel.spawn("app")
        self.source, self.target = self.app.mmap(PAGE_SIZE), self.app.mmap(PAGE_SIZE)
        self.source.write_page(0, CONTENT)
        self.app.madvise(self.source, "pageout")
        self.kernel.drain()
        self.kernel.reclaim("64K")
        self.s, self.vma = self.kernel.system, self.target.vma
        tables = self.stage.module("pagetable")
        self.pte = tables.ptep_get(self.vma.mm, self.source.vma.start)
        self.entry = self.stage.module("types").pte_to_swp_entry(self.pte)
        source, target = (tables.pte_alloc(self.s, self.vma.mm, m.vma.start) for m in (self.source, self.target))
        self.tables = (source, self.source.vma.start & 511, target, self.target.vma.start & 511)

    def cached(self) -> Any:
        """The folio in the swap cache for the entry, or None."""
        folio = self.stage.module("swap_cache").swap_cache_get_folio(self.s, self.entry)
        if folio is not None:
            self.stage.module("folio").folio_put(self.s, folio)
        return folio

    def move_swap_pte(self) -> int:
        """Go on as if the cache were still empty: move_swap_pte without a folio."""
        userfaultfd = self.stage.module("userfaultfd")
        move = userfaultfd.PageMove(self.vma, self.vma.start, *self.tables, self.pte)
        return int(userfaultfd.move_swap_pte(self.s, move, self.s.swap.info[0], None))

    def address(self, folio: Any) -> str:
        """Where a folio (or None) believes to be mapped."""
        if folio is None:
            return "no folio"
        if folio.anon_vma is None:
            return "not mapped yet"
        return "source" if folio.index == self.source.vma.start else "target"

    @contextmanager
    def testing(self, tested: bool) -> Iterator[None]:
        """With the test of the cache flag, or as if it always said no."""
        if tested:
            yield
        else:
            with patch.object(self.stage.module("userfaultfd"), "is_swap_cached", lambda s, entry: False):
                yield


@dataclass(frozen=True, slots=True)
class MoveRace:
    """How the move ended, where the page-table entry is, and where the cached folio believes it is."""

    meanwhile: str
    tested: bool
    error: int
    pte: str
    folio: str
    content_kept: bool

    @property
    def consistent(self) -> bool:
        """The folio, if there is one, knows the address of its page-table entry."""
        return self.folio in ("no folio", "not mapped yet", self.pte)

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "meanwhile": self.meanwhile,
            "test": "on" if self.tested else "off",
            "move": "-EAGAIN" if self.error == -EAGAIN else str(self.error),
            "entry is in": self.pte,
            "folio says": self.folio,
            "agree": "yes" if self.consistent else "NO",
        }

    def __repr__(self) -> str:
        return ", ".join(f"{name}: {value}" for name, value in self.row().items())

    def _repr_html_(self) -> str:
        boxes = "".join(
            f"<rect x='{x}' y='18' width='120' height='40' fill='#88888822' stroke='#888888'/>"
            f"<text x='{x + 4}' y='12' font-size='12' fill='currentColor'>{name}</text>"
            + ("PTE" in here) * f"<rect x='{x + 8}' y='26' width='44' height='24' fill='#3f6fb0'/>"
            + ("folio" in here) * f"<rect x='{x + 64}' y='26' width='44' height='24' fill='{colour}'/>"
            for x, name, here, colour in self.places()
        )
        alt = f"page-table entry in {self.pte}, folio's address in {self.folio}"
        svg = picture(boxes, alt, 300, 62)
        return f"{table_html([self.row()])}{svg}<p>Blue: the page-table entry; the other: the folio's address.</p>"

    def places(self) -> list[tuple[int, str, set[str], str]]:
        """(x, mapping, what is in it, colour of the folio)."""
        colour = "#2e9e5b" if self.consistent else "#c8453c"
        marks = (("PTE", self.pte), ("folio", self.folio))
        holds = {name: {mark for mark, home in marks if home == name} for name in ("source", "target")}
        return [(10, "source", holds["source"], colour), (150, "target", holds["target"], colour)]


def move_race(meanwhile: str = "in, written, out", tested: bool = True, stage: int | str = 5) -> MoveRace:
    """Thread A has found no folio in the cache; then B acts; then A takes the page-table locks and goes on.

    B: "nothing", "read ahead" (into the cache, not mapped), or "in, written, out" (the same entry again, and the folio
    stays in the cache while it is written).
    """
    mover = Mover(stage)
    if meanwhile == "read ahead":
        mover.app.madvise(mover.source, "willneed")
    elif meanwhile == "in, written, out":
        mover.source.touch(0)
        mover.source[0] = CONTENT[0]
        mover.app.madvise(mover.source, "pageout")
    with mover.testing(tested):
        error = mover.move_swap_pte()
    pte = "target" if mover.tables[2][mover.tables[3]] else "source"
    says = mover.address(mover.cached())
    content = (mover.target if pte == "target" else mover.source).read_page(0)
    return MoveRace(meanwhile, tested, error, pte, says, content == CONTENT)


@dataclass(frozen=True, slots=True)
class Spin:
    """How often a move was refused while the page was read."""

    io_us: int
    refused: int
    cached: bool

    def __repr__(self) -> str:
        return f"I/O of {self.io_us} µs: {self.refused} times -EAGAIN, folio in the cache: {self.cached}"

    def _repr_html_(self) -> str:
        bar = f"<rect width='{min(600, self.refused * 4)}' height='16' fill='#c8453c'/>"
        return f"<p>{self!r}</p>{picture(bar, repr(self), 600, 18)}"


def spin(io_us: int = 10, move_us: int = 1, stage: int | str = 5) -> Spin:
    """A swap-in that bypasses the cache takes ``io_us``; another thread tries to move the page all the time.

    One attempt takes ``move_us``.
    """
    mover = Mover(stage)
    swap_map, clock = mover.stage.module("swap_map"), mover.kernel.clock
    err = swap_map.swapcache_prepare(mover.s, mover.entry, 1)
    assert err == 0
    cached, end, refused = mover.cached() is not None, clock.ns + io_us * 1000, 0
    while clock.ns < end:
        refused += mover.move_swap_pte() == -EAGAIN
        clock.advance(move_us * 1000)
    swap_map.swapcache_clear(mover.s, mover.s.swap.info[0], mover.entry, 1)
    err = mover.move_swap_pte()
    assert err == 0
    return Spin(io_us, refused, cached)
