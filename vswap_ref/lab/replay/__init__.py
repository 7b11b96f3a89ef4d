"""Replaying recorded traces of the real mm/vswap.c on the stages of the model.

A trace holds what the code of one patch level did, operation by operation: results, calls to the outside, state.  The
stage of that level does the same operations, with stand-ins around the virtual layer, and must agree in all of it.
"""

from __future__ import annotations

from .player import EXCLUDED, Replay, replay, with_progress
from .reader import TraceError

__all__ = ["EXCLUDED", "Replay", "TraceError", "replay", "with_progress"]
