"""What the cluster has, as plain records: one per node, read from the API by `tonnage.cluster`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
    """One node. Memory in bytes, CPU in thousandths of a core; `allocatable` is what pods may request."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    ready: bool
    schedulable: bool
    memory_capacity_bytes: int
    memory_allocatable_bytes: int
    cpu_allocatable_millis: int
