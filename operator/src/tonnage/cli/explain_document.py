"""The machine form of `tonnage explain NAME` (docs/machine-output.md)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tonnage.cli.errors import Missing
from tonnage.cli.state import State, Taught
from tonnage.rendering.names import COMPONENT, PLAN
from tonnage.rendering.observations import Pod


def document(state: State) -> dict[str, Any]:
    """Everything that is known."""
    observed = state.status.get("observed")
    return {
        "name": state.name,
        "namespace": state.namespace,
        "generation": state.generation,
        "observed_generation": state.observed_generation,
        "current": state.current,
        "deleting": state.deleting,
        "ready": state.ready,
        "refused": state.refused,
        "phase": state.status.get("phase"),
        "asked": state.asked,
        "planned": state.planned,
        "plan": dict(state.plan) or None,
        "observed": observed if isinstance(observed, dict) else None,
        "comparison": [{**asdict(row), "equal": row.equal} for row in state.comparison],
        "learned": asdict(state.learned) if isinstance(state.learned, Taught) else None,
        "rollout": state.rollout,
        "pods": None if isinstance(state.pods, Missing) else [_pod(pod) for pod in state.pods],
        "conditions": [asdict(each) for each in state.conditions],
    }


def _pod(pod: Pod) -> dict[str, Any]:
    return {
        "name": pod.name,
        "component": pod.labels.get(COMPONENT),
        "plan_hash": pod.labels.get(PLAN),
        "phase": pod.phase,
        "ready": pod.ready,
        "deleting": pod.deleting,
        "restarts": pod.restarts,
        "waiting": pod.waiting_reason or None,
        "unschedulable": pod.unschedulable or None,
    }
