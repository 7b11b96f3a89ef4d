"""The experiment of the chapter on looking and checking: bytes of metadata against the use of a device."""

from __future__ import annotations

from dataclasses import dataclass

from vswap_ref.display import Ledger
from vswap_ref.lab.paging import kernel_class
from vswap_ref.machine import PAGE_SIZE, Ssd

DEVICE_PAGES = 2048


@dataclass(frozen=True, slots=True)
class MetadataRecord:
    """The ledger of a device that is used to a share."""

    used_percent: int
    zswap: str
    slots: int
    used: int
    ledger: Ledger

    @property
    def bytes_per_slot(self) -> float:
        """What the letter counts, per slot of the device."""
        return self.ledger.letter / self.slots

    def __repr__(self) -> str:
        return (
            f"{self.used_percent} % used, zswap {self.zswap}: {self.used} of {self.slots} slots, "
            f"letter {self.ledger.letter} bytes = {self.bytes_per_slot:.3f} a slot, exact {self.ledger.exact} bytes"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self.bytes_per_slot:.3f} bytes a slot as the letter counts</p>{self.ledger._repr_html_()}"


def metadata(used_percent: int = 50, zswap: str = "lz4") -> MetadataRecord:
    """Fill a share of an 8 MiB device with swapped-out pages and read the byte ledger."""
    kernel = kernel_class(0)(ram="32M", swap=[Ssd(DEVICE_PAGES * PAGE_SIZE)], zswap=zswap)
    pages = (DEVICE_PAGES - 1) * used_percent // 100
    if pages:
        heap = kernel.spawn("app").mmap(pages * PAGE_SIZE)
        for page in range(pages):
            heap.write_page(page, (page + 1).to_bytes(4, "little") * (PAGE_SIZE // 4))
        heap.process.madvise(heap, "pageout")
        kernel.drain()
    used = kernel.swaps().rows[0]["Used"] // PAGE_SIZE
    return MetadataRecord(used_percent, zswap, DEVICE_PAGES, used, kernel.memory())
