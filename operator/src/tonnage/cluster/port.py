"""The one port to Kubernetes: dict in, dict out. Everything the operator reads or writes passes here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tonnage.api.base import GROUP, KIND, PLURAL, VERSION

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object and where the API serves it."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`group/version`, or `version` alone in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


LLM_DEPLOYMENT = Kind(GROUP, VERSION, KIND, PLURAL)
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
GROUP_SET = Kind("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", "leaderworkersets")
SERVICE = Kind("", "v1", "Service", "services")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
DISRUPTION_BUDGET = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
JOB = Kind("batch", "v1", "Job", "jobs")
POD = Kind("", "v1", "Pod", "pods")
RESOURCE_CLAIM_TEMPLATE = Kind("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates")
NODE = Kind("", "v1", "Node", "nodes", namespaced=False)
RESOURCE_SLICE = Kind("resource.k8s.io", "v1", "ResourceSlice", "resourceslices", namespaced=False)
RESOURCE_CLAIM = Kind("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims")
DEVICE_CLASS = Kind("resource.k8s.io", "v1", "DeviceClass", "deviceclasses", namespaced=False)
PRIORITY_CLASS = Kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", namespaced=False)
EVENT = Kind("", "v1", "Event", "events")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")

CHILDREN: tuple[Kind, ...] = (
    DEPLOYMENT,
    GROUP_SET,
    SERVICE,
    CONFIG_MAP,
    DISRUPTION_BUDGET,
    JOB,
    RESOURCE_CLAIM_TEMPLATE,
)
WORKLOADS = frozenset({DEPLOYMENT, GROUP_SET})
"""Kinds of what makes the workers."""
BY_KIND: Mapping[str, Kind] = {kind.kind: kind for kind in CHILDREN}


class ApiError(Exception):
    """A request that the API server refused, or that did not reach it.

    `status` is the HTTP status, 0 where no answer came (the write may have been done all the same);
    `retry_after` is the server's wish in seconds, if it stated one.
    """

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{status or 'no answer'}: {message}")
        self.status = status
        self.message = message
        self.retry_after = retry_after

    @property
    def not_found(self) -> bool:
        """The object does not exist."""
        return self.status == 404

    @property
    def forbidden(self) -> bool:
        """The operator has no right to what it asked."""
        return self.status == 403

    @property
    def gone(self) -> bool:
        """The resourceVersion is too old: list again."""
        return self.status == 410


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind at one resourceVersion."""

    items: list[Object]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK, with the object."""

    type: str
    object: Object


class Cluster(Protocol):
    """What the operator asks of Kubernetes; every call raises ApiError and nothing else."""

    async def get(self, kind: Kind, *, namespace: str, name: str) -> Object | None:
        """One object; None if it does not exist."""
        ...

    async def list(self, kind: Kind, *, namespace: str = "", selector: str = "") -> Listing:
        """All objects of a kind that carry the labels, in pages; in every namespace unless one is named."""
        ...

    def watch(
        self,
        kind: Kind,
        *,
        resource_version: str,
        namespace: str = "",
        selector: str = "",
        seconds: float = 300.0,
    ) -> AsyncGenerator[Event]:
        """Events after `resource_version`; ends after `seconds` or when the server ends it, or raises.

        The first is a BOOKMARK at `resource_version`: the server has answered. 410: list again.
        """
        ...

    async def apply(self, kind: Kind, body: Object, *, force: bool = True) -> Object:
        """Server-side apply under the operator's field manager; the object as stored.

        Without `force` a field that somebody else has set to another value is a 409.
        """
        ...

    async def overwrite(self, kind: Kind, body: Object) -> Object:
        """Merge patch: our lists replace what is there, whoever added to it; the object as stored."""
        ...

    async def apply_status(self, kind: Kind, body: Object) -> Object:
        """Server-side apply of the status subresource under its own field manager."""
        ...

    async def delete(self, kind: Kind, *, namespace: str, name: str, uid: str) -> None:
        """Delete exactly this object (background propagation); quiet if it is gone already."""
        ...

    async def create(self, kind: Kind, body: Object) -> Object:
        """Make an object that must not exist yet (409 if it does); the object as stored."""
        ...

    async def replace(self, kind: Kind, body: Object) -> Object:
        """Put a whole object; 409 unless its resourceVersion is the current one. The object as stored."""
        ...
