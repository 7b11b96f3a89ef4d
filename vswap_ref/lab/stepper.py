"""A picture in steps that plays by itself or stands still at the step that one picks: SVG and CSS, no script.

It works in a static page by mouse and keyboard.  Who asked the system for less motion sees the first step and picks.
"""

from __future__ import annotations

from collections.abc import Sequence

from vswap_ref.display import escape, picture

SECONDS = 2.5
"""How long a step is shown."""

STYLE = """
#{id} {{ margin-block: 1rem; }}
#{id} label {{ margin-right: .7em; padding: 0 .2em; cursor: pointer; }}
#{id} span {{ white-space: nowrap; }}
#{id} input:checked + label {{ font-weight: bold; text-decoration: underline; }}
#{id} svg {{ display: block; margin-top: .5rem; max-width: 100%; height: auto; }}
#{id} .step {{ visibility: hidden; }}
{picked} {{ visibility: visible; }}
@keyframes {id} {{ 0% {{ visibility: visible; }} {share:.3f}%, 100% {{ visibility: hidden; }} }}
#{id}:has(#{id}-play:checked) .step {{ animation: {id} {total}s step-end infinite; }}
{delays}
@media (prefers-reduced-motion: reduce) {{
  #{id}-play, #{id}-play + label {{ display: none; }}
  #{id}:has(#{id}-play:checked) .step {{ animation: none; }}
  #{id}:has(#{id}-play:checked) .s0 {{ visibility: visible; }}
}}
"""


def stepper_html(name: str, still: str, steps: Sequence[tuple[str, str]], alt: str, width: int, height: int) -> str:
    """A picture that goes through steps.

    ``name``: letters and hyphens, once a page.  ``still``: SVG that is always there.  ``steps``: (label, SVG) each.
    ``alt`` tells in words what the whole shows.
    """
    numbers = range(len(steps))
    picked = ",\n".join(f"#{name}:has(#{name}-{number}:checked) .s{number}" for number in numbers)
    delays = "\n".join(
        f"#{name}:has(#{name}-play:checked) .s{number} {{ animation-delay: {number * SECONDS}s; }}"
        for number in numbers
    )
    total = SECONDS * len(steps)
    style = STYLE.format(id=name, picked=picked, share=100 / len(steps), total=total, delays=delays)
    buttons = [radio(name, "play", "play", checked=True)]
    buttons += [radio(name, str(number), f"{number + 1} {label}") for number, (label, _) in enumerate(steps)]
    groups = "".join(f"<g class='step s{number}'>{content}</g>" for number, (_, content) in enumerate(steps))
    svg = picture(still + groups, alt, width, height)
    return f"<div id='{name}' role='group' aria-label='steps'><style>{style}</style>{' '.join(buttons)}{svg}</div>"


def radio(name: str, value: str, label: str, checked: bool = False) -> str:
    """A button of the group, and its label."""
    state = " checked" if checked else ""
    return (
        f"<span><input type='radio' name='{name}' id='{name}-{value}'{state}>"
        f"<label for='{name}-{value}'>{escape(label)}</label></span>"
    )
