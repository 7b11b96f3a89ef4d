# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The header: swap functions that the rest of the kernel may call, by group.

Kernel home: include/linux/swap.h.  Of its declarations for CONFIG_SWAP those that the model has as functions.
"""

from __future__ import annotations

from collections.abc import Callable

from .hibernate import count_swap_pages, find_first_swap, swap_slot_alloc_of_type, swap_type_of, swapdev_block
from .slot_reclaim import free_folio_and_swap_cache, free_swap_cache
from .swap_cache import total_swapcache_pages
from .swap_device import swap_slot_put_swap_info, swap_slot_tryget_swap_info, vm_swap_full
from .swap_extent import add_swap_extent, generic_swapfile_activate
from .swap_io import swap_slot_sector
from .vswap.cache_pin import is_swap_cached, put_swap_folio, swapcache_prepare
from .vswap.lifecycle import (
    __swap_count,
    swap_duplicate,
    swap_entry_swapped,
    swap_free_nr,
    swap_shmem_alloc,
    swp_swapcount,
)
from .vswap.swap_cache import folio_free_swap, free_swap_and_cache_nr
from .vswap.swap_out import folio_alloc_swap

LIFECYCLE: tuple[Callable[..., object], ...] = (
    folio_alloc_swap,
    folio_free_swap,
    put_swap_folio,
    swap_shmem_alloc,
    swap_duplicate,
    swapcache_prepare,
    swap_free_nr,
    free_swap_and_cache_nr,
    __swap_count,
    swap_entry_swapped,
    swp_swapcount,
    is_swap_cached,
)

SWAP_CACHE: tuple[Callable[..., object], ...] = (
    total_swapcache_pages,
    free_folio_and_swap_cache,
    free_swap_cache,
)

PHYSICAL: tuple[Callable[..., object], ...] = (
    add_swap_extent,
    generic_swapfile_activate,
    vm_swap_full,
    swap_slot_alloc_of_type,
    swap_type_of,
    find_first_swap,
    count_swap_pages,
    swapdev_block,
    swap_slot_tryget_swap_info,
    swap_slot_sector,
    swap_slot_put_swap_info,
)

SWAP_H: dict[str, tuple[Callable[..., object], ...]] = {
    "lifecycle (mm/vswap.c)": LIFECYCLE,
    "swap cache (mm/swap_state.c)": SWAP_CACHE,
    "physical allocator and device (mm/swapfile.c)": PHYSICAL,
}
