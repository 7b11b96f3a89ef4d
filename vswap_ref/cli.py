"""The command ``vswap-ref``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from .lab.commands import add_commands as add_lab_commands
from .series import SeriesError
from .workshop.commands import add_commands as add_workshop_commands


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="vswap-ref",
        description="Run workloads on a model of Linux swap, at any stage of the Virtual Swap Space series; "
        "work on the notebooks that define it.",
    )
    parser.add_argument("--version", action="version", version=f"vswap-ref {__version__}")
    sub = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_lab_commands(sub)
    add_workshop_commands(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors in its input are one line on stderr and exit status 2 (1: a comparison that fails)."""
    args = build_parser().parse_args(arguments)
    try:
        return int(args.func(args) or 0)
    except (SeriesError, ValueError, OSError, MemoryError) as error:
        print(f"vswap-ref: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
