"""Exit codes, the same for all commands (docs/cli.md)."""

from __future__ import annotations

from typing import Final

FINE: Final = 0
"""Fits, planned, Ready."""
NOT_YET: Final = 1
"""Does not fit, not Ready."""
USAGE: Final = 2
"""Wrong usage, or something cannot be read: nothing can be said."""
REFUSED: Final = 3
"""Read and understood, and refused: by the engine, by the API, or by this version."""
