"""The objects that change most, parsed into slim frozen records: what is kept of a Pod and of a Node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tonnage.api import quantities
from tonnage.gpus.nodes import Node, Taint
from tonnage.rendering.names import CONTAINERS
from tonnage.rendering.observations import Pod, Termination


def pod_record(body: Mapping[str, Any]) -> Pod:
    """The record of a Pod as the API returns it; missing parts are empty."""
    meta, status = body["metadata"], body.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    container = _container(status.get("containerStatuses", ()))
    state = container.get("state", {})
    scheduled = conditions.get("PodScheduled", {})
    waiting = state.get("waiting", {})
    return Pod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        labels=meta.get("labels", {}),
        phase=status.get("phase", "Pending"),
        ip=status.get("podIP", ""),
        ready=conditions.get("Ready", {}).get("status") == "True",
        deleting="deletionTimestamp" in meta,
        unschedulable=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        container_id=container.get("containerID", ""),
        running="running" in state,
        restarts=container.get("restartCount", 0),
        last_exit=_termination(state.get("terminated") or container.get("lastState", {}).get("terminated")),
    )


def _container(statuses: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The status of our container, which is not the first where others were injected."""
    return next((one for one in statuses if one["name"] in CONTAINERS), {})


def _termination(body: Mapping[str, Any] | None) -> Termination | None:
    if not body:
        return None
    return Termination(
        exit_code=body.get("exitCode", 0), reason=body.get("reason", ""), message=body.get("message", "")
    )


def node_record(body: Mapping[str, Any]) -> Node:
    """The record of a Node; quantities that are missing or unreadable count as 0, so the node is not used."""
    spec, status = body.get("spec", {}), body.get("status", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
    return Node(
        name=body["metadata"]["name"],
        labels=body["metadata"].get("labels", {}),
        taints=tuple(
            Taint(key=t["key"], value=t.get("value", ""), effect=t["effect"]) for t in spec.get("taints", ())
        ),
        ready=ready,
        schedulable=not spec.get("unschedulable", False),
        memory_capacity_bytes=_bytes(status.get("capacity", {})),
        memory_allocatable_bytes=_bytes(status.get("allocatable", {})),
        cpu_allocatable_millis=_millis(status.get("allocatable", {})),
    )


def _bytes(resources: Mapping[str, str]) -> int:
    try:
        return quantities.whole_bytes(resources.get("memory", "0"))
    except ValueError:
        return 0


def _millis(resources: Mapping[str, str]) -> int:
    try:
        return quantities.milli_cores(resources.get("cpu", "0"))
    except ValueError:
        return 0
