"""Does a live object still say what we said? Only fields that we state are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tonnage.rendering.names import Manifest, short_hash

MISSING = "<missing>"
RENDERED = "tonnage.dev/rendered"
# lists whose elements the API server tells apart by keys (listMapKey markers of k8s.io/api); Services key
# their ports by port, containers by containerPort. All other lists are taken as a whole.
_LIST_KEYS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "claims": (("name",),),
    "containers": (("name",),),
    "env": (("name",),),
    "imagePullSecrets": (("name",),),
    "ownerReferences": (("uid",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "resourceClaims": (("name",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "volumeMounts": (("mountPath",),),
    "volumes": (("name",),),
}


def stamped(desired: Manifest) -> Manifest:
    """`desired` with its own hash as an annotation.

    Comparing the fields that we state cannot see one that we no longer state; the hash does, also after a
    restart of the operator, and server-side apply then removes it.
    """
    meta = desired["metadata"]
    annotations = {**meta.get("annotations", {}), RENDERED: short_hash(desired)}
    return {**desired, "metadata": {**meta, "annotations": annotations}}


def projection(live: Any, *, desired: Any, field: str = "") -> Any:
    """The part of `live` that `desired` speaks of, in the shape of `desired`.

    Elements of a list in `field` are matched by their keys where Kubernetes merges that list, else by
    position; elements that others added are left out. Equal to `desired` exactly when nothing that we state
    differs.
    """
    if isinstance(desired, Mapping):
        if not isinstance(live, Mapping):
            return MISSING
        return {
            name: projection(live.get(name, MISSING), desired=value, field=name)
            for name, value in desired.items()
        }
    if isinstance(desired, list):
        return _list_projection(live, desired=desired, field=field)
    return live


def _list_projection(live: Any, *, desired: Sequence[Any], field: str) -> Any:
    if not isinstance(live, list):
        return MISSING
    keys = _keys_of(field, desired)
    if keys is None:
        # a plain list is ours as a whole: a different length is a difference
        if len(live) != len(desired):
            return live
        return [projection(one, desired=want) for one, want in zip(live, desired, strict=True)]
    by_keys = {_identity(one, keys): one for one in live if isinstance(one, Mapping)}
    return [projection(by_keys.get(_identity(want, keys), MISSING), desired=want) for want in desired]


def _keys_of(field: str, desired: Sequence[Any]) -> tuple[str, ...] | None:
    """The keys that we state of all elements of a list; None for a list that is taken as a whole."""
    if not desired or not all(isinstance(one, Mapping) for one in desired):
        return None
    for keys in _LIST_KEYS.get(field, ()):
        stated = tuple(key for key in keys if all(key in one for one in desired))
        if keys[0] in stated:
            return stated
    return None


def _identity(element: Mapping[str, Any], keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(element.get(key) for key in keys)
