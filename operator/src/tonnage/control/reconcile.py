"""One pass over one object: gather, decide, write what differs, look, tell."""

from __future__ import annotations

from tonnage.control.children import OwnerGoneError
from tonnage.control.queue import Key
from tonnage.control.steps import CHANGING, LOOKING
from tonnage.control.world import Pass, World
from tonnage.rendering.names import Owner


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
    p = Pass(key=key, body=body, owner=owner, memory=world.memory(key))
    try:
        for change in CHANGING:
            if not await change(p, world):
                break
        for look in LOOKING:
            await look(p, world)
    except OwnerGoneError:
        world.store.objects.pop(key, None)
        world.forget(key)
        return None
    return min(p.requeue, default=None)
