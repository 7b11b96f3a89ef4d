"""Commands on the notebooks: weave, stitch, check, nb, blame, diff, export, stages, symbols."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vswap_ref.series import SeriesError, at
from vswap_ref.series.series import Series
from vswap_ref.series.stages import PACKAGE, checkout_series, differing, write_texts
from vswap_ref.series.stages import stages as all_stages
from vswap_ref.series.stitch import stitch as stitch_package

from . import history

Arguments = argparse.Namespace
MM = PACKAGE / "mm"


def add_commands(sub: Any) -> None:
    """Add the workshop's commands to an argparse sub-parser collection."""
    add(sub, weave).add_argument("--check", action="store_true", help="only fail if the package differs")
    add(sub, stitch)
    add(sub, check)
    command = add(sub, nb)
    command.add_argument("notebooks", nargs="*", metavar="NB", help="names, or beginnings such as 00-04 (default: all)")
    command.add_argument("--force", action="store_true", help="execute even if nothing has changed")
    command = add(sub, blame)
    command.add_argument("symbol", help="a function, class or constant of vswap_ref/mm")
    command.add_argument("--stage", help="stage to look at (default: the latest)")
    command = add(sub, diff)
    command.add_argument("old", help="a stage")
    command.add_argument("new", help="a later stage")
    command.add_argument("what", nargs="?", help="only this symbol or module")
    command = add(sub, export)
    command.add_argument("stage", help="a stage")
    command.add_argument("folder", type=Path, help="folder to write to; must be empty or absent")
    add(sub, stages)
    command = add(sub, symbols)
    command.add_argument("symbol", nargs="?", help="only this one, with the cells that did it")
    command.add_argument("--stage", help="last stage to look at (default: the latest)")
    command.add_argument("--json", action="store_true", help="print JSON, with the list of stages")


def add(sub: Any, function: Callable[[Arguments], None]) -> argparse.ArgumentParser:
    """One command: its name and help are those of the function."""
    text = (function.__doc__ or "").rstrip(".")
    parser: argparse.ArgumentParser = sub.add_parser(
        function.__name__, help=text[0].lower() + text[1:], description=f"{text}."
    )
    parser.set_defaults(func=function)
    return parser


def latest_modules(series: Series) -> dict[str, str]:
    """Path below vswap_ref/mm -> text of the latest stage's modules; SeriesError if any stage cannot be woven."""
    return {path.removeprefix("mm/"): text for path, text in series.weave_all()[series.latest].items()}


def check_package(series: Series) -> str:
    """How many modules agree; SeriesError if a stage cannot be woven, or if the package is not the latest one."""
    texts = latest_modules(series)
    if stale := differing(MM, texts):
        names = ", ".join(f"mm/{path}" for path in stale)
        raise SeriesError(f"differs from the notebooks: {names}; run `vswap-ref weave` or `stitch`")
    return f"{len(texts)} modules agree with the notebooks"


def weave(args: Arguments) -> None:
    """Write vswap_ref/mm from the notebooks."""
    series = checkout_series()
    if args.check:
        print(check_package(series))
        return
    texts = latest_modules(series)
    for path in write_texts(MM, texts):
        print(f"vswap_ref/mm/{path}: {'written' if path in texts else 'removed'}")
    print(f"{len(texts)} modules woven, stage {series.latest}")


def stitch(args: Arguments) -> None:
    """Carry edits in vswap_ref/mm back into the notebooks' cells."""
    print("\n".join(stitch_package(checkout_series(), PACKAGE)) or "nothing to stitch")
    if left := differing(MM, latest_modules(checkout_series())):
        print(f"differing only in form: {', '.join(left)}; run `vswap-ref weave`")


def check(args: Arguments) -> None:
    """Check that package, notebooks and their executed pairs agree."""
    from .execute import check_pairs

    series = checkout_series()
    print(f"{check_package(series)}; {check_pairs(series)} notebooks are executed")


def nb(args: Arguments) -> None:
    """Execute notebooks whose inputs have changed, and write their .ipynb."""
    from .execute import execute_stale

    execute_stale(checkout_series(), args.notebooks, args.force)


def blame(args: Arguments) -> None:
    """Tell which notebook and cell wrote a symbol."""
    series = checkout_series()
    path, definition = history.find(series, args.symbol, args.stage or series.latest)
    print(f"{path}: {args.symbol} is written in {definition.where}")


def diff(args: Arguments) -> None:
    """Show what changed between two stages."""
    print(history.diff(checkout_series(), args.old, args.new, args.what) or "no difference")


def export(args: Arguments) -> None:
    """Write the sources of a stage to a folder."""
    if args.folder.exists() and any(args.folder.iterdir()):
        raise SeriesError(f"{args.folder} is not empty")
    sources = at(args.stage).sources()
    write_texts(args.folder, sources)
    print(f"{len(sources)} files of stage {args.stage} written to {args.folder}")


def stages(args: Arguments) -> None:
    """List the stages."""
    for stage, title in all_stages().items():
        modules = [path for path in at(stage).paths if path.startswith("mm/")]
        print(f"{stage:>4}  {title}  ({len(modules)} modules)")


def symbols(args: Arguments) -> None:
    """Tell for every symbol at which stage it was added, replaced, moved, renamed or removed."""
    table = history.symbol_map(checkout_series(), args.stage)
    if args.symbol:
        events = history.look_up(args.symbol, table["symbols"], "the series has")
        table["symbols"] = {args.symbol: events}
    if args.json:
        print(json.dumps(table, indent=1))
        return
    if args.symbol:
        print(history.life(events))
        return
    for name, events in table["symbols"].items():
        life = [" ".join(event[key] for key in ("stage", "verb", "source") if event[key]) for event in events]
        print(f"{name} ({events[-1]['module']}): {', '.join(life)}")
