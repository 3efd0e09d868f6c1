"""Runs one engine from start to end: watches its health, verifies its capacity, drains it, explains its end.

Everything here acts; what to do is decided in the pure modules (capacity, drain, status, exits).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Mapping
from dataclasses import replace

from . import drain, status
from .capacity import Verdict, compare
from .connections import read_connections
from .device_memory import read_memory
from .engine_client import EngineClient, Health
from .exits import Exit, explain
from .exposition import EnginePage, read_page
from .plan import WorkerPlan
from .process import EngineProcess, oom_kills

_POLL_STARTING_SECONDS = 0.5
_POLL_SECONDS = 1.0
_RECHECK_SECONDS = 5.0
_DRAIN_POLL_SECONDS = 0.2
_LAST_WORDS_SECONDS = 2.0

log = logging.getLogger("tonnage_worker")


class Supervisor:
    """One engine, one plan. Signals call `drain_now` and `stop_now`; `run` returns how it ended."""

    def __init__(
        self,
        plan: WorkerPlan,
        *,
        engine: EngineProcess,
        client: EngineClient,
        drain_file: str,
        memory_directory: str,
        environment: Mapping[str, str],
    ) -> None:
        now = time.monotonic()
        self.status = status.Status(plan=plan, started_at=now, beat_at=now)
        self._engine = engine
        self._client = client
        self._drain_file = drain_file
        self._memory_directory = memory_directory
        self._keep_alive_seconds = drain.keep_alive_seconds(environment.items())
        self._oom_kills_before = oom_kills()
        self._checked_at = now
        self._terminated = False
        self._drain_asked_at: float | None = None
        self._watching: asyncio.Task[None] | None = None

    async def run(self) -> Exit:
        """Supervise until the engine has ended."""
        task = asyncio.create_task(self._guard())
        returncode = await self._engine.ended
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self._update(engine_running=False)
        self._engine.kill()  # what is left of its process group
        exit_ = self.status.exit or await self._explain(returncode)
        self._update(exit=exit_)
        return exit_

    def drain_now(self) -> None:
        """SIGTERM: not ready from this moment on. A second one changes nothing."""
        if self.status.draining:
            log.info("already draining; a further SIGTERM does not shorten it")
            return
        self._drain_asked_at = time.monotonic()
        self._update(draining=True, drain_note="waiting for endpoints to be forgotten")
        with contextlib.suppress(OSError), open(self._drain_file, "w", encoding="ascii"):
            pass
        if self._watching is not None:
            self._watching.cancel()
        limits = self.status.plan.drain
        log.info(
            "draining: endpoints %g s, then up to %g s for running requests",
            limits.endpoint_seconds,
            limits.shutdown_timeout_seconds,
        )

    def stop_now(self) -> None:
        """SIGINT: end the engine at once."""
        self._end(Exit(reason="Interrupted", message="stopped at once by SIGINT", exit_code=130))

    async def _guard(self) -> None:
        """Watch, then drain; an error in the worker itself must not leave an engine without a supervisor."""
        try:
            await self._watch_until_draining()
            await self._drain()
        except Exception as error:
            log.exception("the supervisor failed")
            message = f"the supervisor failed: {type(error).__name__}: {error}"
            self._end(Exit(reason="SupervisorFailed", message=message, exit_code=70))

    def _end(self, exit_: Exit) -> None:
        if self.status.exit is None:
            self._update(exit=exit_)
            log.error("%s: %s", exit_.reason, exit_.message)
        self._engine.kill()

    def _update(self, **changes: object) -> None:
        self.status = replace(self.status, beat_at=time.monotonic(), **changes)  # type: ignore[arg-type]

    # --- watching ---

    async def _watch_until_draining(self) -> None:
        watching = self._watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({watching})
        finally:
            watching.cancel()
        if not watching.cancelled():
            watching.result()

    async def _watch(self) -> None:
        while not self.status.draining:
            await self._look()
            await asyncio.sleep(_POLL_STARTING_SECONDS if self.status.healthy_at is None else _POLL_SECONDS)

    async def _look(self) -> None:
        self._note_health(await self._client.health())
        now = time.monotonic()
        if status.is_unhealthy(self.status, now=now):
            message = (
                f"the engine was healthy and has not been for {now - (self.status.healthy_at or now):.0f} s"
            )
            self._end(Exit(reason="EngineUnhealthy", message=message, exit_code=1))
        elif self._should_verify(now):
            self._checked_at = now
            await self._verify()
        if not self.status.served and status.readiness(self.status, now=now)[0]:
            self._update(served=True)

    def _note_health(self, health: Health) -> None:
        now = time.monotonic()
        if health is Health.GOOD:
            if self.status.healthy_since is None:
                self._update(healthy_since=now)
                log.info("the engine is healthy after %.1f s", now - self.status.started_at)
            self._update(healthy_at=now, failed_probes=0)
            return
        self._update(failed_probes=self.status.failed_probes + 1)
        if health is Health.REFUSED:
            self._update(refused_at=now)

    def _should_verify(self, now: float) -> bool:
        if self.status.healthy_at is None or self.status.failed_probes:
            return False
        verdict = self.status.verdict
        return verdict is None or (not verdict.ok and now - self._checked_at >= _RECHECK_SECONDS)

    async def _verify(self) -> None:
        text = await self._client.page()
        if text is None:
            return
        if self.status.engine_version is None:
            memory = await asyncio.to_thread(read_memory, self._memory_directory)
            self._update(engine_version=await self._client.version(), memory=memory)
        plan = self.status.plan
        try:
            observed = read_page(text).capacities
            verdict = compare(plan.expected, observed=observed, verification=plan.verification)
        except ValueError as error:
            observed = {}
            verdict = Verdict(
                ok=False, equal=False, message=f"the engine's metrics page is unreadable: {error}"
            )
        if verdict != self.status.verdict:
            level = logging.INFO if verdict.equal else logging.WARNING
            outcome = "verified" if verdict.ok else "NOT as planned, this worker will not be ready"
            log.log(level, "capacity (%s) %s: %s", plan.verification.value, outcome, verdict.message)
        self._update(observed=observed, verdict=verdict)

    # --- draining ---

    async def _drain(self) -> None:
        state = drain.begin(now=self._drain_asked_at or time.monotonic(), serving=self.status.served)
        asked_at = 0.0
        requests: int | None = None
        while self._engine.running:
            now = time.monotonic()
            if not self._terminated and now - asked_at >= 1.0:
                asked_at, requests = now, await self._requests()
            connections = read_connections(self._client.port)
            now = time.monotonic()
            state = drain.observe(state, now=now, connections=connections, requests=requests)
            state = self._act(state, now=now)
            await asyncio.wait({self._engine.ended}, timeout=_DRAIN_POLL_SECONDS)

    async def _requests(self) -> int | None:
        text = await self._client.page()
        page: EnginePage | None = None
        with contextlib.suppress(ValueError):
            page = None if text is None else read_page(text)
        return None if page is None else page.requests

    def _act(self, state: drain.DrainState, *, now: float) -> drain.DrainState:
        limits = self.status.plan.drain
        action, why = drain.decide(state, now=now, limits=limits, keep_alive_seconds=self._keep_alive_seconds)
        self._update(drain_note=why)
        if action is drain.Action.KILL:
            self._end(Exit(reason="DrainTimeout", message=f"{why}; killed", exit_code=137))
        if action is not drain.Action.TERMINATE:
            return state
        log.info("stopping the engine after %.1f s: %s", now - state.started_at, why)
        self._terminated = True
        self._engine.terminate()
        return replace(state, terminated_at=now)

    async def _explain(self, returncode: int) -> Exit:
        if self._terminated and (returncode in (0, -signal.SIGTERM, 143) or not self.status.served):
            return self._drained()
        tail = await asyncio.to_thread(self._engine.tail, wait_seconds=_LAST_WORDS_SECONDS)
        return explain(
            returncode=returncode,
            tail=tail,
            oom_kills=oom_kills() - self._oom_kills_before,
            was_healthy=self.status.healthy_at is not None,
        )

    def _drained(self) -> Exit:
        verdict = self.status.verdict
        if verdict is not None and not verdict.ok:
            return Exit(reason="CapacityMismatch", message=verdict.message, exit_code=0)
        return Exit(reason="Drained", message="the engine was drained and stopped", exit_code=0)
