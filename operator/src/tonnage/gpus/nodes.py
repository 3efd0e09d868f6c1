"""Nodes as plain records, read from the API by `tonnage.cluster`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """A node taint; `effect` is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """A pod toleration, with the meaning Kubernetes gives it."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node. Memory in bytes, CPU in thousandths of a core; what is allocatable pods may request.

    `capacity` and `allocatable` are of its extended resources, whole numbers by name. A device plugin takes a
    device that is not healthy out of the second only.
    """

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    ready: bool
    schedulable: bool
    memory_capacity_bytes: int
    memory_allocatable_bytes: int
    cpu_allocatable_millis: int
    capacity: Mapping[str, int] = field(default_factory=dict)
    allocatable: Mapping[str, int] = field(default_factory=dict)
