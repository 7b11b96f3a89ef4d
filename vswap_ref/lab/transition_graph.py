"""The states of a swap entry as a graph: a lane for each backing, a place for each state, an arrow for each step."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from vswap_ref.display import escape, picture

BACKINGS = "SZCF"
"""Letters of enum swap_type, in its order: a slot, zeros, a compressed copy, the folio."""

LANES = {"Z": "zeros", "F": "folio", "C": "zswap", "S": "device"}
"""From top to bottom: changes of the backing are short then."""

GROUPS = {
    (0, "none"): "not pinned",
    (1, "none"): "pinned, no folio",
    (1, "folio"): "in the swap cache",
    (0, "folio"): "folio, not pinned",
}
"""From left to right, by pin and word."""

COUNTS = ("0", "1", "2+")
FAMILIES = {
    "begin and end": ("#7a7f87", ("folio_alloc_swap", "folio_free_swap")),
    "users": ("#2e9e5b", ("swap_duplicate_nr", "vswap_free_nr_any_cache_only")),
    "pin": ("#3f6fb0", ("swapcache_prepare", "swapcache_clear")),
    "cache": ("#9a6fd0", ("swap_cache_add_folio", "swap_cache_del_folio", "__vswap_remove_mapping")),
    "backing": (
        "#d9662b",
        (
            "swap_zeromap_folio_set",
            "vswap_prepare_writeout",
            "vswap_store_folio",
            "zswap_entry_store",
            "vswap_alloc_swap_slot",
        ),
    ),
}
"""Colour and functions of each kind of step."""

COLOURS = {operation: colour for colour, operations in FAMILIES.values() for operation in operations}
LEFT, STEP, GAP, TOP, HEIGHT, RADIUS = 96, 54, 34, 44, 132, 13


def place(state: Any, lane: str = "") -> tuple[float, float]:
    """Where a state stands; "free" has a place in each lane."""
    top = TOP + HEIGHT * list(LANES).index(lane or state.backing) + HEIGHT / 2
    if state.backing not in LANES:
        return LEFT, top
    group = list(GROUPS).index((state.in_swapcache, state.word))
    column = COUNTS.index(state.swap_count)
    return LEFT + GAP + STEP * (1 + 3 * group + column) + GAP * group, top


def graph_svg(rest: Collection[Any], transient: Collection[Any], steps: Iterable[Any]) -> str:
    """The whole picture; ``steps`` are drawn where both states were seen."""
    width = LEFT + GAP * 5 + STEP * 12 + 10
    height = TOP + HEIGHT * len(LANES) + 6
    arrows = "".join(arrow(step, {step.state, step.following} <= {*rest}) for step in sorted(steps))
    alt = (
        f"States of a swap entry in four lanes by backing: {len([*rest])} at rest, drawn solid, "
        f"{len([state for state in transient if state.backing in LANES])} transient, dashed, the others, hollow, never "
        "seen; arrows are functions of the virtual layer. The tables below say the same in words."
    )
    return picture(frame(width) + arrows + nodes(rest, transient), alt, width, height)


def frame(width: float) -> str:
    """Lanes and headings."""
    parts = [markers()]
    for number, (letter, name) in enumerate(LANES.items()):
        y = TOP + HEIGHT * number
        parts.append(
            f"<rect x='1' y='{y + 3}' width='{width - 2}' height='{HEIGHT - 6}' rx='6' fill='currentColor' "
            f"fill-opacity='.05'/>{text(10, y + 22, f'{letter}: {name}', 13, 'start')}"
        )
    for number, name in enumerate(GROUPS.values()):
        x = LEFT + GAP * (1 + number) + STEP * (2 + 3 * number)
        parts.append(text(x, 16, name, 13) + text(x, 33, "users: 0 · 1 · 2+", 10))
    return "".join(parts) + text(LEFT, 16, "free", 13)


def markers() -> str:
    """An arrow head in each colour."""
    heads = "".join(
        f"<marker id='head{colour[1:]}' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='6' markerHeight='6' "
        f"orient='auto'><path d='M0 0 8 4 0 8Z' fill='{colour}'/></marker>"
        for colour, _ in FAMILIES.values()
    )
    return f"<defs>{heads}</defs>"


def text(x: float, y: float, words: str, size: int, anchor: str = "middle") -> str:
    """Words in the page's own colour."""
    return f"<text x='{x}' y='{y}' font-size='{size}' text-anchor='{anchor}' fill='currentColor'>{escape(words)}</text>"


