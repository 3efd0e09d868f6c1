"""One container run: reads the plan, opens the endpoints, starts the engine, says why it ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from aiohttp import web

from . import drain
from .device_memory import DIRECTORY_VARIABLE
from .drain_middleware import DRAIN_FILE_VARIABLE
from .endpoints import build_app
from .engine_client import EngineClient, open_session
from .exits import Exit, render
from .follower import Follower
from .options import Options, parse_options
from .plan import PlanError, WorkerPlan, parse_plan
from .preflight import PLAN_VARIABLE
from .process import EngineProcess, become_subreaper, start_engine
from .redaction import redact, secret_values
from .supervisor import Supervisor

log = logging.getLogger("tonnage_worker")


def run_container(arguments: Sequence[str], *, early_signals: Sequence[int]) -> int:
    """Run to the end and return the exit code; `early_signals` came before and are acted on first."""
    environment = dict(os.environ)
    options = parse_options(arguments, environment=environment)
    secrets = secret_values(environment, arguments=options.engine_arguments)
    _open_log(secrets)
    become_subreaper()
    try:
        exit_ = asyncio.run(
            _run(options, environment=environment, secrets=secrets, early_signals=early_signals)
        )
    except PlanError as error:
        exit_ = Exit(reason="PlanUnreadable", message=f"{options.plan_path}: {error}", exit_code=2)
    except OSError as error:
        exit_ = Exit(reason="StartFailed", message=f"the worker could not start: {error}", exit_code=71)
    exit_ = replace(exit_, message=redact(exit_.message, secrets=secrets))
    log.log(logging.ERROR if exit_.exit_code else logging.INFO, "%s: %s", exit_.reason, exit_.message)
    _write_termination_message(options.termination_log, exit_)
    return exit_.exit_code


async def _run(
    options: Options, *, environment: Mapping[str, str], secrets: frozenset[str], early_signals: Sequence[int]
) -> Exit:
    plan = _read_plan(options.plan_path)
    _warn_about_limits(plan, environment=environment)
    async with open_session() as session:
        client = EngineClient(session, options.engine_port)
        memory_directory = tempfile.mkdtemp(prefix="tonnage-memory-")
        engine, drain_file = _start(
            options,
            environment={**environment, DIRECTORY_VARIABLE: memory_directory},
            secrets=secrets,
        )
        supervisor = _supervisor(options.leader)(
            plan,
            engine=engine,
            client=client,
            drain_file=drain_file,
            memory_directory=memory_directory,
            environment=environment,
        )
        _install_signals(supervisor, engine=engine, early=early_signals)
        runner = web.AppRunner(
            build_app(lambda: supervisor.status, engine=client, secrets=secrets), access_log=None
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, port=options.port).start()
            return await supervisor.run()
        finally:
            engine.kill()
            await runner.cleanup()
            _remove(drain_file)
            shutil.rmtree(memory_directory, ignore_errors=True)


def _supervisor(leader: str | None) -> Callable[..., Supervisor]:
    return Supervisor if leader is None else partial(Follower, leader=leader)


def _read_plan(path: str) -> WorkerPlan:
    try:
        return parse_plan(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"the plan cannot be read: {error}") from None


def _start(
    options: Options, *, environment: Mapping[str, str], secrets: frozenset[str]
) -> tuple[EngineProcess, str]:
    """Start the engine with the path of its drain flag in the environment."""
    drain_file = str(Path(tempfile.gettempdir()) / f"tonnage-draining-{os.getpid()}")
    _remove(drain_file)  # /tmp outlives the container: an earlier one may have left its flag
    engine = start_engine(
        options.engine_module,
        arguments=options.engine_arguments,
        environment={
            **environment,
            DRAIN_FILE_VARIABLE: drain_file,
            PLAN_VARIABLE: str(Path(options.plan_path).absolute()),
        },
        secrets=secrets,
        loop=asyncio.get_running_loop(),
    )
    log.info("started %s as process %d", options.engine_module, engine.pid)
    return engine, drain_file


def _install_signals(supervisor: Supervisor, *, engine: EngineProcess, early: Sequence[int]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, engine.reap)
    loop.add_signal_handler(signal.SIGTERM, supervisor.drain_now)
    loop.add_signal_handler(signal.SIGINT, supervisor.stop_now)
    engine.reap()  # a child that ended before its signal had a handler
    for number in early:
        (supervisor.drain_now if number == signal.SIGTERM else supervisor.stop_now)()


def _warn_about_limits(plan: WorkerPlan, *, environment: Mapping[str, str]) -> None:
    keep_alive = drain.keep_alive_seconds(environment.items())
    if plan.drain.endpoint_seconds <= keep_alive:
        log.warning(
            "drain.endpointSeconds %g is not longer than the engine's keep-alive time of %g s: "
            "idle connections may outlive it",
            plan.drain.endpoint_seconds,
            keep_alive,
        )


def _write_termination_message(path: str, exit_: Exit) -> None:
    try:
        Path(path).write_text(render(exit_), encoding="utf-8", errors="replace")
    except OSError as error:
        log.warning("the termination message could not be written to %s: %s", path, error)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


class _Redaction(logging.Filter):
    def __init__(self, secrets: frozenset[str]) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage(), secrets=self._secrets), ()
        return True


def _open_log(secrets: frozenset[str]) -> None:
    handler = logging.StreamHandler()
    handler.addFilter(_Redaction(secrets))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s tonnage_worker: %(message)s", handlers=[handler]
    )
