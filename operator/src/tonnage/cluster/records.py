"""The objects that change most, parsed into slim frozen records: what is kept of a Pod and of a Node.

What is missing or unreadable in an object never raises: quantities count as 0, lists as empty.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING
from typing import Any, Final

from tonnage.api import quantities
from tonnage.gpus.nodes import Node, Taint
from tonnage.gpus.pods import PodUse, PriorityClass
from tonnage.rendering.names import CONTAINERS, DEPLOYMENT, MANAGED_BY, MANAGER, PLAN
from tonnage.rendering.observations import Pod, Termination

_TOO_LARGE: Final = 2**63
_Resized = dict[str, tuple[dict[str, int], bool]]


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
        started_at=seconds_of(state.get("running", {}).get("startedAt")),
        image=container.get("image", ""),
    )


def seconds_of(time: str | None) -> int:
    """A time as the API writes it, in seconds since the epoch; 0 where there is none, or it is no time."""
    try:
        return max(0, int(datetime.datetime.fromisoformat(time or "").timestamp()))
    except (ValueError, OverflowError):
        return 0


def _is_ready(status: Mapping[str, Any]) -> bool:
    conditions = status.get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


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
    spec, status = body.get("spec") or {}, body.get("status") or {}
    capacity, allocatable = status.get("capacity") or {}, status.get("allocatable") or {}
    return Node(
        name=body["metadata"]["name"],
        labels=body["metadata"].get("labels") or {},
        taints=taints(spec),
        ready=_is_ready(status),
        schedulable=not spec.get("unschedulable", False),
        memory_capacity_bytes=_amount("memory", capacity.get("memory")),
        memory_allocatable_bytes=_amount("memory", allocatable.get("memory")),
        cpu_allocatable_millis=_amount("cpu", allocatable.get("cpu")),
        capacity=_extended(capacity),
        allocatable=_extended(allocatable),
    )


def taints(spec: Mapping[str, Any]) -> tuple[Taint, ...]:
    """The taints of a Node's spec, or of a device."""
    return tuple(
        Taint(key=t.get("key", ""), value=t.get("value", ""), effect=t.get("effect", ""))
        for t in spec.get("taints") or ()
    )


def pod_use(body: Mapping[str, Any]) -> PodUse:
    """What a Pod takes of its node, counted as PodRequests of k8s.io/component-helpers/resource does.

    Containers and sidecars together, or one init container with the sidecars started before it, whichever is
    more; the pod's overhead; requests of the whole pod in place of the sum, where it states them. While a
    container is resized, what it has had and what it will have, whichever is more.
    """
    meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    requests = _pod_requests(spec, resized=_resized(status))
    labels = meta.get("labels") or {}
    deployment = labels.get(DEPLOYMENT, "") if labels.get(MANAGED_BY) == MANAGER else ""
    return PodUse(
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        phase=status.get("phase", "Pending"),
        node=spec.get("nodeName") or "",
        cpu_millis=requests.pop("cpu", 0),
        memory_bytes=requests.pop("memory", 0),
        resources={name: amount for name, amount in requests.items() if amount},
        claims=_claims(spec, status),
        deployment=deployment,
        plan=labels.get(PLAN, "") if deployment else "",
        priority=spec.get("priority") or 0,
        # of others it would be news of no use, and much of it
        ready=bool(deployment) and _is_ready(status),
        leaving=bool(deployment) and "deletionTimestamp" in meta,
    )


def priority_record(body: Mapping[str, Any]) -> PriorityClass:
    """The record of a PriorityClass."""
    return PriorityClass(
        name=body["metadata"]["name"],
        value=body.get("value") or 0,
        is_default=bool(body.get("globalDefault")),
    )


def _pod_requests(spec: Mapping[str, Any], *, resized: _Resized) -> dict[str, int]:
    sidecars: dict[str, int] = {}
    most: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        requests = _requests(container)
        if container.get("restartPolicy") == "Always":
            _resize(requests, resized.get(container.get("name", "")))
            _add(sidecars, requests)
        else:
            _add(requests, sidecars)
            _raise(most, requests)
    total = dict(sidecars)
    for container in spec.get("containers") or ():
        requests = _requests(container)
        _resize(requests, resized.get(container.get("name", "")))
        _add(total, requests)
    _raise(total, most)
    whole = _requests(spec)
    total.update({name: whole[name] for name in ("cpu", "memory") if name in whole})
    _add(total, _amounts(spec.get("overhead") or {}))
    return total


def _resized(status: Mapping[str, Any]) -> _Resized:
    """What containers have, by name, where the kubelet tells; and whether it can give them what they ask
    for now."""
    conditions = status.get("conditions") or ()
    pending = [c.get("reason") for c in conditions if c.get("type") == "PodResizePending"]
    found: _Resized = {}
    for one in (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())):
        if one.get("resources"):
            has = _amounts(one["resources"].get("requests") or {})
            _raise(has, _amounts(one.get("allocatedResources") or {}))
            found[one.get("name", "")] = has, pending == ["Infeasible"]
    return found


def _resize(requests: dict[str, int], resized: tuple[dict[str, int], bool] | None) -> None:
    if resized is None:
        return
    has, infeasible = resized
    if infeasible:
        requests.update(has)
    else:
        _raise(requests, has)


def _requests(container: Mapping[str, Any]) -> dict[str, int]:
    """Requests; a limit stands for a request that is missing, as the API server sets it."""
    resources = container.get("resources") or {}
    return _amounts({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _amounts(quantities_by_name: Mapping[str, Any]) -> dict[str, int]:
    """Whole amounts of what is counted: CPU in thousandths, memory in bytes, extended resources."""
    return {
        name: _amount(name, text)
        for name, text in quantities_by_name.items()
        if name in {"cpu", "memory"} or _is_extended(name)
    }


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _raise(total: dict[str, int], least: Mapping[str, int]) -> None:
    for name, amount in least.items():
        total[name] = max(total.get(name, 0), amount)


def _claims(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the pod's ResourceClaims: its own, those made of templates, that of extended resources."""
    entries = [*(spec.get("resourceClaims") or ()), *(status.get("resourceClaimStatuses") or ())]
    entries.append(status.get("extendedResourceClaimStatus") or {})
    return tuple(sorted({each["resourceClaimName"] for each in entries if each.get("resourceClaimName")}))


def _extended(resources: Mapping[str, Any]) -> dict[str, int]:
    return {name: _amount(name, text) for name, text in resources.items() if _is_extended(name)}


def _is_extended(name: str) -> bool:
    """Whether a resource is an extended one: of a domain that is not Kubernetes' own."""
    return "/" in name and "kubernetes.io/" not in name


def _amount(name: str, text: Any) -> int:
    """A quantity by the unit that counts for it: CPU in thousandths of a core."""
    return whole_number(text, times=1000 if name == "cpu" else 1)


def whole_number(text: Any, *, times: int = 1) -> int:
    """A quantity as a whole number, rounded up; 0 if it is unreadable, negative or beyond 64 bits."""
    try:
        amount = quantities.quantity(text) * times
    except (ValueError, ArithmeticError):
        return 0
    return int(amount.to_integral_value(ROUND_CEILING)) if 0 <= amount < _TOO_LARGE else 0
