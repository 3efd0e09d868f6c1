"""Writing children: only what differs, only what is ours, only for an owner that still exists."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from tonnage.api.base import KIND
from tonnage.cluster.port import (
    BY_KIND,
    CONFIG_MAP,
    LLM_DEPLOYMENT,
    RESOURCE_CLAIM_TEMPLATE,
    SERVICE,
    WORKLOADS,
    ApiError,
    Kind,
    Object,
)
from tonnage.control.world import Pass, Spelling, World
from tonnage.rendering.drift import projection, stamped
from tonnage.rendering.names import Manifest, owned_by, short_hash

ChildId = tuple[Kind, str]

# what workers of a plan need, made once for it; the field that cannot be changed
OF_PLANS: Mapping[Kind, str] = {CONFIG_MAP: "data", RESOURCE_CLAIM_TEMPLATE: "spec"}

CONFLICT = 409
INVALID = 422
# answers that repeating soon does not change: quota, admission, a spec that the API server does not take
REFUSALS = {400, 403, INVALID}


class RefusedError(Exception):
    """A child cannot be written as things stand: `reason` and the message become a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LeavingError(Exception):
    """A child of an LLMDeployment that had this name before is still being removed: try again soon."""


class OwnerGoneError(Exception):
    """The LLMDeployment was deleted meanwhile: nothing was made for it."""


def own_child(p: Pass, world: World, kind: Kind, name: str) -> Object | None:
    """A child of this object, as last seen; not one of an object that had its name before."""
    found = world.store.child(p.key, kind, name)
    return found if found is not None and is_ours(found, p) else None


def own_children(p: Pass, world: World, kind: Kind) -> list[Object]:
    """All children of one kind, with the same restriction."""
    return [body for body in world.store.children(p.key, kind) if is_ours(body, p)]


async def apply_children(p: Pass, world: World, desired: Sequence[Manifest]) -> None:
    """Bring children to `desired` where they differ: side by side, a workload after what its plan needs.

    Where a workload is not there yet it comes after all others, once each has its name: workers that nobody
    could reach would hold GPUs.
    Raises RefusedError if a name belongs to somebody else or the API server refuses what is written,
    OwnerGoneError if the owner no longer exists or its namespace ends, LeavingError if a name is not free
    yet, and ApiError. One that fails keeps none beside it from being written.
    """
    live = {child_id(body): own_child(p, world, _kind(body), body["metadata"]["name"]) for body in desired}
    if any(body is None and child in p.memory.applied for child, body in live.items()):
        await _require_owner(p, world)

    def applied(body: Manifest, *, after: Sequence[asyncio.Task[None]] = ()) -> asyncio.Task[None]:
        return asyncio.create_task(_apply_after(after, p, world, body, live=live[child_id(body)]))

    workloads = [body for body in desired if _kind(body) in WORKLOADS]
    makes_workers = any(live[child_id(body)] is None for body in workloads)
    work = {child_id(body): applied(body) for body in desired if _kind(body) not in WORKLOADS}
    needed = [task for child, task in work.items() if makes_workers or child[0] in OF_PLANS]
    workers = [applied(body, after=needed) for body in workloads]
    for result in await asyncio.gather(*work.values(), *workers, return_exceptions=True):
        if result is not None:
            raise result


async def _apply_after(
    needed: Sequence[asyncio.Task[None]], p: Pass, world: World, desired: Manifest, *, live: Object | None
) -> None:
    await asyncio.gather(*needed)
    await _apply_child(p, world, desired, live=live)


async def _require_free(p: Pass, world: World, body: Manifest) -> None:
    kind, name = child_id(body)
    _require_ours(p, kind, name, await world.cluster.get(kind, namespace=p.owner.namespace, name=name))


async def _require_owner(p: Pass, world: World) -> None:
    """A child that we wrote is gone: with its owner perhaps, and nobody told us."""
    owner = await world.cluster.get(LLM_DEPLOYMENT, namespace=p.owner.namespace, name=p.owner.name)
    if owner is None or owner["metadata"]["uid"] != p.owner.uid:
        raise OwnerGoneError(p.owner.name)


async def _apply_child(p: Pass, world: World, desired: Manifest, *, live: Object | None) -> None:
    kind, name = child_id(desired)
    fixed = OF_PLANS.get(kind)
    if fixed is not None and live is not None and live.get(fixed):
        # immutable: the plan was written once, perhaps by another version of the operator
        desired = {**desired, fixed: live[fixed]}
    desired = stamped(desired)
    if live is not None and _settled(p, kind, desired=desired, live=live):
        world.store.absorb(kind, live)
        return
    stored = await _write(p, world, kind, desired, exists=live is not None)
    p.memory.applied[kind, name] = _spelling(desired, seen=projection(stored, desired=desired))
    world.store.absorb(kind, stored)


def _kind(body: Manifest) -> Kind:
    return BY_KIND[body["kind"]]


