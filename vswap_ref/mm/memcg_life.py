# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""The life of a memory cgroup: its id, its processes, what it leaves when it is deleted, and when it is really gone.

Kernel homes: mm/memcontrol.c (mem_cgroup_css_offline, mem_cgroup_css_free), mm/list_lru.c, kernel/cgroup.
"""

from __future__ import annotations

from errno import EBUSY, ENODEV, ENOSPC

from vswap_ref.machine import MEMCG_STAT, PAGE_SIZE, Tally

from .memcg import mem_cgroup_id_put_many, memcg_subtree
from .state import Memcg, Mm, System

MEM_CGROUP_ID_MAX = 65_535


def mem_cgroup_id_alloc(s: System) -> int:
    """The lowest free id, which may have belonged to a cgroup that is gone; -ENOSPC if all 65,535 are in use."""
    free = (memcg_id for memcg_id in range(1, MEM_CGROUP_ID_MAX + 1) if memcg_id not in s.memcg.by_id)
    return next(free, -ENOSPC)


def mem_cgroup_css_alloc(s: System, name: str, parent: Memcg) -> Memcg | None:
    """A new cgroup below an online one; None if no id is free."""
    memcg_id = mem_cgroup_id_alloc(s)
    if memcg_id < 0:
        return None
    memcg = s.memcg.by_id[memcg_id] = Memcg(memcg_id, name, parent, Tally(MEMCG_STAT))
    parent.children.append(memcg)
    return memcg


def cgroup_attach_task(mm: Mm, memcg: Memcg) -> int:
    """Move a process: what it allocates from now on is charged to ``memcg``.  Returns 0, or -ENODEV if it is deleted.

    What it has already stays charged where it is.
    """
    if not memcg.online:
        return -ENODEV
    mm.memcg = memcg
    return 0


def mem_cgroup_css_offline(s: System, memcg: Memcg) -> int:
    """Delete a cgroup.  Returns 0, or -EBUSY while it has processes or children, and for the root.

    Its memory and its slots stay charged to it; its compressed pages pass to the parent.
    """
    children = any(child.online for child in memcg.children)
    if memcg.parent is None or children or any(mm.memcg is memcg for mm in s.mms):
        return -EBUSY
    zswap_memcg_offline_cleanup(s, memcg)
    memcg.online = False
    memcg_reparent_objcgs(memcg, memcg.parent)
    s.memcg.dying[memcg] = None
    mem_cgroup_id_put_many(s, memcg, 1)
    mem_cgroup_release_dying(s)
    return 0


def zswap_memcg_offline_cleanup(s: System, memcg: Memcg) -> None:
    """If the shrink worker stopped here, let it go on with the next in the tour."""
    if s.zswap.next_shrink is memcg:
        tour = [one for one in memcg_subtree(s.memcg.root) if one.online]
        s.zswap.next_shrink = tour[tour.index(memcg) - 1]


def memcg_reparent_objcgs(memcg: Memcg, parent: Memcg) -> None:
    """Hand the compressed pages to the parent: charge, and place in line (before the parent's own, as colder)."""
    for entry in reversed(list(memcg.zswap_lru)):
        entry.memcg = parent
        parent.zswap_lru[entry] = None
        parent.zswap_lru.move_to_end(entry, last=False)
    memcg.zswap_lru.clear()
    parent.stat.zswapped += memcg.stat.zswapped
    memcg.stat.zswapped = 0
    memcg.memory.usage -= -(-memcg.zswap_bytes // PAGE_SIZE)
    memcg.zswap_bytes = 0


def mem_cgroup_release_dying(s: System) -> None:
    """Let go of deleted cgroups to which no memory, no slot and no child refers any more."""
    for memcg in list(s.memcg.dying):
        parent = memcg.parent
        if parent is None or memcg.memory.usage or memcg.id_refs or memcg.children:
            continue
        parent.children.remove(memcg)
        for name, value in memcg.stat.items():
            parent.stat[name] += value
        del s.memcg.dying[memcg]
