"""Types that keep integers apart for the type checker, and that cost next to nothing when the model runs.

Calling a ``typing.NewType`` takes longer than a function call, and a page on its way to swap and back needs dozens.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import index
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NewType
else:

    def NewType(name: str, base: type[int]) -> Callable[[int], int]:
        """As ``typing.NewType``, for integers only: what it returns gives back the integer that it gets."""
        return index


__all__ = ["NewType"]