def child_id(body: Manifest) -> ChildId:
    """Kind and name of a child, live or rendered."""
    return _kind(body), body["metadata"]["name"]


async def _write(p: Pass, world: World, kind: Kind, desired: Manifest, *, exists: bool) -> Object:
    try:
        if not exists:
            return await _make(p, world, kind, desired)
        return await _apply_over_edits(world, kind, desired)
    except ApiError as error:
        if error.status not in REFUSALS:
            raise
        if "being terminated" in error.message:
            raise OwnerGoneError(p.owner.name) from error  # the namespace goes, and everything in it
        what = f"{kind.kind} {desired['metadata']['name']}"
        raise RefusedError("ApplyRefused", f"{what} was refused: {error.message}") from error


async def _make(p: Pass, world: World, kind: Kind, desired: Manifest) -> Object:
    """Make a child that is not known to be there. If there is one all the same, it must be ours."""
    name = desired["metadata"]["name"]
    if world.store.child(p.key, kind, name) is None and (kind, name) not in p.memory.unheard:
        try:
            return await _make_new(world, kind, desired)
        except ApiError as error:
            if error.status != CONFLICT:
                # it may have been made all the same, and no watch has told of it yet
                p.memory.unheard.add((kind, name))
                raise
    # the name is taken: by one of ours that lost its labels, or that no watch has told of yet, perhaps
    await _require_free(p, world, desired)
    stored = await _apply_over_edits(world, kind, desired)
    p.memory.unheard.discard((kind, name))
    return stored


async def _make_new(world: World, kind: Kind, desired: Manifest) -> Object:
    """A workload is applied, so that a later apply removes what it no longer says; a Deployment's selector is
    in conflict with anybody else's, and a set's pods are in its name. The others say the same for good, and
    are in conflict with everything."""
    if kind in WORKLOADS:
        return await world.cluster.apply(kind, desired, force=False)
    return await world.cluster.create(kind, desired)


def _require_ours(p: Pass, kind: Kind, name: str, found: Object | None) -> None:
    """May an object of this name be written?"""
    if found is None or is_ours(found, p):
        return
    if any((r["kind"], r["name"]) == (KIND, p.owner.name) for r in _owners(found)):
        raise LeavingError(f"{kind.kind} {name}")
    raise RefusedError(
        "NameTaken",
        f"{kind.kind} {name} exists and is not owned by {KIND} {p.owner.name}: "
        f"rename the LLMDeployment or delete the {kind.kind}",
    )


async def _apply_over_edits(world: World, kind: Kind, desired: Manifest) -> Object:
    """Server-side apply. Where an edit by hand makes that invalid, our fields are written over it first.

    Apply adds to a list that others changed: a Service with an edited port would hold two of one name.
    """
    try:
        return await world.cluster.apply(kind, desired)
    except ApiError as error:
        if error.status != INVALID or kind != SERVICE:
            raise
    await world.cluster.overwrite(kind, desired)
    return await world.cluster.apply(kind, desired)


def _settled(p: Pass, kind: Kind, *, desired: Manifest, live: Object) -> bool:
    """Nothing that we state differs, or it differs only by the API server's spelling of it."""
    spelling = _spelling(desired, seen=projection(live, desired=desired))
    return spelling is None or spelling == p.memory.applied.get((kind, desired["metadata"]["name"]))


def _spelling(desired: Manifest, *, seen: object) -> Spelling | None:
    if seen == desired:
        return None
    return Spelling(desired_hash=short_hash(desired), accepted_hash=short_hash(seen))


def is_ours(body: Object, p: Pass) -> bool:
    """Is the object of this pass its owner?"""
    return owned_by(body, p.owner)


def _owners(body: Object) -> Sequence[Mapping[str, str]]:
    owners: Sequence[Mapping[str, str]] = body["metadata"].get("ownerReferences", ())
    return owners


async def scale_child(p: Pass, world: World, kind: Kind, body: Object, *, replicas: int) -> None:
    """Set the replicas of a workload of ours that another takes over from, and nothing else of it."""
    if not is_ours(body, p) or body["spec"].get("replicas", 1) == replicas:
        return
    meta = {name: body["metadata"][name] for name in ("namespace", "name")}
    wanted = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": meta,
        "spec": {"replicas": replicas},
    }
    world.store.absorb(kind, await world.cluster.overwrite(kind, wanted))


async def delete_child(p: Pass, world: World, kind: Kind, body: Object) -> None:
    """Delete one child of ours, once; anything else of that name is left alone."""
    meta = body["metadata"]
    # the next pass may come before the watch tells that it is gone
    if not is_ours(body, p) or meta["uid"] in p.memory.deleted:
        return
    await world.cluster.delete(kind, namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])
    p.memory.deleted.add(meta["uid"])
    p.memory.applied.pop((kind, meta["name"]), None)
