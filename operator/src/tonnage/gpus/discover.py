"""From plain records of nodes, pods, slices and claims to the pools of a cluster and what is free now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from tonnage.gpus import amd, intel, nvidia
from tonnage.gpus.dra import Published, read_slices
from tonnage.gpus.inventory import Access, Inventory, Pool, PoolNode, Problem, Reason, Vendor
from tonnage.gpus.nodes import Node
from tonnage.gpus.offers import NAMED_BY_HAND, Offer
from tonnage.gpus.placement import Placement, find_obstacle
from tonnage.gpus.pods import NodeUse, PodUse, uses_by_node
from tonnage.gpus.slices import DeviceClass, ResourceClaim, ResourceSlice

_NO_PLACEMENT: Final = Placement()
_NO_USE: Final = NodeUse()
_READERS: Final = ((Vendor.NVIDIA, nvidia), (Vendor.AMD, amd), (Vendor.INTEL, intel))
_LABELS: Final = (
    *(f"{nvidia.GPU}.{each}" for each in ("product", "memory", "count", "replicas", "sharing-strategy")),
    *(f"{nvidia.GPU}.compute.{each}" for each in ("major", "minor")),
    "nvidia.com/mig.strategy",
    nvidia.GKE,
    nvidia.GKE_PROFILE,
    nvidia.GKE_STRATEGY,
    nvidia.GKE_CLIENTS,
    amd.PRODUCT,
    amd.DEVICE_ID,
    *intel.PRODUCT_LABELS.values(),
    intel.COUNT,
    NAMED_BY_HAND,
)
"""All labels that a reader of device plugins is shown, but for those that begin as follows, on nodes with
resources that begin so."""
_NAMES: Final = frozenset(
    {
        f"{nvidia.GPU}.product",
        nvidia.GKE,
        amd.PRODUCT,
        amd.DEVICE_ID,
        *intel.PRODUCT_LABELS.values(),
        NAMED_BY_HAND,
    }
)
"""Labels of which one is on every node with accelerators that was labelled, offered or not."""
_PREFIXES: Final = ("nvidia.com/mig-", "amd.com/", "beta.amd.com/gpu.")
_Items = tuple[tuple[str, Any], ...]
_Key = tuple[_Items, _Items, _Items]
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
    `without` names an LLMDeployment (`namespace/name`) whose own pods are not counted, nor the claims that
    are labelled as its own or that its pods name: what would be free for it if it started anew. A node
    without accelerators is in the pool `cpu`; one with accelerators that cannot be used is in none.
    """
    if without:
        pods, claims = _of_others(pods, claims, without=without)
    uses = uses_by_node(pods)
    published = read_slices(slices, claims=claims, classes=classes)
    pools = _Pools()
    read: dict[_Key, _Read] = {}
    known = {node.name: node for node in sorted(nodes, key=lambda each: each.name)}
    for node in known.values():
        offers, problems, has_devices = _offers(node, published, read)
        pools.has_accelerators |= has_devices
        pools.problems.extend(problems)
        use = uses.get(node.name, _NO_USE)
        for offer in offers if has_devices else (_CPU,):
            _add(pools, node, offer, use, placement)
    found = pools.pools()
    every = {*pools.problems, *published.problems, *_mistaken(found, known)}
    problems = sorted(every, key=lambda each: (each.node, each.reason, each.message))
    return Inventory(pools=found, problems=tuple(problems), has_accelerators=pools.has_accelerators)


def _of_others(
    pods: Iterable[PodUse], claims: Iterable[ResourceClaim], *, without: str
) -> tuple[list[PodUse], list[ResourceClaim]]:
    kept, own = list[PodUse](), set[tuple[str, str]]()
    for pod in pods:
        if pod.deployment and f"{pod.namespace}/{pod.deployment}" == without:
            own.update((pod.namespace, name) for name in pod.claims)
        else:
            kept.append(pod)
    return kept, [
        claim
        for claim in claims
        if (claim.namespace, claim.name) not in own
        and not (claim.deployment and f"{claim.namespace}/{claim.deployment}" == without)
    ]


class _Read(NamedTuple):
    """What device plugins offer on nodes with the same labels and resources; problems are without a node."""

    offers: tuple[Offer, ...]
    problems: tuple[Problem, ...]
    vendors: frozenset[Vendor]
    has_devices: bool


