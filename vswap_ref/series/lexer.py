"""Pygments: a ``%%patch`` cell is Python below its first line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pygments.lexer import Lexer
from pygments.lexers.python import PythonLexer
from pygments.token import Comment


class PatchLexer(Lexer):  # type: ignore[misc]
    """IPython cells for the book: magic lines as comments, everything else as Python."""

    name = "IPython with %%patch"
    aliases = ("ipython3-patch",)

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, Any, str]]:
        """Tokens of one cell."""
        first, newline, rest = text.partition("\n")
        if not first.startswith("%"):
            yield from PythonLexer().get_tokens_unprocessed(text)
            return
        yield 0, Comment.Preproc, first + newline
        for place, kind, value in self.get_tokens_unprocessed(rest) if rest else ():
            yield place + len(first) + len(newline), kind, value
