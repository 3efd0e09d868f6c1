"""`tonnage`: the command line. Also installed as `kubectl-tonnage`."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence

from tonnage import __version__
from tonnage.cli.arguments import Formatter, add_fit


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="tonnage",
        description="Size, start, verify and scale vLLM on Kubernetes by calculation.",
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action="version", version=f"tonnage {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_fit(commands).set_defaults(run=_fit)
    crd = commands.add_parser(
        "crd",
        help="print the CustomResourceDefinition",
        description="Print the CustomResourceDefinition of LLMDeployment as YAML.",
        epilog="example: tonnage crd | kubectl apply --server-side -f -",
        formatter_class=Formatter,
    )
    crd.set_defaults(run=_crd)
    return parser


def _fit(options: argparse.Namespace) -> int:
    from tonnage.cli.fit import run  # noqa: PLC0415 - the other commands start without it

    return run(options)


def _crd(_options: argparse.Namespace) -> int:
    import yaml  # noqa: PLC0415 - the other commands start without it

    from tonnage.api.crd import build_crd  # noqa: PLC0415

    sys.stdout.write("# Generated from tonnage.api by `make crd`; do not edit.\n")
    yaml.safe_dump(build_crd(), sys.stdout, sort_keys=False, width=110)
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    gc.disable()  # a short process: looking for garbage takes longer than all it would free
    options = build_parser().parse_args(arguments)
    try:
        code = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
