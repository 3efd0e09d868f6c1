"""Writing children: only what differs, only what is ours, only for an owner that still exists."""

from __future__ import annotations

from tonnage.api.base import KIND
from tonnage.cluster.port import LLM_DEPLOYMENT, ApiError, Kind, Object
from tonnage.control.world import Applied, Pass, World
from tonnage.rendering.drift import projection, stamped
from tonnage.rendering.names import Manifest, short_hash

INVALID = 422


class ConflictError(Exception):
    """An object of that name exists and is not ours; it was left alone."""


class OwnerGoneError(Exception):
    """The LLMDeployment was deleted meanwhile: nothing was made for it."""


async def apply_child(p: Pass, world: World, kind: Kind, desired: Manifest) -> bool:
    """Bring one child to `desired` if it differs; True if something was written.

    Raises ConflictError if the name belongs to somebody else, OwnerGoneError if the owner no longer exists.
    """
    desired = stamped(desired)
    name = desired["metadata"]["name"]
    live = world.store.child(p.key, kind, name)
    if live is not None and _settled(p, kind, desired=desired, live=live):
        return False
    if live is None or not _is_ours(live, p):
        await _check_free(p, world, kind, name)
    stored = await _apply(world, kind, desired, exists=live is not None)
    p.memory.applied[kind, name] = Applied(
        desired_hash=short_hash(desired), accepted=projection(stored, desired=desired)
    )
    world.store.absorb(kind, stored)
    return True


async def _apply(world: World, kind: Kind, desired: Manifest, *, exists: bool) -> Object:
    """Server-side apply. Where an edit by hand makes that invalid, our fields are written over it first.

    Apply adds to a list that others changed: a Service with an edited port would hold two of one name.
    """
    try:
        return await world.cluster.apply(kind, desired)
    except ApiError as error:
        if error.status != INVALID or not exists:
            raise
    await world.cluster.overwrite(kind, desired)
    return await world.cluster.apply(kind, desired)


def _settled(p: Pass, kind: Kind, *, desired: Manifest, live: Object) -> bool:
    """Nothing that we state differs, or it differs only by the API server's spelling of it."""
    seen = projection(live, desired=desired)
    if seen == desired:
        return True
    before = p.memory.applied.get((kind, desired["metadata"]["name"]))
    return before is not None and before.desired_hash == short_hash(desired) and before.accepted == seen


async def _check_free(p: Pass, world: World, kind: Kind, name: str) -> None:
    """Before making something: does its owner still exist, and is the name free or ours?"""
    owner = await world.cluster.get(LLM_DEPLOYMENT, namespace=p.owner.namespace, name=p.owner.name)
    if owner is None or owner["metadata"]["uid"] != p.owner.uid:
        raise OwnerGoneError(p.owner.name)
    found = await world.cluster.get(kind, namespace=p.owner.namespace, name=name)
    if found is not None and not _is_ours(found, p):
        raise ConflictError(
            f"{kind.kind} {name} exists and is not owned by {KIND} {p.owner.name}: "
            f"rename the LLMDeployment or delete the {kind.kind}"
        )


def _is_ours(body: Object, p: Pass) -> bool:
    references = body["metadata"].get("ownerReferences", ())
    return any(reference["uid"] == p.owner.uid for reference in references)


async def delete_child(p: Pass, world: World, kind: Kind, body: Object) -> None:
    """Delete one child of ours; anything else of that name is left alone."""
    if not _is_ours(body, p):
        return
    meta = body["metadata"]
    await world.cluster.delete(kind, namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])
    p.memory.applied.pop((kind, meta["name"]), None)
