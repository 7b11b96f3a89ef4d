# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Entries, words and page-table entries: every encoding of the swap subsystem, as integers.

Raw arithmetic on these integers happens here; elsewhere they are masked and shifted by the constants below, where
speed asks for it.  Kernel homes: include/linux/swapops.h,
mm/swap_table.h, include/linux/swap.h, arch page-table headers (a page-table entry is reduced to what swap reads).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vswap_ref.machine import NewType

SwpEntry = NewType("SwpEntry", int)
"""A swap entry: type (device number) from bit 58 on, offset (slot number) below.  0 = no entry."""

NO_ENTRY = SwpEntry(0)
Pte = NewType("Pte", int)
"""A page-table entry: flags in the low 8 bits; above them a page frame number or a swap entry.  0 = empty."""

Shadow = NewType("Shadow", int)
"""What is left of an evicted folio (workingset_eviction): always odd, so that a table word can hold it."""

MAX_SWAPFILES = 24
SWP_TYPE_SHIFT = 58
SWP_OFFSET_MASK = (1 << SWP_TYPE_SHIFT) - 1

SWAP_SLOT_INVALID = 0

PMD_ORDER = 9
SWAPFILE_CLUSTER = 1 << PMD_ORDER
SWAP_NR_ORDERS = PMD_ORDER + 1
CLUSTER_SHIFT = PMD_ORDER
CLUSTER_MASK = SWAPFILE_CLUSTER - 1


def swp_entry(type_: int, offset: int) -> SwpEntry:
    """Entry for slot ``offset`` of device ``type_``; bits of the offset above bit 57 are cut off."""
    return SwpEntry(type_ << SWP_TYPE_SHIFT | offset & SWP_OFFSET_MASK)


def swp_type(entry: SwpEntry) -> int:
    """Device number of an entry."""
    return entry >> SWP_TYPE_SHIFT


def swp_offset(entry: SwpEntry) -> int:
    """Slot number of an entry on its device."""
    return entry & SWP_OFFSET_MASK


def swap_nth(entry: SwpEntry, delta: int) -> SwpEntry:
    """The entry ``delta`` slots further on the same device."""
    return SwpEntry(entry + delta)


def swp_entry_align(entry: SwpEntry, nr: int) -> SwpEntry:
    """The first entry of the aligned run of ``nr`` (a power of two) that contains this one: a folio's first."""
    return SwpEntry(entry & -nr)


def swp_entry_page(entry: SwpEntry, nr: int) -> int:
    """Which of the aligned run of ``nr`` entries this is, from 0: the page of a folio."""
    return entry & nr - 1


SwpSlot = NewType("SwpSlot", int)
"""A physical slot: device number from bit 58 on, number of the slot on that device below.  0 = no slot."""

NO_SLOT = SwpSlot(0)


def swp_slot(type_: int, offset: int) -> SwpSlot:
    """Slot ``offset`` of device ``type_``; bits of the offset above bit 57 are cut off."""
    return SwpSlot(type_ << SWP_TYPE_SHIFT | offset & SWP_OFFSET_MASK)


def swp_slot_type(slot: SwpSlot) -> int:
    """Number of the device on which the slot lies."""
    return slot >> SWP_TYPE_SHIFT


def swp_slot_offset(slot: SwpSlot) -> int:
    """Number of the slot on its device: its position in units of a page."""
    return slot & SWP_OFFSET_MASK


VSWAP_CLUSTER_SHIFT = PMD_ORDER
VSWAP_CLUSTER_SIZE = 1 << VSWAP_CLUSTER_SHIFT
VSWAP_CLUSTER_MASK = VSWAP_CLUSTER_SIZE - 1
VSWAP_CLUSTER_ID_MAX = (1 << 32) - 1
MAX_VSWAP = SwpEntry(VSWAP_CLUSTER_ID_MAX << VSWAP_CLUSTER_SHIFT | VSWAP_CLUSTER_MASK)
"""The largest virtual slot: 2**41 of them are 8 PiB of pages."""


def vswap_entry(cluster_id: int, index: int) -> SwpEntry:
    """The virtual slot at an index (0..511) of a cluster."""
    return SwpEntry(cluster_id << VSWAP_CLUSTER_SHIFT | index)


VSWAP_SWAPFILE = 0
"""The content is in a physical slot, or will be (enum swap_type)."""

VSWAP_ZERO = 1
"""The page is all zeros."""

VSWAP_ZSWAP = 2
"""The content is compressed."""

VSWAP_FOLIO = 3
"""Only the folio in memory has the content."""

swp_entry_range: Callable[[SwpEntry, int], Sequence[SwpEntry]] = range  # type: ignore[assignment]
"""The entries from one up to another, without that: ``range`` itself, typed."""

SWP_RMAP_CACHE_ONLY = 1 << 63
SWP_RMAP_ENTRY_MASK = SWP_RMAP_CACHE_ONLY - 1


def swp_slot_add(slot: SwpSlot, delta: int) -> SwpSlot:
    """The slot ``delta`` further on the same device."""
    return SwpSlot(slot + delta)


def folio_word(pfn: int) -> int:
    """The word that stands for a folio: even, by its page frame number.  0 = nothing, odd = a Shadow as it is."""
    return pfn << 1


def word_is_folio(word: int) -> bool:
    """The word stands for a folio, not for a shadow or nothing."""
    return word != 0 and not word & 1


