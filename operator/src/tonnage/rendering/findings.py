"""Findings: each condition that is seen rather than decided, one pure function each.

Every function takes the snapshot and returns a Finding with its reason and the numbers behind it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tonnage.api import quantities
from tonnage.api.conditions import Finding
from tonnage.api.status import ConditionType
from tonnage.planning.plan import Plan
from tonnage.rendering.names import PLAN
from tonnage.rendering.observations import Pod, Report, Termination
from tonnage.rendering.settings import WORKER_PORT

VERIFIED, REPORTED, MISMATCH = "Verified", "Reported", "Mismatch"
UNREACHABLE = "WorkersUnreachable"
_DECISIONS = (ConditionType.ACCEPTED, ConditionType.MODEL_RESOLVED, ConditionType.PLANNED)
_READY_ALL_THE_SAME = {"ReportedOnly", UNREACHABLE}
_CRASH_REASONS = {
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
}
# engines print bytes to a hundredth of a GiB
_ROUNDED_BYTES = 2**30 // 100
_LARGEST_BYTES = 2**50
_START_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker pod and what its worker last said; `report` None if nothing yet."""

    pod: Pod
    report: Report | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a status is computed from.

    `findings` are those of the steps before (Accepted, ModelResolved, Planned, ...); `plan` is the plan in
    force with its hash; `deployment` is the live workload in the words of a Deployment, or None. Where a
    replica is a group of pods, `workers` are the leaders, `followers` the others, and `ended` is a pod as it
    was when it had failed and its group was to be made anew.
    """

    generation: int
    findings: tuple[Finding, ...]
    plan: Plan | None
    plan_hash: str
    wanted: int
    deployment: Mapping[str, Any] | None
    workers: Sequence[Worker]
    selector: str
    followers: Sequence[Pod] = ()
    ended: Pod | None = None

    @property
    def pods(self) -> list[Pod]:
        """Pods of the plan in force that are not leaving, those that serve first."""
        beside = [p for p in self.followers if p.labels.get(PLAN) == self.plan_hash and not p.deleting]
        return [*(worker.pod for worker in self.current), *beside]

    @property
    def current(self) -> list[Worker]:
        """Workers of the plan in force that are not leaving."""
        return [w for w in self.workers if w.pod.labels.get(PLAN) == self.plan_hash and not w.pod.deleting]


def capacity(snapshot: Snapshot) -> Finding:
    """CapacityVerified: do the engines of the plan in force hold what was planned?"""
    kind = ConditionType.CAPACITY_VERIFIED
    plan = snapshot.plan
    if plan is None:
        return Finding(kind, None, "NoPlan", "nothing is planned yet")
    for worker in snapshot.current:
        if worker.report is not None and worker.report.state == MISMATCH:
            return Finding(kind, False, worker.report.reason or "CapacityMismatch", worker.report.message)
        if worker.report is not None and worker.report.state == REPORTED:
            return Finding(kind, False, "ReportedOnly", worker.report.message)
    verified = [w for w in snapshot.current if w.report is not None and w.report.state == VERIFIED]
    silent = [w.pod for w in snapshot.current if w.pod.ready and w.report is None]
    if silent and not verified:
        return Finding(kind, None, UNREACHABLE, _unreachable(plan, silent[0]))
    if not verified:
        return Finding(
            kind, None, "Verifying", f"{plan.blocks} KV blocks planned; no engine has reported yet"
        )
    text = (
        f"{plan.blocks} KV blocks, {plan.tokens} tokens and {plan.concurrency_at_context:g}x concurrency "
        f"planned and reported by {len(verified)} of {len(snapshot.current)} pods"
    )
    return Finding(kind, True, "EngineEqualsPlan", text)


def _unreachable(plan: Plan, pod: Pod) -> str:
    return (
        f"{plan.blocks} KV blocks planned; pod {pod.name} is ready, which a worker is only with a verified "
        f"engine, but the operator gets no answer from its port {WORKER_PORT}: does a NetworkPolicy keep "
        "it out?"
    )


def available(snapshot: Snapshot) -> Finding:
    """Available: does anything serve, whatever its plan?"""
    kind = ConditionType.AVAILABLE
    serving = sum(w.pod.ready and not w.pod.deleting for w in snapshot.workers)
    if snapshot.wanted == 0:
        return Finding(kind, False, "ScaledToZero", "no replicas are wanted")
    if serving:
        return Finding(kind, True, "Serving", f"{serving} of {snapshot.wanted} replicas serve")
    return Finding(kind, False, "NoReadyReplicas", f"none of {snapshot.wanted} replicas is ready")


def progressing(snapshot: Snapshot) -> Finding:
    """Progressing: is a roll-out under way, and what holds it up?"""
    kind = ConditionType.PROGRESSING
    if snapshot.deployment is None:
        return Finding(kind, False, "NotDeployed", "there is no Deployment yet")
    if rolled_out(snapshot):
        return Finding(kind, False, "RolledOut", "all replicas run the plan in force")
    if snapshot.deployment["spec"].get("paused"):
        return Finding(kind, False, "Paused", "spec.rollout.paused is true")
    stopped = _deployment_condition(snapshot, "Progressing")
    if stopped is not None and stopped["status"] == "False":
        return Finding(kind, False, stopped["reason"], _with_cause(stopped["message"], snapshot))
    return Finding(kind, True, "RollingOut", _with_cause("replicas are starting", snapshot))


def degraded(snapshot: Snapshot) -> Finding:
    """Degraded: does something fail that will not mend by waiting?"""
    kind = ConditionType.DEGRADED
    for worker in snapshot.current:
        if worker.report is not None and worker.report.state == MISMATCH:
            return Finding(kind, True, worker.report.reason or "CapacityMismatch", worker.report.message)
    for pod in snapshot.pods:
        failure = _failure(pod, plan=snapshot.plan)
        if failure is not None:
            return Finding(kind, True, *failure)
    ended = snapshot.ended
    if ended is not None and ended.labels.get(PLAN) == snapshot.plan_hash:
        reason, text = exit_cause(ended)
        return Finding(kind, True, reason, f"pod {ended.name} ended, and its group is made anew: {text}")
    refused = _deployment_condition(snapshot, "ReplicaFailure")
    if refused is not None and refused["status"] == "True":
        return Finding(kind, True, refused["reason"], refused["message"])
    return Finding(kind, False, "AsPlanned", "")


def _deployment_condition(snapshot: Snapshot, kind: str) -> Mapping[str, str] | None:
    status = (snapshot.deployment or {}).get("status", {})
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), None)


def _failure(pod: Pod, *, plan: Plan | None) -> tuple[str, str] | None:
    """Reason and message if the pod cannot start or keeps crashing."""
    if pod.waiting_reason in _START_REASONS:
        return pod.waiting_reason, f"pod {pod.name}: {pod.waiting_message}"
    if pod.waiting_reason not in _CRASH_REASONS or pod.ready:
        return None
    if pod.last_exit is None:
        return pod.waiting_reason, f"pod {pod.name}: {pod.waiting_message}"
    reason, text = exit_cause(pod)
    remedy = "" if plan is None else _kv_remedy(pod.last_exit, plan=plan)
    return reason, f"pod {pod.name} ended {pod.restarts} times: {text}{remedy}"


def _kv_remedy(last: Termination, *, plan: Plan) -> str:
    """What to change where an engine finds the planned KV cache too small for one request; empty where it
    told no figures of that.

    On GPUs the cache is all that is left, and the engine itself says what it would hold. On CPU nodes it is
    what the workload needs, so that more requests make it larger.
    """
    told = parse_exit_message(last.message)
    if told is None or told.reason != "NoKvMemory":
        return ""
    available, needed, longest = map(told.figures.get, ("availableBytes", "neededBytes", "longestTokens"))
    if isinstance(available, int) and available + _ROUNDED_BYTES < plan.memory.kv:
        return (
            f"; the plan gives it {quantities.gib(plan.memory.kv)}: does engine.extraArgs or engine.env say "
            "something else of its memory?"
        )
    if plan.gpu is not None and isinstance(longest, int) and 0 < longest < plan.context_length:
        return f"; set workload.contextLength <= {longest}, which this KV cache holds"
    if plan.gpu is None and isinstance(needed, int) and 0 < needed < _LARGEST_BYTES:
        requests = (
            math.ceil((needed + _ROUNDED_BYTES // 2) * plan.concurrency_at_typical / plan.memory.kv) + 1
        )
        return f"; set workload.concurrency >= {requests}, for which the KV cache is {quantities.gib(needed)}"
    return ""


def exit_cause(pod: Pod) -> tuple[str, str]:
    """Why a worker ended: its own machine-readable message, else what the kubelet saw."""
    last = pod.last_exit
    if last is None:
        return "Unknown", "no exit is recorded"
    told = parse_exit_message(last.message)
    if told is not None:
        return told.reason, told.message
    return last.reason or "Exited", f"exit code {last.exit_code}: {last.message[-300:] or 'no message'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitMessage:
    """A worker's termination message. `figures` are as they were told, of any type (tonnage_worker.figures
    names them)."""

    reason: str
    message: str
    figures: Mapping[str, Any]


def parse_exit_message(message: str) -> ExitMessage | None:
    """What a worker's termination message says; None if it is not one."""
    try:
        data = json.loads(message)
        reason, text, figures = str(data["reason"])[:64], str(data["message"])[:600], data.get("figures")
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return ExitMessage(reason=reason, message=text, figures=figures if isinstance(figures, dict) else {})


