"""Devices that pods get by ResourceClaims, from what drivers publish in ResourceSlices.

Attributes and capacities: kubernetes-sigs/dra-driver-nvidia-gpu cmd/gpu-kubelet-plugin/deviceinfo.go, mig.go
(`type` gpu or mig, `productName`, `profile`, `cudaComputeCapability`, capacity `memory` as NVML says it);
ROCm/k8s-gpu-dra-driver docs/driver-attributes.md (`type` amdgpu, `productName`, `memory`, which is 0 where it
cannot be read). Counters: partitions.go of the first, KEP-4815. Of a pool only the newest generation counts,
and only when it is complete and no device is in it twice, as kube-scheduler has it (k8s.io/
dynamic-resource-allocation structured/pools.go): until then nobody knows what else the driver is about to
say of its devices.
"""

from __future__ import annotations

import json
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from tonnage.gpus.cards import Accelerator, accelerator_named
from tonnage.gpus.inventory import Access, Pool, Problem, Reason, Sharing, Vendor
from tonnage.gpus.memory import Memory, device_memory, instance_memory
from tonnage.gpus.mig import Profile, read_profile
from tonnage.gpus.nodes import Taint
from tonnage.gpus.offers import Kind, Offer, build_pool, memory_doubt, unknown_product
from tonnage.gpus.slices import Device, DeviceClass, ResourceClaim, ResourceSlice

_KEEPS_AWAY: Final = frozenset({"NoSchedule", "NoExecute"})


class _Type(NamedTuple):
    """A type of device that can be planned on: whose it is, the device class its driver's chart makes, and
    whether a device is a part of a card."""

    vendor: Vendor
    device_class: str
    is_part: bool = False


_TYPES: Final[Mapping[tuple[str, str], _Type]] = {
    ("gpu.nvidia.com", "gpu"): _Type(Vendor.NVIDIA, "gpu.nvidia.com"),
    ("gpu.nvidia.com", "mig"): _Type(Vendor.NVIDIA, "mig.nvidia.com", is_part=True),
    ("gpu.amd.com", "amdgpu"): _Type(Vendor.AMD, "gpu.amd.com"),
}
_DRIVERS: Final = frozenset(driver for driver, _ in _TYPES)
_PRODUCT: Final = "productName"
_Held = dict[tuple[str, str, str], bool]
"""The devices that claims hold, and whether it is one of an LLMDeployment."""


class _State(NamedTuple):
    """Of a device: whether a claim has it, or a part of it, and whether it is one of an LLMDeployment."""

    is_taken: bool
    is_ours: bool


_FREE: Final = _State(is_taken=False, is_ours=False)


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
        profile = read_profile(alike.profile) if alike.type.is_part else None
        if alike.type.is_part and (profile is None or profile.part):
            return None, (_problem(Reason.MIG_SHARED, _NO_INSTANCE.format(name, alike.profile)),)
        accelerator, capability = accelerator_named(alike.product), _capability(alike.capability)
        memory = _total(alike, accelerator, profile)
        if memory is None or (accelerator is None and capability is None):
            return None, (unknown_product("", name or "a device without a product name", _UNKNOWN),)
        doubt = memory_doubt("", name, memory)
        kind = _kind(alike, name, accelerator, capability, memory)
        return build_pool(kind, memory), (doubt,) if doubt else ()


def read_slices(
    slices: Iterable[ResourceSlice], *, claims: Iterable[ResourceClaim], classes: Iterable[DeviceClass]
) -> Published:
    """What drivers publish, less what claims hold."""
    held: _Held = {ref: bool(claim.deployment) for claim in claims for ref in claim.devices}
    result, kinds = Published(), _Kinds(classes)
    for pool in _pools(each for each in slices if each.driver in _DRIVERS):
        doubt = _doubt(pool)
        if doubt:
            one = pool[0]
            message = _INCOMPLETE.format(one.pool, one.driver, doubt)
            node = one.node or one.pool
            result.problems.append(Problem(node=node, reason=Reason.SLICES_INCOMPLETE, message=message))
            result.nodes.update(one.node for one in pool if one.node)
        for alike, states in _count(pool, held).items():
            _add(result, alike, states, None if doubt else kinds)
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


def _doubt(pool: Sequence[ResourceSlice]) -> str:
    """Why nothing is allocated from a pool now, empty if something is."""
    if len(pool) != pool[0].slices_in_pool:
        return f"{len(pool)} of {pool[0].slices_in_pool} ResourceSlices"
    names = [device.name for one in pool for device in one.devices]
    return "" if len(set(names)) == len(names) else "a device twice"


def _count(pool: Sequence[ResourceSlice], held: _Held) -> dict[_Alike, list[_State]]:
    """The pool's devices of known types.

    Of devices that share counters as many are counted as can be allocated together, the largest first: the
    whole, and not its parts. Those that are free can be allocated together too.
    """
    devices = [(one, device) for one in pool for device in one.devices]
    counters = None
    if any(device.consumes for _, device in devices):
        counters = _Counters(pool, held)
        devices.sort(key=lambda each: _size(each[1]), reverse=True)
    found: dict[_Alike, list[_State]] = {}
    for one, device in devices:
        kind = _TYPES.get((one.driver, device.attributes.get("type", "")))
        if kind is None or (counters and not counters.count(device)):
            continue
        ref = (one.driver, one.pool, device.name)
        is_free = ref not in held and (not counters or counters.allocate(device))
        state = _FREE if is_free else _State(is_taken=True, is_ours=held.get(ref, False))
        found.setdefault(_alike(one, device, kind), []).append(state)
    return found


def _size(device: Device) -> tuple[int, int]:
    """What a whole has more of than its parts, also where a driver does not publish the memory."""
    return device.capacity.get("memory", 0), sum(each.amount for each in device.consumes)


