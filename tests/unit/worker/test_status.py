"""What the endpoints answer from what is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tonnage_worker.capacity import Verdict
from tonnage_worker.exits import Exit
from tonnage_worker.plan import Capacity, Drain, Verification, WorkerPlan
from tonnage_worker.status import (
    Status,
    capacity_report,
    is_unhealthy,
    liveness,
    readiness,
    state_of,
)

NOW = 1000.0
PLANNED = Capacity(blocks=182, tokens=5824, concurrency=2.84375, block_size=32, kv_dtype="auto")
PLAN = WorkerPlan(
    hash="h", engine_version="0.32.0", verification=Verification.STRICT, expected=PLANNED, drain=Drain()
)
GOOD = Verdict(ok=True, equal=True, message="as planned")
BAD = Verdict(ok=False, equal=False, message="holds 91, planned 182")
STARTING = Status(plan=PLAN, started_at=900.0, beat_at=NOW)
READY = replace(
    STARTING,
    healthy_since=931.2,
    healthy_at=NOW,
    verdict=GOOD,
    observed={"0": PLANNED},
    engine_version="0.32.0",
)
FAILED = Exit(reason="NoKvMemory", message="too small", exit_code=1)


@pytest.mark.parametrize(
    ("status", "ready", "reason", "state", "live"),
    [
        (STARTING, False, "has not been healthy yet", "Starting", True),
        (replace(READY, verdict=None), False, "not verified yet", "Starting", True),
        (READY, True, "ready", "Verified", True),
        (
            replace(READY, plan=replace(PLAN, verification=Verification.REPORT)),
            True,
            "ready",
            "Reported",
            True,
        ),
        (replace(READY, verdict=BAD), False, "holds 91, planned 182", "Mismatch", True),
        (replace(READY, draining=True), False, "draining", "Draining", True),
        (replace(READY, draining=True, exit=FAILED), False, "draining", "Draining", True),
        (replace(READY, exit=FAILED), False, "has ended", "Failed", False),
        (replace(READY, engine_running=False), False, "has ended", "Verified", True),
        (replace(READY, refused_at=NOW + 1), False, "with an error", "Verified", True),
        (replace(READY, refused_at=NOW - 1), True, "ready", "Verified", True),
        (replace(READY, healthy_at=NOW - 10), True, "ready", "Verified", True),
        (replace(READY, healthy_at=NOW - 11), False, "not answered /health for 11 s", "Verified", True),
        (replace(READY, healthy_at=NOW - 61, failed_probes=3), False, "/health for 61 s", "Verified", False),
        (replace(READY, beat_at=NOW - 61), True, "ready", "Verified", False),
    ],
)
def test_table(status: Status, ready: bool, reason: str, state: str, live: bool) -> None:
    answer = readiness(status, now=NOW)
    assert (answer[0], reason in answer[1]) == (ready, True), answer
    assert state_of(status) == state
    assert liveness(status, now=NOW)[0] is live


@pytest.mark.parametrize(
    ("changes", "unhealthy"),
    [
        ({"healthy_at": NOW - 61, "failed_probes": 3}, True),
        ({"healthy_at": NOW - 60, "failed_probes": 60}, False),
        ({"healthy_at": NOW - 3600, "failed_probes": 2}, False),  # the machine was paused
        ({"healthy_at": None, "failed_probes": 9000}, False),  # still starting
        ({"healthy_at": NOW - 61, "failed_probes": 3, "draining": True}, False),
    ],
)
def test_unhealthy(changes: dict[str, Any], unhealthy: bool) -> None:
    assert is_unhealthy(replace(READY, **changes), now=NOW) is unhealthy


def test_the_report_rounds_the_start_and_names_the_worst_engine() -> None:
    short = replace(PLANNED, blocks=91, tokens=2912)
    report = capacity_report(replace(READY, verdict=BAD, observed={"0": PLANNED, "1": short}), kv_usage=0.03)
    assert report["startSeconds"] == 31.2
    assert report["observed"]["blocks"] == 91
    assert (report["engines"], report["reason"], report["kvUsage"]) == (2, "CapacityMismatch", 0.03)


@pytest.mark.parametrize(
    ("version", "note"),
    [("0.32.0", False), ("0.32.0+cpu", False), ("0.33.0", True), (None, False)],
)
def test_another_engine_version_is_said(version: str | None, note: bool) -> None:
    message = capacity_report(replace(READY, engine_version=version), kv_usage=None)["message"]
    assert ("the plan was made for 0.32.0" in message) is note


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        (STARTING, "EngineStarting", "not reported its capacity yet"),
        (replace(READY, exit=FAILED), "NoKvMemory", "too small"),
        (replace(READY, draining=True, drain_note="clients are still connected"), "Draining", "clients are"),
        (replace(READY, verdict=replace(GOOD, equal=False)), "CapacityDiffers", "as planned"),
        (replace(READY, verdict=BAD, observed={}), "CapacityUnknown", "planned 182"),
    ],
)
def test_reason_and_message(status: Status, reason: str, message: str) -> None:
    report = capacity_report(status, kv_usage=None)
    assert (report["reason"], message in report["message"]) == (reason, True)
