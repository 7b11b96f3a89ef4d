"""Where stages of the series are wrong, and the patch after which they are not.

The kernel does what it did at that stage, so the model does.  Programs that run at many stages ask here what they must
not do at one of them.  book/known-defects.md explains each and those of Linux 6.19.
"""

from __future__ import annotations

from typing import NamedTuple


class Defect(NamedTuple):
    """A defect that one patch brings and another one ends: what happens from stage ``first`` to ``last``."""

    first: int
    last: int
    what: str


IMAGE_SLOTS = "image slots"
STALE_PLACE = "stale place"
VERSION_1_RECLAIM = "version 1 reclaim"
VERSION_1_SWAPCACHED = "version 1 swapcached"
FORGOTTEN_PROCESSES = "forgotten processes"

DEFECTS = {
    IMAGE_SLOTS: Defect(
        9,
        12,
        "Freeing a run of n > 1 slots of a hibernation image frees the virtual slots 1 to n - 1, whoever has them; "
        "at stage 12 the kernel crashes if nobody has.",
    ),
    STALE_PLACE: Defect(
        9,
        12,
        "The swap map looks an entry's place up before it locks it: if the entry is freed in between and the place is "
        "given to another one, that one is claimed for the swap cache for ever, and nobody can read it any more.",
    ),
    VERSION_1_RECLAIM: Defect(
        10, 11, "With cgroups of version 1, reclaim waits for the lock of a virtual cluster that it holds."
    ),
    VERSION_1_SWAPCACHED: Defect(
        13,
        22,
        "With cgroups of version 1, reclaim counts a folio out of the swap cache when it has left its cgroup already: "
        "the line swapcached of memory.stat only grows.",
    ),
    FORGOTTEN_PROCESSES: Defect(
        14,
        18,
        "swapoff drops the list of processes with pages in swap when no device has a slot in use, though zswap has "
        "pages of theirs; when these go to a device later, its swapoff does not find them, and tries for ever.",
    ),
}


def has_defect(name: str, stage: int | str) -> bool:
    """True if a stage of the main line has a defect; KeyError for an unknown name."""
    defect = DEFECTS[name]
    return str(stage).isdigit() and defect.first <= int(stage) <= defect.last


def stages_with(name: str) -> range:
    """The stages that have a defect."""
    return range(DEFECTS[name].first, DEFECTS[name].last + 1)


def image_pages(stage: int | str, wanted: int) -> int:
    """How many pages an image may have whose slots are given back: at most one where runs of them are dangerous."""
    return min(wanted, 1) if has_defect(IMAGE_SLOTS, stage) else wanted
