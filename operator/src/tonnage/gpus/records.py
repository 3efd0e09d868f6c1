"""Everything that was read of a cluster's hardware, as one value: what an inventory is taken from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from tonnage.gpus.discover import take_inventory
from tonnage.gpus.inventory import Inventory
from tonnage.gpus.nodes import Node, Toleration
from tonnage.gpus.placement import Placement
from tonnage.gpus.pods import FINISHED, PodUse
from tonnage.gpus.slices import DeviceClass, ResourceClaim, ResourceSlice

_NO_PLACEMENT: Final = Placement()
ANYWHERE: Final = Placement(tolerations=(Toleration(operator="Exists"),))
"""The placement of a pod that tolerates every taint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Nodes, the pods on them, and the devices of `resource.k8s.io`, in any order."""

    nodes: tuple[Node, ...] = ()
    pods: tuple[PodUse, ...] = ()
    slices: tuple[ResourceSlice, ...] = ()
    claims: tuple[ResourceClaim, ...] = ()
    classes: tuple[DeviceClass, ...] = ()

    def inventory(self, *, placement: Placement = _NO_PLACEMENT, without: str = "") -> Inventory:
        """The pools, see `take_inventory`."""
        return take_inventory(
            self.nodes,
            pods=self.pods,
            slices=self.slices,
            claims=self.claims,
            classes=self.classes,
            placement=placement,
            without=without,
        )

    def as_rolled_out(self, key: str, *, pods: int) -> Records:
        """What is left to read once the pods of an LLMDeployment (`namespace/name`) are gone that a roll-out
        needs no room beside: those that leave, and of more than `pods` those that are not ready.

        The latter a Deployment ends first where its template changes again (`cleanupUnhealthyReplicas` in
        Kubernetes' pkg/controller/deployment/rolling.go).
        """
        own = [pod for pod in self.pods if pod.plan and f"{pod.namespace}/{pod.deployment}" == key]
        staying = sorted((pod for pod in own if not pod.leaving), key=lambda pod: (not pod.ready, pod.name))
        kept = sum(pod.ready for pod in staying)
        gone = {pod.name for pod in own if pod.leaving} | {pod.name for pod in staying[max(kept, pods) :]}
        namespace = key.partition("/")[0]
        claims = {name for pod in own if pod.name in gone for name in pod.claims}
        return replace(
            self,
            pods=tuple(pod for pod in self.pods if pod.namespace != namespace or pod.name not in gone),
            claims=tuple(c for c in self.claims if c.namespace != namespace or c.name not in claims),
        )

    def devices_on(self, resource: str, *, nodes: Collection[str]) -> Mapping[str, int]:
        """Devices of an extended resource that pods on these nodes hold, by `namespace/name` of their
        LLMDeployment; "" for all other pods together."""
        held: Counter[str] = Counter()
        for pod in self.pods:
            count = pod.resources.get(resource, 0)
            if count and pod.node in nodes and pod.phase not in FINISHED:
                held[f"{pod.namespace}/{pod.deployment}" if pod.deployment else ""] += count
        return held

    def claimed_on(self, *, nodes: Collection[str]) -> Mapping[str, int]:
        """Devices of these nodes that ResourceClaims hold, by the same."""
        where = {
            (each.driver, each.pool, device.name): device.node or each.node
            for each in self.slices
            for device in each.devices
        }
        held: Counter[str] = Counter()
        for claim in self.claims:
            key = f"{claim.namespace}/{claim.deployment}" if claim.deployment else ""
            found = (where.get((ref.driver, ref.pool, ref.device)) for ref in claim.devices)
            held[key] += sum(node in nodes for node in found)
        return held
