"""Step 8: tell. One status write, once a change is worth it; Events for what failed or was mended."""

from __future__ import annotations

import logging

from tonnage.api.base import GROUP, KIND, VERSION
from tonnage.cluster.port import EVENT, LLM_DEPLOYMENT, ApiError, Object
from tonnage.control.children import OwnerGoneError
from tonnage.control.in_force import Workload, plan_in_force, replicas_in_force, workload_in_force
from tonnage.control.world import Pass, Telling, World
from tonnage.rendering.events import WARNING, transitions
from tonnage.rendering.findings import Snapshot
from tonnage.rendering.names import selector
from tonnage.rendering.quiet import News, news
from tonnage.rendering.status import compute_status

logger = logging.getLogger(__name__)

# while specs wait, what is deployed comes before what is told; but not for ever
PRESSED_SECONDS = 3.0
MOST_PRESSED_SECONDS = 30.0


async def report_status(p: Pass, world: World) -> bool:
    """Write the status if it differs from the one before, and post Events for what changed in it."""
    before = p.body.get("status", {})
    deployment = workload_in_force(p, world)
    status = compute_status(_snapshot(p, world, deployment), before=before, now=world.clock.now())
    if not _worth_a_write(p, world, news(before, status)):
        return True
    try:
        world.store.absorb_object(await world.cluster.apply_status(LLM_DEPLOYMENT, _body(p, status)))
    except ApiError as error:
        if error.not_found:
            raise OwnerGoneError(p.owner.name) from error
        raise
    p.memory.telling = Telling(told_at=world.clock.monotonic())
    for kind, reason, message in transitions(before, status):
        level = logging.WARNING if kind == WARNING else logging.INFO
        logger.log(level, message, extra={"object": "/".join(p.key), "reason": reason})
        await _post(p, world, kind=kind, reason=reason, message=message)
    return True


def _worth_a_write(p: Pass, world: World, new: News | None) -> bool:
    """Is the status to be written now? If later, another pass is asked for."""
    telling, now = p.memory.telling, world.clock.monotonic()
    if new is None or new is News.CACHE_USE:
        telling.since = None
    elif telling.since is None or new.hold_seconds < telling.hold_seconds:
        telling.since, telling.hold_seconds = now, new.hold_seconds
    if new is None:
        return False
    begun = telling.told_at if telling.since is None else telling.since
    wait = begun + new.hold_seconds - now
    # a first answer that is still awaited would make another status, and it comes within seconds
    if new is not News.GENERATION and p.unanswered:
        wait = max(wait, new.hold_seconds)
    if world.pressed() and now - begun < MOST_PRESSED_SECONDS:
        wait = max(wait, PRESSED_SECONDS)
    if wait > 0:
        p.again_in(wait)
    return wait <= 0


def _snapshot(p: Pass, world: World, deployment: Workload | None) -> Snapshot:
    plan, plan_hash = plan_in_force(p, world, deployment)
    return Snapshot(
        generation=p.generation,
        findings=tuple(p.findings.values()),
        plan=plan,
        plan_hash=plan_hash,
        wanted=replicas_in_force(p, deployment),
        deployment=deployment,
        workers=p.workers,
        followers=p.followers,
        ended=p.memory.ended,
        selector=selector(p.owner),
    )


def _body(p: Pass, status: Object) -> Object:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"namespace": p.owner.namespace, "name": p.owner.name, "uid": p.owner.uid},
        "status": status,
    }


async def _post(p: Pass, world: World, *, kind: str, reason: str, message: str) -> None:
    """An Event is a courtesy: if it cannot be posted, the condition still says it."""
    now = world.clock.now()
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{p.owner.name}-", "namespace": p.owner.namespace},
        "involvedObject": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "namespace": p.owner.namespace,
            "name": p.owner.name,
            "uid": p.owner.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": "tonnage"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    try:
        await world.cluster.create(EVENT, body)
    except ApiError as error:
        logger.warning("event %s not posted: %s", reason, error, extra={"object": "/".join(p.key)})
