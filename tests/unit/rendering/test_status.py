"""Status from a snapshot: one table of situations, and what conditions and phase say of each."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.api.conditions import Finding
from tonnage.api.status import ConditionType, Status
from tonnage.api.texts import clipped
from tonnage.planning.plan import Alternative, GpuPlan, MemoryBytes, Plan
from tonnage.rendering.deployment import build_deployment
from tonnage.rendering.events import transitions
from tonnage.rendering.findings import Snapshot, Worker
from tonnage.rendering.names import selector
from tonnage.rendering.status import compute_status
from unit.rendering.samples import (
    HASH,
    KEPT,
    ON_FOUR,
    OWNER,
    PLAN_182,
    SETTINGS,
    Capacity,
    Termination,
    report,
    spec,
    worker,
)

NOW = "2026-01-01T00:00:00Z"
PASSED = (
    Finding(ConditionType.ACCEPTED, True, "Accepted"),
    Finding(ConditionType.MODEL_RESOLVED, True, "Resolved"),
    Finding(ConditionType.PLANNED, True, "Planned"),
)
REFUSED = (Finding(ConditionType.ACCEPTED, False, "InvalidSpec", "spec.x is wrong"),)
FAILED = (
    Finding(ConditionType.ACCEPTED, True, "Accepted"),
    Finding(ConditionType.DEGRADED, True, "ApplyRefused", "Job was refused"),
)
MISMATCH = report(
    "Mismatch",
    reason="CapacityMismatch",
    message="engine holds 91 KV blocks, planned 182",
    observed=Capacity(blocks=91, tokens=2912, concurrency="1.42"),
)
CRASHED = {
    "ready": False,
    "running": False,
    "waiting_reason": "CrashLoopBackOff",
    "restarts": 3,
    "last_exit": Termination(
        exit_code=1, reason="Error", message='{"reason": "NoKvMemory", "message": "too small"}'
    ),
}


def deployed(ready: int, *, total: int | None = None, plan_hash: str = HASH) -> dict[str, Any]:
    body = build_deployment(
        KEPT, plan_hash=plan_hash, spec=spec(), owner=OWNER, settings=SETTINGS, replicas=1
    )
    body["metadata"]["generation"] = 1
    names = ("readyReplicas", "availableReplicas", "updatedReplicas")
    body["status"] = {"observedGeneration": 1, "replicas": total or ready, **dict.fromkeys(names, ready)}
    return body


def with_condition(body: dict[str, Any], kind: str, value: str) -> dict[str, Any]:
    told = {"type": kind, "status": value, "reason": "FailedCreate", "message": "exceeded quota"}
    return {**body, "status": {**body["status"], "conditions": [told]}}


def paused(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "spec": {**body["spec"], "paused": True}}


def status(
    *workers: Worker,
    deployment: dict[str, Any] | None = None,
    findings: tuple[Finding, ...] = PASSED,
    before: dict[str, Any] | None = None,
    planned: bool = True,
    wanted: int = 1,
    plan: Plan = PLAN_182,
) -> dict[str, Any]:
    snapshot = Snapshot(
        generation=3,
        findings=findings,
        plan=plan if planned else None,
        plan_hash=HASH if planned else "",
        wanted=wanted,
        deployment=deployment,
        workers=workers,
        selector="a=b",
    )
    return compute_status(snapshot, before=before or {}, now=NOW)


def condition(body: dict[str, Any], kind: str) -> tuple[str, str]:
    found = next(c for c in body["conditions"] if c["type"] == kind)
    return found["status"], found["reason"]


SITUATIONS = [
    # situation, phase, Ready, CapacityVerified, Available, Degraded
    (status(worker(report()), deployment=deployed(1)), "Ready", "True", "True", "True", "False"),
    (status(planned=False, findings=REFUSED), "Refused", "False", "Unknown", "False", "False"),
    (status(deployment=deployed(0, total=1)), "Starting", "False", "Unknown", "False", "False"),
    (
        status(worker(report("Starting"), ready=False), deployment=deployed(0, total=1)),
        "Verifying", "False", "Unknown", "False", "False",
    ),
    (
        status(worker(MISMATCH, ready=False), deployment=deployed(0, total=1)),
        "Degraded", "False", "False", "False", "True",
    ),
    # the old plan serves while the new one is refused: nothing is lost, and both are said
    (
        status(
            worker(report(), name="old", plan_hash="old"),
            worker(MISMATCH, name="new", ready=False),
            deployment=deployed(1, total=2),
        ),
        "Degraded", "False", "False", "True", "True",
    ),
    (
        status(worker(report()), deployment=deployed(1), findings=REFUSED),
        "Refused", "False", "True", "True", "False",
    ),
    (
        status(worker(**CRASHED), deployment=deployed(0, total=1)),
        "Degraded", "False", "Unknown", "False", "True",
    ),
    (status(deployment=deployed(0, total=1), wanted=1), "Starting", "False", "Unknown", "False", "False"),
    (
        status(worker(report("Reported", message="91, planned 182")), deployment=deployed(1)),
        "Ready", "True", "False", "True", "False",
    ),
    # the kubelet says ready, which a worker is only when verified, but the operator cannot ask it
    (status(worker(None), deployment=deployed(1)), "Ready", "True", "Unknown", "True", "False"),
    (
        status(deployment=with_condition(deployed(0), "ReplicaFailure", "True")),
        "Degraded", "False", "Unknown", "False", "True",
    ),
    # a request failed before anything was decided
    (status(findings=FAILED, planned=False), "Degraded", "False", "Unknown", "False", "True"),
    (
        status(worker(report(), plan_hash="old"), deployment=paused(deployed(1, plan_hash="old"))),
        "Updating", "False", "Unknown", "True", "False",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "phase", "ready", "verified", "available", "degraded"), SITUATIONS)
def test_situations(
    body: dict[str, Any], phase: str, ready: str, verified: str, available: str, degraded: str
) -> None:
    assert body["phase"] == phase
    seen = [condition(body, kind)[0] for kind in ("Ready", "CapacityVerified", "Available", "Degraded")]
    assert seen == [ready, verified, available, degraded]
    Status.model_validate(body)


HOSTILE = ("x", "漢字", "\U0001f680", 'a"b\\', "\x00\n\t", "é")
MAX_INT = 2**63 - 1


def largest_gpu_part(text: str) -> GpuPlan:
    texts = {f.name: text for f in dataclasses.fields(GpuPlan) if f.type == "str"}
    numbers = {f.name: MAX_INT for f in dataclasses.fields(GpuPlan) if f.type == "int"}
    return dataclasses.replace(ON_FOUR, **texts, **numbers)


def largest_status(filler: str) -> dict[str, Any]:
    """A status whose texts, numbers and lists are all as long as they can be."""
    text = filler * 4096
    texts = {
        f.name: text
        for f in dataclasses.fields(Plan)
        if f.type == "str" or (f.type == "str | None" and f.name == "attention_backend")
    }
    numbers = {f.name: MAX_INT for f in dataclasses.fields(Plan) if f.type == "int"}
    plan = dataclasses.replace(
        PLAN_182,
        **texts,
        **numbers,
        memory=MemoryBytes(**{f.name: MAX_INT // 8 for f in dataclasses.fields(MemoryBytes)}),
        concurrency_at_context=1e18 / 3,
        concurrency_at_typical=1e18 / 7,
        alternatives=(Alternative(what=text, why=text),) * 9,
        gpu=largest_gpu_part(text),
    )
    said = report(
        observed=Capacity(blocks=MAX_INT, tokens=MAX_INT, concurrency=text), engine_version=text, kv_usage=1.0
    )
    snapshot = Snapshot(
        generation=MAX_INT,
        findings=tuple(Finding(kind, False, text, text) for kind in ConditionType),
        plan=plan,
        plan_hash=HASH,
        wanted=1000,
        deployment=deployed(1000, total=1000),
        workers=(worker(said),) * 1000,
        selector=selector(dataclasses.replace(OWNER, name="n" * 44)),
    )
    return compute_status(snapshot, before={}, now=NOW)


@pytest.mark.parametrize("filler", HOSTILE)
def test_the_largest_status_is_below_16_kib(filler: str) -> None:
    body = largest_status(filler)
    Status.model_validate(body)
    assert {c["type"] for c in body["conditions"]} == set(ConditionType)
    assert len(body["plan"]["alternatives"]) == 5
    size = len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())
    # texts that are long are cut, not left out
    assert 12 * 1024 < size <= 16 * 1024


SPOILED = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff]")


@given(st.text(max_size=400), st.integers(min_value=8, max_value=300))
def test_what_is_clipped_says_so_and_what_fits_is_whole(text: str, limit: int) -> None:
    cut = clipped(text, limit)
    assert len(json.dumps(cut, ensure_ascii=False).encode()) - 2 <= limit
    text = SPOILED.sub("\ufffd", text)
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]))


def test_a_mismatch_gives_both_numbers_in_both_conditions() -> None:
    body = status(worker(MISMATCH, ready=False), deployment=deployed(0, total=1))
    for kind in ("CapacityVerified", "Degraded", "Ready"):
        text = next(c["message"] for c in body["conditions"] if c["type"] == kind)
        assert "91" in text
        assert "182" in text


def test_a_crash_is_told_in_the_workers_own_words() -> None:
    body = status(worker(**CRASHED), deployment=deployed(0, total=1))
    found = next(c for c in body["conditions"] if c["type"] == "Degraded")
    assert found["reason"] == "NoKvMemory"
    assert "too small" in found["message"]
    assert "3 times" in found["message"]


TOO_LONG = {"availableBytes": 10**7, "contextTokens": 2048, "longestTokens": 384, "neededBytes": 4 * 10**7}


@pytest.mark.parametrize(
    ("figures", "gpu", "pinned", "says"),
    [
        (TOO_LONG, True, 10**7, "set workload.contextLength <= 384"),
        (TOO_LONG, False, 10**7, "set workload.concurrency >= 38"),
        ({**TOO_LONG, "availableBytes": 10**9}, True, 2 * 10**9, "the plan gives it 1.86 GiB: does engine"),
        ({}, True, 10**7, "times: too small"),
        ({"longestTokens": "many"}, True, 10**7, "times: too small"),
        ({"neededBytes": 2**60}, False, 10**7, "times: too small"),
    ],
)
def test_a_cache_too_small_for_one_request_names_what_would_do(
    figures: dict[str, Any], gpu: bool, pinned: int, says: str
) -> None:
    held = dataclasses.replace(
        PLAN_182,
        memory=dataclasses.replace(PLAN_182.memory, kv=pinned),
        concurrency_at_typical=8.0,
        gpu=ON_FOUR if gpu else None,
    )
    told = json.dumps({"reason": "NoKvMemory", "message": "too small", "figures": figures})
    last = Termination(exit_code=1, reason="Error", message=told)
    body = status(worker(**{**CRASHED, "last_exit": last}), deployment=deployed(0), plan=held)
    assert says in next(c["message"] for c in body["conditions"] if c["type"] == "Degraded")


def test_a_pod_without_a_node_says_why() -> None:
    body = status(worker(ready=False, unschedulable="0/3 nodes fit"), deployment=deployed(0, total=1))
    assert "0/3 nodes fit" in next(c["message"] for c in body["conditions"] if c["type"] == "Progressing")


def test_a_restarted_container_is_not_verified_until_it_says_so_again() -> None:
    body = status(worker(report("Starting", observed=None), ready=False), deployment=deployed(0, total=1))
    assert condition(body, "CapacityVerified") == ("Unknown", "Verifying")


def test_times_move_only_with_the_status_of_a_condition() -> None:
    first = status(worker(report()), deployment=deployed(1))
    for old in first["conditions"]:
        old["lastTransitionTime"] = "2020-01-01T00:00:00Z"
    second = status(worker(MISMATCH), deployment=deployed(1), before=first)
    times = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert times["Accepted"] == "2020-01-01T00:00:00Z"
    assert times["CapacityVerified"] == NOW


def test_events_tell_transitions_once() -> None:
    good = status(worker(report()), deployment=deployed(1))
    bad = status(worker(MISMATCH), deployment=deployed(1), before=good)
    assert {(kind, reason) for kind, reason, _ in transitions(good, bad)} == {("Warning", "CapacityMismatch")}
    assert list(transitions(good, good)) == []
    assert list(transitions({}, good)) == []
    assert [(kind, reason) for kind, reason, _ in transitions(bad, good)] == [("Normal", "EngineEqualsPlan")]


@pytest.mark.parametrize(
    ("shares", "before", "text"),
    [
        ((0.04,), "", "0%"),
        ((0.56, 0.58), "", "60%"),
        ((1.0,), "", "100%"),
        ((None,), "50%", ""),
        ((0.549,), "60%", "60%"),
        ((0.551,), "50%", "50%"),
        ((0.56,), "50%", "50%"),
        ((0.58,), "50%", "60%"),
        ((0.42,), "50%", "40%"),
        ((0.95,), "10%", "100%"),
        ((0.5,), "?", "50%"),
    ],
)
def test_cache_use_moves_in_steps_and_does_not_flap_on_an_edge(
    shares: tuple[float | None, ...], before: str, text: str
) -> None:
    workers = [worker(report(kv_usage=share)) for share in shares]
    told = status(*workers, deployment=deployed(1), before={"kvUsedSummary": before})
    assert told["kvUsedSummary"] == text
