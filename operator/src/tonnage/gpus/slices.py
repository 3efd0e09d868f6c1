"""Dynamic Resource Allocation as plain records (`resource.k8s.io/v1`), read by `tonnage.cluster`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tonnage.gpus.nodes import Taint


class DeviceRef(NamedTuple):
    """What names a device in the whole cluster."""

    driver: str
    pool: str
    device: str


class Counter(NamedTuple):
    """An amount of one counter of one counter set (KEP-4815, partitionable devices)."""

    counter_set: str
    counter: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of a slice. `attributes` and `capacity` are by name without the driver's own domain;
    attributes as text, versions as the API has them (9.0.0), capacity as whole numbers."""

    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    capacity: Mapping[str, int] = field(default_factory=dict)
    consumes: tuple[Counter, ...] = ()
    taints: tuple[Taint, ...] = ()
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSlice:
    """A part of a driver's pool. `node` is empty where its devices are not of one node.

    Of a pool only the newest `generation` counts, and only when all its `slices_in_pool` are there.
    """

    name: str
    driver: str
    pool: str
    generation: int = 0
    slices_in_pool: int = 1
    node: str = ""
    devices: tuple[Device, ...] = ()
    counters: tuple[Counter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceClaim:
    """The devices that are allocated to a claim, except for administrative access, which takes none.

    `deployment` is the LLMDeployment in the claim's namespace whose pods use it, or empty.
    """

    namespace: str
    name: str
    devices: tuple[DeviceRef, ...] = ()
    deployment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClass:
    """A device class; that it is there is all that matters."""

    name: str