def ready(snapshot: Snapshot, findings: Mapping[ConditionType, Finding]) -> Finding:
    """Ready: the summary. True only if the spec as written is accepted, planned, verified and serving."""
    kind = ConditionType.READY
    decisions = [findings.get(decision) for decision in _DECISIONS]
    for finding in decisions:
        if finding is not None and finding.status is not True:
            return Finding(kind, False, finding.reason, finding.message)
    failed = findings[ConditionType.DEGRADED]
    if failed.status:
        return Finding(kind, False, failed.reason, failed.message)
    if None in decisions:
        return Finding(kind, False, "Pending", "not looked at yet")
    rolling = findings[ConditionType.PROGRESSING]
    if rolling.reason == "Paused":
        return Finding(kind, False, rolling.reason, rolling.message)
    verified = findings[ConditionType.CAPACITY_VERIFIED]
    if snapshot.wanted and verified.status is not True and verified.reason not in _READY_ALL_THE_SAME:
        return Finding(kind, False, verified.reason, verified.message)
    if not rolled_out(snapshot):
        return Finding(kind, False, rolling.reason, rolling.message)
    if snapshot.wanted == 0:
        return Finding(kind, True, "ScaledToZero", "no replicas are wanted")
    return Finding(kind, True, "Serving", f"{snapshot.wanted} of {snapshot.wanted} replicas serve as planned")


