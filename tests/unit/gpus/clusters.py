"""Clusters for tests: objects as the API has them, and the records that are read of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tonnage.cluster.devices import claim_record, class_record, slice_record
from tonnage.cluster.records import node_record
from tonnage.gpus.inventory import Inventory, Pool
from tonnage.gpus.nodes import Node, Taint
from tonnage.gpus.pods import PodUse
from tonnage.gpus.records import Records

DATA = Path(__file__).parents[2] / "data" / "accelerators.yaml"
GPU = "nvidia.com/gpu"


@cache
def bodies() -> tuple[Mapping[str, Any], ...]:
    """The objects of tests/data/accelerators.yaml."""
    return tuple(yaml.safe_load_all(DATA.read_text()))


def body(kind: str, name: str) -> dict[str, Any]:
    """A copy of the object of this kind and name."""
    (found,) = (each for each in bodies() if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return copy.deepcopy(dict(found))


@cache
def real() -> Records:
    """The records of tests/data/accelerators.yaml."""
    return read(bodies())


def read(objects: Iterable[Mapping[str, Any]]) -> Records:
    """Records of objects as the API has them."""
    found: dict[str, list[Any]] = {"Node": [], "ResourceSlice": [], "ResourceClaim": [], "DeviceClass": []}
    readers = {
        "Node": node_record,
        "ResourceSlice": slice_record,
        "ResourceClaim": claim_record,
        "DeviceClass": class_record,
    }
    for each in objects:
        found[each["kind"]].append(readers[each["kind"]](each))
    return Records(
        nodes=tuple(found["Node"]),
        slices=tuple(found["ResourceSlice"]),
        claims=tuple(found["ResourceClaim"]),
        classes=tuple(found["DeviceClass"]),
    )


def node(name: str) -> Node:
    """The node of this name from the data."""
    return next(each for each in real().nodes if each.name == name)


def changed(
    name: str, *, resources: Mapping[str, int] | None = None, drop: Iterable[str] = (), **labels: str
) -> Node:
    """A node of the data with other labels: `gpu_count` stands for nvidia.com/gpu.count."""
    base = node(name)
    kept = {key: value for key, value in base.labels.items() if key not in set(drop)}
    new = {f"nvidia.com/{key.replace('_', '.')}": value for key, value in labels.items()}
    both = base.capacity if resources is None else resources
    return replace(base, labels={**kept, **new}, capacity=both, allocatable=both)


def plain(name: str = "x", *, labels: Mapping[str, str], resources: Mapping[str, int]) -> Node:
    """A node of nothing but labels and resources."""
    return Node(
        name=name,
        labels=labels,
        taints=(),
        ready=True,
        schedulable=True,
        memory_capacity_bytes=2**40,
        memory_allocatable_bytes=2**40,
        cpu_allocatable_millis=96_000,
        capacity=resources,
        allocatable=resources,
    )


def holder(on: str, count: int = 1, *, name: str = "p", resource: str = GPU, **fields: Any) -> PodUse:
    """A running pod that holds devices of a node."""
    base = {"namespace": "ns", "name": name, "phase": "Running", "node": on, "resources": {resource: count}}
    return PodUse(**{**base, **fields})


def pool(inventory: Inventory, name: str) -> Pool:
    """The pool of this name."""
    return next(each for each in inventory.pools if each.name == name)


def reasons(inventory: Inventory) -> dict[str, list[str]]:
    """Reasons of the problems, by node."""
    found: dict[str, list[str]] = {}
    for each in inventory.problems:
        found.setdefault(each.node, []).append(each.reason)
    return found


def tainted(base: Node, *taints: Taint) -> Node:
    """A node with these taints only."""
    return replace(base, taints=taints)
