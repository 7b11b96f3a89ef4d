"""The lab's commands: run, compare, real-kernel, memory, functions, replay, traces, corpora."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from vswap_ref.machine import BlockDevice, Disk, Pmem, Ssd, Zram

if TYPE_CHECKING:
    from .function_index import Entry
    from .real_kernel import Verdict

DEVICES: dict[str, type[BlockDevice]] = {"disk": Disk, "ssd": Ssd, "pmem": Pmem, "zram": Zram}


def add_commands(sub: Any) -> None:
    """Add the lab's commands to an argparse sub-parser collection."""
    run = sub.add_parser(
        "run",
        help="page an access trace over real page contents through a stage",
        description="Page an access trace over real page contents through a stage, and show what happened.",
        epilog="example: vswap-ref run sort --ram 4M --swap ssd:64M --zswap lz4 --json",
    )
    add_run_arguments(run)
    run.add_argument("--stage", help="stage to run on (default: the latest)")
    run.set_defaults(func=run_command)
    compare = sub.add_parser(
        "compare",
        help="run an access trace on two stages, side by side",
        description="Page an access trace through two stages with equal settings, and show the main figures of both.",
        epilog="example: vswap-ref compare 13 14 compile --ram 4M",
    )
    compare.add_argument("first", metavar="FIRST", help="a stage")
    compare.add_argument("second", metavar="SECOND", help="another one")
    add_run_arguments(compare)
    compare.set_defaults(func=compare_command)
    real = sub.add_parser(
        "real-kernel",
        help="compare the model's counters with those of a real kernel",
        description="Run recorded workloads on the model and set its counters beside the real kernel's.  Exits with 1 "
        "if a counter is out of tolerance.",
        epilog="example: vswap-ref real-kernel data/real-kernel/counters.csv",
    )
    real.add_argument("file", metavar="FILE.csv", help="workloads and counters, as in data/real-kernel/counters.csv")
    real.add_argument("--stage", default=0, help="stage to run on (default: 0, the kind of kernel that was recorded)")
    real.add_argument("--json", action="store_true", help="print all figures as JSON")
    real.set_defaults(func=real_kernel_command)
    functions = sub.add_parser(
        "functions",
        help="list the kernel's swap functions and where the model has them",
        description="List the functions of Linux 6.19's swap subsystem and of mm/vswap.c: what each does, where the "
        "model has it, which chapter writes it, and tests that run it; or why the model has none.",
        epilog="example: vswap-ref functions zswap_store",
    )
    functions.add_argument("name", nargs="?", metavar="NAME", help="a function, or a part of names")
    functions.add_argument("--stage", help="stage to look at (default: the latest)")
    functions.add_argument("--json", action="store_true", help="print everything as JSON")
    functions.add_argument(
        "--record", action="store_true", help="run the tests and write down which of them run which function"
    )
    functions.set_defaults(func=functions_command)
    add_replay_command(sub)
    memory = sub.add_parser(
        "memory",
        help="measure what swap metadata costs, beside the published figures",
        description="Fill a swap device through the allocator, with pages in zswap and with pages on the device, and "
        "measure the metadata at 0, 25, 50, 75 and 100 % of use.  Exits with 1 if a published figure is not met.",
        epilog="example: vswap-ref memory --size 1G --json",
    )
    memory.add_argument("--size", default="32G", help="size of the device (default: 32G, as in the cover letter)")
    memory.add_argument("--stage", help="stage to measure (default: the latest)")
    memory.add_argument("--json", action="store_true", help="print all ledgers as JSON")
    memory.set_defaults(func=memory_command)
    for name, text in (("traces", "list the access traces that ship"), ("corpora", "list the page corpora that ship")):
        parser = sub.add_parser(name, help=text, description=f"{text.capitalize()}.")
        parser.set_defaults(func=list_command, listing=name)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``run`` and ``compare`` have in common."""
    parser.add_argument("trace", metavar="TRACE", help="a name listed by `vswap-ref traces`, or a file (.npz or text)")
    parser.add_argument("--ram", help='memory, such as "8M" (default: half of what the trace touches)')
    parser.add_argument(
        "--swap",
        action="append",
        metavar="KIND:SIZE",
        help=f"a swap device, may be repeated; kinds: {', '.join(DEVICES)}; or none (default: one large ssd)",
    )
    parser.add_argument("--zswap", default="lz4", help="compressor (lz4, zstd, deflate, lzo) or off (default: lz4)")
    parser.add_argument("--pages", default="mixed", help="a corpus, mixed, zero or random (default: mixed)")
    parser.add_argument("--seed", type=int, default=0, help="seed for the choice of page contents (default: 0)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def add_replay_command(sub: Any) -> None:
    """``vswap-ref replay``."""
    replay = sub.add_parser(
        "replay",
        help="replay traces recorded from the real mm/vswap.c",
        description="Do on a stage what a trace of the real mm/vswap.c did, operation by operation, and compare "
        "results, calls to the outside and state.  Stops at the first operation that differs and shows both sides.  "
        "Exits with 1 if a file differs, with 2 if it is no trace or a damaged one.",
        epilog="example: vswap-ref replay data/golden/09/*.gz",
    )
    replay.add_argument(
        "files", nargs="+", metavar="FILE", help="traces in the format vswap-trace-1 (.jsonl or .jsonl.gz)"
    )
    replay.add_argument("--stage", help="stage to replay on (default: that of the level at which a trace was recorded)")
    replay.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    replay.set_defaults(func=replay_command)


def parse_devices(words: list[str] | None) -> list[BlockDevice] | None:
    """Devices from words such as "ssd:64M"; None for none given.  ValueError naming the word."""
    if words is None:
        return None
    devices = []
    for number, word in enumerate(words):
        if word == "none":
            continue
        kind, _, size = word.partition(":")
        if kind not in DEVICES or not size:
            raise ValueError(f"--swap {word!r}: expected KIND:SIZE with a kind from {', '.join(DEVICES)}, or none")
        devices.append(DEVICES[kind](size, name=f"/dev/{kind}{number}"))
    return devices


def run_command(args: argparse.Namespace) -> int:
    """``vswap-ref run``."""
    from .paging import run

    record = run(args.trace, stage=args.stage, **run_options(args))
    if args.json:
        print(record.to_json())
        return 0
    for row in record.rows():
        print(f"{row['what']:<28}{row['value']}")
    print(f"{'where the pages are':<28}{record.where}")
    return 0


def compare_command(args: argparse.Namespace) -> int:
    """``vswap-ref compare``."""
    from .paging import compare

    comparison = compare(args.first, args.second, args.trace, **run_options(args))
    print(comparison.to_json() if args.json else comparison)
    return 0


def run_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of ``vswap_ref.run`` from the words of a command line."""
    options = {name: getattr(args, name) for name in ("pages", "ram", "zswap", "seed")}
    return options | {"swap": parse_devices(args.swap)}


