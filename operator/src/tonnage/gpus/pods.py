"""Pods as plain records: what each takes of its node, read from the API by `tonnage.cluster`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

FINISHED: Final = frozenset({"Succeeded", "Failed"})
"""Phases in which a pod holds nothing any more (kube-scheduler counts all others)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodUse:
    """What a pod requests. `node` is empty until it is bound.

    `resources` are its extended resources, `claims` the names of its ResourceClaims. `deployment` is the
    LLMDeployment whose pod it is, in the pod's own namespace, or empty; `plan` the hash of the plan it runs.
    Of such a pod alone it is told whether it is `ready`, and whether it is `leaving`: it was deleted, and
    holds what it has until its containers have ended.
    """

    namespace: str
    name: str
    phase: str
    node: str = ""
    cpu_millis: int = 0
    memory_bytes: int = 0
    resources: Mapping[str, int] = field(default_factory=dict)
    claims: tuple[str, ...] = ()
    deployment: str = ""
    plan: str = ""
    priority: int = 0
    ready: bool = False
    leaving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityClass:
    """The value that pods of a class have; `is_default` where a pod that names no class gets it."""

    name: str
    value: int
    is_default: bool = False


@dataclass(slots=True)
class NodeUse:
    """The sum of what bound pods request of one node; `ours` what those of LLMDeployments do."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    resources: dict[str, int] = field(default_factory=dict)
    ours: dict[str, int] = field(default_factory=dict)


def uses_by_node(pods: Iterable[PodUse]) -> dict[str, NodeUse]:
    """What the pods that are bound and not finished request, by node."""
    uses: dict[str, NodeUse] = {}
    for pod in pods:
        if not pod.node or pod.phase in FINISHED:
            continue
        use = uses.get(pod.node)
        if use is None:
            use = uses[pod.node] = NodeUse()
        use.cpu_millis += pod.cpu_millis
        use.memory_bytes += pod.memory_bytes
        for name, count in pod.resources.items():
            use.resources[name] = use.resources.get(name, 0) + count
            if pod.deployment:
                use.ours[name] = use.ours.get(name, 0) + count
    return uses
