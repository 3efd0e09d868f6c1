"""What the terminal can show: Unicode blocks or plain ASCII, colour, and how wide it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TextIO

_GIB: Final = 2**30
_WIDEST: Final = 120
_NOT_A_TERMINAL: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How to draw."""

    unicode: bool = False
    colour: bool = False
    width: int = _NOT_A_TERMINAL

    def paint(self, text: str, code: str) -> str:
        """The text in a colour ("32"), where the terminal has colours."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text


def style_of(stream: TextIO = sys.stdout, environ: Mapping[str, str] = os.environ) -> Style:
    """The style of a stream: plain ASCII with NO_COLOR, on a dumb terminal, or where the encoding is not
    UTF-8."""
    encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
    plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
    terminal = stream.isatty()
    return Style(
        unicode=not plain and encoding == "utf8",
        colour=not plain and terminal,
        width=_width(stream, environ) if terminal else _NOT_A_TERMINAL,
    )


def _width(stream: TextIO, environ: Mapping[str, str]) -> int:
    columns = environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdecimal():
        return max(40, min(int(columns[:4]), _WIDEST))
    try:
        return max(40, min(os.get_terminal_size(stream.fileno()).columns, _WIDEST))
    except (OSError, ValueError):
        return 80


def printable(text: str) -> str:
    """The text without control characters, which a terminal would obey."""
    return "".join(each if each.isprintable() else "?" for each in text)


def size(amount_bytes: int) -> str:
    """Bytes in GiB, small amounts in MiB."""
    if 0 < amount_bytes < _GIB // 8:
        return f"{amount_bytes / 2**20:.2f} MiB"
    return f"{amount_bytes / _GIB:.2f} GiB"
