"""Commands of the lab."""

from typing import Any


def add_commands(sub: Any) -> None:
    """None yet."""
