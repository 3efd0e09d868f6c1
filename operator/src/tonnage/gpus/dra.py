"""Devices that pods get by ResourceClaims, from what drivers publish in ResourceSlices.

Attributes and capacities: kubernetes-sigs/dra-driver-nvidia-gpu cmd/gpu-kubelet-plugin/deviceinfo.go, mig.go
(`type` gpu or mig, `productName`, `profile`, `cudaComputeCapability`, capacity `memory` as NVML says it);
ROCm/k8s-gpu-dra-driver docs/driver-attributes.md (`type` amdgpu, `productName`, `memory`, which is 0 where it
cannot be read). Counters: partitions.go of the first, KEP-4815. Of a pool only the newest generation counts,
and only when it is complete: until then nobody knows what else the driver is about to say of its devices.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from tonnage.gpus.cards import Accelerator, accelerator_named
from tonnage.gpus.inventory import Access, Pool, Problem, Reason, Sharing, Vendor
from tonnage.gpus.memory import Memory, device_memory, instance_memory
from tonnage.gpus.mig import read_profile
from tonnage.gpus.nodes import Taint
from tonnage.gpus.offers import Kind, Offer, build_pool, memory_doubt, unknown_product
from tonnage.gpus.slices import Device, DeviceClass, ResourceClaim, ResourceSlice

_KEEPS_AWAY: Final = frozenset({"NoSchedule", "NoExecute"})


class _Type(NamedTuple):
    """A type of device that can be planned on: whose it is, and the device class its driver's chart makes."""

    vendor: Vendor
    device_class: str
    product: str


_TYPES: Final[Mapping[tuple[str, str], _Type]] = {
    ("gpu.nvidia.com", "gpu"): _Type(Vendor.NVIDIA, "gpu.nvidia.com", "productName"),
    ("gpu.nvidia.com", "mig"): _Type(Vendor.NVIDIA, "mig.nvidia.com", "productName"),
    ("gpu.amd.com", "amdgpu"): _Type(Vendor.AMD, "gpu.amd.com", "productName"),
}


@dataclass(slots=True)
class Published:
    """What slices offer by node and pool, the nodes that have devices, and how many of a vendor are held."""

    offers: dict[str, dict[str, Offer]] = field(default_factory=dict)
    nodes: set[str] = field(default_factory=set)
    held: Tally[tuple[str, Vendor]] = field(default_factory=Tally)
    problems: list[Problem] = field(default_factory=list)


class _Alike(NamedTuple):
    """What devices must have in common to be counted together."""

    node: str
    driver: str
    type: _Type
    product: str
    profile: str
    memory_bytes: int
    capability: str
    taints: tuple[Taint, ...]


class _Kinds:
    """Pools by what devices have in common, whatever their node: each is worked out once."""

    def __init__(self, classes: Iterable[DeviceClass]) -> None:
        self.classes = {each.name for each in classes}
        self.known: dict[_Alike, tuple[Pool | None, tuple[Problem, ...]]] = {}

    def pool(self, alike: _Alike) -> tuple[Pool | None, tuple[Problem, ...]]:
        """The pool of these devices, if they can be planned on, and problems without a node."""
        nowhere = alike._replace(node="")
        if nowhere not in self.known:
            self.known[nowhere] = self._read(nowhere)
        return self.known[nowhere]

    def _read(self, alike: _Alike) -> tuple[Pool | None, tuple[Problem, ...]]:
        name = alike.product.replace(" ", "_" if alike.type.vendor is Vendor.AMD else "-")
        if alike.taints:
            taints = ", ".join(sorted({f"{taint.key}:{taint.effect}" for taint in alike.taints}))
            return None, (_problem(Reason.DEVICE_TAINTED, _TAINTED.format(name, alike.driver, taints)),)
        if alike.type.device_class not in self.classes:
            return None, (_problem(Reason.NO_DEVICE_CLASS, _NO_CLASS.format(name, alike.type.device_class)),)
        accelerator, capability = accelerator_named(alike.product), _capability(alike.capability)
        memory = _total(alike, accelerator)
        if memory is None or (accelerator is None and capability is None):
            return None, (unknown_product("", name or "a device without a product name", _UNKNOWN),)
        doubt = memory_doubt("", name, memory)
        return build_pool(_kind(alike, name, accelerator, capability), memory), (doubt,) if doubt else ()


def read_slices(
    slices: Iterable[ResourceSlice],
    *,
    claims: Iterable[ResourceClaim],
    classes: Iterable[DeviceClass],
    without: str = "",
) -> Published:
    """What drivers publish, less what claims hold; `without` as in `uses_by_node`."""
    held: set[tuple[str, str, str]] = {
        ref
        for claim in claims
        if not (without and claim.deployment and f"{claim.namespace}/{claim.deployment}" == without)
        for ref in claim.devices
    }
    result, kinds = Published(), _Kinds(classes)
    for pool in _pools(slices):
        if len(pool) < pool[0].slices_in_pool:
            result.problems.append(_incomplete(pool))
            continue
        for alike, counts in _count(pool, held).items():
            _add(result, alike, counts, kinds)
    return result


def _pools(slices: Iterable[ResourceSlice]) -> list[list[ResourceSlice]]:
    """The slices of the newest generation of every pool."""
    pools: dict[tuple[str, str], list[ResourceSlice]] = {}
    for each in sorted(slices, key=lambda one: (one.driver, one.pool, one.name)):
        found = pools.setdefault((each.driver, each.pool), [])
        if found and each.generation > found[0].generation:
            found.clear()
        if not found or each.generation == found[0].generation:
            found.append(each)
    return list(pools.values())


