"""Workloads of one object that take over from each other: a Deployment, and sets of groups by their pods.

A Deployment does this within itself. Between workloads it is done here, by the same rule: one replica more
than wanted while the next start, and none less, unless less is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tonnage.rendering.names import Manifest

GROUPS = "LeaderWorkerSet"


def as_deployment(workload: Mapping[str, Any], *, paused: bool = False) -> Mapping[str, Any]:
    """A live workload in the words of a Deployment, of which a group is one replica.

    Conditions of a set say nothing that a Deployment's do. It tells no observedGeneration; its pods never
    change, and its counts do not lie about how many there are. Its template of leaders and their labels are
    optional: somebody may have taken them out, and it must be read to be mended.
    """
    if workload["kind"] != GROUPS:
        return workload
    spec, status = workload["spec"], workload.get("status", {})
    template = spec["leaderWorkerTemplate"].get("leaderTemplate") or {}
    meta = template.get("metadata") or {}
    told: Manifest = {
        "replicas": spec.get("replicas", 1),
        "template": {**template, "metadata": {**meta, "labels": meta.get("labels") or {}}},
    }
    ready = status.get("readyReplicas", 0)
    return {
        "kind": "Deployment",
        "metadata": workload["metadata"],
        "spec": {**told, "paused": True} if paused else told,
        "status": {
            "observedGeneration": workload["metadata"].get("generation", 1),
            "replicas": status.get("replicas", 0),
            "updatedReplicas": status.get("updatedReplicas", 0),
            "readyReplicas": ready,
            "availableReplicas": ready,
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stands:
    """How many replicas a workload is to have, and has ready."""

    replicas: int
    ready: int

    @staticmethod
    def of(workload: Mapping[str, Any]) -> Stands:
        """What a live workload says."""
        told = as_deployment(workload)
        status = told.get("status", {})
        if status.get("observedGeneration", 0) < told["metadata"].get("generation", 1):
            return Stands(replicas=told["spec"].get("replicas", 1), ready=0)
        ready = min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0))
        return Stands(replicas=told["spec"].get("replicas", 1), ready=ready)


def next_replicas(wanted: int, *, others: Sequence[Stands], spare: int) -> int:
    """Replicas of the workload that takes over: those wanted, as soon as `others` have made way for them.

    One beyond `wanted` in all, and `spare` that may be away; and one at least, else nothing would ever come.
    """
    beside = sum(left_of(other, to_give=other.replicas) for other in others)
    return min(wanted, max(1, wanted + 1 - beside, spare))


def placed_replicas(wanted: int, *, before: int, placed: int) -> int:
    """Replicas of a set of groups, of which `before` are there and `placed` have a node for each pod.

    One comes after the other: two at once might each get a part of the last nodes and wait for each other for
    ever.
    """
    return min(wanted, max(before, placed + 1))


def left_of(other: Stands, *, to_give: int) -> int:
    """Replicas of a workload that goes, of at most so many: none where none serves."""
    return min(other.replicas, to_give) if other.ready else 0


def leftovers(wanted: int, *, ready: int, others: Sequence[Stands], spare: int) -> list[int]:
    """Replicas that each workload that goes keeps while `ready` of the next serve; of `spare` fewer than
    wanted may serve. Those with the most ready keep theirs first."""
    to_give = max(0, wanted - ready - spare)
    kept = [0] * len(others)
    for at in sorted(range(len(others)), key=lambda at: -others[at].ready):
        kept[at] = left_of(others[at], to_give=to_give)
        to_give -= kept[at]
    return kept
