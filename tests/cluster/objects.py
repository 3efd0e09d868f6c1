"""LLMDeployments for tests, and what is read of them."""

from __future__ import annotations

from typing import Any, Final

from harness.cluster import Cluster
from harness.waiting import wait_until
from tonnage.cluster.inspected import encode
from tonnage.models import ResolvedModel
from unit.models.samples import profile_of, smollm2_config

# refused by this version of the operator, as a cache
NOT_BUILT: Final = {"offload": {"mode": "Fixed", "fixed": {"hostMemory": "1Gi"}}}


def llm(name: str = "chat", **spec: Any) -> dict[str, Any]:
    """An LLMDeployment of the small model."""
    base: dict[str, Any] = {
        "model": {"uri": "pvc://models/smollm2-135m-instruct"},
        "workload": {"contextLength": 2048, "concurrency": 8, "typicalTokens": 512},
        "hardware": {"accelerator": "CPU"},
    }
    return {
        "apiVersion": "tonnage.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": {**base, **spec},
    }


def inspected(revision: str, **fields: Any) -> str:
    """What an inspection of the small model writes."""
    profile = profile_of({**smollm2_config(), **fields})
    return encode(ResolvedModel(profile=profile, revision=revision))


def condition(cluster: Cluster, kind: str, *, namespace: str, name: str = "chat") -> dict[str, Any]:
    """One condition of an LLMDeployment; empty while there is none."""
    body = cluster.get("llmdep", name, namespace=namespace) or {}
    found = body.get("status", {}).get("conditions", [])
    return next((c for c in found if c["type"] == kind), {})


def wait_for(
    cluster: Cluster,
    kind: str,
    status: str,
    *,
    namespace: str,
    name: str = "chat",
    reason: str = "",
    seconds: float = 60,
) -> dict[str, Any]:
    """Wait until a condition has this status (and reason) for the current generation; returns it."""

    def probe() -> dict[str, Any] | None:
        body = cluster.get("llmdep", name, namespace=namespace) or {}
        generation = body.get("metadata", {}).get("generation")
        for found in body.get("status", {}).get("conditions", []):
            if (found["type"], found["status"]) == (kind, status) and reason in ("", found["reason"]):
                return dict(found) if found["observedGeneration"] == generation else None
        return None

    try:
        return wait_until(f"{kind}={status} {reason}".strip(), probe, seconds=seconds)
    except TimeoutError as error:
        body = cluster.get("llmdep", name, namespace=namespace) or {}
        raise AssertionError(f"{error}\n{body.get('status')}") from error


def plan_map(cluster: Cluster, *, namespace: str, name: str = "chat") -> dict[str, Any]:
    """The ConfigMap of the plan in force."""
    body = cluster.get("llmdep", name, namespace=namespace) or {}
    found = cluster.get("configmap", f"{name}-plan-{body['status']['plan']['hash']}", namespace=namespace)
    assert found is not None
    return found


def deployed(cluster: Cluster, namespace: str, name: str = "chat") -> None:
    """Wait until an object is planned and its Deployment exists."""
    wait_for(cluster, "Planned", "True", namespace=namespace, name=name)
    wait_until("the Deployment", lambda: cluster.get("deployment", name, namespace=namespace))


def uid(cluster: Cluster, kind: str, name: str, *, namespace: str) -> str:
    """Identity of an object; empty if there is none of that name."""
    body = cluster.get(kind, name, namespace=namespace)
    return str(body["metadata"]["uid"]) if body else ""


def generation(cluster: Cluster, namespace: str, name: str = "chat") -> int:
    """How often the spec of a Deployment was changed."""
    body = cluster.get("deployment", name, namespace=namespace)
    assert body is not None
    return int(body["metadata"]["generation"])
