"""Everything known about one object -> its status. Pure: the same snapshot gives the same status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tonnage.api.conditions import Finding, merged
from tonnage.api.status import ConditionType, Phase
from tonnage.api.texts import WORD_BYTES, clipped
from tonnage.planning.plan import Plan
from tonnage.rendering.findings import (
    VERIFIED,
    Snapshot,
    Worker,
    available,
    capacity,
    degraded,
    progressing,
    ready,
)
from tonnage.rendering.names import Manifest
from tonnage.rendering.plan import build_plan_status

KV_USED_HYSTERESIS_PERCENT = 7.5


def compute_status(snapshot: Snapshot, *, before: Mapping[str, Any], now: str) -> Manifest:
    """The whole status. `before` is the status as read, `now` RFC 3339."""
    findings = {f.type: f for f in snapshot.findings}
    for finding in (capacity(snapshot), available(snapshot), progressing(snapshot), degraded(snapshot)):
        findings.setdefault(finding.type, finding)
    findings[ConditionType.READY] = ready(snapshot, findings)
    conditions = merged(
        findings.values(), before=before.get("conditions", ()), generation=snapshot.generation, now=now
    )
    status: Manifest = {
        "observedGeneration": snapshot.generation,
        "phase": phase(snapshot, findings).value,
        "readySummary": f"{_ready_replicas(snapshot)}/{snapshot.wanted}",
        "gpuSummary": _gpu_summary(snapshot.plan),
        "kvUsedSummary": kv_used(snapshot.workers, before=before.get("kvUsedSummary", "")),
        "replicas": (snapshot.deployment or {}).get("status", {}).get("replicas", 0),
        "desiredReplicas": snapshot.wanted,
        "selector": snapshot.selector,
        "conditions": conditions,
    }
    if snapshot.plan is not None:
        status["plan"] = build_plan_status(snapshot.plan, plan_hash=snapshot.plan_hash)
    observed = _observed(snapshot)
    if observed:
        status["observed"] = observed
    return status


def phase(snapshot: Snapshot, findings: Mapping[ConditionType, Finding]) -> Phase:
    """One word for the printer column."""
    refused = any(
        findings[kind].status is False
        for kind in (ConditionType.ACCEPTED, ConditionType.MODEL_RESOLVED, ConditionType.PLANNED)
        if kind in findings
    )
    if refused:
        return Phase.REFUSED
    if findings[ConditionType.READY].status:
        return Phase.READY
    if findings[ConditionType.DEGRADED].status:
        return Phase.DEGRADED
    if snapshot.deployment is None:
        return Phase.PENDING
    if findings[ConditionType.AVAILABLE].status:
        return Phase.UPDATING
    answering = any(w.report is not None and w.report.observed is not None for w in snapshot.current)
    return Phase.VERIFYING if answering else Phase.STARTING


def kv_used(workers: Sequence[Worker], *, before: str) -> str:
    """Mean use of the KV cache over the workers that serve, in steps of 10 %; empty if none says.

    What was shown before stands until the mean is 7.5 % away from it: a use on the edge between two steps
    does not flap.
    """
    shares = [w.report.kv_usage for w in workers if w.report is not None and w.report.kv_usage is not None]
    if not shares:
        return ""
    percent = 100 * sum(shares) / len(shares)
    shown = before.removesuffix("%")
    if shown.isdecimal() and abs(percent - int(shown)) < KV_USED_HYSTERESIS_PERCENT:
        return before
    return f"{round(percent / 10) * 10}%"


def _ready_replicas(snapshot: Snapshot) -> int:
    return sum(w.pod.ready and not w.pod.deleting for w in snapshot.workers)


def _gpu_summary(plan: Plan | None) -> str:
    if plan is None:
        return ""
    text = f"{plan.gpus_per_replica}x {plan.product}" if plan.gpus_per_replica else plan.product
    return clipped(text, WORD_BYTES)


def _observed(snapshot: Snapshot) -> Manifest | None:
    seen = [w for w in snapshot.current if w.report is not None and w.report.observed is not None]
    if not seen:
        return None
    # the worst is what users can rely on
    worst = min(seen, key=lambda w: w.report.observed.blocks if w.report and w.report.observed else 0)
    report = worst.report
    if report is None or report.observed is None:
        return None
    verified = sum(w.report is not None and w.report.state == VERIFIED for w in snapshot.current)
    return {
        "blocks": report.observed.blocks,
        "tokens": report.observed.tokens,
        "concurrency": clipped(report.observed.concurrency, WORD_BYTES),
        "engineVersion": clipped(report.engine_version, WORD_BYTES),
        "startSeconds": "" if report.start_seconds is None else f"{report.start_seconds:.1f}",
        "pods": f"{verified}/{len(snapshot.current)}",
    }
