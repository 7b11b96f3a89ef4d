# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Where a folio's content goes, and where it comes from: zero bit, zswap or device, in this order.

Kernel home: mm/page_io.c.
"""

from __future__ import annotations

from errno import ENOENT

from .folio import folio_mark_dirty, folio_unlock
from .memcg import mem_cgroup_zswap_writeback_enabled
from .state import Folio, System
from .swap_io import __swap_writepage, swap_read_folio_bdev
from .thp import count_mthp_stat
from .types import AOP_WRITEPAGE_ACTIVATE, NO_SLOT
from .vswap.backing import swap_zeromap_batch, swap_zeromap_folio_set, vswap_prepare_writeout
from .vswap.lookup import swp_entry_to_swp_slot
from .vswap.swap_cache import folio_free_swap
from .vswap.swap_out import vswap_alloc_swap_slot
from .zswap import zswap_load, zswap_store
from .zswap_writeback import zswap_folio_swapin

ZERO_WORD = bytes(8)


def is_folio_zero_filled(folio: Folio) -> bool:
    """Every byte is 0.  The last word is looked at first: most non-zero pages do not end in zeros."""
    data = folio.data
    return not data[-1] and data[-8:] == ZERO_WORD and data == bytes(len(data))


def swap_writeout(s: System, folio: Folio) -> int:
    """Put the content of a locked, cached, unmapped folio somewhere.

    Returns 0 with the folio unlocked: nothing was needed, it is a zero page, zswap took it, or it is under writeback.
    Returns AOP_WRITEPAGE_ACTIVATE with the folio still locked if it has to stay in memory.
    """
    if folio_free_swap(s, folio):
        folio_unlock(folio)
        return 0
    if is_folio_zero_filled(folio):
        swap_zeromap_folio_set(s, folio)
        folio_unlock(folio)
        return 0
    vswap_prepare_writeout(s, folio.swap, folio)
    if zswap_store(s, folio):
        if folio.order:
            count_mthp_stat(s, folio.order, "zswpout")
        folio_unlock(folio)
        return 0
    slot = vswap_alloc_swap_slot(s, folio) if mem_cgroup_zswap_writeback_enabled(s, folio.memcg) else NO_SLOT
    if not slot:
        folio_mark_dirty(folio)
        return AOP_WRITEPAGE_ACTIVATE
    __swap_writepage(s, folio, slot)
    return 0


def swap_read_folio_zeromap(s: System, folio: Folio) -> bool:
    """Serve zero pages without a read; True if the folio was dealt with (and unlocked).

    A large folio whose slots differ is left not up to date: the fault gets SIGBUS.
    """
    nr = folio.nr_pages
    run, is_zero = swap_zeromap_batch(s, folio.swap, nr)
    if run != nr:
        folio_unlock(folio)
        return True
    if not is_zero:
        return False
    s.vmstat.swpin_zero += nr
    if folio.memcg is not None:
        folio.memcg.stat.swpin_zero += nr
    folio.data[:] = bytes(len(folio.data))
    folio.uptodate = True
    folio_unlock(folio)
    return True


def swap_read_folio(s: System, folio: Folio) -> None:
    """Fill a locked, not uptodate folio from what is behind its slots and unlock it; still not uptodate: an error.

    Somebody has to have the content: a slot that is backed by its folio must not get here.
    """
    if swap_read_folio_zeromap(s, folio):
        return
    if zswap_load(s, folio) != -ENOENT:
        return
    zswap_folio_swapin(s, folio)
    swap_read_folio_bdev(s, folio, swp_entry_to_swp_slot(s, folio.swap))
