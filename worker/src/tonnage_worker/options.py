"""The command line: `serve --plan FILE [--port N] [--termination-log FILE] -- ENGINE_ARGUMENTS...`. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

ENGINE_MODULE_VARIABLE = "TONNAGE_ENGINE_MODULE"
DEFAULT_ENGINE_MODULE = "vllm.entrypoints.openai.api_server"
MIDDLEWARE = "tonnage_worker.drain_middleware.CloseWhenDraining"
_DEFAULT_ENGINE_PORT = 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to run and where to answer."""

    plan_path: str
    port: int
    termination_log: str
    engine_module: str
    engine_port: int
    engine_arguments: tuple[str, ...]


def parse_options(arguments: Sequence[str], *, environment: Mapping[str, str]) -> Options:
    """Read the command line; exits with usage, as argparse does, where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="tonnage_worker.serve", description="Supervises one vLLM engine against its plan."
    )
    parser.add_argument("--plan", required=True, help="the plan to keep (plan.json)")
    parser.add_argument(
        "--port", type=int, default=8081, help="port of /live, /ready, /metrics and /capacity"
    )
    parser.add_argument(
        "--termination-log", default="/dev/termination-log", help="where the reason of the end is written"
    )
    parser.add_argument("engine_arguments", nargs="*", metavar="-- ENGINE_ARGUMENT")
    # argparse would take engine arguments for its own: it sees only what stands before the first `--`.
    own, engine = _split(arguments)
    parsed = parser.parse_args(own)
    if parsed.engine_arguments:
        parser.error(f"engine arguments belong after `--`, found {parsed.engine_arguments[0]!r} before it")
    return Options(
        plan_path=parsed.plan,
        port=parsed.port,
        termination_log=parsed.termination_log,
        engine_module=environment.get(ENGINE_MODULE_VARIABLE) or DEFAULT_ENGINE_MODULE,
        engine_port=_engine_port(engine),
        engine_arguments=(*engine, "--middleware", MIDDLEWARE),
    )


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    if "--" not in arguments:
        return arguments, ()
    at = list(arguments).index("--")
    return arguments[:at], arguments[at + 1 :]


def _engine_port(arguments: Sequence[str]) -> int:
    """The last `--port` counts, as in the engine's own parser; its default is 8000."""
    port = str(_DEFAULT_ENGINE_PORT)
    for argument, following in pairwise([*arguments, ""]):
        if argument == "--port":
            port = following
        elif argument.startswith("--port="):
            port = argument.partition("=")[2]
    return int(port) if port.isdecimal() else _DEFAULT_ENGINE_PORT
