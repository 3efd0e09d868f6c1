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
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tonnage.gpus.cards import Accelerator, accelerator_named
from tonnage.gpus.inventory import Access, Problem, Sharing, Vendor
from tonnage.gpus.memory import Memory, device_memory, instance_memory
from tonnage.gpus.mig import read_profile
from tonnage.gpus.offers import Kind, Offer, build_pool, memory_doubt, unknown_product
from tonnage.gpus.slices import Device, DeviceClass, DeviceRef, ResourceClaim, ResourceSlice

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
    """What slices offer: by node, all nodes that have devices, and how many of a vendor claims hold there."""

    offers: dict[str, list[Offer]] = field(default_factory=dict)
    nodes: set[str] = field(default_factory=set)
    held: Tally[tuple[str, Vendor]] = field(default_factory=Tally)
    problems: list[Problem] = field(default_factory=list)


class _Found(NamedTuple):
    """A device that can be planned on, and where it is; `taken` if a claim has it or a part of it."""

    ref: DeviceRef
    node: str
    type: _Type
    device: Device
    taken: bool
    blocked: bool


def read_slices(
    slices: Iterable[ResourceSlice],
    *,
    claims: Iterable[ResourceClaim],
    classes: Iterable[DeviceClass],
    without: str = "",
) -> Published:
    """What drivers publish, less what claims hold; `without` as in `uses_by_node`."""
    held = {
        ref
        for claim in claims
        if not (without and claim.deployment and f"{claim.namespace}/{claim.deployment}" == without)
        for ref in claim.devices
    }
    result = Published()
    known = {each.name for each in classes}
    for pool in _pools(slices):
        if len(pool) < pool[0].slices_in_pool:
            result.problems.append(_incomplete(pool))
        else:
            _add(result, _devices(pool, held), classes=known)
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


def _devices(pool: Sequence[ResourceSlice], held: set[DeviceRef]) -> list[_Found]:
    """The pool's devices of known types, each once, without parts of a device that is offered whole."""
    every = [(one, device) for one in pool for device in one.devices]
    refs = {device.name: DeviceRef(one.driver, one.pool, device.name) for one, device in every}
    left = _counters_left(pool, [device for _, device in every if refs[device.name] in held])
    largest = _largest(device for one, device in every if _type(one.driver, device))
    found = []
    for one, device in every:
        kind = _type(one.driver, device)
        if kind is None or any(_memory(device) < largest[each.counter_set] for each in device.consumes):
            continue
        ref = refs[device.name]
        free = ref not in held and all(
            left.get((each.counter_set, each.counter), 0) >= each.amount for each in device.consumes
        )
        blocked = any(taint.effect in _KEEPS_AWAY for taint in device.taints)
        found.append(_Found(ref, device.node or one.node, kind, device, taken=not free, blocked=blocked))
    return found


def _type(driver: str, device: Device) -> _Type | None:
    return _TYPES.get((driver, device.attributes.get("type", "")))


def _counters_left(pool: Sequence[ResourceSlice], held: Iterable[Device]) -> Mapping[tuple[str, str], int]:
    left = {(each.counter_set, each.counter): each.amount for one in pool for each in one.counters}
    for device in held:
        for each in device.consumes:
            left[each.counter_set, each.counter] = left.get((each.counter_set, each.counter), 0) - each.amount
    return left


def _largest(devices: Iterable[Device]) -> Mapping[str, int]:
    """The memory of the largest device that draws on each counter set: the whole of what others are parts."""
    sizes: dict[str, int] = {}
    for device in devices:
        for each in device.consumes:
            sizes[each.counter_set] = max(sizes.get(each.counter_set, 0), _memory(device))
    return sizes


def _memory(device: Device) -> int:
    return device.capacity.get("memory", 0)


def _add(result: Published, devices: Iterable[_Found], *, classes: set[str]) -> None:
    """Count devices that are alike on a node as one offer."""
    groups: dict[tuple[str, ...], list[_Found]] = {}
    for each in devices:
        if not each.node:
            result.problems.append(_nowhere(each))
            continue
        result.nodes.add(each.node)
        result.held[each.node, each.type.vendor] += each.taken
        attributes = each.device.attributes
        key = (each.node, each.type.device_class, attributes.get(each.type.product, ""))
        alike = (*key, attributes.get("profile", ""), str(_memory(each.device)), str(each.blocked))
        groups.setdefault(alike, []).append(each)
    for group in groups.values():
        offer, problems = _offer(group, classes=classes)
        result.problems.extend(problems)
        if offer is not None:
            result.offers.setdefault(group[0].node, []).append(offer)


