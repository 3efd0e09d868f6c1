"""Complaints on standard error, safe for a terminal."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass


class UsageError(Exception):
    """Options that cannot be used together, or a file that cannot be read; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that could not be read, and why."""

    why: str


def complain(options: argparse.Namespace, text: str) -> None:
    """Say what is wrong, under the name that the command was called by."""
    from tonnage.cli.style import printable  # noqa: PLC0415 - most runs have nothing to complain of

    sys.stderr.write(f"{options.program}: {printable(text)}\n")