def word_pfn(word: int) -> int:
    """The page frame number in a folio's word."""
    return word >> 1


SWAP_MAP_ALLOCATED = 1
SWAP_MAP_BAD = 2

# Device flags (struct swap_info_struct.flags).
SWP_USED = 1 << 0
SWP_WRITEOK = 1 << 1
SWP_DISCARDABLE = 1 << 2

SWP_SOLIDSTATE = 1 << 4

SWP_BLKDEV = 1 << 6
SWP_AREA_DISCARD = 1 << 9
SWP_PAGE_DISCARD = 1 << 10
SWP_STABLE_WRITES = 1 << 11
SWP_SYNCHRONOUS_IO = 1 << 12
SWAP_USAGE_OFFLIST_BIT = 1 << 30
SWAP_USAGE_COUNTER_MASK = SWAP_USAGE_OFFLIST_BIT - 1

# State of a physical cluster (struct swap_cluster_info.flags): which list it is on.
CLUSTER_FLAG_NONE = 0
CLUSTER_FLAG_FREE = 1
CLUSTER_FLAG_NONFULL = 2
CLUSTER_FLAG_FRAG = 3
CLUSTER_FLAG_FULL = 4
CLUSTER_FLAG_DISCARD = 5
CLUSTER_FLAG_USABLE = CLUSTER_FLAG_FRAG
# When __try_to_reclaim_swap may take a folio out of the swap cache.
TTRS_ANYWAY = 1
TTRS_UNMAPPED = 2
TTRS_FULL = 4
AOP_WRITEPAGE_ACTIVATE = 0x80000
"""Answer of swap_writeout: not written, keep the (still locked) folio in memory."""

VM_FAULT_OOM = 0x1
VM_FAULT_SIGBUS = 0x2

# What the running task is (struct task_struct.flags).
PF_WQ_WORKER = 0x20
PF_MEMALLOC = 0x800
"""It is inside reclaim: what it allocates or charges must not reclaim again."""

VM_FAULT_MAJOR = 0x4

# Page-table entries.
PTE_PRESENT = 1 << 0
PTE_WRITE = 1 << 1
PTE_DIRTY = 1 << 2
PTE_YOUNG = 1 << 3
PTE_SWP_EXCLUSIVE = 1 << 4

PTE_SOFT_DIRTY = 1 << 5
PTE_UFFD_WP = 1 << 6
PTE_SWP_CARRIED = PTE_SOFT_DIRTY | PTE_UFFD_WP
"""What a swap PTE keeps of the present one that it replaces, and the other way round."""
PTE_SHIFT = 8

PTRS_PER_PTE = 512

ZERO_PFN = 0
"""Page frame of the shared zero page."""


def mk_pte(pfn: int, flags: int) -> Pte:
    """A present page-table entry."""
    return Pte(pfn << PTE_SHIFT | PTE_PRESENT | flags)


def pte_pfn(pte: Pte) -> int:
    """Page frame number of a present page-table entry."""
    return pte >> PTE_SHIFT


def swp_entry_to_pte(entry: SwpEntry, flags: int) -> Pte:
    """A swap PTE; ``flags`` from PTE_SWP_EXCLUSIVE, PTE_SOFT_DIRTY, PTE_UFFD_WP."""
    return Pte(entry << PTE_SHIFT | flags)


def pte_to_swp_entry(pte: Pte) -> SwpEntry:
    """The entry of a swap PTE (softleaf_from_pte)."""
    return SwpEntry(pte >> PTE_SHIFT)


SWAP_PTE_END = MAX_SWAPFILES << SWP_TYPE_SHIFT << PTE_SHIFT
"""Entries from here on carry a type that is no device: markers."""


def is_swap_pte(pte: Pte) -> bool:
    """True for a non-empty, non-present entry that names a device: the page is swapped out (softleaf_is_swap)."""
    return 0 < pte < SWAP_PTE_END and not pte & PTE_PRESENT


def pte_same_as_swp(pte: Pte, swp_pte: Pte) -> bool:
    """Equal but for the three flags of a swap PTE."""
    flags = PTE_SWP_EXCLUSIVE | PTE_SWP_CARRIED
    return pte & ~flags == swp_pte & ~flags


RadixEntry = NewType("RadixEntry", int)
"""A swap entry in a shared object's page cache: a value entry of the XArray, always odd."""

SWP_PTE_MARKER = 31
PTE_MARKER_POISONED = 1 << 1


def swp_to_radix_entry(entry: SwpEntry) -> RadixEntry:
    """The form in which a page cache holds a swap entry (xa_mk_value)."""
    return RadixEntry(entry << 1 | 1)


def radix_to_swp_entry(radswap: RadixEntry) -> SwpEntry:
    """The swap entry behind a radix entry."""
    return SwpEntry(radswap >> 1)


def make_poisoned_swp_entry() -> SwpEntry:
    """What stands for a page that is lost."""
    return swp_entry(SWP_PTE_MARKER, PTE_MARKER_POISONED)


def is_poisoned_swp_entry(entry: SwpEntry) -> bool:
    """True for the entry of a lost page."""
    return entry >> SWP_TYPE_SHIFT == SWP_PTE_MARKER


def make_pte_marker(marker: int) -> Pte:
    """A page-table entry that names no page and no slot, only what happened here."""
    return swp_entry_to_pte(swp_entry(SWP_PTE_MARKER, marker), 0)