def _count(pool: Sequence[ResourceSlice], held: set[tuple[str, str, str]]) -> dict[_Alike, list[bool]]:
    """The pool's devices of known types, without parts of one that is offered whole: for each whether a claim
    has it, or a part of it."""
    counters = _Counters(pool, held)
    found: dict[_Alike, list[bool]] = {}
    for one in pool:
        for device in one.devices:
            kind = _TYPES.get((one.driver, device.attributes.get("type", "")))
            if kind is None or counters.is_part(device):
                continue
            taken = (one.driver, one.pool, device.name) in held or counters.lacks(device)
            found.setdefault(_alike(one, device, kind), []).append(taken)
    return found


def _alike(one: ResourceSlice, device: Device, kind: _Type) -> _Alike:
    attributes = device.attributes
    return _Alike(
        device.node or one.node,
        one.driver,
        kind,
        attributes.get(kind.product, ""),
        attributes.get("profile", ""),
        device.capacity.get("memory", 0),
        attributes.get("cudaComputeCapability", ""),
        tuple(taint for taint in device.taints if taint.effect in _KEEPS_AWAY) if device.taints else (),
    )


class _Counters:
    """Shared counters of a pool: what is left of them, and the largest device that draws on each set."""

    def __init__(self, pool: Sequence[ResourceSlice], held: set[tuple[str, str, str]]) -> None:
        self.left = Tally(
            {(each.counter_set, each.counter): each.amount for one in pool for each in one.counters}
        )
        self.largest: dict[str, int] = {}
        for one in pool:
            for device in one.devices:
                if not device.consumes:
                    continue
                if (one.driver, one.pool, device.name) in held:
                    self.left.subtract(
                        {(each.counter_set, each.counter): each.amount for each in device.consumes}
                    )
                if (one.driver, device.attributes.get("type", "")) in _TYPES:
                    for each in device.consumes:
                        most = max(self.largest.get(each.counter_set, 0), device.capacity.get("memory", 0))
                        self.largest[each.counter_set] = most

    def is_part(self, device: Device) -> bool:
        """Whether a larger device draws on the same counters: the whole of which this one is a part."""
        size = device.capacity.get("memory", 0)
        return any(size < self.largest[each.counter_set] for each in device.consumes)

    def lacks(self, device: Device) -> bool:
        """Whether the counters that are left do not suffice for it."""
        return any(self.left[each.counter_set, each.counter] < each.amount for each in device.consumes)


def _add(result: Published, alike: _Alike, counts: Sequence[bool], kinds: _Kinds) -> None:
    """Count devices that are alike on a node as one offer."""
    if not alike.node:
        result.problems.append(_nowhere(alike, len(counts)))
        return
    taken = sum(counts)
    result.nodes.add(alike.node)
    result.held[alike.node, alike.type.vendor] += taken
    pool, problems = kinds.pool(alike)
    result.problems.extend(replace(each, node=alike.node) for each in problems)
    if pool is not None:
        offers = result.offers.setdefault(alike.node, {})
        before = offers.get(pool.name, Offer(pool, 0))
        offers[pool.name] = Offer(pool, before.devices + len(counts), before.taken + taken)


def _kind(
    alike: _Alike, name: str, accelerator: Accelerator | None, capability: tuple[int, int] | None
) -> Kind:
    profile = read_profile(alike.profile)
    wanted = {alike.type.product: alike.product} | ({"profile": alike.profile} if profile else {})
    return Kind(
        vendor=alike.type.vendor,
        product=name,
        accelerator=accelerator,
        access=Access.CLAIM,
        resource=alike.type.device_class,
        pins={},
        usual=frozenset(),
        compute_capability=capability,
        sharing=Sharing.MIG if profile else Sharing.NONE,
        mig_profile=profile.name if profile else "",
        selectors=tuple(
            f'device.attributes["{alike.driver}"].{key} == "{text}"' for key, text in wanted.items()
        ),
    )


def _total(alike: _Alike, accelerator: Accelerator | None) -> Memory | None:
    profile = read_profile(alike.profile)
    if profile is not None:
        return instance_memory(accelerator, profile=profile, reported_bytes=alike.memory_bytes)
    return device_memory(accelerator, reported_bytes=alike.memory_bytes)


def _capability(version: str) -> tuple[int, int] | None:
    numbers = version.split(".")
    if len(numbers) < 2 or not all(each.isdecimal() for each in numbers[:2]):
        return None
    return int(numbers[0]), int(numbers[1])


def _incomplete(pool: Sequence[ResourceSlice]) -> Problem:
    one = pool[0]
    message = _INCOMPLETE.format(one.pool, one.driver, len(pool), one.slices_in_pool)
    return Problem(node=one.node or one.pool, reason=Reason.SLICES_INCOMPLETE, message=message)


def _nowhere(alike: _Alike, count: int) -> Problem:
    message = _NOWHERE.format(count, alike.product, alike.driver)
    return Problem(node=alike.driver, reason=Reason.NOT_OF_ONE_NODE, message=message)


def _problem(reason: Reason, message: str) -> Problem:
    return Problem(node="", reason=reason, message=message)


_INCOMPLETE: Final = (
    "pool {} of {} has {} of {} ResourceSlices: its devices are left out until the driver has published all; "
    "look at the driver's pod on the node"
)
_NOWHERE: Final = "{} x {} of {} belong to no single node: such devices are not planned on"
_TAINTED: Final = "{} of {} is tainted ({}): find out why, then remove the taint or the device"
_NO_CLASS: Final = (
    "{} is published, but there is no DeviceClass {} to ask for it: create the one of the driver's chart"
)
_UNKNOWN: Final = "the driver must publish productName, memory and cudaComputeCapability"
