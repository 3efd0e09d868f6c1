"""The command line: `serve --plan FILE [--port N] [--termination-log FILE] -- ENGINE_ARGUMENTS...`. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

ENGINE_MODULE_VARIABLE = "TONNAGE_ENGINE_MODULE"
DEFAULT_ENGINE_MODULE = "vllm.entrypoints.openai.api_server"
# The API server knows --headless and starts one all the same; only the command `serve` acts on it (vLLM 0.32
# entrypoints/cli/serve.py).
FOLLOWER_MODULE_VARIABLE = "TONNAGE_FOLLOWER_MODULE"
DEFAULT_FOLLOWER_MODULE = "vllm.entrypoints.cli.main"
MIDDLEWARE = "tonnage_worker.drain_middleware.CloseWhenDraining"
_DEFAULT_ENGINE_PORT = 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to run and where to answer. `leader` is where the worker of a follower's leader answers, None for
    a worker that serves."""

    plan_path: str
    port: int
    termination_log: str
    engine_module: str
    engine_port: int
    engine_arguments: tuple[str, ...]
    leader: str | None = None


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
    parser.add_argument(
        "--follower",
        action="store_true",
        help="the engine is headless: one node of a replica that spans several",
    )
    parser.add_argument("--leader-port", type=int, help="port of the leader's worker (as --port)")
    parser.add_argument("engine_arguments", nargs="*", metavar="-- ENGINE_ARGUMENT")
    # argparse would take engine arguments for its own: it sees only what stands before the first `--`.
    own, engine = _split(arguments)
    parsed = parser.parse_args(own)
    if parsed.engine_arguments:
        parser.error(f"engine arguments belong after `--`, found {parsed.engine_arguments[0]!r} before it")
    if parsed.follower:
        leader = _value(engine, "--master-addr")
        if leader is None:
            parser.error("--follower needs the engine argument --master-addr")
        return Options(
            plan_path=parsed.plan,
            port=parsed.port,
            termination_log=parsed.termination_log,
            engine_module=environment.get(FOLLOWER_MODULE_VARIABLE) or DEFAULT_FOLLOWER_MODULE,
            engine_port=_engine_port(engine),
            engine_arguments=("serve", *engine),
            leader=f"http://{_in_url(leader)}:{parsed.leader_port or parsed.port}/live",
        )
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
    """Where the engine answers; its own default is 8000."""
    port = _value(arguments, "--port") or ""
    return int(port) if port.isdecimal() else _DEFAULT_ENGINE_PORT


def _value(arguments: Sequence[str], name: str) -> str | None:
    """The value of an argument; the last counts, as in the engine's own parser."""
    value = None
    for argument, following in pairwise([*arguments, ""]):
        if argument == name:
            value = following
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
    return value


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
