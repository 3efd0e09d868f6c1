"""What the operator knows: a copy of the API server's objects, fed by watches, read by reconcile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from tonnage.cluster.port import CHILDREN, NODE, POD, Kind, Object
from tonnage.cluster.records import node_record, pod_record
from tonnage.control.queue import Key
from tonnage.gpus.nodes import Node
from tonnage.rendering.names import DEPLOYMENT
from tonnage.rendering.observations import Pod

V = TypeVar("V")


class Index(Generic[V]):
    """Values of one kind by owner and name, so that a pass costs its own children only."""

    def __init__(self) -> None:
        self._owned: defaultdict[Key, dict[str, V]] = defaultdict(dict)

    def of(self, owner: Key) -> Mapping[str, V]:
        """What `owner` has, by name."""
        return self._owned.get(owner, {})

    def put(self, owner: Key, name: str, value: V) -> bool:
        """Store a value; False if it was there already, equal."""
        if self._owned[owner].get(name) == value:
            return False
        self._owned[owner][name] = value
        return True

    def drop(self, owner: Key, name: str) -> None:
        """Forget a value."""
        entries = self._owned.get(owner, {})
        entries.pop(name, None)
        if not entries:
            self._owned.pop(owner, None)

    def names(self) -> list[tuple[Key, str]]:
        """Owner and name of everything stored."""
        return [(owner, name) for owner, entries in self._owned.items() for name in entries]


class Store:
    """Objects by key. `touched` is called with the key of each LLMDeployment that a change concerns."""

    def __init__(self, *, touched: Callable[[Key], None], nodes_changed: Callable[[], None]) -> None:
        self.objects: dict[Key, Object] = {}
        self.nodes: dict[str, Node] = {}
        self._pods: Index[Pod] = Index()
        self._children: dict[Kind, Index[Object]] = {kind: Index() for kind in CHILDREN}
        self._touched, self._nodes_changed = touched, nodes_changed

    # LLMDeployments, fed by kopf

    def put_object(self, body: Object) -> None:
        """An LLMDeployment as last seen; an event older than what is known is ignored."""
        key = body["metadata"]["namespace"], body["metadata"]["name"]
        if _newer(body, than=self.objects.get(key)):
            self.absorb_object(body)
            self._touched(key)

    def absorb_object(self, body: Object) -> None:
        """An LLMDeployment as it stands after our own write: known, and no reason for another pass."""
        meta = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
        self.objects[meta["namespace"], meta["name"]] = {**body, "metadata": meta}

    def remove_object(self, key: Key) -> None:
        """An LLMDeployment that is gone."""
        self.objects.pop(key, None)
        self._touched(key)

    # children, pods and nodes, fed by reflectors

    def replace(self, kind: Kind, objects: list[Object]) -> None:
        """These are all objects of the kind: what is missing was deleted."""
        if kind == NODE:
            self._replace_nodes(objects)
            return
        fresh = {(_owner(body), body["metadata"]["name"]) for body in objects}
        for owner, name in self._index(kind).names():
            if (owner, name) not in fresh:
                self._drop(kind, owner, name)
        for body in objects:
            self.put(kind, body)

    def put(self, kind: Kind, body: Object) -> None:
        """An object was added or changed."""
        if kind == NODE:
            node = node_record(body)
            self._replace_nodes_with({**self.nodes, node.name: node})
            return
        owner, name = _owner(body), body["metadata"]["name"]
        if kind == POD:
            changed = self._pods.put(owner, name, pod_record(body))
        else:
            changed = _newer(body, than=self.child(owner, kind, name))
            if changed:
                self.absorb(kind, body)
        if changed:
            self._touched(owner)

    def absorb(self, kind: Kind, body: Object) -> None:
        """A child as it stands after our own write: known, and no reason for another pass."""
        meta = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
        self._children[kind].put(_owner(body), meta["name"], {**body, "metadata": meta})

    def remove(self, kind: Kind, body: Object) -> None:
        """An object was deleted."""
        name = body["metadata"]["name"]
        if kind == NODE:
            self._replace_nodes_with({n: node for n, node in self.nodes.items() if n != name})
        else:
            self._drop(kind, _owner(body), name)

    # what reconcile reads

    def children(self, key: Key, kind: Kind) -> list[Object]:
        """Everything of one kind that is labelled as made for `key`."""
        return list(self._children[kind].of(key).values())

    def child(self, key: Key, kind: Kind, name: str) -> Object | None:
        """One child, as last seen."""
        return self._children[kind].of(key).get(name)

    def pods(self, key: Key) -> list[Pod]:
        """Pods labelled as made for `key`, by name."""
        return [pod for _, pod in sorted(self._pods.of(key).items())]

    def _index(self, kind: Kind) -> Index[Pod] | Index[Object]:
        return self._pods if kind == POD else self._children[kind]

    def _drop(self, kind: Kind, owner: Key, name: str) -> None:
        self._index(kind).drop(owner, name)
        self._touched(owner)

    def _replace_nodes(self, objects: list[Object]) -> None:
        self._replace_nodes_with({node.name: node for node in map(node_record, objects)})

    def _replace_nodes_with(self, nodes: dict[str, Node]) -> None:
        if nodes != self.nodes:
            self.nodes = nodes
            self._nodes_changed()


def _owner(body: Object) -> Key:
    meta = body["metadata"]
    return meta["namespace"], meta.get("labels", {}).get(DEPLOYMENT, "")


def _newer(body: Object, *, than: Object | None) -> bool:
    """Does `body` follow what is known? resourceVersions of one object are ordered integers since 1.35."""
    if than is None or than["metadata"]["uid"] != body["metadata"]["uid"]:
        return True
    version, known = body["metadata"]["resourceVersion"], than["metadata"]["resourceVersion"]
    if version.isdigit() and known.isdigit():
        return int(version) > int(known)
    return bool(version != known)
