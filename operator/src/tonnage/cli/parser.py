"""How options are parsed: the program's name as it was called, help of a fixed width, errors with a hint."""

from __future__ import annotations

import argparse
import os.path
from collections.abc import Iterable
from typing import Any, NoReturn


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help of a fixed width: finding out the terminal's would cost more than all of the parsing, at every
    start."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


class Parser(argparse.ArgumentParser):
    """An error names the help that would have avoided it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=Formatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, how it is used and where more is told; ends with 2."""
        from tonnage.cli.style import printable  # noqa: PLC0415 - only errors need it

        self.exit(2, f"{self.format_usage()}{self.prog}: error: {printable(message)}\n{self.hint}")

    @property
    def hint(self) -> str:
        """Where all options are told."""
        return f"`{self.prog} --help` tells all options, with examples\n"


def program(called: str) -> str:
    """The program's name for people; kubectl runs plugins by a name of its own."""
    return "kubectl tonnage" if os.path.basename(called).startswith("kubectl-tonnage") else "tonnage"


def meant(wrong: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, as the end of a sentence; empty if none is near."""
    from difflib import get_close_matches  # noqa: PLC0415 - only errors need it

    near = get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