def nodes(rest: Collection[Any], transient: Collection[Any]) -> str:
    """A circle for each state of each lane: solid, dashed or hollow."""
    free = next(iter({*rest, *transient} - {state for state in [*rest, *transient] if state.backing in LANES}), None)
    example = next(iter(rest))
    parts = [node(*place(free, lane), "", "free", "solid") for lane in LANES if free is not None]
    for lane in LANES:
        for pinned, word in GROUPS:
            for count in COUNTS:
                state = type(example)(lane, pinned, count, word)
                kind = "solid" if state in rest else "dashed" if state in transient else "hollow"
                parts.append(node(*place(state), "" if kind == "hollow" else count, str(state), kind))
    return "".join(parts)


def node(x: float, y: float, label: str, title: str, kind: str) -> str:
    """One state."""
    style = {
        "solid": "fill='currentColor' fill-opacity='.22' stroke-width='1.8'",
        "dashed": "fill='currentColor' fill-opacity='.04' stroke-width='1.4' stroke-dasharray='4 3'",
        "hollow": "fill='none' stroke-opacity='.4'",
    }[kind]
    radius = RADIUS if kind != "hollow" else 6
    circle = f"<circle cx='{x:.0f}' cy='{y:.0f}' r='{radius}' stroke='currentColor' {style}/>"
    return f"<g><title>{escape(title)}</title>{circle}{text(x, y + 4, label, 11)}</g>"


def arrow(step: Any, at_rest: bool) -> str:
    """One step: bent upward if it goes to the right, downward to the left, sideways between lanes."""
    lane = step.state.backing if step.state.backing in LANES else step.following.backing
    (x1, y1), (x2, y2) = place(step.state, lane), place(step.following, lane if step.following.backing == "-" else "")
    if y1 == y2:
        bend = min(54.0, 12 + abs(x2 - x1) * 0.16) * (-1 if x2 > x1 else 1)
        middle = ((x1 + x2) / 2, y1 + 2 * bend)
    else:
        middle = ((x1 + x2) / 2 + (y2 - y1) * 0.16, (y1 + y2) / 2)
    start, end = towards((x1, y1), middle), towards((x2, y2), middle)
    colour, dash = COLOURS.get(step.operation, "#c8453c"), "" if at_rest else " stroke-dasharray='4 3'"
    path = f"M{start[0]:.0f} {start[1]:.0f}Q{middle[0]:.0f} {middle[1]:.0f} {end[0]:.0f} {end[1]:.0f}"
    return (
        f"<path d='{path}' fill='none' stroke='{colour}' stroke-width='1.4'{dash} marker-end='url(#head{colour[1:]})'>"
        f"<title>{escape(f'{step.state} -> {step.following}: {step.operation}')}</title></path>"
    )


def towards(point: tuple[float, float], target: tuple[float, float]) -> tuple[float, float]:
    """The edge of a state's circle on the way to a target."""
    dx, dy = target[0] - point[0], target[1] - point[1]
    length = max(1.0, (dx * dx + dy * dy) ** 0.5)
    return point[0] + dx * (RADIUS + 1) / length, point[1] + dy * (RADIUS + 1) / length


def legend_html() -> str:
    """What the colours and outlines mean."""
    lines = "".join(
        f"<div><svg width='26' height='10' aria-hidden='true'><line x1='0' y1='5' x2='24' y2='5' stroke='{colour}' "
        f"stroke-width='2.5'/></svg> {escape(name)}: <code>{'</code>, <code>'.join(operations)}</code></div>"
        for name, (colour, operations) in FAMILIES.items()
    )
    head = "<div>Filled: at rest. Dashed: transient, and steps to or from there. Small and hollow: never.</div>"
    return f"<div style='font-size:90%'>{head}{lines}</div>"