@dataclass(slots=True)
class _Pools:
    """Pools by name while they grow."""

    kinds: dict[str, Pool] = field(default_factory=dict)
    nodes: dict[str, list[PoolNode]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    has_accelerators: bool = False

    def add(self, pool: Pool, node: PoolNode) -> None:
        if self.kinds.setdefault(pool.name, pool) != pool:
            message = _SPELLED.format(node.devices, pool.name)
            self.problems.append(Problem(node=node.name, reason=Reason.NOT_TOLD_APART, message=message))
            return
        self.nodes.setdefault(pool.name, []).append(node)

    def pools(self) -> tuple[Pool, ...]:
        return tuple(
            replace(pool, nodes=tuple(self.nodes[name])) for name, pool in sorted(self.kinds.items())
        )


def _mistaken(pools: Sequence[Pool], nodes: Mapping[str, Node]) -> Iterator[Problem]:
    """Nodes on which pods of another pool may be placed: they offer its resource and carry the labels that
    pin pods to it."""
    pinned: dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], list[Pool]]] = {}
    for pool in pools:
        if pool.access is Access.RESOURCE:
            keys = tuple(sorted(pool.node_labels))
            values = tuple(pool.node_labels[key] for key in keys)
            pinned.setdefault((pool.resource, keys), {}).setdefault(values, []).append(pool)
    for pool in pools:
        for (resource, keys), by_values in pinned.items():
            for node in pool.nodes if resource == pool.resource else ():
                labels = nodes[node.name].labels
                for other in by_values.get(tuple(labels.get(key, "") for key in keys), ()):
                    if other is not pool:
                        message = _MISTAKEN.format(other.name, node.devices, pool.name)
                        yield Problem(node=node.name, reason=Reason.NOT_TOLD_APART, message=message)


def _add(pools: _Pools, node: Node, offer: Offer, use: NodeUse, placement: Placement) -> None:
    resource = offer.pool.resource
    tolerated = frozenset({resource}) if offer.pool.access is Access.RESOURCE else frozenset()
    obstacle = find_obstacle(node, placement=placement, tolerated=tolerated)
    if obstacle is not None:
        pools.problems.append(_obstructed(node, offer, obstacle.reason, obstacle.why))
        return
    pools.problems.extend(_unhealthy(node, offer))
    part = _pool_node(node, use, offer)
    if part.free and (part.cpu_millis < placement.cpu_millis or part.memory_bytes < placement.memory_bytes):
        pools.problems.append(_crowded(part, offer))
        part = replace(part, free=0)
    pools.add(offer.pool, part)


def _pool_node(node: Node, use: NodeUse, offer: Offer) -> PoolNode:
    resource = offer.pool.resource
    return PoolNode(
        name=node.name,
        devices=offer.devices,
        free=max(offer.devices - use.resources.get(resource, 0) - offer.taken, 0),
        cpu_millis=max(node.cpu_allocatable_millis - use.cpu_millis, 0),
        memory_bytes=max(node.memory_allocatable_bytes - use.memory_bytes, 0),
        ours=use.ours.get(resource, 0) + offer.ours,
    )


def _crowded(part: PoolNode, offer: Offer) -> Problem:
    has_any = offer.pool.vendor is not Vendor.CPU
    what = f"{part.free} of {offer.pool.name}" if has_any else "the node"
    message = _CROWDED.format(what, part.cpu_millis / 1000, part.memory_bytes / 2**30)
    return Problem(node=part.name, reason=Reason.CROWDED, message=message, of_accelerators=has_any)


def _offers(
    node: Node, published: Published, read: dict[_Key, _Read]
) -> tuple[Sequence[Offer], list[Problem], bool]:
    """What a node offers, the problems, and whether it has accelerators at all.

    Where a device plugin and a driver for claims both offer a vendor's devices, they are the same devices:
    the plugin's are counted, less those that claims hold.
    """
    plugins = _plugins(node, read)
    problems = [replace(each, node=node.name) for each in plugins.problems]
    if node.name not in published.nodes:
        return plugins.offers, problems, plugins.has_devices
    problems = [each for each in problems if each.reason is not Reason.NO_DEVICES]
    claimable = published.offers.get(node.name, {}).values()
    twice = {each.pool.vendor for each in claimable} & plugins.vendors
    problems.extend(_offered_twice(node, vendor) for vendor in sorted(twice))
    counted = [replace(each, taken=published.held[node.name, each.pool.vendor]) for each in plugins.offers]
    return [*counted, *(each for each in claimable if each.pool.vendor not in twice)], problems, True


