# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""Memory cgroups: memory, swap and zswap limits (version 2), or memory and memory + swap (version 1), hierarchical.

Kernel home: mm/memcontrol.c.  Usage counts pages; the root is never limited and never charged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from errno import ENOMEM

from vswap_ref.machine import PAGE_SIZE

from .state import Folio, LruvecStats, Memcg, PageCounter, System, ZswapEntry
from .swap_device import vm_swap_full
from .types import PF_MEMALLOC, SwpEntry
from .vswap.cgroup import __swap_cgroup_record, swap_cgroup_clear, swap_cgroup_record

MAX_RECLAIM_RETRIES = 16
SWAP_CLUSTER_MAX = 32


def memcg_lineage(memcg: Memcg | None) -> tuple[Memcg, ...]:
    """The cgroup and its ancestors, without the root; empty for None."""
    return memcg.lineage if memcg is not None else ()


def memcg_subtree(memcg: Memcg) -> Iterator[Memcg]:
    """The cgroup and its descendants, parents first, deleted ones that still own memory too (mem_cgroup_iter)."""
    yield memcg
    for child in memcg.children:
        yield from memcg_subtree(child)


def online_ancestor(memcg: Memcg) -> Memcg:
    """The cgroup itself, or the nearest ancestor that was not deleted."""
    while not memcg.online and memcg.parent is not None:
        memcg = memcg.parent
    return memcg


def memcg_event(memcg: Memcg, name: str) -> None:
    """Count an event of memory.events or memory.swap.events, here and in all ancestors below the root."""
    memcg.events_local[name] = memcg.events_local.get(name, 0) + 1
    for ancestor in memcg.lineage or (memcg,):
        ancestor.events[name] = ancestor.events.get(name, 0) + 1


def flush_memcg_stats(s: System) -> None:
    """Let the statistics of all cgroups catch up; it happens every two seconds (flush_memcg_stats_dwork)."""
    s.memcg.next_flush_ns = s.clock.ns + FLUSH_TIME_NS
    for memcg in memcg_subtree(s.memcg.root):
        memcg.lruvec.flushed = current_lruvec_stats(memcg)


def current_lruvec_stats(memcg: Memcg) -> LruvecStats:
    """List lengths and activations of refaults as they are now."""
    lruvec = memcg.lruvec
    return LruvecStats(lruvec.nr_inactive, lruvec.nr_active, memcg.stat.workingset_activate_anon)


def lruvec_page_state(s: System, memcg: Memcg) -> LruvecStats:
    """A cgroup's list statistics as reclaim reads them: up to two seconds old, exact only without cgroups.

    A flush that is due takes place at the first look after its time.
    """
    if not s.memcg.enabled:
        return current_lruvec_stats(memcg)
    if s.clock.ns >= s.memcg.next_flush_ns:
        flush_memcg_stats(s)
    return memcg.lruvec.flushed


FLUSH_TIME_NS = 2_000_000_000


def page_counter_try_charge(counters: Sequence[PageCounter], nr: int) -> int:
    """Charge ``nr`` pages to the counters of a lineage.

    Returns -1, or the place of the counter whose limit forbids it; then nothing is charged.
    """
    for place, pages in enumerate(counters):
        if pages.max is not None and pages.usage + nr > pages.max:
            return place
    for pages in counters:
        pages.usage = usage = pages.usage + nr
        if usage > pages.watermark:
            pages.watermark = usage
    return -1


def page_counter_uncharge(counters: Sequence[PageCounter], nr: int) -> None:
    """Give ``nr`` pages back to the counters of a lineage."""
    for pages in counters:
        pages.usage -= nr


def try_charge_memcg(s: System, memcg: Memcg, nr: int) -> int:
    """Charge memory, reclaiming from the cgroup that is at its limit.

    Returns 0, or -ENOMEM after 16 fruitless rounds of reclaim, or at once at a limit of memory + swap: swapping out
    would not lower that.  A task inside reclaim is charged over any limit.  May sleep.
    """
    if s.memcg.memsw and not try_charge_memsw(s, memcg, nr):
        return -ENOMEM
    retries = MAX_RECLAIM_RETRIES
    while retries:
        place = page_counter_try_charge(memcg.memory_counters, nr)
        if place < 0:
            if s.memcg.watch_high:
                note_over_high(s, memcg, nr)
            return 0
        over = memcg.lineage[place]
        memcg_event(over, "max")
        if s.task_flags & PF_MEMALLOC:
            page_counter_charge(memcg.memory_counters, nr)
            return 0
        target = max(nr, SWAP_CLUSTER_MAX)
        if not s.hooks.try_to_free_mem_cgroup_pages(s, over, target):
            retries -= 1
    memcg_event(memcg, "oom")
    if s.memcg.memsw:
        page_counter_uncharge(memcg.memsw_counters, nr)
    return -ENOMEM


