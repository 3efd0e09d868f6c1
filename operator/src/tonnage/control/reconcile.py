"""One pass over one object: gather, decide, write what differs, look, tell."""

from __future__ import annotations

from tonnage.api.status import ConditionType
from tonnage.cluster.port import ApiError
from tonnage.control.children import LeavingError, OwnerGoneError, RefusedError
from tonnage.control.in_force import keep_devices
from tonnage.control.queue import Key
from tonnage.control.steps import BRINGING, DECIDING, LOOKING, heal_children
from tonnage.control.steps.observe import observe_workers
from tonnage.control.world import Pass, Settled, Step, World
from tonnage.rendering.names import Owner
from tonnage.rendering.quiet import say_the_same

REFUSED_SECONDS = 60.0
LEAVING_SECONDS = 2.0
# one failure is mended by trying again and said to nobody, and nothing is said of what was not done; two in a
# row are told
TOLD_FAILURES = 2


async def reconcile(key: Key, world: World) -> float | None:
    """Bring one object's children to its spec and write its status.

    Returns the seconds after which the object wants to be looked at again without an event, or None. Raises
    ApiError where a request failed in a way that trying again may mend. Deleting is left to ownerReferences.
    """
    body = world.store.objects.get(key)
    if body is None or "deletionTimestamp" in body["metadata"]:
        world.forget(key)
        return None
    owner = Owner(namespace=key[0], name=key[1], uid=body["metadata"]["uid"])
    p = Pass(key=key, body=body, owner=owner, memory=world.memory(key, uid=owner.uid))
    if await _still_settled(p, world):
        return min(p.ask_again, default=None)
    changes, p.memory.settled = world.store.changes(key), None
    try:
        error = await _change(p, world)
        # before what may fail again: all others wait for it
        _tell_arbiter(p, world)
        if error is None or p.memory.failures >= TOLD_FAILURES:
            for look in LOOKING:
                await look(p, world)
    except OwnerGoneError:
        world.store.drop_object(key, uid=owner.uid)
        world.forget(key)
        return None
    if error is not None:
        raise error
    # one that waits for room is told of it by nothing that the store learns
    if p.kept is not None and not p.contends and not p.requeue:
        p.memory.settled = Settled(changes=changes, workers=p.workers)
    return min(p.requeue + p.ask_again, default=None)


def _tell_arbiter(p: Pass, world: World) -> None:
    """What the object holds and wants of devices is known now."""
    if not p.contends:
        world.arbiter.withdraw(p.key)
    keep_devices(p, world)
    world.unseen.discard(p.key)


async def _still_settled(p: Pass, world: World) -> bool:
    """Has only time passed since a pass that left nothing to do, and do the workers say the same?

    Asking them is all that is to be done then. Whatever the store learns of the object, and every resync,
    makes it a whole pass.
    """
    settled = p.memory.settled
    if settled is None or settled.changes != world.store.changes(p.key):
        return False
    await observe_workers(p, world)
    return say_the_same(settled.workers, p.workers, status=p.body.get("status", {}))


async def _change(p: Pass, world: World) -> ApiError | None:
    """Decide and bring about; what fails is said in the status too, so the error comes back as a value."""
    try:
        await _decide_and_bring(p, world)
    except RefusedError as refused:
        p.found(ConditionType.DEGRADED, True, refused.reason, str(refused))
        p.again_in(REFUSED_SECONDS)
    except LeavingError:
        p.again_in(LEAVING_SECONDS)
    except ApiError as error:
        p.memory.failures += 1
        if p.memory.failures >= TOLD_FAILURES:
            text = f"a request to the API server failed, it is tried again: {error}"
            p.found(ConditionType.DEGRADED, True, "ApiRequestFailed", text)
        return error
    p.memory.failures = 0
    return None


async def _decide_and_bring(p: Pass, world: World) -> None:
    try:
        decided = await _all(DECIDING, p, world)
    except (ApiError, RefusedError, LeavingError):
        # no reason to leave what serves unmended
        await heal_children(p, world)
        raise
    if decided:
        await _all(BRINGING, p, world)
    else:
        await heal_children(p, world)


async def _all(steps: tuple[Step, ...], p: Pass, world: World) -> bool:
    """Take the steps in order until one objects; did none?"""
    for step in steps:
        if not await step(p, world):
            return False
    return True