def _offer(group: Sequence[_Found], *, classes: set[str]) -> tuple[Offer | None, list[Problem]]:
    first = group[0]
    product = first.device.attributes.get(first.type.product, "")
    name = product.replace(" ", "_" if first.type.vendor is Vendor.AMD else "-")
    if first.blocked:
        return None, [_tainted(first, len(group))]
    if first.type.device_class not in classes:
        return None, [_problem(first.node, "NoDeviceClass", _NO_CLASS.format(name, first.type.device_class))]
    accelerator = accelerator_named(product)
    capability = _capability(first.device)
    memory = _total(first, accelerator)
    if memory is None or (accelerator is None and capability is None):
        return None, [unknown_product(first.node, name or "a device without a product name", _UNKNOWN)]
    kind = _kind(first, name, accelerator, capability)
    doubt = memory_doubt(first.node, name, memory)
    offer = Offer(build_pool(kind, memory), len(group), taken=sum(each.taken for each in group))
    return offer, [doubt] if doubt else []


def _kind(
    first: _Found, name: str, accelerator: Accelerator | None, capability: tuple[int, int] | None
) -> Kind:
    driver, attributes = first.ref.driver, first.device.attributes
    profile = read_profile(attributes.get("profile", ""))
    wanted = {first.type.product: attributes.get(first.type.product, "")}
    if profile is not None:
        wanted["profile"] = attributes["profile"]
    return Kind(
        vendor=first.type.vendor,
        product=name,
        accelerator=accelerator,
        access=Access.CLAIM,
        resource=first.type.device_class,
        pins={},
        usual=frozenset(),
        compute_capability=capability,
        sharing=Sharing.MIG if profile else Sharing.NONE,
        mig_profile=profile.name if profile else "",
        selectors=tuple(f'device.attributes["{driver}"].{key} == "{text}"' for key, text in wanted.items()),
    )


def _total(found: _Found, accelerator: Accelerator | None) -> Memory | None:
    profile = read_profile(found.device.attributes.get("profile", ""))
    if profile is not None:
        return instance_memory(accelerator, profile=profile, reported_bytes=_memory(found.device))
    return device_memory(accelerator, reported_bytes=_memory(found.device))


def _capability(device: Device) -> tuple[int, int] | None:
    numbers = device.attributes.get("cudaComputeCapability", "").split(".")
    if len(numbers) < 2 or not all(each.isdigit() for each in numbers[:2]):
        return None
    return int(numbers[0]), int(numbers[1])


def _incomplete(pool: Sequence[ResourceSlice]) -> Problem:
    one = pool[0]
    message = _INCOMPLETE.format(one.pool, one.driver, len(pool), one.slices_in_pool)
    return _problem(one.node or one.pool, "SlicesIncomplete", message)


def _nowhere(found: _Found) -> Problem:
    return _problem(found.ref.pool, "NotOfOneNode", _NOWHERE.format(found.ref.device, found.ref.driver))


def _tainted(found: _Found, count: int) -> Problem:
    taints = ", ".join(sorted({f"{taint.key}:{taint.effect}" for taint in found.device.taints}))
    return _problem(found.node, "DeviceTainted", _TAINTED.format(count, found.ref.driver, taints))


def _problem(node: str, reason: str, message: str) -> Problem:
    return Problem(node=node, reason=reason, message=message)


_INCOMPLETE: Final = (
    "pool {} of {} has {} of {} ResourceSlices: its devices are left out until the driver has published all; "
    "look at the driver's pod on the node"
)
_NOWHERE: Final = "device {} of {} belongs to no single node: such devices are not planned on"
_TAINTED: Final = "{} devices of {} are tainted ({}): find out why, then remove the taint or the device"
_NO_CLASS: Final = (
    "{} is published, but there is no DeviceClass {} to ask for it: create the one of the driver's chart"
)
_UNKNOWN: Final = "the driver must publish productName, memory and cudaComputeCapability"
