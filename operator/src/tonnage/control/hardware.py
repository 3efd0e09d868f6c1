"""What the operator knows of the cluster's hardware: slim records fed by watches, read as one value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from tonnage.cluster.devices import claim_record, class_record, slice_record
from tonnage.cluster.port import (
    DEVICE_CLASS,
    NODE,
    POD,
    PRIORITY_CLASS,
    RESOURCE_CLAIM,
    RESOURCE_SLICE,
    Kind,
    Object,
)
from tonnage.cluster.records import node_record, pod_use, priority_record
from tonnage.control.queue import Key
from tonnage.control.store import Store
from tonnage.gpus.inventory import Inventory
from tonnage.gpus.nodes import Node
from tonnage.gpus.pods import FINISHED, PodUse, PriorityClass
from tonnage.gpus.records import Records
from tonnage.rendering.names import MANAGED_BY, MANAGER

_READERS: Final[Mapping[Kind, Callable[[Object], Any]]] = {
    NODE: node_record,
    POD: pod_use,
    RESOURCE_SLICE: slice_record,
    RESOURCE_CLAIM: claim_record,
    DEVICE_CLASS: class_record,
    PRIORITY_CLASS: priority_record,
}
KINDS: Final = tuple(_READERS)
_HOLDING: Final = frozenset({POD, RESOURCE_CLAIM})


class Hardware:
    """Nodes, what pods take of them, devices and claims, priorities.

    `changes` counts how often one differed from before; `changed` is called where that may have made room for
    those who wait. A pod that takes its place makes none.
    """

    def __init__(self, *, changed: Callable[[], None]) -> None:
        self.changes = 0
        self._kept: dict[Kind, dict[Key, Any]] = {kind: {} for kind in KINDS}
        self._changed = changed
        self._records: Records | None = None
        self._devices: Inventory | None = None
        self._bound: Counter[tuple[Key, str]] | None = None

    # fed by reflectors

    def replace(self, kind: Kind, objects: Iterable[Object], *, namespace: str = "", version: str) -> None:
        """These are all objects of the kind, of one namespace if it is named. `version` does not matter: the
        watch tells what is newer than the list again."""
        others = {
            key: record for key, record in self._kept[kind].items() if namespace and key[0] != namespace
        }
        read = ((_key(body), _READERS[kind](body)) for body in objects)
        fresh = {**others, **{key: record for key, record in read if _counts(record)}}
        if fresh != self._kept[kind]:
            self._kept[kind] = fresh
            self._note(kind)

    def put(self, kind: Kind, body: Object) -> None:
        """An object was added or changed."""
        record, before = _READERS[kind](body), self._kept[kind].get(_key(body))
        if not _counts(record):
            self.remove(kind, body)
        elif before != record:
            self._kept[kind][_key(body)] = record
            self._note(kind, makes_room=kind != POD or before is not None)

    def remove(self, kind: Kind, body: Object) -> None:
        """An object was deleted."""
        if self._kept[kind].pop(_key(body), None) is not None:
            self._note(kind)

    def _note(self, kind: Kind, *, makes_room: bool = True) -> None:
        self.changes += 1
        self._records = self._bound = None
        if kind not in _HOLDING:
            self._devices = None
        if makes_room:
            self._changed()

    # read by reconcile

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes as last seen."""
        return tuple(self._kept[NODE].values())

    @property
    def records(self) -> Records:
        """Everything that an inventory is taken from."""
        if self._records is None:
            self._records = Records(
                nodes=self.nodes,
                pods=tuple(self._kept[POD].values()),
                slices=tuple(self._kept[RESOURCE_SLICE].values()),
                claims=tuple(self._kept[RESOURCE_CLAIM].values()),
                classes=tuple(self._kept[DEVICE_CLASS].values()),
            )
        return self._records

    @property
    def devices(self) -> Inventory:
        """The pools of all nodes, whatever pods hold of them: of many pods none makes it be taken anew."""
        if self._devices is None:
            self._devices = replace(self.records, pods=(), claims=()).inventory()
        return self._devices

    def bound_pods(self, key: Key, *, plan_hash: str = "") -> int:
        """Workers of an LLMDeployment that have a node and stay there, by one plan or by any.

        One that leaves is none: what comes in its place needs devices of its own, and has none yet.
        """
        if self._bound is None:
            pods: Iterable[PodUse] = self._kept[POD].values()
            staying = [pod for pod in pods if pod.plan and not pod.leaving]
            self._bound = Counter(((pod.namespace, pod.deployment), pod.plan) for pod in staying)
            self._bound.update(((pod.namespace, pod.deployment), "") for pod in staying)
        return self._bound[key, plan_hash]

    def priority(self, name: str | None) -> int:
        """The value of a priority class, of the cluster's default one if no name is given; 0 if there is
        none, or it may not be read."""
        classes: Iterable[PriorityClass] = self._kept[PRIORITY_CLASS].values()
        found = (each for each in classes if (each.name == name if name else each.is_default))
        return max((each.value for each in found), default=0)


class Pods:
    """Where all pods go: what they take to the hardware, those of LLMDeployments to the store too."""

    def __init__(self, store: Store, hardware: Hardware) -> None:
        self._store, self._hardware = store, hardware

    def replace(self, kind: Kind, objects: Sequence[Object], *, namespace: str = "", version: str) -> None:
        """These are all pods, of one namespace if it is named."""
        ours = [body for body in objects if _is_ours(body)]
        self._store.replace(kind, ours, namespace=namespace, version=version)
        self._hardware.replace(kind, objects, namespace=namespace, version=version)

    def put(self, kind: Kind, body: Object) -> None:
        """A pod was added or changed, its labels perhaps."""
        if _is_ours(body):
            self._store.put(kind, body)
        else:
            self._forget(kind, body)
        self._hardware.put(kind, body)

    def remove(self, kind: Kind, body: Object) -> None:
        """A pod was deleted."""
        self._forget(kind, body)
        self._hardware.remove(kind, body)

    def _forget(self, kind: Kind, body: Object) -> None:
        if self._store.has_pod(*_key(body)):
            self._store.remove(kind, body)


def _is_ours(body: Object) -> bool:
    return bool(body["metadata"].get("labels", {}).get(MANAGED_BY) == MANAGER)


def _counts(record: Any) -> bool:
    """Does this take part? A pod without a node, or one that has finished, holds nothing."""
    return not isinstance(record, PodUse) or bool(record.node and record.phase not in FINISHED)


def _key(body: Object) -> Key:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]