def real_kernel_command(args: argparse.Namespace) -> int:
    """``vswap-ref real-kernel``."""
    from .real_kernel import compare_workload, load_counters, verdict_row

    recorded = load_counters(args.file)
    report: list[dict[str, Any]] = []
    for number, (workload, runs) in enumerate(recorded.items(), 1):
        print(f"[{number}/{len(recorded)}] {workload}", file=sys.stderr, flush=True)
        verdicts = compare_workload(workload, runs, args.stage)
        report.append({"workload": str(workload), "counters": [verdict_row(verdict) for verdict in verdicts]})
        if args.json:
            continue
        print(f"{workload!s}\n{'':<28}{'model':>10}{'kernel':>12}{'deviation':>12}{'allowed':>10}")
        for verdict in verdicts:
            print(verdict_line(verdict))
    if args.json:
        print(json.dumps(report, indent=1))
    return 0 if all(row["ok"] for entry in report for row in entry["counters"]) else 1


def verdict_line(verdict: Verdict) -> str:
    """One counter of ``vswap-ref real-kernel`` as text."""
    deviation = f"{verdict.model / verdict.kernel - 1:+.1%}" if verdict.kernel else "-"
    allowed = "-" if verdict.allowed is None else f"{verdict.allowed:,.0f}"
    mark = "" if verdict.ok else "  out of tolerance"
    return f"{verdict.counter:<28}{verdict.model:>10,}{verdict.kernel:>12,.0f}{deviation:>12}{allowed:>10}{mark}"


