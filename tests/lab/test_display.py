"""Tables and pictures: the same rows as text and as HTML, pictures that say what they show."""

from __future__ import annotations

from vswap_ref.display import Figure, Table, picture

ROWS = [
    {"what": "contents", "same": True, "bytes": 12345, "ms": 1.5, "deviation": Figure("+0.4%")},
    {"what": "time", "same": False, "bytes": 7, "ms": 20.0, "deviation": Figure("")},
]


def test_a_table_as_text() -> None:
    """Columns below their names, numbers to the right, truth in words."""
    assert repr(Table("", ROWS)).split("\n") == [
        "what      same   bytes    ms  deviation",
        "contents  yes   12,345   1.5      +0.4%",
        "time      no         7  20.0",
    ]
    assert repr(Table("", [])) == "(empty)"


def test_a_table_as_html() -> None:
    """The same cells; numbers to the right."""
    html = Table("", ROWS)._repr_html_()
    assert "<td style='padding:0 .6em'>yes</td>" in html
    assert "<td style='text-align:right;padding:0 .6em'>12,345</td>" in html
    assert "<td style='text-align:right;padding:0 .6em'>20.0</td>" in html
    assert "<td style='text-align:right;padding:0 .6em'>+0.4%</td>" in html


def test_a_picture_has_its_text_and_its_size() -> None:
    """Quotes in the text do not end it; the view box lets a narrow page shrink it as a whole."""
    svg = picture("<rect/>", "the owner's <page>", 640, 22.4)
    assert "aria-label='the owner&#x27;s &lt;page&gt;'" in svg
    assert "width='640' height='22' viewBox='0 0 640 22'" in svg
    assert svg.startswith("<svg role='img'")
    assert svg.endswith("<rect/></svg>")
