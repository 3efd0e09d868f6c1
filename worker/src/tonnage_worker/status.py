"""What the worker knows, as one frozen value, and what its endpoints answer from it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .capacity import Verdict, number, worst
from .device_memory import DeviceMemory
from .exits import Exit
from .plan import Capacity, Verification, WorkerPlan

HEALTH_STALE_SECONDS = (
    10.0  # a busy event loop answers late; only silence this long takes a pod out of service
)
UNHEALTHY_SECONDS = 60.0  # an engine that was healthy and is silent this long is ended
UNHEALTHY_PROBES = 3  # and so many times in a row: a machine that was paused gets a chance to answer
LOOP_STUCK_SECONDS = 60.0


class State(StrEnum):
    """The `state` of `/capacity`."""

    STARTING = "Starting"
    VERIFIED = "Verified"
    MISMATCH = "Mismatch"
    REPORTED = "Reported"
    DRAINING = "Draining"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Facts about one run of the worker; times in seconds of one monotonic clock, None: has not happened.

    `refused_at` is the last time that `/health` answered with an error (not: timed out), `failed_probes` how
    many in a row were not good, `beat_at` the last round of the loop that watches the engine, `served`
    whether the worker was ever ready. `follower`: the engine is headless, and another pod answers for it.
    """

    plan: WorkerPlan
    started_at: float
    beat_at: float
    engine_running: bool = True
    healthy_since: float | None = None
    healthy_at: float | None = None
    refused_at: float | None = None
    failed_probes: int = 0
    observed: Mapping[str, Capacity] = field(default_factory=dict)
    verdict: Verdict | None = None
    engine_version: str | None = None
    memory: DeviceMemory | None = None
    served: bool = False
    draining: bool = False
    drain_note: str = ""
    exit: Exit | None = None
    follower: bool = False

    @property
    def start_seconds(self) -> float | None:
        """From the engine's start to its first healthy answer."""
        return None if self.healthy_since is None else self.healthy_since - self.started_at


def state_of(status: Status) -> State:
    """The state of `/capacity`."""
    if status.exit is not None and not status.draining:
        return State.FAILED
    if status.draining:
        return State.DRAINING
    if status.verdict is None:
        return State.STARTING
    if not status.verdict.ok:
        return State.MISMATCH
    return State.REPORTED if status.plan.verification is Verification.REPORT else State.VERIFIED


def readiness(status: Status, *, now: float) -> tuple[bool, str]:
    """Whether clients may be sent here, and a line that says why not."""
    if status.draining:
        return False, "draining"
    if status.exit is not None or not status.engine_running:
        return False, "the engine has ended"
    if status.follower:
        return True, "the engine runs; the leader of its group serves"
    if status.healthy_at is None:
        return False, "the engine has not been healthy yet"
    if status.refused_at is not None and status.refused_at > status.healthy_at:
        return False, "the engine answers /health with an error or not at all"
    if now - status.healthy_at > HEALTH_STALE_SECONDS:
        return False, f"the engine has not answered /health for {now - status.healthy_at:.0f} s"
    if status.verdict is None:
        return False, "the engine's capacity is not verified yet"
    if not status.verdict.ok:
        return False, f"capacity differs from the plan: {status.verdict.message}"
    return True, "ready"


def liveness(status: Status, *, now: float) -> tuple[bool, str]:
    """Whether the container is worth keeping; starting and draining engines are."""
    if status.exit is not None and not status.draining:
        return False, f"{status.exit.reason}: {status.exit.message}"
    if now - status.beat_at > LOOP_STUCK_SECONDS:
        return False, f"the supervisor's loop is stuck for {now - status.beat_at:.0f} s"
    if is_unhealthy(status, now=now):
        return False, "the engine was healthy and no longer is"
    return True, "alive"


def is_unhealthy(status: Status, *, now: float) -> bool:
    """Whether an engine that was healthy has been silent too long; never while it drains."""
    return (
        not status.draining
        and status.healthy_at is not None
        and status.failed_probes >= UNHEALTHY_PROBES
        and now - status.healthy_at > UNHEALTHY_SECONDS
    )


def capacity_report(status: Status, *, kv_usage: float | None) -> dict[str, Any]:
    """The body of `/capacity`."""
    reason, message = _reason(status)
    observed = worst(status.observed)
    return {
        "state": state_of(status).value,
        "planHash": status.plan.hash,
        "verification": status.plan.verification.value,
        "expected": figures(status.plan.expected),
        "observed": None if observed is None else figures(observed),
        "engines": len(status.observed),
        "engineVersion": status.engine_version,
        "startSeconds": None if status.start_seconds is None else round(status.start_seconds, 1),
        "reason": reason,
        "message": message,
        "kvUsage": kv_usage,
        "memory": _memory(status.memory),
    }


def _memory(memory: DeviceMemory | None) -> dict[str, Any] | None:
    if memory is None:
        return None
    return {
        "totalBytes": memory.total,
        "freeAtStartBytes": memory.free_at_start,
        "freeAtReadyBytes": memory.free_at_ready,
        "compiled": memory.compiled,
    }


def _reason(status: Status) -> tuple[str, str]:
    if status.exit is not None and not status.draining:
        return status.exit.reason, status.exit.message
    if status.draining:
        return "Draining", status.drain_note
    if status.follower:
        return "Follower", "the leader of the group answers for its engine"
    if status.verdict is None:
        return "EngineStarting", "the engine has not reported its capacity yet"
    message = status.verdict.message + _version_note(status)
    if status.verdict.ok:
        return ("CapacityVerified" if status.verdict.equal else "CapacityDiffers"), message
    return ("CapacityMismatch" if status.observed else "CapacityUnknown"), message


def _version_note(status: Status) -> str:
    running, planned = status.engine_version, status.plan.engine_version
    if running is None or running.partition("+")[0] == planned.partition("+")[0]:
        return ""
    return f"; the engine is version {running}, the plan was made for {planned}"


def figures(capacity: Capacity) -> dict[str, Any]:
    """A capacity as JSON; concurrency as text, since a float would not survive every reader."""
    return {
        "blocks": capacity.blocks,
        "tokens": capacity.tokens,
        "concurrency": None if capacity.concurrency is None else number(capacity.concurrency),
        "blockSize": capacity.block_size,
        "kvDtype": capacity.kv_dtype,
    }