def functions_command(args: argparse.Namespace) -> int:
    """``vswap-ref functions``."""
    from .function_index import find_functions, function_index, record

    if args.record:
        print("\n".join(record()))
        return 0
    entries = function_index(args.stage)
    if args.name:
        entries = find_functions(args.name, entries)
    if args.json:
        print(json.dumps([entry.row() for entry in entries], indent=1))
    elif args.name:
        print("\n\n".join(map(entry_text, entries)))
    else:
        print("\n".join(map(entry_line, entries)))
        print(f"\n{len(entries)} functions, {sum(entry.home is not None for entry in entries)} of them in the model")
    return 0


def entry_line(entry: Entry) -> str:
    """One function of ``vswap-ref functions`` in one line."""
    place = entry.home.module if entry.home else f"- {entry.function.reason}"
    return f"{entry.function.group:<22}{entry.function.name:<36}{place}"


def entry_text(entry: Entry) -> str:
    """Everything about one function as text."""
    from .function_index import last_stage

    function, home = entry.function, entry.home
    lines = [
        f"{function.name}  ({function.file}; {function.group})",
        f"  {function.contract}",
    ]
    until = f" to {function.until}" if function.until else ""
    lines += [f"  stages:   from {function.since}{until}"] if function.since else []
    if home is None and function.reason:
        return "\n".join([*lines, f"  not in the model: {function.reason}"])
    if home is None and function.since:
        return "\n".join([*lines, "  not at this stage"])
    if home is None:
        return "\n".join([*lines, f"  not at this stage: the last one is {last_stage(function)}"])
    lines.append(f"  model:    vswap_ref/{home.module}: {function.model_name}{home.signature}")
    lines.append(f"            {home.summary}")
    lines += [f"  simpler:  {function.simplified}"] if function.simplified else []
    lines += [f"  chapter:  notebooks/{home.notebook}.md, {home.heading!r}"] if home.notebook else []
    return "\n".join([*lines, *(f"  test:     {test}" for test in entry.tests)])


def replay_command(args: argparse.Namespace) -> int:
    """``vswap-ref replay``."""
    from .replay import EXCLUDED, replay, with_progress

    outcomes = []
    for file in args.files:
        outcomes.append(replay(file, args.stage, with_progress))
        if not args.json:
            print(outcomes[-1])
    if args.json:
        print(json.dumps({"replays": [outcome.row() for outcome in outcomes], "excluded": EXCLUDED}, indent=1))
    else:
        print("not compared:", *(f"  {what}: {why}" for what, why in EXCLUDED.items()), sep="\n")
    return 0 if all(outcome.agrees for outcome in outcomes) else 1


def memory_command(args: argparse.Namespace) -> int:
    """``vswap-ref memory``."""
    from .metadata import metadata_table

    table = metadata_table(args.size, args.stage, progress=sys.stderr.isatty())
    print(table.to_json() if args.json else table)
    return 0 if table.agrees else 1


def list_command(args: argparse.Namespace) -> int:
    """``vswap-ref traces`` and ``vswap-ref corpora``."""
    from . import corpora, traces

    rows = traces() if args.listing == "traces" else corpora()
    for name, row in rows.items():
        print(f"{name:<10}{row['pages']:>7,} pages  {row['job']}")
    return 0
