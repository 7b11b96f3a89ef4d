# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""What is behind a virtual slot: a physical slot, zeros, a compressed copy, or the folio alone.

Kernel home: mm/vswap.c.  Only who has the slot's folio locked in the swap cache may change the backing, or who frees
the slot.  Everything here works under the lock of one cluster.
"""

from __future__ import annotations

from ..state import Folio, System, VswapCluster, ZswapEntry
from ..swap_map import swap_slot_free_nr
from ..types import (
    NO_SLOT,
    VSWAP_CLUSTER_MASK,
    VSWAP_CLUSTER_SHIFT,
    VSWAP_FOLIO,
    VSWAP_SWAPFILE,
    VSWAP_ZERO,
    VSWAP_ZSWAP,
    SwpEntry,
    SwpSlot,
    folio_word,
    swp_entry_range,
    swp_slot_add,
)
from ..zswap_pool import zswap_entry_free
from .descriptor import Descriptors
from .lookup import vswap_iter


def vswap_release_word(s: System, desc: Descriptors, index: int) -> None:
    """Give up what the word of a slot stands for: a compressed page, or a physical slot."""
    word, desc.slot[index] = desc.slot[index], 0
    if desc.type[index] == VSWAP_ZSWAP:
        zswap_entry_free(s, s.zswap.entries.free(word))
    else:
        swap_slot_free_nr(s, SwpSlot(word), 1)


def release_backing(s: System, cluster: VswapCluster, entry: SwpEntry, nr: int) -> None:
    """Give up what is behind ``nr`` slots of a locked cluster, of whatever kinds; their words are 0 then.

    ``type`` stays: the caller sets a new one, or frees the slots.  Physical slots go back in runs as long as possible.
    """
    desc, index, first, run = cluster.desc, entry & VSWAP_CLUSTER_MASK, NO_SLOT, 0
    if nr == 1:
        if desc.slot[index]:
            vswap_release_word(s, desc, index)
        return
    for one in swp_entry_range(entry, entry + nr):
        index = one & VSWAP_CLUSTER_MASK
        type_, slot = desc.type[index], SwpSlot(desc.slot[index])
        ended, length = first, 0
        if run and (type_ != VSWAP_SWAPFILE or slot != swp_slot_add(first, run)):
            length, run = run, 0
        if type_ == VSWAP_SWAPFILE:
            first, run = first if run else slot, run + 1
        elif type_ == VSWAP_ZSWAP and desc.zswap_entry[index]:
            zswap_entry_free(s, s.zswap.entries.free(desc.zswap_entry[index]))
        desc.slot[index] = 0
        if length:
            swap_slot_free_nr(s, ended, length)
    if run:
        swap_slot_free_nr(s, first, run)


def vswap_set_type(cluster: VswapCluster, entry: SwpEntry, nr: int, type_: int) -> None:
    """Tell of ``nr`` slots of a locked cluster what their words mean from now on."""
    index = entry & VSWAP_CLUSTER_MASK
    if nr == 1:
        cluster.desc.type[index] = type_
    else:
        cluster.desc.array["type"][index : index + nr] = type_


def vswap_back_by_folio(s: System, cluster: VswapCluster, entry: SwpEntry, folio: Folio) -> None:
    """The folio alone has the content of its slots from now on (cluster locked)."""
    nr, desc, index = folio.nr_pages, cluster.desc, entry & VSWAP_CLUSTER_MASK
    release_backing(s, cluster, entry, nr)
    if nr == 1:
        desc.type[index], desc.swap_cache[index] = VSWAP_FOLIO, folio_word(folio.pfn)
    else:
        slots = desc.array[index : index + nr]
        slots["type"], slots["swap_cache"] = VSWAP_FOLIO, folio_word(folio.pfn)


def vswap_store_folio(s: System, entry: SwpEntry, folio: Folio) -> None:
    """Make a locked, cached folio the only holder of its content: what was behind its slots is given up."""
    assert folio.locked
    assert folio.swap == entry
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        assert cluster is not None
        vswap_back_by_folio(s, cluster, entry, folio)
        cluster.lock.release()


def swap_zeromap_folio_set(s: System, folio: Folio) -> None:
    """A locked, cached folio is all zeros: that is all there is to remember of its slots."""
    assert folio.locked
    assert folio.swap
    nr = folio.nr_pages
    with s.rcu.read:
        cluster = vswap_iter(s, None, folio.swap)
        assert cluster is not None
        release_backing(s, cluster, folio.swap, nr)
        vswap_set_type(cluster, folio.swap, nr, VSWAP_ZERO)
        cluster.lock.release()
    s.vmstat.swpout_zero += nr
    if folio.memcg is not None:
        folio.memcg.stat.swpout_zero += nr


def zswap_entry_store(s: System, entry: SwpEntry, zentry: ZswapEntry) -> None:
    """A compressed page is what is behind a slot from now on; what was there before is freed.  Cannot fail."""
    with s.rcu.read:
        cluster = vswap_iter(s, None, entry)
        assert cluster is not None
        release_backing(s, cluster, entry, 1)
        desc, index = cluster.desc, entry & VSWAP_CLUSTER_MASK
        desc.type[index], desc.zswap_entry[index] = VSWAP_ZSWAP, s.zswap.entries.alloc(zentry)
        cluster.lock.release()


def vswap_check_backing(s: System, entry: SwpEntry, nr: int) -> tuple[int, int, VswapCluster | None]:
    """How many of ``nr`` slots from the entry's on have one backing: (how many, its kind, the locked cluster or None).

    One kind; on a device, also one place after the other; in memory, also one folio.  The run may go over clusters;
    it ends before a slot that is not allocated, and then no cluster is locked.  0 for entry 0.  (RCU read section.)
    """
    cluster, run, kind, common = None, 0, VSWAP_SWAPFILE, 0
    for one in swp_entry_range(entry, entry + nr if entry else 0):
        cluster = vswap_iter(s, cluster, one)
        if cluster is None:
            break
        desc, index = cluster.desc, one & VSWAP_CLUSTER_MASK
        type_, what = desc.type[index], 0
        if type_ == VSWAP_SWAPFILE:
            what = desc.slot[index] - one  # the same for places in a row
        elif type_ == VSWAP_FOLIO:
            what = desc.swap_cache[index]
        if run and (type_ != kind or what != common):
            break
        run, kind, common = run + 1, type_, what
    return run, kind, cluster


def vswap_common_backing(s: System, entry: SwpEntry, nr: int) -> int:
    """The kind of the one backing that all ``nr`` slots have, or -1.  Only for now, unless pinned or folio locked."""
    with s.rcu.read:
        run, type_, cluster = vswap_check_backing(s, entry, nr)
        if cluster is not None:
            cluster.lock.release()
    return type_ if run == nr else -1


def vswap_swapfile_backed(s: System, entry: SwpEntry, nr: int) -> bool:
    """The slots are on a device, in a row."""
    return vswap_common_backing(s, entry, nr) == VSWAP_SWAPFILE


def vswap_folio_backed(s: System, entry: SwpEntry, nr: int) -> bool:
    """The slots' content is in one folio and nowhere else."""
    return vswap_common_backing(s, entry, nr) == VSWAP_FOLIO