def try_charge_memsw(s: System, memcg: Memcg, nr: int) -> bool:
    """Charge memory + swap of version 1; False at a limit, except for a task inside reclaim."""
    place = page_counter_try_charge(memcg.memsw_counters, nr)
    if place < 0:
        return True
    memcg_event(memcg.lineage[place], "max")
    if s.task_flags & PF_MEMALLOC:
        page_counter_charge(memcg.memsw_counters, nr)
        return True
    memcg_event(memcg, "oom")
    return False


def mem_cgroup_charge(s: System, folio: Folio, memcg: Memcg) -> int:
    """Charge a new folio to a cgroup.  Returns 0 or -ENOMEM."""
    if memcg.parent is not None:
        err = try_charge_memcg(s, memcg, folio.nr_pages)
        if err:
            return err
    folio.memcg = memcg
    return 0


def mem_cgroup_uncharge(s: System, folio: Folio) -> None:
    """Take a folio that is being freed off its cgroup."""
    memcg = folio.memcg
    if memcg is not None:
        if memcg.memory_counters:
            page_counter_uncharge(memcg.memory_counters, folio.nr_pages)
        if s.memcg.memsw:
            page_counter_uncharge(memcg.memsw_counters, folio.nr_pages)
        folio.memcg = None


def memcg1_swapout(s: System, folio: Folio, entry: SwpEntry) -> None:
    """Version 1: a frozen folio leaves the cache and will be freed; its charge of memory + swap passes to the slots.

    Records the cgroup's id for the slots.  Called with the entry's part of the swap cache locked.
    """
    memcg = folio.memcg
    if memcg is None or not s.memcg.memsw:
        return
    nr = folio.nr_pages
    owner = mem_cgroup_id_get_online(s, memcg, nr)
    owner.nr_swap += nr
    __swap_cgroup_record(s, folio, owner.id, entry)
    if owner is not memcg:
        page_counter_uncharge(memcg.memsw_counters, nr)
        page_counter_charge(owner.memsw_counters, nr)
    page_counter_uncharge(memcg.memory_counters, nr)
    folio.memcg = None


def memcg1_swapin(s: System, entry: SwpEntry, nr: int) -> None:
    """Version 1: the slots' content is in a charged folio again, so their charge ends, whether they are free or not."""
    if s.memcg.memsw:
        mem_cgroup_uncharge_swap(s, entry, nr)


def mem_cgroup_id_get_online(s: System, memcg: Memcg, nr: int) -> Memcg:
    """Take ``nr`` id references on the cgroup or its nearest online ancestor."""
    s.cost.mem_cgroup_id_get += 1
    if nr > 1:
        s.cost.mem_cgroup_id_get_many += 1
    if not memcg.online:
        memcg = online_ancestor(memcg)
    memcg.id_refs += nr
    return memcg


def mem_cgroup_id_put_many(s: System, memcg: Memcg, nr: int) -> None:
    """Drop ``nr`` id references; the id is free again after the last one."""
    memcg.id_refs -= nr
    assert memcg.id_refs >= 0
    if memcg.id_refs == 0:
        del s.memcg.by_id[memcg.id]


def mem_cgroup_try_charge_swap(s: System, folio: Folio, entry: SwpEntry) -> int:
    """Charge the folio's slots to its cgroup's swap limit and record the cgroup's id for each slot.

    Called with entry 0 when no slot was found, so that the event is counted.  Returns 0 or -ENOMEM.
    """
    memcg = folio.memcg
    if memcg is None or s.memcg.memsw or not s.memcg.enabled:
        return 0
    if not entry:
        memcg_event(memcg, "swap.fail")
        return 0
    nr = folio.nr_pages
    memcg = mem_cgroup_id_get_online(s, memcg, nr)
    if memcg.swap_counters and page_counter_try_charge(memcg.swap_counters, nr) >= 0:
        memcg_event(memcg, "swap.max")
        memcg_event(memcg, "swap.fail")
        s.cost.mem_cgroup_try_charge_swap_fails += 1
        mem_cgroup_id_put_many(s, memcg, nr)
        return -ENOMEM
    memcg.nr_swap += nr
    swap_cgroup_record(s, folio, memcg.id, entry)
    return 0


def mem_cgroup_uncharge_swap(s: System, entry: SwpEntry, nr: int) -> None:
    """Uncharge ``nr`` slots from the cgroup recorded for them and clear the record."""
    if s.memcg.enabled:
        __mem_cgroup_uncharge_swap_by_id(s, swap_cgroup_clear(s, entry, nr), nr)