def rolled_out(snapshot: Snapshot) -> bool:
    """All wanted replicas run the plan in force, are ready, and no other is left."""
    return is_rolled_out(snapshot.deployment, wanted=snapshot.wanted, plan_hash=snapshot.plan_hash)


def is_rolled_out(deployment: Mapping[str, Any] | None, *, wanted: int, plan_hash: str) -> bool:
    """The same of a live Deployment."""
    if deployment is None:
        return False
    status = deployment.get("status", {})
    counts = (
        status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    )
    return (
        status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 1)
        and all(count == wanted for count in counts)
        and deployment["spec"].get("replicas") == wanted
        and deployment["spec"]["template"]["metadata"]["labels"].get(PLAN) == plan_hash
    )


def _with_cause(text: str, snapshot: Snapshot) -> str:
    """`text`, and what the first pod that does not run says."""
    for pod in snapshot.pods:
        if pod.unschedulable:
            return f"{text}; pod {pod.name} has no node: {pod.unschedulable}"
        if pod.waiting_reason and pod.waiting_reason != "ContainerCreating":
            return f"{text}; pod {pod.name}: {pod.waiting_reason}: {pod.waiting_message}"
        if pod.last_exit is not None and not pod.ready:
            return f"{text}; pod {pod.name} ended before: {': '.join(exit_cause(pod))}"
    return text
