# Woven from notebooks/ by `vswap-ref weave`; edit here and run `vswap-ref stitch`, or edit there and weave.
"""What programs do to a shared object beside touching it: resize it, punch holes, unlink it.

Kernel homes: mm/shmem.c, mm/memory.c (unmap_mapping_range).
"""

from __future__ import annotations

from .address_space import zap_pte_range
from .shmem import iput, shmem_undo_range
from .state import ShmemInode, System


def unmap_mapping_range(s: System, inode: ShmemInode, start: int, end: int) -> None:
    """Unmap the pages [start, end) of an object from every process."""
    for vma in inode.i_mmap:
        zap_pte_range(s, vma.mm, vma.start + start, min(vma.start + end, vma.end))


def shmem_truncate_range(s: System, inode: ShmemInode, start: int, end: int) -> None:
    """Make the pages [start, end) holes again (also FALLOC_FL_PUNCH_HOLE)."""
    unmap_mapping_range(s, inode, start, end)
    shmem_undo_range(s, inode, start, end)


def shmem_setattr(s: System, inode: ShmemInode, nr_pages: int) -> None:
    """Change the size of an object; what is cut off is gone."""
    old, inode.i_size = inode.i_size, nr_pages
    if nr_pages < old:
        shmem_truncate_range(s, inode, nr_pages, old)


def shmem_unlink(s: System, inode: ShmemInode) -> None:
    """Remove the object's name: it lives on as long as somebody maps it."""
    inode.nlink = 0
    iput(s, inode)
