"""Patch 7: the scaffold of the virtual swap space."""

from __future__ import annotations

from errno import ENOMEM

import pytest

import vswap_ref as vr
from vswap_ref.lab.experiments.scaffold import boot_swap, module_tree
from vswap_ref.series.stages import stages

AT = vr.at(7)


def test_the_directory_is_new_and_empty() -> None:
    """A booted kernel has it, from this stage on; until patch 9 there is nothing in it."""
    assert vr.at(6).Kernel().system.dirs.debugfs == {}
    for stage in {"7", "8"} & set(stages()):
        system = vr.at(stage).Kernel().system
        assert system.dirs.debugfs == {"vswap": []}
        assert system.dirs.sysfs_mm == {"swap": ["vma_ra_enabled"]}
        assert system.log == []


def test_without_debugfs_there_is_one_warning() -> None:
    """vswap_init and swap_init succeed, and swap works."""
    record = boot_swap(debugfs="off")
    assert record.log == ["Failed to initialize vswap debugfs"]
    assert (record.result, record.debugfs, record.swapped) == (0, None, True)
    assert record.sysfs == {"swap": ["vma_ra_enabled"]}
    kernel = AT.Kernel()
    for debugfs in ({}, None):
        kernel.system.dirs.debugfs = debugfs
        assert AT.module("vswap.init").vswap_init(kernel.system) == 0


@pytest.mark.parametrize("debugfs", ["on", "off"])
def test_an_error_is_returned_and_skips_the_rest(debugfs: str) -> None:
    """swap_init hands the error on, logs it, and makes no directory; a page can be swapped nevertheless."""
    record = boot_swap(debugfs, "ENOMEM")
    assert record.result == -ENOMEM
    assert record.log == ["failed to initialize virtual swap space"]
    assert record.sysfs == {}
    assert not record.debugfs
    assert record.swapped


def test_the_folder_is_new() -> None:
    """One module with one function for others, which swap_init alone calls; a floor right above the state's."""
    assert module_tree(6).vswap == {}
    assert module_tree(7).vswap == {"mm/vswap/init.py": ["vswap_debug_fs_init", "vswap_init"]}
    sources = AT.sources()
    users = {path for path, text in sources.items() if "vswap.init" in text}
    assert users == {"mm/swap_init.py"}
    imports = [line for line in sources["mm/vswap/init.py"].splitlines() if line.startswith("from ..")]
    assert imports == ["from ..state import System"]
