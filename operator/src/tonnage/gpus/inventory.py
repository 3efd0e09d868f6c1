"""What planning knows of a cluster: pools of like accelerators, and what is free of them now.

A pool is a set of devices that one plan can use interchangeably: same product, same memory, same way to
ask for them, same sharing. All figures are of one device unless they say otherwise; memory is in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tonnage.gpus.cards import Vendor

__all__ = ["Access", "Inventory", "Pool", "PoolNode", "Problem", "Reason", "Sharing", "Vendor"]


class Access(StrEnum):
    """How a pod asks for a device: as an extended resource, by a ResourceClaim, or not at all (CPU)."""

    RESOURCE = "Resource"
    CLAIM = "Claim"
    NONE = "None"


class Sharing(StrEnum):
    """Whom a device is shared with.

    A MIG slice has its own memory; MPS clients have a fixed share of it; time-sliced clients see all of it,
    and nothing keeps one of them from taking it.
    """

    NONE = "None"
    MIG = "MIG"
    MPS = "MPS"
    TIME_SLICING = "TimeSlicing"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolNode:
    """One node's part of a pool: devices in all and free now, and what pods may still request beside them.

    A device that a bound pod holds is not free; nor is one that an accepted plan has reserved, once
    reservations were taken off; and none is where a pod would not get the CPU or memory that it requests.
    `ours` are those that pods of LLMDeployments hold, or will.
    """

    name: str
    devices: int
    free: int
    cpu_millis: int
    memory_bytes: int
    ours: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Like accelerators. `name` is made of what the devices are, never of nodes, and so outlives them.

    `memory_bytes` is what the engine sees as a device's total (CUDA-visible), on the safe side, and
    `memory_source` where that figure is from; with MPS it is one client's share, with time slicing the whole
    device. The pool of CPU nodes has 0 there: every node's own `memory_bytes` counts. `compute_capability` is
    None for everything but NVIDIA; `computes` are the formats, of bf16, fp8 and fp4, that the device has
    arithmetic for. `bandwidth_bytes` is a second's reads of device memory by the data sheet, of the physical
    device even where it is shared; 0 where not known. `resource` is the extended resource, or the device
    class, whose claim needs all of `selectors` (CEL) to get this product and no other. `clients` is how many
    pods share one physical device, 1 where none do. `node_labels` pin a pod to the pool's nodes.
    """

    name: str
    vendor: Vendor
    product: str
    memory_bytes: int
    memory_source: str
    access: Access
    resource: str
    selectors: tuple[str, ...] = ()
    compute_capability: tuple[int, int] | None = None
    computes: tuple[str, ...] = ()
    bandwidth_bytes: int = 0
    sharing: Sharing = Sharing.NONE
    mig_profile: str = ""
    clients: int = 1
    node_labels: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[PoolNode, ...] = ()

    @property
    def devices(self) -> int:
        """Devices in all, of all nodes."""
        return sum(node.devices for node in self.nodes)

    @property
    def free(self) -> int:
        """Devices free now, of all nodes."""
        return sum(node.free for node in self.nodes)

    @property
    def devices_per_pod(self) -> int:
        """How many devices one pod could use on the largest node, free or not.

        One of a shared or partitioned device: a process can use one MIG instance only ("MIG User Guide",
        CUDA device enumeration), and two shares may be of the same physical device (README of NVIDIA's
        k8s-device-plugin, shared access to GPUs).
        """
        if self.sharing is not Sharing.NONE:
            return min(1, self.devices)
        return max((node.devices for node in self.nodes), default=0)

    @property
    def free_on_one_node(self) -> int:
        """The most devices that one pod could be given now."""
        most = max((node.free for node in self.nodes), default=0)
        return most if self.sharing is Sharing.NONE else min(1, most)


class Reason(StrEnum):
    """Why a node or a part of it could not be used or believed; docs/inventory.md has the remedies."""

    NOT_READY = "NotReady"
    CORDONED = "Cordoned"
    NOT_SELECTED = "NotSelected"
    TAINTED = "Tainted"
    TOO_SMALL = "TooSmall"
    CROWDED = "Crowded"
    NO_PRODUCT_LABEL = "NoProductLabel"
    UNKNOWN_PRODUCT = "UnknownProduct"
    MIXED_PRODUCTS = "MixedProducts"
    FEWER_DEVICES = "FewerDevices"
    UNHEALTHY_DEVICES = "UnhealthyDevices"
    NO_DEVICES = "NoDevices"
    NOT_TOLD_APART = "NotToldApart"
    MEMORY_DOUBTFUL = "MemoryDoubtful"
    CONTRADICTION = "Contradiction"
    SHARING_UNKNOWN = "SharingUnknown"
    MIG_INVALID = "MigInvalid"
    MIG_SHARED = "MigShared"
    PARTITIONED = "Partitioned"
    OFFERED_TWICE = "OfferedTwice"
    NO_DEVICE_CLASS = "NoDeviceClass"
    DEVICE_TAINTED = "DeviceTainted"
    SLICES_INCOMPLETE = "SlicesIncomplete"
    NOT_OF_ONE_NODE = "NotOfOneNode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What could not be used or believed of a node: `reason` for programs, `message` for people.

    `of_accelerators` is False where the node has none.
    """

    node: str
    reason: Reason
    message: str
    of_accelerators: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All pools by name, and every node, or part of one, that is in none of them with the reason.

    `has_accelerators`: there are some, if only on nodes that cannot be used now.
    """

    pools: tuple[Pool, ...]
    problems: tuple[Problem, ...] = ()
    has_accelerators: bool = False
