"""`tonnage`: the command line. Also installed as `kubectl-tonnage`, the plugin `kubectl tonnage`."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from tonnage import __version__
from tonnage.cli.parser import Parser, meant, program

_EPILOG: Final = """\
examples:
  %(prog)s fit Qwen/Qwen3-32B               which cards hold a model; no cluster needed
  %(prog)s plan -f chat.yaml                what the operator would make of an object in this cluster
  %(prog)s explain chat                     what was asked, planned and measured, and what to do next
  %(prog)s crd | kubectl apply --server-side -f -

`%(prog)s COMMAND --help` tells options and exit codes
"""
_COMPLETE: Final = "__complete"


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its line in the help, the module with its options (a function `add_NAME`), and the one
    that runs it (a function `run`). Both are imported when they are needed."""

    help: str
    options: str
    module: str


COMMANDS: Final = {
    "fit": Command("tell what a model needs and which cards hold it", "arguments", "fit"),
    "plan": Command("tell what the operator would make of an object", "options", "plan"),
    "explain": Command("tell what became of an object, and what to do next", "options", "explain"),
    "crd": Command("print the CustomResourceDefinition", "options", "crd"),
    "completion": Command("print a script that completes commands in a shell", "options", "completion"),
}


def build_parser(*, prog: str = "tonnage", wanted: str | None = None) -> Parser:
    """The parser; only the command that is `wanted` has its options, for they take longer than the rest."""
    parser = Parser(
        prog=prog,
        description="Size, start and verify vLLM on Kubernetes by calculation.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"tonnage {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        part = commands.add_parser(name, help=command.help)
        if name == wanted:
            add_options(part, name)
            part.set_defaults(program=part.prog, parser=part)
    return parser


def add_options(parser: Parser, name: str) -> None:
    """Give the parser the options of a command."""
    getattr(_module(COMMANDS[name].options), f"add_{name}")(parser)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    gc.disable()  # a short process: looking for garbage takes longer than all it would free
    words = list(sys.argv[1:] if arguments is None else arguments)
    prog = program(sys.argv[0])
    try:
        if words[:1] == [_COMPLETE]:
            code = _module("complete").run(words[1:])
        else:
            options = parse(words, prog=prog)
            code = _module(COMMANDS[options.command].module).run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def parse(words: Sequence[str], *, prog: str = "tonnage") -> argparse.Namespace:
    """The options; wrong ones end the program, with what was probably meant."""
    wanted = next((word for word in words if not word.startswith("-")), None)
    parser = build_parser(prog=prog, wanted=wanted)
    if wanted is not None and wanted not in COMMANDS:
        hint = meant(wanted, COMMANDS)
        parser.error(f"{wanted!r} is no command (known: {', '.join(COMMANDS)}){hint}")
    options, unknown = parser.parse_known_args(words)
    if unknown:
        part: Parser = options.parser
        known = part._option_string_actions
        part.error(f"unrecognized arguments: {' '.join(unknown)}{meant(unknown[0].partition('=')[0], known)}")
    return options


def _module(name: str) -> Any:
    return import_module(f"tonnage.cli.{name}")


if __name__ == "__main__":
    main()
