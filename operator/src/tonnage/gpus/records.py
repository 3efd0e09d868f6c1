"""Everything that was read of a cluster's hardware, as one value: what an inventory is taken from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
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

    def devices_on(self, resource: str, *, nodes: Collection[str]) -> Mapping[str, int]:
        """Devices of an extended resource that pods on these nodes hold, by `namespace/name` of their
        LLMDeployment; "" for all other pods together."""
        held: Counter[str] = Counter()
        for pod in self.pods:
            count = pod.resources.get(resource, 0)
            if count and pod.node in nodes and pod.phase not in FINISHED:
                held[f"{pod.namespace}/{pod.deployment}" if pod.deployment else ""] += count
        return held
