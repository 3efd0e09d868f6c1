"""When may a draining engine be stopped? Pure: what is known now in, the next action out.

1. The worker is not ready and responses say `Connection: close`. For `endpoint_seconds` nothing else
   happens: new connections may still come until every proxy has heard, and uvicorn closes idle ones after
   its keep-alive time.
2. Then until clients are gone: no open connection and none arrived during `QUIET_SECONDS`. A connection that
   never sent a request stays open for ever, so an engine without any request and any newcomer for longer than
   the keep-alive time counts as left as well. Bounded by `shutdown_timeout_seconds`, the time that running
   requests have.
3. SIGTERM: the engine finishes what still runs. It refuses new requests with HTTP 500 from here on, which is
   why clients must be gone before.
4. SIGKILL, `KILL_MARGIN_SECONDS` after the time for running requests is over. The pod's grace period must be
   longer than the sum: `endpoint_seconds + shutdown_timeout_seconds + KILL_MARGIN_SECONDS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from .connections import Connections
from .plan import Drain

QUIET_SECONDS = 1.0
KEEP_ALIVE_MARGIN_SECONDS = 2.0
KILL_MARGIN_SECONDS = 10.0


class Action(StrEnum):
    """What to do with the engine now."""

    WAIT = "Wait"
    TERMINATE = "Terminate"
    KILL = "Kill"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainState:
    """A drain in progress; times in seconds of one monotonic clock.

    `serving`: the worker was ready before, so clients may know it. `busy_at`: last time that a client was
    seen connected or arriving, `arrived_at`: last time that one arrived. `requests_at`: last time that the
    engine had requests or its count was unknown.
    """

    started_at: float
    serving: bool
    busy_at: float
    arrived_at: float
    requests_at: float
    seen: frozenset[str] | None = None
    terminated_at: float | None = None


def begin(*, now: float, serving: bool) -> DrainState:
    """The state at the first SIGTERM."""
    return DrainState(started_at=now, serving=serving, busy_at=now, arrived_at=now, requests_at=now)


def observe(
    state: DrainState, *, now: float, connections: Connections | None, requests: int | None
) -> DrainState:
    """Take in what is known now; None where something could not be read."""
    if connections is not None:
        arrived = state.seen is not None and not connections.seen <= state.seen
        state = replace(
            state,
            busy_at=now if connections.open or arrived else state.busy_at,
            arrived_at=now if arrived else state.arrived_at,
            seen=connections.seen,
        )
    return replace(state, requests_at=state.requests_at if requests == 0 else now)


def decide(state: DrainState, *, now: float, limits: Drain, keep_alive_seconds: float) -> tuple[Action, str]:
    """The next action and why."""
    empty_by = state.started_at + limits.endpoint_seconds + limits.shutdown_timeout_seconds
    if now >= empty_by + KILL_MARGIN_SECONDS:
        return Action.KILL, f"the engine did not stop within {now - state.started_at:.0f} s"
    if state.terminated_at is not None:
        return Action.WAIT, "the engine is stopping"
    if not state.serving:
        return Action.TERMINATE, "the worker was never ready, nobody uses it"
    if now - state.started_at < limits.endpoint_seconds:
        return Action.WAIT, "waiting for endpoints to be forgotten"
    if state.seen is not None and now - state.busy_at >= QUIET_SECONDS:
        return Action.TERMINATE, "no client is connected"
    if now - max(state.requests_at, state.arrived_at) >= keep_alive_seconds + KEEP_ALIVE_MARGIN_SECONDS:
        return Action.TERMINATE, "no request is running and idle connections had time to close"
    if now >= empty_by:
        return Action.TERMINATE, "clients are still connected and the time for running requests is over"
    return Action.WAIT, "clients are still connected"


def needed_grace_seconds(limits: Drain) -> float:
    """The least `terminationGracePeriodSeconds` with which the pod is not killed in the middle of a drain."""
    return limits.endpoint_seconds + limits.shutdown_timeout_seconds + KILL_MARGIN_SECONDS


def keep_alive_seconds(environment: Iterable[tuple[str, str]]) -> float:
    """uvicorn's keep-alive time as vLLM sets it (envs.py VLLM_HTTP_TIMEOUT_KEEP_ALIVE, default 5)."""
    text = dict(environment).get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "")
    return float(text) if text.isdecimal() else 5.0
