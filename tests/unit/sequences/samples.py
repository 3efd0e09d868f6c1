"""A family at rest, made by the operator's own pure functions: what a cluster would hold of one object."""

from __future__ import annotations

import copy
from typing import Any

from sequences.client import Family, Key
from sequences.ground import BASE, ENGINE_VERSION, MODELS, NODES, SMALL
from sequences.play import manifest
from sequences.state import NOTE
from tonnage.api.conditions import Finding
from tonnage.api.status import ConditionType
from tonnage.api.v1alpha1 import Spec
from tonnage.models import ResolvedModel
from tonnage.planning.plan import Rejection
from tonnage.rendering.children import build_children
from tonnage.rendering.decision import Decision, Subject, made, plan_on_nodes
from tonnage.rendering.findings import Snapshot
from tonnage.rendering.inspection import source_of
from tonnage.rendering.names import COMPONENT, PLAN, WORKER, Owner, selector
from tonnage.rendering.settings import Settings
from tonnage.rendering.status import compute_status
from unit.rendering.samples import report, worker

SETTINGS = Settings(operator_image="operator:1", worker_image="worker:1", engine_version=ENGINE_VERSION)
KEY: Key = ("somewhere", "p00001")
THEIRS = {NOTE: "theirs"}


def family(spec: dict[str, Any] | None = None, *, key: Key = KEY, uid: str = "uid-1") -> Family:
    """One planned object with its children and one ready worker per replica."""
    written = spec or {**BASE, "replicas": 2}
    parsed = Spec.model_validate(written)
    owner = Owner(namespace=key[0], name=key[1], uid=uid)
    decision = _decision(parsed)
    children = build_children(
        decision.kept, plan_hash=decision.plan_hash, spec=parsed, owner=owner, settings=SETTINGS
    )
    found = Family(children={(body["kind"], body["metadata"]["name"]): body for body in children})
    deployment = found.children["Deployment", key[1]]
    deployment["metadata"] |= {"generation": 1, "uid": f"{uid}-deployment"}
    replicas = deployment["spec"]["replicas"]
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    deployment["status"] = {"observedGeneration": 1, **dict.fromkeys(counts, replicas)}
    for number in range(replicas):
        name = f"{key[1]}-5f7d9c8b6-abcd{number}"
        labels = {COMPONENT: WORKER, PLAN: decision.plan_hash}
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        pod = {"kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": {}, "status": ready}
        found.children["Pod", name] = pod
    found.object = manifest(*key, copy.deepcopy(written))
    found.object["metadata"] |= {"generation": 1, "uid": uid}
    found.object["status"] = _status(decision, owner, deployment, replicas)
    noted = [child for (kind, name), child in found.children.items() if kind in _NOTED and name == key[1]]
    for body in (found.object, *noted):
        body["metadata"]["labels"] = {**body["metadata"].get("labels", {}), **THEIRS}
        body["metadata"]["annotations"] = {**body["metadata"].get("annotations", {}), **THEIRS}
    return found


_NOTED = ("Deployment", "Service", "PodDisruptionBudget")


def _decision(spec: Spec) -> Decision:
    model = MODELS[SMALL]
    assert isinstance(model, ResolvedModel)
    subject = Subject(spec=spec, source=source_of(spec), model=model, default_version=ENGINE_VERSION)
    decision = made(subject, plan_on_nodes(subject, nodes=[node.record for node in NODES]), groups=False)
    assert not isinstance(decision, Rejection)
    return decision


def _status(decision: Decision, owner: Owner, deployment: dict[str, Any], replicas: int) -> dict[str, Any]:
    decided = (ConditionType.ACCEPTED, ConditionType.MODEL_RESOLVED, ConditionType.PLANNED)
    workers = [
        worker(report(), name=f"w{number}", plan_hash=decision.plan_hash) for number in range(replicas)
    ]
    snapshot = Snapshot(
        generation=1,
        findings=tuple(Finding(kind, True, kind.value) for kind in decided),
        plan=decision.kept.plan,
        plan_hash=decision.plan_hash,
        wanted=replicas,
        deployment=deployment,
        workers=workers,
        selector=selector(owner),
    )
    return compute_status(snapshot, before={}, now="2026-01-01T00:00:00Z")
