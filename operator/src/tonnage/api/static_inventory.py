"""What a cluster has, as its administrator states it in the chart's values: for an operator that may not read
nodes.

The plain mapping under `inventory`: a list `pools`, each with `product`, `nodes`, `devicesPerNode`, `nodeCPU`
and `nodeMemory` (what pods may request of a node), and as needed `resource`, `memory` (of one device),
`vendor`, `computeCapability`, `migProfile`, `sharing: {mode, clients}` and `nodeLabels` (they pin pods).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Final, TypeVar

from tonnage.api import quantities
from tonnage.gpus.cards import Accelerator, Card, accelerator_named
from tonnage.gpus.inventory import Access, Inventory, Pool, PoolNode, Sharing, Vendor
from tonnage.gpus.memory import Memory, device_memory, instance_memory
from tonnage.gpus.mig import Profile, read_profile
from tonnage.gpus.offers import Kind, build_pool, slug

T = TypeVar("T")
_FIELDS: Final = frozenset(
    {
        *("product", "nodes", "devicesPerNode", "nodeCPU", "nodeMemory", "resource", "memory", "vendor"),
        *("computeCapability", "migProfile", "sharing", "nodeLabels"),
    }
)
_RESOURCES: Final[Mapping[Vendor, str]] = {Vendor.NVIDIA: "nvidia.com/gpu", Vendor.AMD: "amd.com/gpu"}
_NO_LABELS: Final[Mapping[str, str]] = {}
_VENDORS: Final = (Vendor.NVIDIA, Vendor.AMD, Vendor.INTEL)
_MODES: Final = (Sharing.TIME_SLICING, Sharing.MPS)


def read_static(values: Any) -> Inventory | tuple[str, ...]:
    """The inventory that `values` state, or everything that is wrong with them, each named by its field.

    All devices count as free: who may not read nodes does not see who holds them. The nodes of a pool are
    named by it and numbered.
    """
    pools = values.get("pools") if isinstance(values, Mapping) else None
    if not isinstance(pools, Sequence) or isinstance(pools, str) or not pools:
        return ("inventory.pools: it must be a list of pools",)
    faults: list[str] = []
    read = [_Reader(each, f"inventory.pools[{at}]", faults).pool() for at, each in enumerate(pools)]
    found = [each for each in read if each is not None]
    faults.extend(_overlaps(read))
    if faults:
        return tuple(faults)
    return Inventory(pools=tuple(sorted(found, key=lambda pool: pool.name)))


def _overlaps(pools: Sequence[Pool | None]) -> list[str]:
    """Pools between which no pod could choose: the same resource, and no label tells their nodes apart; and
    those of one name."""
    faults = []
    for (first, one), (second, other) in combinations(enumerate(pools), 2):
        if one is None or other is None:
            continue
        if one.name == other.name:
            faults.append(
                f"inventory.pools[{second}]: pools[{first}] is called {one.name} too: state another product, "
                "resource or label"
            )
        if one.resource != other.resource:
            continue
        shared = one.node_labels.keys() & other.node_labels.keys()
        if all(one.node_labels[key] == other.node_labels[key] for key in shared):
            faults.append(
                f"inventory.pools[{second}].nodeLabels: pools[{first}] has the same resource "
                f"{one.resource}: a label must tell their nodes apart, with another value in each"
            )
    return faults


class _Reader:
    """One pool, field by field; every fault is noted, so that all are told at once."""

    def __init__(self, body: Any, path: str, faults: list[str]) -> None:
        self.body: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
        self.path = path
        self.faults = faults
        if not isinstance(body, Mapping):
            self.fault("", "it must be a pool with product, nodes, devicesPerNode, nodeCPU and nodeMemory")

    def pool(self) -> Pool | None:
        """The pool, or None after noting why not."""
        before = len(self.faults)
        for name in sorted(map(str, self.body.keys() - _FIELDS)):
            self.fault(name, f"there is no such field; known: {', '.join(sorted(_FIELDS))}")
        product = self.field("product", _text)
        nodes, devices = self.field("nodes", _count), self.field("devicesPerNode", _count)
        cpu, room = self.field("nodeCPU", _cores), self.field("nodeMemory", _bytes)
        if len(self.faults) > before or product is None or nodes is None or devices is None:
            return None
        pool = self._kind(product, accelerator_named(product))
        if pool is None or len(self.faults) > before:
            return None
        each = PoolNode(name="", devices=devices, free=devices, cpu_millis=cpu or 0, memory_bytes=room or 0)
        named = tuple(replace(each, name=f"{pool.name}-{number}") for number in range(nodes))
        return replace(pool, nodes=named)

    def _kind(self, product: str, accelerator: Accelerator | None) -> Pool | None:
        vendor = self._vendor(accelerator)
        capability = self._capability(vendor, accelerator)
        resource = self.field("resource", _text, default=_RESOURCES.get(vendor, "") if vendor else "")
        labels = self.field("nodeLabels", _labels, default=_NO_LABELS) or {}
        profile = self.field("migProfile", _profile, default=None)
        sharing, clients = self._sharing()
        memory = self._memory(accelerator, profile)
        if vendor is not None and not resource and "resource" not in self.body:
            self.fault("resource", f"it must name the extended resource: {vendor} has several")
        if vendor is None or memory is None or not resource:
            return None
        kind = Kind(
            vendor=vendor,
            product=product,
            accelerator=accelerator,
            access=Access.RESOURCE,
            resource=resource,
            pins=labels,
            usual=frozenset(key for key, text in labels.items() if slug(text) == slug(product)),
            compute_capability=capability,
            sharing=Sharing.MIG if profile and sharing is Sharing.NONE else sharing,
            mig_profile=profile.name if profile else "",
            clients=clients,
        )
        return build_pool(kind, memory)

    def _vendor(self, accelerator: Accelerator | None) -> Vendor | None:
        stated = self.field("vendor", _vendor, default=None)
        if accelerator is None:
            if stated is None and "vendor" not in self.body:
                self.fault("vendor", f"the product is not in the catalogue: one of {_names(_VENDORS)}")
            return stated
        if stated not in {None, accelerator.vendor}:
            self.fault("vendor", f"{accelerator.name} is {accelerator.vendor}'s")
        return accelerator.vendor

    def _capability(self, vendor: Vendor | None, accelerator: Accelerator | None) -> tuple[int, int] | None:
        stated = self.field("computeCapability", _capability, default=None)
        if isinstance(accelerator, Card):
            if stated not in {None, accelerator.compute_capability}:
                known = ".".join(map(str, accelerator.compute_capability))
                self.fault("computeCapability", f"{accelerator.name} has {known}; leave it out")
            return accelerator.compute_capability
        if vendor is Vendor.NVIDIA and accelerator is None and "computeCapability" not in self.body:
            self.fault("computeCapability", 'the product is not in the catalogue: such as "9.0"')
        return stated

    def _memory(self, accelerator: Accelerator | None, profile: Profile | None) -> Memory | None:
        stated = self.field("memory", _bytes, default=0) or 0
        if accelerator is None and not stated and "memory" not in self.body:
            self.fault(
                "memory", "the product is not in the catalogue: the memory of one device, such as 80Gi"
            )
        if profile is not None:
            found = instance_memory(accelerator, profile=profile, reported_bytes=stated)
        else:
            found = device_memory(accelerator, reported_bytes=stated)
        if found is not None and found.doubt:
            self.fault("memory", found.doubt)
        return found

    def _sharing(self) -> tuple[Sharing, int]:
        body = self.body.get("sharing")
        if body is None:
            return Sharing.NONE, 1
        if not isinstance(body, Mapping) or set(body) != {"mode", "clients"}:
            self.fault("sharing", f"it must be {{mode: {_names(_MODES)}, clients: N}}")
            return Sharing.NONE, 1
        mode = next((each for each in _MODES if each == body["mode"]), None)
        if mode is None:
            self.fault("sharing.mode", f"it must be {_names(_MODES)}")
        clients = body["clients"]
        if not _is_whole(clients) or clients < 2:
            self.fault("sharing.clients", "it must be a whole number from 2")
            clients = 1
        return mode or Sharing.NONE, clients

    def field(self, name: str, read: Callable[[Any], T], *, default: T | None = None) -> T | None:
        """A field's value; what `read` raises about it is noted. Without a default it must be there."""
        if name not in self.body:
            if default is None and name in {"product", "nodes", "devicesPerNode", "nodeCPU", "nodeMemory"}:
                self.fault(name, "it is missing")
            return default
        try:
            return read(self.body[name])
        except ValueError as error:
            self.fault(name, str(error))
            return None

    def fault(self, name: str, message: str) -> None:
        """Note what is wrong with a field."""
        self.faults.append(f"{self.path}{'.' if name else ''}{name}: {message}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("it must be a text that is not empty")
    return value


def _count(value: Any) -> int:
    if not _is_whole(value) or not 1 <= value <= 100_000:
        raise ValueError("it must be a whole number from 1")
    return int(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _cores(value: Any) -> int:
    return _positive(value, quantities.milli_cores, "a number of CPUs, such as 96 or 95500m")


def _bytes(value: Any) -> int:
    return _positive(value, quantities.whole_bytes, "an amount of memory, such as 80Gi")


def _positive(value: Any, read: Callable[[Any], int], what: str) -> int:
    try:
        amount = read(value) if not isinstance(value, bool) and quantities.quantity(value) < 2**63 else 0
    except (ValueError, ArithmeticError):
        amount = 0
    if amount <= 0:
        raise ValueError(f"it must be {what}")
    return amount


def _labels(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(
        isinstance(part, str) for pair in value.items() for part in pair
    ):
        raise ValueError("it must be labels, each with a text (quote numbers)")
    return dict(value)


def _profile(value: Any) -> Profile | None:
    profile = read_profile(value) if isinstance(value, str) else None
    if profile is None or profile.part:
        raise ValueError("it must be a MIG profile, such as 1g.10gb")
    return profile


def _vendor(value: Any) -> Vendor | None:
    found = next((each for each in _VENDORS if each == value), None)
    if found is None:
        raise ValueError(f"it must be one of {_names(_VENDORS)}")
    return found


def _capability(value: Any) -> tuple[int, int] | None:
    match = re.fullmatch("([0-9]{1,2})\\.([0-9])", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('it must be a quoted version, such as "9.0"')
    return int(match[1]), int(match[2])


def _names(values: Sequence[str]) -> str:
    return ", ".join(values[:-1]) + f" or {values[-1]}"
