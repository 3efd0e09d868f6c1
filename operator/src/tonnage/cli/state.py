"""What is known of one LLMDeployment in the cluster, read tolerantly: the object may be refused, half-made,
or written by a later version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tonnage.cli.advice import next_step
from tonnage.cli.errors import Missing
from tonnage.cli.exits import FINE, NOT_YET, REFUSED
from tonnage.cli.plan_view import part
from tonnage.cluster.port import Object
from tonnage.rendering.figures import short_figure
from tonnage.rendering.names import PLAN
from tonnage.rendering.observations import Pod

DECISIONS: Final = ("Accepted", "ModelResolved", "Planned")
_GOOD: Final = {
    **dict.fromkeys(("Ready", *DECISIONS, "CapacityVerified", "Available", "ScalingActive"), "True"),
    "Degraded": "False",
}
_QUIET: Final = frozenset({"RolledOut", "NotDeployed", "NoPlan", "ReportedOnly"})
_LOUD: Final = frozenset({"RefreshFailed"})
"""Reasons that matter although the condition is as it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A condition; `matters` where it is not as it should be, `next` what to do then."""

    type: str
    status: str
    reason: str
    message: str
    since: str
    matters: bool
    next: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A figure of the KV cache as planned and as the engine reports it."""

    what: str
    planned: str
    engine: str

    @property
    def equal(self) -> bool:
        """Do the two agree?"""
        return self.planned == self.engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What starts like that of a plan have taught, in MiB over what the law estimates beside the KV cache;
    `used`: the plan was made by it."""

    key: str
    starts: int
    estimate_mib: int
    bound_mib: int
    residuals_mib: Sequence[int]
    used: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The object with its Deployment and pods, as far as they can be read. `learned` is None where nothing
    was, or the plan is for CPU nodes."""

    body: Object
    deployment: Object | Missing | None
    pods: Sequence[Pod] | Missing
    learned: Taught | Missing | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.body["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.body["metadata"]["namespace"])

    @property
    def generation(self) -> int:
        """How often the spec was changed."""
        return _number(self.body["metadata"].get("generation"))

    @property
    def observed_generation(self) -> int:
        """The generation that the status speaks of; 0 where nothing looked at the object."""
        return _number(self.status.get("observedGeneration"))

    @property
    def current(self) -> bool:
        """Does the status speak of the spec as it is?"""
        return bool(self.status) and self.observed_generation >= self.generation

    @property
    def deleting(self) -> bool:
        """Is it on its way out?"""
        return "deletionTimestamp" in self.body["metadata"]

    @property
    def status(self) -> Mapping[str, Any]:
        """The status as read."""
        return part(self.body, "status")

    @property
    def plan(self) -> Mapping[str, Any]:
        """The plan in force; empty if there is none."""
        return part(self.body, "status", "plan")

    @property
    def plan_hash(self) -> str:
        """Its hash."""
        return str(self.plan.get("hash") or "")

    @property
    def planned(self) -> bool:
        """Is the plan in force that of the spec as it is?"""
        return self.current and self._status_of("Planned") == "True"

    @property
    def ready(self) -> bool:
        """Is it Ready, as its spec is now?"""
        return self.current and not self.deleting and self._status_of("Ready") == "True"

    @property
    def refused(self) -> bool:
        """Is its spec as it is now refused?"""
        return self.current and any(self._status_of(kind) == "False" for kind in DECISIONS)

    @property
    def code(self) -> int:
        """The exit code."""
        if self.refused:
            return REFUSED
        return FINE if self.ready else NOT_YET

    @property
    def conditions(self) -> list[Told]:
        """All conditions, in the order of the status."""
        found = self.status.get("conditions")
        return [
            self._told(each) for each in (found if isinstance(found, list) else []) if isinstance(each, dict)
        ]

    @property
    def asked(self) -> dict[str, Any]:
        """What the spec asks for, with what the plan resolved where the spec leaves it open."""
        spec = part(self.body, "spec")
        workload = part(spec, "workload")
        resolved = part(self.plan, "inputs") if self.planned else {}
        return {
            "model": part(spec, "model").get("uri"),
            "context_length": workload.get("contextLength", resolved.get("contextLength")),
            "concurrency": workload.get("concurrency"),
            "typical_tokens": workload.get("typicalTokens", resolved.get("typicalTokens")),
            "quality": spec.get("quality"),
            "replicas": spec.get("replicas", 1),
        }

    @property
    def comparison(self) -> list[Compared]:
        """Planned beside engine-reported; empty while no engine has reported."""
        kv, seen = part(self.plan, "kv"), part(self.body, "status", "observed")
        if not kv or not seen:
            return []
        rows = (
            ("KV blocks", kv.get("blocks"), seen.get("blocks")),
            ("KV tokens", kv.get("tokens"), seen.get("tokens")),
            ("concurrency at context", kv.get("concurrencyAtContext"), _short(seen.get("concurrency"))),
        )
        return [Compared(what=what, planned=str(a), engine=str(b)) for what, a, b in rows]

    @property
    def rollout(self) -> dict[str, Any] | None:
        """How far the Deployment is; None where there is none, or it cannot be read."""
        if self.deployment is None or isinstance(self.deployment, Missing):
            return None
        status = part(self.deployment, "status")
        labels = part(self.deployment, "spec", "template", "metadata", "labels")
        counts = {
            key: _number(status.get(name))
            for key, name in (
                ("replicas", "replicas"),
                ("updated", "updatedReplicas"),
                ("ready", "readyReplicas"),
                ("available", "availableReplicas"),
            )
        }
        wanted = _number(part(self.deployment, "spec").get("replicas"))
        return {"wanted": wanted, **counts, "plan_hash": labels.get(PLAN)}

    def _status_of(self, kind: str) -> str:
        return next((each.status for each in self.conditions if each.type == kind), "Unknown")

    def _told(self, condition: Mapping[str, Any]) -> Told:
        kind, status, reason, message, since = (
            str(condition.get(key) or "")
            for key in ("type", "status", "reason", "message", "lastTransitionTime")
        )
        matters = _matters(kind, status, reason)
        step = next_step(kind, reason, namespace=self.namespace, name=self.name) if matters else ""
        return Told(
            type=kind, status=status, reason=reason, message=message, since=since, matters=matters, next=step
        )


def _matters(kind: str, status: str, reason: str) -> bool:
    if reason in _QUIET:
        return False
    if kind == "Progressing" or reason in _LOUD:
        return True
    return status != _GOOD.get(kind, status)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _short(value: Any) -> str:
    try:
        return short_figure(float(value))
    except (TypeError, ValueError):
        return str(value)
