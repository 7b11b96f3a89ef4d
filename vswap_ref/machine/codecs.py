"""Compressors: real ones, from well-kept libraries, on one page at a time."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from .units import PAGE_SIZE

LEGAL = ("lz4", "zstd", "deflate", "lzo")


@dataclass(frozen=True, slots=True)
class Codec:
    """A compressor for one 4096-byte page.

    ``name`` is the kernel's name for it, ``library`` what really does the work, ``fallback`` True if that is another
    algorithm because the right library is not installed.
    """

    name: str
    library: str
    fallback: bool
    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]

    def compress(self, page: bytes) -> bytes:
        """The page, compressed."""
        return self.pack(page)

    def decompress(self, packed: bytes) -> bytes:
        """The page back.  ValueError if the bytes are damaged."""
        try:
            page = self.unpack(packed)
        except Exception as error:
            raise ValueError(f"{self.name}: damaged object of {len(packed)} bytes: {error}") from error
        if len(page) != PAGE_SIZE:
            raise ValueError(f"{self.name}: object holds {len(page)} bytes, not a page")
        return page

    def __reduce__(self) -> tuple[Callable[[str], Codec], tuple[str]]:
        return get_codec, (self.name,)


def get_codec(name: str) -> Codec:
    """The compressor of that name; zlib in its place, with a warning, if its library is missing (see ``fallback``).

    Raises ValueError for an unknown name.
    """
    if name not in LEGAL:
        raise ValueError(f"compressor={name!r}: expected one of {', '.join(LEGAL)}")
    try:
        return {"lz4": _lz4, "zstd": _zstd, "deflate": _deflate, "lzo": _lzo}[name]()
    except ImportError as error:
        warnings.warn(f"compressor {name!r}: {error}; deflate does its work", RuntimeWarning, stacklevel=2)
        deflate = _deflate()
        return Codec(name, f"{deflate.library} in place of {name}", True, deflate.pack, deflate.unpack)


def _lz4() -> Codec:
    block = import_module("lz4.block")
    version = import_module("lz4").library_version_string()
    return Codec(
        "lz4",
        f"lz4 {version}",
        False,
        lambda page: bytes(block.compress(page, store_size=False)),
        lambda packed: bytes(block.decompress(packed, uncompressed_size=PAGE_SIZE)),
    )


def _zstd() -> Codec:
    zstandard = import_module("zstandard")
    packer = zstandard.ZstdCompressor(level=3, write_content_size=False, write_checksum=False)
    unpacker = zstandard.ZstdDecompressor()
    version = ".".join(map(str, zstandard.ZSTD_VERSION))
    return Codec(
        "zstd",
        f"zstd {version}",
        False,
        packer.compress,
        lambda packed: bytes(unpacker.decompress(packed, max_output_size=PAGE_SIZE)),
    )


def _deflate() -> Codec:
    def pack(page: bytes) -> bytes:
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        return packer.compress(page) + packer.flush()

    return Codec("deflate", f"zlib {zlib.ZLIB_VERSION}", False, pack, lambda packed: zlib.decompress(packed, -15))


def _lzo() -> Codec:
    lzo = import_module("lzo")
    return Codec(
        "lzo",
        f"lzo {lzo.LZO_VERSION_STRING}",
        False,
        lambda page: bytes(lzo.compress(page, 1, False)),
        lambda packed: bytes(lzo.decompress(packed, False, PAGE_SIZE)),
    )
