"""What the operator knows: a copy of the API server's objects, fed by watches, read by reconcile."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from tonnage.cluster.port import CHILDREN, LLM_DEPLOYMENT, POD, Kind, Object
from tonnage.cluster.records import pod_record
from tonnage.control.packing import pack, unpack
from tonnage.control.queue import Key
from tonnage.rendering.names import DEPLOYMENT, MODEL, REFRESH_MODEL, REPLAN
from tonnage.rendering.observations import Pod

V = TypeVar("V")

Intent = tuple[object, ...]

MAX_TOMBSTONES = 4096


@dataclass(frozen=True, slots=True)
class Packed:
    """An object as it is kept, without its managedFields; `model` is the model in its label."""

    version: str
    model: str
    data: bytes

    def unpack(self) -> Object:
        """A copy of the object."""
        body: Object = unpack(self.data)
        return body


def packed_object(body: Object) -> Packed:
    """Pack an object."""
    meta = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    return Packed(version=_version(body), model=_model(body), data=pack({**body, "metadata": meta}))


class Objects(Mapping[Key, Object]):
    """LLMDeployments by key; reading one unpacks it."""

    def __init__(self) -> None:
        self._packed: dict[Key, Packed] = {}
        self._intents: dict[Key, Intent] = {}

    def __getitem__(self, key: Key) -> Object:
        return self._packed[key].unpack()

    def __iter__(self) -> Iterator[Key]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, key: object) -> bool:
        return key in self._packed

    def version(self, key: Key) -> str | None:
        """resourceVersion of an object; None if it is not known."""
        packed = self._packed.get(key)
        return packed.version if packed is not None else None

    def versions(self) -> list[tuple[Key, str]]:
        """resourceVersions of all objects."""
        return [(key, packed.version) for key, packed in self._packed.items()]

    def intent(self, key: Key) -> Intent | None:
        """What the user wants of an object; None if it is not known."""
        return self._intents.get(key)

    def put(self, key: Key, body: Object) -> None:
        """Keep an object."""
        self._packed[key] = packed_object(body)
        self._intents[key] = _intent(body)

    def drop(self, key: Key) -> None:
        """Forget an object."""
        self._packed.pop(key, None)
        self._intents.pop(key, None)


class Index(Generic[V]):
    """Values of one kind by owner and name, so that a pass costs its own children only."""

    def __init__(self) -> None:
        self._owned: defaultdict[Key, dict[str, V]] = defaultdict(dict)
        self._owners: dict[tuple[str, str], Key] = {}

    def of(self, owner: Key) -> Mapping[str, V]:
        """What `owner` has, by name."""
        return self._owned.get(owner, {})

    def put(self, owner: Key, name: str, value: V) -> bool:
        """Store a value; False if it was there already, equal."""
        if self._owned[owner].get(name) == value:
            return False
        self._owned[owner][name] = value
        self._owners[owner[0], name] = owner
        return True

    def owner_of(self, namespace: str, name: str) -> Key | None:
        """Whose the object of that name is, as last seen."""
        return self._owners.get((namespace, name))

    def drop(self, owner: Key, name: str) -> None:
        """Forget a value."""
        entries = self._owned.get(owner, {})
        entries.pop(name, None)
        self._owners.pop((owner[0], name), None)
        if not entries:
            self._owned.pop(owner, None)

    def __len__(self) -> int:
        return len(self._owners)

    def names(self) -> list[tuple[Key, str]]:
        """Owner and name of everything stored."""
        return [(owner, name) for owner, entries in self._owned.items() for name in entries]


class Tombstones:
    """Versions at which objects were deleted, so that a late answer or event does not bring one back."""

    def __init__(self) -> None:
        self._versions: dict[tuple[Kind, Key, str], str] = {}

    def add(self, kind: Kind, owner: Key, name: str, version: str) -> None:
        """An object was deleted at this resourceVersion; the oldest entries are forgotten."""
        self._versions.pop((kind, owner, name), None)
        self._versions[kind, owner, name] = version
        while len(self._versions) > MAX_TOMBSTONES:
            del self._versions[next(iter(self._versions))]

    def cover(self, kind: Kind, owner: Key, name: str, body: Object) -> bool:
        """Is `body` older than the deletion of its name?"""
        deleted = self._versions.get((kind, owner, name))
        return deleted is not None and not _follows(_version(body), deleted)

    def clear(self, kind: Kind, *, namespace: str, version: str) -> None:
        """A list at `version`, of one namespace if it is named, is the truth; "" is later than everything."""
        self._versions = {
            entry: deleted
            for entry, deleted in self._versions.items()
            if entry[0] != kind
            or namespace not in ("", entry[1][0])
            or (version and _follows(deleted, version))
        }


class Store:
    """Objects by key.

    `touched` is called with the key of each LLMDeployment that a change concerns, and whether it is a user's.
    """

    def __init__(self, *, touched: Callable[[Key, bool], None]) -> None:
        self.objects = Objects()
        self._pods: Index[Pod] = Index()
        self._children: dict[Kind, Index[Packed]] = {kind: Index() for kind in CHILDREN}
        self._of_model: defaultdict[tuple[Kind, str, str], set[tuple[Key, str]]] = defaultdict(set)
        self._tombstones = Tombstones()
        self._changes: dict[Key, int] = {}
        self._numbers = itertools.count(1)
        self._on_touched = touched

    def touch(self, key: Key, *, first: bool = False) -> None:
        """Something was learnt that concerns this LLMDeployment: it wants a pass, soon if the user did it."""
        if key in self.objects:
            self._changes[key] = next(self._numbers)
        else:
            self._changes.pop(key, None)
        self._on_touched(key, first)

    def changes(self, key: Key) -> int:
        """The number of the last thing learnt of an object; no two are the same."""
        return self._changes.get(key, 0)

    def has_pod(self, namespace: str, name: str) -> bool:
        """Is a pod of this name known to be one of an LLMDeployment?"""
        return self._pods.owner_of(namespace, name) is not None

    def pod_count(self) -> int:
        """Pods of all LLMDeployments."""
        return len(self._pods)

    # fed by reflectors

    def replace(self, kind: Kind, objects: list[Object], *, namespace: str = "", version: str) -> None:
        """These are all objects of the kind, of one namespace if it is named: what is missing was deleted.

        What is known to be newer than the list (the answer to a write of ours) stays, unless `version` is "".
        """
        self._tombstones.clear(kind, namespace=namespace, version=version)
        if kind == LLM_DEPLOYMENT:
            self._replace_objects(objects, namespace=namespace, version=version)
            return
        fresh = {(_owner(body), body["metadata"]["name"]) for body in objects}
        for owner, name in self._index(kind).names():
            if namespace not in ("", owner[0]) or (owner, name) in fresh:
                continue
            if not self._outlives(kind, owner, name, version=version):
                self._drop(kind, owner, name)
        for body in objects:
            if kind == POD or not version or self._is_news(kind, body):
                self._take(kind, body)

    def put(self, kind: Kind, body: Object) -> None:
        """An object was added or changed; what is older than what is known is ignored."""
        if kind == LLM_DEPLOYMENT:
            is_new = _key(body) not in self.objects
            if self.absorb_object(body):
                self.touch(_key(body), first=is_new)
        elif kind == POD or self._is_news(kind, body):
            self._take(kind, body)

    def remove(self, kind: Kind, body: Object) -> None:
        """An object was deleted; a younger one of the same name stays."""
        name = body["metadata"]["name"]
        if kind == LLM_DEPLOYMENT:
            self._remove_object(body)
            return
        owner = self._index(kind).owner_of(body["metadata"]["namespace"], name) or _owner(body)
        self._tombstones.add(kind, owner, name, _version(body))
        known = None if kind == POD else self._child_version(owner, kind, name)
        if known is None or not _follows(known, _version(body)):
            self._drop(kind, owner, name)

    # fed by our own writes

    def absorb_object(self, body: Object) -> bool:
        """An LLMDeployment as it stands after our own write; False if something newer is known already."""
        key = _key(body)
        if self._tombstones.cover(LLM_DEPLOYMENT, key, key[1], body):
            return False
        if not _newer(body, than=self.objects.version(key)):
            return False
        known = self.objects.intent(key)
        self.objects.put(key, body)
        if known is not None and _intent(body) != known:
            # also where the answer to our write holds an edit, whose own event will be no news
            self.touch(key, first=True)
        return True

    def drop_object(self, key: Key, *, uid: str) -> None:
        """An LLMDeployment that a request did not find any more; a younger one of the same name stays."""
        known = self.objects.get(key)
        if known is not None and known["metadata"]["uid"] == uid:
            self.objects.drop(key)

    def absorb(self, kind: Kind, body: Object) -> None:
        """A child as it stands after our own write: known, and no reason for another pass."""
        if self._is_news(kind, body):
            self._keep(kind, body)

    # what reconcile reads

    def children(self, key: Key, kind: Kind) -> list[Object]:
        """Everything of one kind that is labelled as made for `key`."""
        return [packed.unpack() for packed in self._children[kind].of(key).values()]

    def child(self, key: Key, kind: Kind, name: str) -> Object | None:
        """One child, as last seen."""
        packed = self._children[kind].of(key).get(name)
        return packed.unpack() if packed is not None else None

    def of_model(self, kind: Kind, *, namespace: str, model: str) -> list[tuple[Key, Object]]:
        """Children of any object of the namespace that carry the label of a model, with their owners."""
        return [
            (owner, self._children[kind].of(owner)[name].unpack())
            for owner, name in sorted(self._of_model.get((kind, namespace, model), ()))
        ]

    def pods(self, key: Key) -> list[Pod]:
        """Pods labelled as made for `key`, by name."""
        return [pod for _, pod in sorted(self._pods.of(key).items())]

    def _replace_objects(self, objects: list[Object], *, namespace: str, version: str) -> None:
        fresh = {_key(body) for body in objects}
        for key, known in self.objects.versions():
            if namespace not in ("", key[0]):
                continue
            if not version or (key not in fresh and not _follows(known, version)):
                self.objects.drop(key)
                self.touch(key)
        for body in objects:
            self.put(LLM_DEPLOYMENT, body)

    def _remove_object(self, body: Object) -> None:
        key = _key(body)
        self._tombstones.add(LLM_DEPLOYMENT, key, key[1], _version(body))
        known = self.objects.version(key)
        if known is None or not _follows(known, _version(body)):
            self.objects.drop(key)
            self.touch(key)

    def _outlives(self, kind: Kind, owner: Key, name: str, *, version: str) -> bool:
        """Is a child that a list does not hold newer than the list? Pods are told of by the watch alone."""
        known = None if kind == POD or not version else self._child_version(owner, kind, name)
        return known is not None and _follows(known, version)

    def _is_news(self, kind: Kind, body: Object) -> bool:
        owner, name = _owner(body), body["metadata"]["name"]
        if self._tombstones.cover(kind, owner, name, body):
            return False
        return _newer(body, than=self._child_version(owner, kind, name))

    def _child_version(self, owner: Key, kind: Kind, name: str) -> str | None:
        packed = self._children[kind].of(owner).get(name)
        return packed.version if packed is not None else None

    def _take(self, kind: Kind, body: Object) -> None:
        if self._keep(kind, body):
            self.touch(_owner(body))

    def _keep(self, kind: Kind, body: Object) -> bool:
        owner, name = _owner(body), body["metadata"]["name"]
        before = self._index(kind).owner_of(owner[0], name)
        if before is not None and before != owner:
            self._drop(kind, before, name)  # its label was edited
        if kind == POD:
            return self._pods.put(owner, name, pod_record(body))
        self._label(kind, owner, name, _model(body))
        return self._children[kind].put(owner, name, packed_object(body))

    def _index(self, kind: Kind) -> Index[Pod] | Index[Packed]:
        return self._pods if kind == POD else self._children[kind]

    def _label(self, kind: Kind, owner: Key, name: str, new: str) -> None:
        """Note the model in the label of a child as it is now, "" where it is gone."""
        before = None if kind == POD else self._children[kind].of(owner).get(name)
        old = before.model if before is not None else ""
        if old and old != new:
            members = self._of_model[kind, owner[0], old]
            members.discard((owner, name))
            if not members:
                del self._of_model[kind, owner[0], old]
        if new:
            self._of_model[kind, owner[0], new].add((owner, name))

    def _drop(self, kind: Kind, owner: Key, name: str) -> None:
        self._label(kind, owner, name, "")
        self._index(kind).drop(owner, name)
        self.touch(owner)


def _key(body: Object) -> Key:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _owner(body: Object) -> Key:
    meta = body["metadata"]
    return meta["namespace"], meta.get("labels", {}).get(DEPLOYMENT, "")


def _model(body: Object) -> str:
    return str(body["metadata"].get("labels", {}).get(MODEL, ""))


def _intent(body: Object) -> Intent:
    """What a user changes of an object: a status write changes none of it."""
    meta = body["metadata"]
    asked = meta.get("annotations", {})
    stated = (meta.get(name) for name in ("uid", "generation", "deletionTimestamp"))
    return (*stated, asked.get(REFRESH_MODEL), asked.get(REPLAN))


def _version(body: Object) -> str:
    return str(body["metadata"].get("resourceVersion", ""))


def _newer(body: Object, *, than: str | None) -> bool:
    """Does `body` follow the version that is known, also where it is another object of the same name?"""
    return than is None or _follows(_version(body), than)


def _follows(version: str, known: str) -> bool:
    """resourceVersions of one kind are ordered integers (guaranteed since Kubernetes 1.35)."""
    if version.isdigit() and known.isdigit():
        return int(version) > int(known)
    return version != known
