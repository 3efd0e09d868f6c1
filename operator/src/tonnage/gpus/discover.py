"""From plain records of nodes, pods, slices and claims to the pools of a cluster and what is free now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tonnage.gpus import amd, intel, nvidia
from tonnage.gpus.dra import Published, read_slices
from tonnage.gpus.inventory import Access, Inventory, Pool, PoolNode, Problem, Vendor
from tonnage.gpus.nodes import Node
from tonnage.gpus.offers import Offer
from tonnage.gpus.placement import Placement, find_obstacle
from tonnage.gpus.pods import NodeUse, PodUse, uses_by_node
from tonnage.gpus.slices import DeviceClass, ResourceClaim, ResourceSlice

_NO_PLACEMENT: Final = Placement()
_NO_USE: Final = NodeUse()
_READERS: Final = ((Vendor.NVIDIA, nvidia), (Vendor.AMD, amd), (Vendor.INTEL, intel))
_CPU: Final = Offer(
    Pool(
        name="cpu",
        vendor=Vendor.CPU,
        product="CPU",
        memory_bytes=0,
        memory_source="each node's own memory",
        access=Access.NONE,
        resource="",
    ),
    1,
)


def take_inventory(
    nodes: Iterable[Node],
    *,
    pods: Iterable[PodUse] = (),
    slices: Iterable[ResourceSlice] = (),
    claims: Iterable[ResourceClaim] = (),
    classes: Iterable[DeviceClass] = (),
    placement: Placement = _NO_PLACEMENT,
    without: str = "",
) -> Inventory:
    """The pools that a pod with this `placement` could use, with what is free now; the same for the same
    records in any order.

    Free is what is allocatable less what bound pods that have not finished request, and what claims hold.
    `without` names an LLMDeployment (`namespace/name`) whose own pods and claims are not counted. A node
    without accelerators is in the pool `cpu`; one with accelerators that cannot be used is in none.
    """
    uses = uses_by_node(pods, without=without)
    published = read_slices(slices, claims=claims, classes=classes, without=without)
    pools = _Pools()
    for node in sorted(nodes, key=lambda each: each.name):
        _add_node(pools, node, uses.get(node.name, _NO_USE), published, placement)
    return pools.inventory(published.problems)


@dataclass(slots=True)
class _Pools:
    """Pools by name while they grow."""

    kinds: dict[str, Pool] = field(default_factory=dict)
    nodes: dict[str, list[PoolNode]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, pool: Pool, node: PoolNode) -> None:
        self.kinds.setdefault(pool.name, pool)
        self.nodes.setdefault(pool.name, []).append(node)

    def inventory(self, problems: Iterable[Problem]) -> Inventory:
        every = {*self.problems, *problems}
        return Inventory(
            pools=tuple(
                replace(pool, nodes=tuple(self.nodes[name])) for name, pool in sorted(self.kinds.items())
            ),
            problems=tuple(sorted(every, key=lambda each: (each.node, each.reason, each.message))),
        )


def _add_node(pools: _Pools, node: Node, use: NodeUse, published: Published, placement: Placement) -> None:
    offers, problems, has_devices = _offers(node, published)
    pools.problems.extend(problems)
    if not has_devices:
        offers = [_CPU]
    for offer in offers:
        resource = offer.pool.resource
        tolerated = frozenset({resource}) if offer.pool.access is Access.RESOURCE else frozenset()
        obstacle = find_obstacle(node, placement=placement, tolerated=tolerated)
        if obstacle is not None:
            pools.problems.append(_obstructed(node, offer, obstacle.reason, obstacle.why))
            continue
        taken = use.resources.get(resource, 0) + offer.taken
        pools.problems.extend(_unhealthy(node, offer))
        pools.add(offer.pool, _pool_node(node, use, devices=offer.devices, taken=taken))


def _pool_node(node: Node, use: NodeUse, *, devices: int, taken: int) -> PoolNode:
    return PoolNode(
        name=node.name,
        devices=devices,
        free=max(devices - taken, 0),
        cpu_millis=max(node.cpu_allocatable_millis - use.cpu_millis, 0),
        memory_bytes=max(node.memory_allocatable_bytes - use.memory_bytes, 0),
    )


def _offers(node: Node, published: Published) -> tuple[list[Offer], list[Problem], bool]:
    """What a node offers, the problems, and whether it has accelerators at all.

    Where a device plugin and a driver for claims both offer a vendor's devices, they are the same devices:
    the plugin's are counted, less those that claims hold.
    """
    offers: list[Offer] = []
    problems: list[Problem] = []
    claimable = published.offers.get(node.name, [])
    has_devices = node.name in published.nodes or nvidia.is_labelled(node)
    if node.capacity:
        for vendor, reader in _READERS:
            if not reader.resources_of(node):
                continue
            has_devices = True
            found, trouble = reader.find_offers(node)
            twice = [each for each in claimable if each.pool.vendor is vendor]
            if twice:
                trouble.append(_offered_twice(node, vendor))
                claimable = [each for each in claimable if each.pool.vendor is not vendor]
            held = published.held[node.name, vendor]
            offers.extend(replace(each, taken=held) if held else each for each in found)
            problems.extend(trouble)
    if nvidia.is_labelled(node) and not offers and not claimable and not problems:
        problems.append(_no_devices(node))
    return [*offers, *claimable], problems, has_devices


def _obstructed(node: Node, offer: Offer, reason: str, why: str) -> Problem:
    what = f"{offer.devices} of {offer.pool.name}" if offer.pool.vendor is not Vendor.CPU else "the node"
    return Problem(node=node.name, reason=reason, message=f"{what} left out: {why}. {_REMEDIES[reason]}")


def _unhealthy(node: Node, offer: Offer) -> Sequence[Problem]:
    missing = node.capacity.get(offer.pool.resource, 0) - offer.devices
    if offer.pool.access is not Access.RESOURCE or missing <= 0:
        return ()
    message = _UNHEALTHY.format(missing, offer.devices + missing, offer.pool.name)
    return (Problem(node=node.name, reason="UnhealthyDevices", message=message),)


def _offered_twice(node: Node, vendor: Vendor) -> Problem:
    return Problem(node=node.name, reason="OfferedTwice", message=_TWICE.format(vendor))


def _no_devices(node: Node) -> Problem:
    return Problem(node=node.name, reason="NoDevices", message=_NO_DEVICES)


_REMEDIES: Final = {
    "NotReady": "Look at its kubelet",
    "Cordoned": "Uncordon it when its maintenance is over",
    "NotSelected": "Change template.nodeSelector or template.affinity if it should be used",
    "Tainted": "Add the toleration to template.tolerations if it should be used",
    "TooSmall": "Lower the request if it should be used",
}
_UNHEALTHY: Final = (
    "{} of {} devices of {} are not allocatable: look for failed devices in the log of the device plugin on "
    "the node"
)
_TWICE: Final = (
    "{} devices are offered by a device plugin and by a driver for ResourceClaims: the plugin's are counted; "
    "switch one of the two off on this node, or both may hand out the same device"
)
_NO_DEVICES: Final = (
    "labels say there are devices, and the node offers none: install the device plugin or the driver for "
    "ResourceClaims, or look at its pod on the node"
)