def mem_cgroup_get_nr_swap_pages(s: System, memcg: Memcg) -> int:
    """How many slots the cgroup may still take, less where swap.max says so.

    With zswap there is no end to them, unless the cgroup is at its limit there: then it is the free slots of devices.
    """
    nr = s.swap.nr_swap_pages
    if s.zswap.enabled and (s.memcg.memsw or mem_cgroup_may_zswap(memcg)):
        nr = max(nr, PAGE_COUNTER_MAX)
    for ancestor in memcg.lineage:
        if ancestor.swap.max is not None:
            nr = min(nr, ancestor.swap.max - ancestor.swap.usage)
    return nr


def mem_cgroup_swap_full(s: System, folio: Folio) -> bool:
    """Swap is scarce for this folio's cgroup: half of the system's swap or of some ancestor's limits is used."""
    if vm_swap_full(s):
        return True
    for pages in folio.memcg.swap_counters if folio.memcg is not None else ():
        for limit in (pages.high, pages.max):
            if limit is not None and pages.usage * 2 >= limit:
                return True
    return False


def obj_cgroup_may_zswap(memcg: Memcg | None) -> bool:
    """mem_cgroup_may_zswap for the owner of a page; reserves nothing."""
    return mem_cgroup_may_zswap(memcg)


def obj_cgroup_charge_zswap(s: System, entry: ZswapEntry) -> None:
    """Charge the entry's compressed bytes to its cgroup as kernel memory; version 1 does not count them."""
    if entry.memcg is not None and not s.memcg.memsw:
        entry.memcg.stat.zswapped += 1
        charge_zswap_bytes(entry.memcg, entry.length)


def obj_cgroup_uncharge_zswap(s: System, entry: ZswapEntry) -> None:
    """Exact opposite of obj_cgroup_charge_zswap."""
    if entry.memcg is not None and not s.memcg.memsw:
        entry.memcg.stat.zswapped -= 1
        charge_zswap_bytes(entry.memcg, -entry.length)


def charge_zswap_bytes(memcg: Memcg, nr_bytes: int) -> None:
    """Add bytes to the cgroup and its ancestors; whole pages of them count as memory."""
    for ancestor in memcg.lineage:
        before = -(-ancestor.zswap_bytes // PAGE_SIZE)
        ancestor.zswap_bytes += nr_bytes
        after = -(-ancestor.zswap_bytes // PAGE_SIZE)
        if after != before:
            page_counter_charge((ancestor.memory,), after - before)


def mem_cgroup_zswap_writeback_enabled(s: System, memcg: Memcg | None) -> bool:
    """zswap may write back to disk for this cgroup: memory.zswap.writeback is 1 in it and in all ancestors."""
    if not s.zswap.enabled:
        return True
    return all(ancestor.zswap_writeback for ancestor in memcg_lineage(memcg))


def page_counter_charge(counters: Sequence[PageCounter], nr: int) -> None:
    """Charge ``nr`` pages to the counters of a lineage, over any limit."""
    for pages in counters:
        pages.usage += nr
        pages.watermark = max(pages.watermark, pages.usage)


def above_high(pages: PageCounter) -> bool:
    """The usage exceeds the high limit."""
    return pages.high is not None and pages.usage > pages.high


def note_over_high(s: System, memcg: Memcg, nr: int) -> None:
    """Remember pages charged while some ancestor is above a high limit: the program pays for them later."""
    if any(map(above_high, memcg.memory_counters)) or any(map(above_high, memcg.swap_counters)):
        s.memcg.nr_over_high += nr


def __mem_cgroup_uncharge_swap_by_id(s: System, memcg_id: int, nr: int) -> None:
    """Give back the charge of ``nr`` slots of the cgroup with this id, and their references on it; none for id 0."""
    memcg = s.memcg.by_id.get(memcg_id)
    if memcg is None:
        s.cost.mem_cgroup_uncharge_swap_nobody += 1
        return
    s.cost.mem_cgroup_uncharge_swap += 1
    counters = memcg.memsw_counters if s.memcg.memsw else memcg.swap_counters
    if counters:
        page_counter_uncharge(counters, nr)
    memcg.nr_swap -= nr
    mem_cgroup_id_put_many(s, memcg, nr)


def mem_cgroup_uncharge_swap_by_id(s: System, memcg_id: int, nr: int) -> None:
    """__mem_cgroup_uncharge_swap_by_id, unless cgroups are disabled."""
    if s.memcg.enabled:
        __mem_cgroup_uncharge_swap_by_id(s, memcg_id, nr)


PAGE_COUNTER_MAX = (1 << 63) // PAGE_SIZE - 1
"""More pages than there can be."""


def mem_cgroup_may_zswap(memcg: Memcg | None) -> bool:
    """True if neither the cgroup nor an ancestor is at its zswap limit (pages of compressed bytes)."""
    for ancestor in memcg_lineage(memcg):
        if ancestor.zswap_max is None:
            continue
        if ancestor.zswap_max == 0 or ancestor.zswap_bytes >= ancestor.zswap_max * PAGE_SIZE:
            return False
    return True
