"""Pygments: a ``%%patch`` cell is Python below its first line."""

from __future__ import annotations

from pygments.lexer import inherit
from pygments.lexers.python import PythonLexer
from pygments.token import Comment


class PatchLexer(PythonLexer):  # type: ignore[misc]
    """IPython cells for the book: magic lines as comments, everything else as Python."""

    name = "IPython with %%patch"
    aliases = ("ipython3-patch",)
    tokens = {"root": [(r"^%.*\n", Comment.Preproc), inherit]}  # noqa: RUF012
