"""What an object has come to: at rest or not, and its state without names, times and identities."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sequences.client import Family, Key
from tonnage.cluster.port import CONFIG_MAP, DEPLOYMENT, DISRUPTION_BUDGET, JOB, POD, SERVICE, Object
from tonnage.rendering.drift import RENDERED
from tonnage.rendering.names import COMPONENT, INPUTS, INSPECT, PLAN, WORKER
from tonnage.rendering.settings import KEPT_KEY, PLAN_KEY

State = dict[str, Any]
NOTE = "example.com/note"
# set by others for themselves: the Deployment's controller counts its roll-outs
_NOT_OURS = {"deployment.kubernetes.io/revision", NOTE}
_STATED = ("Deployment", "Service", "PodDisruptionBudget")


def conditions(family: Family) -> dict[str, Mapping[str, Any]]:
    """Conditions of the object by type."""
    status = (family.object or {}).get("status", {})
    return {one["type"]: one for one in status.get("conditions", ())}


def is_planned(family: Family) -> bool:
    """Is the spec as written accepted, its model known, and a plan for it in force?"""
    found = conditions(family)
    return all(
        found.get(kind, {}).get("status") == "True" for kind in ("Accepted", "ModelResolved", "Planned")
    )


def unsettled(family: Family, name: str) -> str:
    """Why this is no state of rest, in words; empty if nothing more will happen by itself."""
    body = family.object
    if body is None:
        return "there is no object"
    status = body.get("status", {})
    if status.get("observedGeneration", 0) != body["metadata"]["generation"]:
        return f"generation {body['metadata']['generation']} is not observed yet"
    found = conditions(family)
    model = found.get("ModelResolved", {})
    if model.get("reason") == "Inspecting" and "has no node" not in model["message"]:
        return f"the model is being read: {model['message']}"
    reads = model.get("reason") == "Inspecting" or "ModelResolved" not in found
    if not reads and any(not _ended(job) for job in family.all(JOB.kind)):
        return "an inspection runs that nobody waits for"
    deployment = family.child(DEPLOYMENT.kind, name)
    if deployment is None:
        refused = found["Degraded"]["status"] == "True"
        return "" if refused or not is_planned(family) else "planned, but there is no Deployment"
    return _unsettled_deployment(family, deployment, status)


def _unsettled_deployment(family: Family, deployment: Object, status: Mapping[str, Any]) -> str:
    seen = deployment.get("status", {})
    template = deployment["spec"]["template"]
    if seen.get("observedGeneration", 0) != deployment["metadata"]["generation"]:
        return "the Deployment's controller has not seen it yet"
    if is_planned(family) and template["metadata"]["labels"][PLAN] != status["plan"]["hash"]:
        found = conditions(family)["Degraded"]
        return "" if found["status"] == "True" else "the Deployment does not run the plan in force"
    if status["replicas"] != seen.get("replicas", 0):
        return "status.replicas is behind"
    why = blocked(family, deployment)
    if why:
        return ""
    return _unsettled_roll_out(family, deployment, status)


def _unsettled_roll_out(family: Family, deployment: Object, status: Mapping[str, Any]) -> str:
    wanted = deployment["spec"]["replicas"]
    seen = deployment.get("status", {})
    counts = {
        name: seen.get(name, 0)
        for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    }
    if set(counts.values()) != {wanted}:
        return f"the roll-out to {wanted} replicas is under way: {counts}"
    workers = [pod for pod in family.all(POD.kind) if pod["metadata"]["labels"].get(COMPONENT) == WORKER]
    if len(workers) != wanted:
        return f"{len(workers)} worker pods instead of {wanted}"
    found = conditions(family)
    if found["Progressing"]["reason"] != "RolledOut" and is_planned(family):
        return f"Progressing says {found['Progressing']['reason']}"
    if status["readySummary"].partition("/")[0] != str(wanted):
        return f"readySummary is {status['readySummary']}"
    if status.get("observed", {}).get("pods", f"{wanted}/{wanted}") != f"{wanted}/{wanted}":
        return f"observed.pods is {status['observed']['pods']}"
    if wanted and found["CapacityVerified"]["reason"] == "Verifying":
        return "the engines are not verified yet"
    plans = [plan["metadata"]["name"] for plan in family.all(CONFIG_MAP.kind)]
    if is_planned(family) and len(plans) != 1:
        return f"plans that nothing runs by are still there: {', '.join(plans)}"
    return ""


def blocked(family: Family, deployment: Object) -> str:
    """Why a roll-out cannot end by itself; empty if it can."""
    if deployment["spec"].get("paused"):
        return "paused"
    for one in deployment.get("status", {}).get("conditions", ()):
        if (one["type"], one["status"]) == ("ReplicaFailure", "True"):
            return f"{one['reason']}: {one['message']}"
    for pod in family.all(POD.kind):
        if pod["metadata"]["labels"].get(COMPONENT) != WORKER:
            continue
        for one in pod.get("status", {}).get("conditions", ()):
            if (one["type"], one["status"]) == ("PodScheduled", "False"):
                return f"{one.get('reason')}: {one.get('message')}"
    return ""


def _ended(job: Object) -> bool:
    return any(
        one["type"] in ("Complete", "Failed") and one["status"] == "True"
        for one in job.get("status", {}).get("conditions", ())
    )


def state_of(family: Family, key: Key) -> State:
    """Everything that users and pods see of an object, comparable between objects.

    Left out: names, identities and times; how often something was changed; finished inspections, which
    Kubernetes removes. Where no roll-out can end (paused, pods refused), old pods keep serving by design,
    and what runs depends on the past: then only what is stated is compared.
    """
    name = key[1]
    body = family.object or {}
    deployment = family.child(DEPLOYMENT.kind, name)
    runs = deployment is not None and not blocked(family, deployment)
    state: State = {"spec": body.get("spec"), "status": _status(body.get("status", {}), runs=runs)}
    if is_planned(family):
        for kind in (DEPLOYMENT, SERVICE, DISRUPTION_BUDGET):
            state[kind.kind] = _stated(family.child(kind.kind, name))
        state["plan"] = _plan(family.child(CONFIG_MAP.kind, f"{name}-plan-{body['status']['plan']['hash']}"))
    if runs and is_planned(family):
        state["pods"] = sorted(_pods(family))
    return _anonymous(state, body.get("metadata", {}).get("uid", ""), name)


def effects_of(state: State) -> State:
    """The part of a state that users notice: not the spec itself, and not what the operator keeps to find a
    decision again."""
    noticed = {name: value for name, value in state.items() if name != "spec"}
    plan = noticed.get("plan")
    if plan:
        noticed["plan"] = {name: value for name, value in plan.items() if name not in (INPUTS, KEPT_KEY)}
    return noticed


def _status(status: Mapping[str, Any], *, runs: bool) -> State:
    found: State = {
        one["type"]: {part: one.get(part, "") for part in ("status", "reason", "message")}
        for one in status.get("conditions", ())
    }
    decided = {kind: found[kind] for kind in ("Accepted", "ModelResolved", "Planned") if kind in found}
    refused = [one for one in decided.values() if one["status"] != "True"]
    if refused:
        # what was deployed before is kept, and its figures are shown
        return {"conditions": {**decided, "Ready": found["Ready"]}, "phase": status["phase"]}
    plan = {"plan": status.get("plan"), "gpuSummary": status.get("gpuSummary")}
    if not runs:
        return {"conditions": decided, **plan}
    return {"conditions": found, **{n: v for n, v in status.items() if n not in _UNSTABLE}}


_UNSTABLE = {"conditions", "observedGeneration"}


def _stated(body: Object | None) -> State | None:
    if body is None:
        return None
    meta = body["metadata"]
    notes = {name: value for name, value in meta.get("annotations", {}).items() if name not in _NOT_OURS}
    notes.pop(RENDERED, None)  # a hash over the names too
    spec = {name: value for name, value in body["spec"].items() if name not in ("clusterIP", "clusterIPs")}
    return {
        "labels": {name: value for name, value in meta["labels"].items() if name != NOTE},
        "annotations": notes,
        "owners": meta.get("ownerReferences"),
        "spec": spec,
    }


def _plan(body: Object | None) -> State | None:
    if body is None:
        return None
    meta = body["metadata"]
    kept = json.loads(body["data"][KEPT_KEY])
    # the annotation counts: other inputs may lead to the same plan, whose data cannot be changed
    kept.pop("inputs", None)
    return {
        "labels": meta["labels"],
        INPUTS: meta["annotations"].get(INPUTS),
        "owners": meta.get("ownerReferences"),
        "immutable": body.get("immutable"),
        PLAN_KEY: json.loads(body["data"][PLAN_KEY]),
        KEPT_KEY: kept,
    }


def _pods(family: Family) -> Iterator[str]:
    for pod in family.all(POD.kind):
        meta, status = pod["metadata"], pod.get("status", {})
        if meta["labels"].get(COMPONENT) != INSPECT:
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
            yield f"{meta['labels'].get(PLAN)} {status.get('phase')} ready={ready}"


def _anonymous(state: State, uid: str, name: str) -> State:
    text = json.dumps(state, sort_keys=True)
    if uid:
        text = text.replace(uid, "UID")
    text = re.sub(rf"\b{re.escape(name)}-[a-z0-9]{{6,10}}-[a-z0-9]{{5}}\b", "POD", text)
    found: State = json.loads(re.sub(rf"\b{re.escape(name)}\b", "NAME", text))
    return found


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two states differ, one line each."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in sorted({*one, *other}):
            where = f"{path}.{name}" if path else name
            yield from differences(one.get(name, "<absent>"), other.get(name, "<absent>"), where)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{path}[{number}]")
    elif one != other:
        yield f"{path}: {_short(one)} | {_short(other)}"


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 300 else f"{text[:297]}..."
