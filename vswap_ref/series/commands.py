"""The engine's commands: weave, stitch, check, nb, blame, diff, export, stages."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .errors import SeriesError
from .series import Series
from .stages import PACKAGE, checkout_series, store
from .stitch import stitch
from .weave import weave_tree


def add_commands(sub: Any) -> None:
    """Add the engine's commands to an argparse sub-parser collection."""
    add(sub, "weave", weave, "write vswap_ref/mm from the notebooks").add_argument(
        "--check", action="store_true", help="write nothing; fail if the package differs from the notebooks"
    )
    add(sub, "stitch", stitch_command, "carry edits in vswap_ref/mm back into the notebooks' cells")
    add(sub, "check", check, "check that package, notebooks and their executed pairs agree")
    nb = add(sub, "nb", nb_command, "execute notebooks whose inputs have changed, and write their .ipynb")
    nb.add_argument("notebooks", nargs="*", metavar="NB", help="names, or beginnings such as 00-04 (default: all)")
    nb.add_argument("--force", action="store_true", help="execute even if nothing has changed")
    blame = add(sub, "blame", blame_command, "tell which notebook and cell wrote a symbol")
    blame.add_argument("symbol", help="a function, class or constant of vswap_ref/mm")
    blame.add_argument("--stage", help="stage to look at (default: the latest)")
    diff = add(sub, "diff", diff_command, "show what changed between two stages")
    diff.add_argument("old", help="a stage")
    diff.add_argument("new", help="a later stage")
    diff.add_argument("what", nargs="?", help="only this symbol or module")
    export = add(sub, "export", export_command, "write the sources of a stage to a folder")
    export.add_argument("stage", help="a stage")
    export.add_argument("folder", type=Path, help="folder to write to; must be empty or absent")
    add(sub, "stages", stages_command, "list the stages")


def add(sub: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    """One command."""
    parser: argparse.ArgumentParser = sub.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(func=function)
    return parser


def woven(series: Series) -> dict[str, str]:
    """The text of every module of the latest stage."""
    return weave_tree(series.tree(series.latest), series.floors)


def stale_modules(series: Series) -> list[str]:
    """Modules of the package that differ from the notebooks, or should not exist."""
    texts = woven(series)
    found = {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in (PACKAGE / "mm").rglob("*.py")}
    return sorted(path for path in {*texts, *found} if texts.get(path) != found.get(path))


def weave(args: argparse.Namespace) -> int:
    """``vswap-ref weave``."""
    series = checkout_series()
    stale = stale_modules(series)
    if args.check and stale:
        raise SeriesError(f"differs from the notebooks: {', '.join(stale)}; run `vswap-ref weave` or `stitch`")
    texts = woven(series)
    for path in stale:
        target = PACKAGE / path
        if path in texts:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(texts[path], encoding="utf-8")
        else:
            target.unlink()
        print(f"vswap_ref/{path}: {'written' if path in texts else 'removed'}")
    print(f"{len(texts)} modules woven, stage {series.latest}" if not args.check else f"{len(texts)} modules agree")
    return 0


def stitch_command(args: argparse.Namespace) -> int:
    """``vswap-ref stitch``."""
    done = stitch(checkout_series(), PACKAGE)
    print("\n".join(done) or "nothing to stitch")
    left = stale_modules(checkout_series())
    if left:
        print(f"differing only in form: {', '.join(left)}; run `vswap-ref weave`")
    return 0


def check(args: argparse.Namespace) -> int:
    """``vswap-ref check``."""
    from .execute import check_pairs

    series = checkout_series()
    stale = stale_modules(series)
    if stale:
        raise SeriesError(f"differs from the notebooks: {', '.join(stale)}; run `vswap-ref weave` or `stitch`")
    print(f"{len(woven(series))} modules agree with the notebooks; {check_pairs(series)} notebooks are executed")
    return 0


def nb_command(args: argparse.Namespace) -> int:
    """``vswap-ref nb``."""
    from .execute import execute_stale

    return execute_stale(checkout_series(), args.notebooks, args.force)


def blame_command(args: argparse.Namespace) -> int:
    """``vswap-ref blame``."""
    series = checkout_series()
    path, owned = series.find(args.symbol, args.stage or series.latest)
    print(f"{path}: {args.symbol} is written in notebooks/{owned.cell.notebook}.md, line {owned.cell.line}")
    return 0


def diff_command(args: argparse.Namespace) -> int:
    """``vswap-ref diff``."""
    print(checkout_series().diff(args.old, args.new, args.what) or "no difference")
    return 0


def export_command(args: argparse.Namespace) -> int:
    """``vswap-ref export``."""
    if args.folder.exists() and any(args.folder.iterdir()):
        raise SeriesError(f"{args.folder} is not empty")
    if args.stage not in store.manifest["stages"]:
        raise SeriesError(f"no stage {args.stage!r}; there are {', '.join(store.manifest['stages'])}")
    modules = store.manifest["stages"][args.stage]["modules"]
    for module, file in modules.items():
        target = args.folder / module
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((store.folder / file).read_text("utf-8"), encoding="utf-8")
    (args.folder / "kernel.py").write_text((PACKAGE / "kernel.py").read_text("utf-8"), encoding="utf-8")
    (args.folder / "__init__.py").write_text("", encoding="utf-8")
    print(f"{len(modules)} modules of stage {args.stage} written to {args.folder}")
    return 0


def stages_command(args: argparse.Namespace) -> int:
    """``vswap-ref stages``."""
    for stage, row in store.manifest["stages"].items():
        print(f"{stage:>4}  {row['title']}  ({len(row['modules'])} modules)")
    return 0