def _plugins(node: Node, read: dict[_Key, _Read]) -> _Read:
    """What device plugins offer. Nodes that were bought together say the same; each kind is read once."""
    labels = tuple((name, node.labels[name]) for name in _LABELS if name in node.labels)
    if any(name.startswith(_PREFIXES) for name in node.capacity):
        labels += tuple(item for item in node.labels.items() if item[0].startswith(_PREFIXES))
    key = (labels, tuple(node.capacity.items()), tuple(node.allocatable.items()))
    found = read.get(key)
    if found is None:
        found = read[key] = _read(replace(node, name="", labels=dict(labels)))
    return found


def _read(node: Node) -> _Read:
    offers: list[Offer] = []
    problems: list[Problem] = []
    vendors = set()
    for vendor, reader in _READERS:
        for resource in reader.resources_of(node):
            found = reader.read(node, resource)
            offers.extend([found.offer] if found.offer else [])
            problems.extend(found.problems)
            vendors.add(vendor)
    labelled = not _NAMES.isdisjoint(node.labels)
    if labelled and not vendors:
        problems.append(Problem(node="", reason=Reason.NO_DEVICES, message=_NO_DEVICES))
    return _Read(tuple(offers), tuple(problems), frozenset(vendors), bool(vendors) or labelled)


def _obstructed(node: Node, offer: Offer, reason: Reason, why: str) -> Problem:
    has_any = offer.pool.vendor is not Vendor.CPU
    what = f"{offer.devices} of {offer.pool.name}" if has_any else "the node"
    message = f"{what} left out: {why}. {_REMEDIES[reason]}"
    return Problem(node=node.name, reason=reason, message=message, of_accelerators=has_any)


def _unhealthy(node: Node, offer: Offer) -> Sequence[Problem]:
    missing = node.capacity.get(offer.pool.resource, 0) - offer.devices
    if offer.pool.access is not Access.RESOURCE or missing <= 0:
        return ()
    message = _UNHEALTHY.format(missing, offer.devices + missing, offer.pool.name)
    return (Problem(node=node.name, reason=Reason.UNHEALTHY_DEVICES, message=message),)


def _offered_twice(node: Node, vendor: Vendor) -> Problem:
    return Problem(node=node.name, reason=Reason.OFFERED_TWICE, message=_TWICE.format(vendor))


_REMEDIES: Final = {
    Reason.NOT_READY: "Look at its kubelet",
    Reason.CORDONED: "Uncordon it when its maintenance is over",
    Reason.NOT_SELECTED: "Change template.nodeSelector or template.affinity if it should be used",
    Reason.TAINTED: "Add the toleration to template.tolerations if it should be used",
    Reason.TOO_SMALL: "Lower the request if it should be used",
}
_CROWDED: Final = (
    "{} cannot be given to a pod now: {:g} CPUs and {:.2f} GiB of main memory are all that other pods leave; "
    "move them, or lower template.resources"
)
_UNHEALTHY: Final = (
    "{} of {} devices of {} are not allocatable: look for failed devices in the log of the device plugin on "
    "the node"
)
_TWICE: Final = (
    "{} devices are offered by a device plugin and by a driver for ResourceClaims: the plugin's are counted; "
    "switch one of the two off on this node, or both may hand out the same device"
)
_SPELLED: Final = (
    "{} devices left out: they are called {} like others whose labels are spelled otherwise; spell the "
    "labels of one product alike on all nodes"
)
_MISTAKEN: Final = (
    "pods that are meant for {} may be placed here, among {} devices of {}: no label keeps them off; taint "
    "one of the two pools' nodes"
)
_NO_DEVICES: Final = (
    "labels say there are devices, and the node offers none: install the device plugin or the driver for "
    "ResourceClaims, or look at its pod on the node"
)
