"""Every stage is sound as a package: typed, in layers, complete."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from vswap_ref.cli import main
from vswap_ref.series.series import Series
from vswap_ref.series.stages import checkout_series, stages

ROOT = Path(__file__).parent.parent.parent
SERIES: Series = checkout_series()


@pytest.fixture(scope="module")
def type_errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Package -> what mypy --strict says of it: every stage as a reader gets it, side by side, and a spoilt one.

    One run checks all: the standard library, NumPy and the machine are read once.
    """
    folder = tmp_path_factory.mktemp("stages")
    packages = {f"stage_{stage}": stage for stage in stages()} | {"wrong": SERIES.latest}
    for package, stage in packages.items():
        assert main(["export", stage, str(folder / package)]) == 0
    with (folder / "wrong" / "mm" / "types.py").open("a", encoding="utf-8") as file:
        file.write('\n\nWRONG: SwpEntry = "no entry"\n')
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(folder / "cache")]
    command += ["--config-file", str(ROOT / "pyproject.toml"), *(f"--package={package}" for package in packages)]
    environment = {"MYPYPATH": str(ROOT), "PATH": ""}
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    errors: dict[str, list[str]] = {package: [] for package in packages}
    for line in result.stdout.splitlines():
        errors.setdefault(line.partition("/")[0], []).append(line)
    assert errors.keys() == packages.keys(), result.stdout + result.stderr
    return errors


@pytest.mark.slow
@pytest.mark.parametrize("stage", sorted(stages()))
def test_an_exported_stage_type_checks(stage: str, type_errors: dict[str, list[str]]) -> None:
    """Without an error, by the strict rules."""
    assert type_errors[f"stage_{stage}"] == []


@pytest.mark.slow
def test_a_wrong_type_is_found(type_errors: dict[str, list[str]]) -> None:
    """An entry is not a number that may be added to: the check above can fail."""
    (error,) = type_errors["wrong"]
    assert "Incompatible types in assignment" in error


def imports_of(path: str, text: str) -> set[str]:
    """Modules of mm that a module imports, by path."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = Path(path).parents[node.level - 1]
            found |= {(base / (node.module or alias.name).replace(".", "/")).as_posix() + ".py" for alias in node.names}
    return found


@pytest.mark.parametrize("stage", sorted(stages()))
def test_imports_go_down(stage: str) -> None:
    """As the files say, not as the engine that wrote them believes: from modules that stand before, in no circle."""
    place = {f"mm/{name}.py": number for number, name in enumerate(SERIES.order(stage))}
    texts = {path: text for path, text in SERIES.weave(stage).items() if not path.endswith("__init__.py")}
    imports = {path: imports_of(path, text) for path, text in texts.items()}
    for path, homes in imports.items():
        assert homes <= texts.keys(), f"{path} imports what stage {stage} does not have"
        assert all(place[home] < place[path] for home in homes), f"stage {stage}: {path} imports from above: {homes}"


@pytest.mark.parametrize("stage", sorted(stages()))
def test_the_face_is_reached_through_one_module(stage: str) -> None:
    """mm/api.py re-exports and defines nothing; whatever it names exists at the stage."""
    tree = ast.parse(SERIES.weave(stage)["mm/api.py"])
    assert not [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    homes = {name for module in SERIES.tree(stage).values() for name in module.definitions}
    names = next(node.value for node in tree.body if isinstance(node, ast.Assign))
    assert set(ast.literal_eval(names)) <= homes
