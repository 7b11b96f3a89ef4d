"""The one exception of the engine: what is wrong, and where."""

from __future__ import annotations


class SeriesError(Exception):
    """Something in the notebooks does not add up; the message names notebook, cell and line."""
