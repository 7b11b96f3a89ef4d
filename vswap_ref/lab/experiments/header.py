"""Experiments of the patch that sorts the header: who implements what at which stage."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vswap_ref.display import picture
from vswap_ref.series import at

GROUPS = {
    "lifecycle": [
        "folio_alloc_swap",
        "folio_free_swap",
        "put_swap_folio",
        "swap_shmem_alloc",
        "swap_duplicate",
        "swapcache_prepare",
        "swap_free_nr",
        "free_swap_and_cache_nr",
        "__swap_count",
        "swap_entry_swapped",
        "swp_swapcount",
    ],
    "swap cache": [
        "total_swapcache_pages",
        "free_folio_and_swap_cache",
        "free_pages_and_swap_cache",
        "free_swap_cache",
    ],
    "physical allocator and device": [
        "add_swap_extent",
        "generic_swapfile_activate",
        "nr_swap_pages",
        "total_swap_pages",
        "nr_rotate_swap",
        "vm_swap_full",
        "get_nr_swap_pages",
        "si_swapinfo",
        "get_swap_page_of_type",
        "add_swap_count_continuation",
        "swap_type_of",
        "find_first_swap",
        "count_swap_pages",
        "swapdev_block",
        "get_swap_device",
        "swap_folio_sector",
        "put_swap_device",
    ],
}
"""Group -> what the kernel's header declares in it after the patch, in its order."""
COLOURS = {"mm/swapfile.c": "#2e9e5b", "mm/swap_state.c": "#e0912f", "mm/page_io.c": "#4a7fd0"}
OTHER = "#9a6fc4"
ABSENT = "-"


@dataclass(frozen=True, slots=True)
class NameMap:
    """Declared name -> for each stage the kernel file that implements it, and the module of the model."""

    group: str
    stages: tuple[str, ...]
    homes: dict[str, list[tuple[str, str]]]

    def files(self) -> dict[str, list[str]]:
        """Declared name -> the file at each stage; "-" where the model has no such function."""
        return {name: [file for file, _ in homes] for name, homes in self.homes.items()}

    def __repr__(self) -> str:
        width = max(map(len, self.homes))
        head = f"{self.group:<{width}}  " + "".join(f"{stage:<17}" for stage in self.stages)
        lines = [
            f"{name:<{width}}  " + "".join(f"{file:<17}" for file in files) for name, files in self.files().items()
        ]
        return "\n".join(line.rstrip() for line in (head, *lines))

    def _repr_html_(self) -> str:
        rows, used = "", sorted({file for files in self.files().values() for file in files})
        for y, (name, homes) in enumerate(self.homes.items()):
            rows += svg_text(0, y, name)
            rows += "".join(svg_cell(x, y, *home) for x, home in enumerate(homes))
        height = 18 * len(self.homes) + 4
        alt = f"{self.group}: {len(self.homes)} names at stages {', '.join(self.stages)}, in files {', '.join(used)}"
        svg = picture(rows, alt, 260 + 24 * len(self.stages), height)
        keys = ", ".join(f"<span style='color:{colour(file)}'>\u25a0</span> {file}" for file in used)
        return f"<p>{self.group}, stages {self.stages[0]} to {self.stages[-1]}</p>{svg}<p>{keys}</p>"


def colour(file: str) -> str:
    """The colour of a file."""
    return "#88888844" if file == ABSENT else COLOURS.get(file, OTHER)


def svg_text(x: int, y: int, words: str) -> str:
    """A name at the beginning of a row."""
    return f"<text x='{x}' y='{18 * y + 13}' fill='currentColor' font-size='12'>{words}</text>"


def svg_cell(x: int, y: int, file: str, module: str) -> str:
    """A stage's cell; the module of the model shows when pointed at."""
    place = f"x='{256 + 24 * x}' y='{18 * y + 1}' width='22' height='16'"
    return f"<rect {place} fill='{colour(file)}'><title>{module}: {file}</title></rect>"


def name_map(group: str = "lifecycle", last: int = 2) -> NameMap:
    """Who implements the names of a group at the stages from 0 to ``last``: read from the stages' own sources."""
    stages = tuple(str(stage) for stage in range(last + 1))
    found = [homes_at(stage, GROUPS[group]) for stage in stages]
    return NameMap(group, stages, {name: [homes[name] for homes in found] for name in GROUPS[group]})


def homes_at(stage: str, names: list[str]) -> dict[str, tuple[str, str]]:
    """Name -> (kernel file, module); a function's own "Kernel home" goes before its module's."""
    homes = dict.fromkeys(names, (ABSENT, "not in the model"))
    for path, text in at(stage).sources().items():
        for name in names:
            definition = re.search(rf"^def {name}\(.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
            if definition is not None and path.startswith("mm/"):
                homes[name] = (kernel_home(definition[0]) or kernel_home(text) or "model only", path)
    return homes


def kernel_home(text: str) -> str:
    """The first file after "Kernel home:" in a docstring; empty if there is none."""
    found = re.search(r"Kernel homes?: ([\w./]+\w)", text)
    return found[1] if found is not None else ""
