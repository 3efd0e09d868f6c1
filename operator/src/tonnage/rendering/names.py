"""Names, labels and owners of what an LLMDeployment makes: deterministic, so that a retry never doubles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tonnage.api.base import GROUP, KIND, VERSION

MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = f"{GROUP}/component"
DEPLOYMENT = f"{GROUP}/deployment"
PLAN = f"{GROUP}/plan"
INPUTS = f"{GROUP}/inputs"
MODEL = f"{GROUP}/model"
REFRESH_MODEL = f"{GROUP}/refresh-model"
REFRESHED = f"{GROUP}/refreshed"
PLACEMENT = f"{GROUP}/placement"
REPLAN = f"{GROUP}/replan"
GROUP_OF_PODS = "leaderworkerset.sigs.k8s.io/name"
MANAGER = "tonnage"
WORKER = "worker"
FOLLOWER = "follower"
INSPECT = "inspect"
PLAN_COMPONENT = "plan"
ENGINE_CONTAINER = "engine"
CONTAINERS = (ENGINE_CONTAINER, INSPECT)

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The LLMDeployment that owns what is rendered."""

    namespace: str
    name: str
    uid: str


def short_hash(value: Any) -> str:
    """Ten hexadecimal digits that identify a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def labels(owner: Owner, component: str) -> dict[str, str]:
    """Labels of every object that `owner` makes."""
    return {MANAGED_BY: MANAGER, DEPLOYMENT: owner.name, COMPONENT: component}


def metadata(
    owner: Owner, *, name: str, component: str, extra_labels: Mapping[str, str] | None = None
) -> Manifest:
    """Metadata with labels and the controlling owner."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": {**labels(owner, component), **(extra_labels or {})},
        "ownerReferences": [
            {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": KIND,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
            }
        ],
    }


def plan_name(owner: Owner, plan_hash: str) -> str:
    """Name of the ConfigMap that holds a plan."""
    return f"{owner.name}-plan-{plan_hash}"


def hash_in(name: str, *, owner: Owner) -> str | None:
    """The plan's hash in the name of a ConfigMap; None if it is not the name of one of the owner's plans."""
    prefix = plan_name(owner, "")
    return name.removeprefix(prefix) if name.startswith(prefix) else None


def owned_by(body: Mapping[str, Any], owner: Owner) -> bool:
    """Is `owner` the owner of this object? One of the same name that was deleted is not.

    What carries our labels and has no owner at all is ours too: somebody removed the reference.
    """
    meta = body["metadata"]
    references = meta.get("ownerReferences", ())
    if references:
        return any(reference["uid"] == owner.uid for reference in references)
    carried = meta.get("labels", {})
    return (carried.get(MANAGED_BY), carried.get(DEPLOYMENT)) == (MANAGER, owner.name)


def selector(owner: Owner) -> str:
    """Label selector of the worker pods, as a string for the scale subresource."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels(owner, WORKER).items()))
