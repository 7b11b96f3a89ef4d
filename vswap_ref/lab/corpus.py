"""Corpora: real page contents, sampled from the anonymous memory of running programs."""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from vswap_ref.machine import PAGE_SIZE

PACKAGE = Path(__file__).parent.parent
PageSource = Callable[[int], bytes]
"""Page number -> 4096 bytes."""


def data_path(*parts: str) -> Path:
    """A file below data/: inside an installed package, or in the checkout.  FileNotFoundError naming both places."""
    places = [PACKAGE.joinpath("data", *parts), PACKAGE.parent.joinpath("data", *parts)]
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(f"no data file {'/'.join(parts)}; looked for {places[0]} and {places[1]}")


def corpora() -> dict[str, dict[str, Any]]:
    """What ships: name -> program, job, number of pages, statistics."""
    return dict(json.loads(data_path("pages", "manifest.json").read_text(encoding="utf-8")))


@cache
def load_corpus(name: str) -> tuple[bytes, ...]:
    """The pages of a corpus.  ValueError listing the names for an unknown one."""
    if name not in corpora():
        raise ValueError(f"corpus={name!r}: expected one of {', '.join(corpora())}")
    data = lzma.decompress(data_path("pages", f"{name}.xz").read_bytes())
    return tuple(data[start : start + PAGE_SIZE] for start in range(0, len(data), PAGE_SIZE))


def page_source(pages: str | PageSource, seed: int = 0) -> PageSource:
    """Content for a page number: from a corpus by name, "mixed" (all corpora), "zero", "random", or a function.

    The same seed gives the same pages.  ValueError for an unknown name.
    """
    if callable(pages):
        return pages
    if pages == "zero":
        return lambda _page: bytes(PAGE_SIZE)
    if pages == "random":
        return lambda page: random.Random(f"{seed} {page}").randbytes(PAGE_SIZE)
    if pages != "mixed" and pages not in corpora():
        raise ValueError(f"pages={pages!r}: expected mixed, zero, random, {', '.join(corpora())}, or a function")
    pool = [page for name in (corpora() if pages == "mixed" else [pages]) for page in load_corpus(name)]
    random.Random(seed).shuffle(pool)
    return lambda page: pool[page % len(pool)]