def vswap_can_swapin_thp(s: System, entry: SwpEntry, nr: int) -> bool:
    """The slots can be read at once: all zeros, or on a device in a row."""
    return vswap_common_backing(s, entry, nr) in (VSWAP_ZERO, VSWAP_SWAPFILE)


def vswap_prepare_writeout(s: System, entry: SwpEntry, folio: Folio) -> None:
    """A locked, cached folio is about to be written: leave it one backing, so that it can be written as one.

    Slots in a row on a device stay, and so does the folio as its own backing; anything else is given up.
    """
    assert folio.locked
    assert folio.swap == entry
    nr = folio.nr_pages
    with s.rcu.read:
        run, type_, cluster = vswap_check_backing(s, entry, nr)
        if cluster is None:
            return
        if run < nr or type_ not in (VSWAP_SWAPFILE, VSWAP_FOLIO):
            vswap_back_by_folio(s, cluster, entry, folio)
        cluster.lock.release()


def swap_zeromap_batch(s: System, entry: SwpEntry, max_nr: int) -> tuple[int, bool]:
    """How many allocated slots from the entry's on are all zero pages, or all not: (how many, zero pages?)."""
    cluster, run, is_zero = None, 0, False
    with s.rcu.read:
        for one in swp_entry_range(entry, entry + max_nr):
            cluster = vswap_iter(s, cluster, one)
            if cluster is None:
                break
            zero = cluster.desc.type[one & VSWAP_CLUSTER_MASK] == VSWAP_ZERO
            if run and zero != is_zero:
                break
            run, is_zero = run + 1, zero
        if cluster is not None:
            cluster.lock.release()
    return run, is_zero


def vswap_peek_type(s: System, entry: SwpEntry) -> int:
    """What kind of backing an allocated slot has.  For displays: takes no lock, and costs nothing."""
    cluster = s.vswap.cluster_map.load(entry >> VSWAP_CLUSTER_SHIFT)
    assert cluster is not None
    return cluster.desc.type[entry & VSWAP_CLUSTER_MASK]
