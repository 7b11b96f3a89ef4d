"""Corpora: real pages, and nothing in them that should not be public."""

from __future__ import annotations

import re
import zlib

import pytest

from vswap_ref.lab.corpus import corpora, load_corpus, page_source
from vswap_ref.machine import PAGE_SIZE, get_codec

PRIVATE = {
    "a path of the recording machine": rb"/(?:root|home|work|Users)/[\w.-]+",
    "an e-mail address": rb"\b[a-z][\w.]{2,}@[a-z]{3,}\.(?:com|org|net|io)\b",
    "a private key": rb"-----BEGIN|ssh-(?:rsa|ed25519) ",
    "an access key": rb"\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{30,}",
    "a host name setting": rb"HOSTNAME=|HOST=",
    "an environment": rb"\bPATH=/|\bUSER=\w|\bHOME=/",
}


@pytest.mark.parametrize("name", sorted(corpora()))
def test_pages_are_whole_and_as_recorded(name: str) -> None:
    """Number and checksum as the manifest says."""
    pages = load_corpus(name)
    assert len(pages) == corpora()[name]["pages"]
    assert {len(page) for page in pages} == {PAGE_SIZE}
    assert zlib.crc32(b"".join(pages)) == corpora()[name]["crc32"]


@pytest.mark.parametrize("name", sorted(corpora()))
def test_nothing_private_is_in_them(name: str) -> None:
    """No recording paths, addresses, keys, environment."""
    data = b"".join(load_corpus(name))
    found = {what: re.search(pattern, data) for what, pattern in PRIVATE.items()}
    assert not {what: match[0][:60] for what, match in found.items() if match}


@pytest.mark.parametrize("name", sorted(corpora()))
def test_statistics_are_those_of_the_pages(name: str) -> None:
    """Zero pages and mean compressed size are recomputed."""
    pages = load_corpus(name)
    row = corpora()[name]
    rest = [page for page in pages if page != bytes(PAGE_SIZE)]
    assert row["zero"] == len(pages) - len(rest)
    compress = get_codec("deflate").compress
    mean = sum(min(PAGE_SIZE, len(compress(page))) for page in rest) / len(rest)
    assert mean == pytest.approx(row["mean_bytes_deflate"], rel=0.02)


def test_page_source_depends_on_the_seed_alone() -> None:
    """Equal seeds give equal pages, different seeds different ones."""
    first, again, other = page_source("mixed", 1), page_source("mixed", 1), page_source("mixed", 2)
    assert [first(i) for i in range(50)] == [again(i) for i in range(50)]
    assert [first(i) for i in range(50)] != [other(i) for i in range(50)]


def test_unknown_corpus_lists_the_known() -> None:
    """The message says what is legal."""
    with pytest.raises(ValueError, match=r"pages='novel': expected mixed, zero, random, .*python"):
        page_source("novel")