def _alike(one: ResourceSlice, device: Device, kind: _Type) -> _Alike:
    attributes = device.attributes
    return _Alike(
        device.node or one.node,
        one.driver,
        kind,
        attributes.get(_PRODUCT, ""),
        attributes.get("profile", ""),
        device.capacity.get("memory", 0),
        attributes.get("cudaComputeCapability", ""),
        tuple(taint for taint in device.taints if taint.effect in _KEEPS_AWAY) if device.taints else (),
    )


class _Counters:
    """Shared counters of a pool: what is left of them beside the devices that were counted, and beside those
    that claims hold."""

    def __init__(self, pool: Sequence[ResourceSlice], held: _Held) -> None:
        self.whole = Tally(
            {(each.counter_set, each.counter): each.amount for one in pool for each in one.counters}
        )
        self.uncounted, self.free = self.whole.copy(), self.whole.copy()
        for one in pool:
            for device in one.devices:
                if device.consumes and (one.driver, one.pool, device.name) in held:
                    _draw(self.free, device)

    def count(self, device: Device) -> bool:
        """Count a device, unless those that were counted leave it too little. One that even all counters do
        not suffice for is counted, and never free."""
        if _suffices(self.uncounted, device):
            _draw(self.uncounted, device)
            return True
        return not _suffices(self.whole, device)

    def allocate(self, device: Device) -> bool:
        """Allocate a device, if what claims leave suffices."""
        if not _suffices(self.free, device):
            return False
        _draw(self.free, device)
        return True


def _suffices(counters: Tally[tuple[str, str]], device: Device) -> bool:
    return all(counters[each.counter_set, each.counter] >= each.amount for each in device.consumes)


def _draw(counters: Tally[tuple[str, str]], device: Device) -> None:
    for each in device.consumes:
        counters[each.counter_set, each.counter] -= each.amount


def _add(result: Published, alike: _Alike, states: Sequence[_State], kinds: _Kinds | None) -> None:
    """Count devices that are alike on a node as one offer; without `kinds`, as devices that are there and
    are not offered."""
    if not alike.node:
        result.problems.append(_nowhere(alike, len(states)))
        return
    taken = sum(each.is_taken for each in states)
    result.nodes.add(alike.node)
    result.held[alike.node, alike.type.vendor] += taken
    if kinds is None:
        return
    pool, problems = kinds.pool(alike)
    result.problems.extend(replace(each, node=alike.node) for each in problems)
    if pool is not None:
        offers = result.offers.setdefault(alike.node, {})
        before = offers.get(pool.name, Offer(pool, 0))
        ours = sum(each.is_ours for each in states)
        offers[pool.name] = Offer(
            pool, before.devices + len(states), before.taken + taken, before.ours + ours
        )


def _kind(
    alike: _Alike,
    name: str,
    accelerator: Accelerator | None,
    capability: tuple[int, int] | None,
    memory: Memory,
) -> Kind:
    is_part = alike.type.is_part
    return Kind(
        vendor=alike.type.vendor,
        product=name,
        accelerator=accelerator,
        access=Access.CLAIM,
        resource=alike.type.device_class,
        pins={},
        usual=frozenset(),
        compute_capability=capability,
        sharing=Sharing.MIG if is_part else Sharing.NONE,
        mig_profile=alike.profile if is_part else "",
        selectors=_selectors(alike, memory),
    )


def _selectors(alike: _Alike, memory: Memory) -> tuple[str, ...]:
    """CEL that selects these devices of their class: by memory too, where it is what tells the pool from
    others of the product."""
    wanted = {_PRODUCT: alike.product} | ({"profile": alike.profile} if alike.type.is_part else {})
    # What JSON escapes in a text, CEL does alike.
    by_name = [
        f'device.attributes["{alike.driver}"].{key} == {json.dumps(text)}' for key, text in wanted.items()
    ]
    size = f'device.capacity["{alike.driver}"].memory == quantity("{memory.own_bytes}")'
    return (*by_name, *([size] if memory.own_bytes else []))


def _total(alike: _Alike, accelerator: Accelerator | None, profile: Profile | None) -> Memory | None:
    if profile is not None:
        return instance_memory(accelerator, profile=profile, reported_bytes=alike.memory_bytes)
    return device_memory(accelerator, reported_bytes=alike.memory_bytes)


def _capability(version: str) -> tuple[int, int] | None:
    numbers = version.split(".")
    if len(numbers) < 2 or not all(each.isdecimal() for each in numbers[:2]):
        return None
    return int(numbers[0]), int(numbers[1])


def _nowhere(alike: _Alike, count: int) -> Problem:
    message = _NOWHERE.format(count, alike.product, alike.driver)
    return Problem(node=alike.driver, reason=Reason.NOT_OF_ONE_NODE, message=message)


def _problem(reason: Reason, message: str) -> Problem:
    return Problem(node="", reason=reason, message=message)


_INCOMPLETE: Final = (
    "pool {} of {} has {}: its devices are left out until the driver has published all; look at the driver's "
    "pod on the node"
)
_NOWHERE: Final = "{} x {} of {} belong to no single node: such devices are not planned on"
_TAINTED: Final = "{} of {} is tainted ({}): find out why, then remove the taint or the device"
_NO_INSTANCE: Final = (
    "{} is published as a part of a card, and its profile {!r} is not that of a MIG instance with memory of "
    "its own: create GPU instances with one compute instance each"
)
_NO_CLASS: Final = (
    "{} is published, but there is no DeviceClass {} to ask for it: create the one of the driver's chart"
)
_UNKNOWN: Final = "the driver must publish productName, memory and cudaComputeCapability"
