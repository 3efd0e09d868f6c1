"""Does a live object still say what we said? Only fields that we state are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tonnage.rendering.names import Manifest, short_hash

MISSING = "<missing>"
RENDERED = "tonnage.dev/rendered"
# element keys by which Kubernetes merges lists (k8s.io/api, patchMergeKey and listMapKey markers)
_MERGE_KEYS = ("name", "uid", "mountPath", "containerPort", "port", "key")


def stamped(desired: Manifest) -> Manifest:
    """`desired` with its own hash as an annotation.

    Comparing the fields that we state cannot see one that we no longer state; the hash does, also after a
    restart of the operator, and server-side apply then removes it.
    """
    meta = desired["metadata"]
    annotations = {**meta.get("annotations", {}), RENDERED: short_hash(desired)}
    return {**desired, "metadata": {**meta, "annotations": annotations}}


def projection(live: Any, *, desired: Any) -> Any:
    """The part of `live` that `desired` speaks of, in the shape of `desired`.

    Elements of a list are matched by their merge key where they have one, else by position; elements that
    others added are left out. Equal to `desired` exactly when nothing that we state differs.
    """
    if isinstance(desired, Mapping):
        if not isinstance(live, Mapping):
            return MISSING
        return {name: projection(live.get(name, MISSING), desired=value) for name, value in desired.items()}
    if isinstance(desired, list):
        return _list_projection(live, desired=desired)
    return live


def _list_projection(live: Any, *, desired: Sequence[Any]) -> Any:
    if not isinstance(live, list):
        return MISSING
    merge_key = _merge_key(desired)
    if merge_key is None:
        # a plain list is ours as a whole: a different length is a difference
        if len(live) != len(desired):
            return live
        return [projection(one, desired=want) for one, want in zip(live, desired, strict=True)]
    by_key = {one.get(merge_key): one for one in live if isinstance(one, Mapping)}
    return [projection(by_key.get(want[merge_key], MISSING), desired=want) for want in desired]


def _merge_key(desired: Sequence[Any]) -> str | None:
    if not desired or not all(isinstance(one, Mapping) for one in desired):
        return None
    return next((key for key in _MERGE_KEYS if all(key in one for one in desired)), None)
