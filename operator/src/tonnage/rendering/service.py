"""How clients reach the workers, and how many of them may be away at once."""

from __future__ import annotations

from tonnage.rendering.names import COMPONENT, DEPLOYMENT, FOLLOWER, WORKER, Manifest, Owner, labels, metadata


def build_service(owner: Owner) -> Manifest:
    """The Service: port 80, the engine's OpenAI-compatible API."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, name=owner.name, component=WORKER),
        "spec": {
            "type": "ClusterIP",
            "selector": labels(owner, WORKER),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def build_disruption_budget(owner: Owner, *, groups: bool = False) -> Manifest:
    """At most one worker may be evicted at a time; one that is not ready anyway may always go.

    Of `groups` all pods count: whichever is evicted, all of its group are made anew, and the next must wait.
    """
    selector: Manifest = {"matchLabels": labels(owner, WORKER)}
    if groups:
        members = {"key": COMPONENT, "operator": "In", "values": [FOLLOWER, WORKER]}
        selector = {"matchLabels": {DEPLOYMENT: owner.name}, "matchExpressions": [members]}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(owner, name=owner.name, component=WORKER),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": selector,
        },
    }
