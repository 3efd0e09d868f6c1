"""Step 5: remove what an earlier plan left, once the plan in force has taken over."""

from __future__ import annotations

from tonnage.cluster.port import DEPLOYMENT
from tonnage.control.children import OF_PLANS, delete_child, own_child, own_children
from tonnage.control.world import Pass, World
from tonnage.rendering.findings import is_rolled_out
from tonnage.rendering.names import PLAN, hash_in


async def prune_leftovers(p: Pass, world: World) -> bool:
    """Delete the plans that nothing runs by: their ConfigMaps, and the templates of their claims.

    While a roll-out is under way, the old ReplicaSet may have to make pods again: its plan stays.
    """
    deployment = own_child(p, world, DEPLOYMENT, p.owner.name)
    if p.spec is None or not is_rolled_out(deployment, wanted=p.spec.wanted_replicas, plan_hash=p.plan_hash):
        return True
    used = {p.plan_hash, *(pod.labels.get(PLAN, "") for pod in world.store.pods(p.key))}
    for kind in OF_PLANS:
        for body in own_children(p, world, kind):
            plan_hash = hash_in(body["metadata"]["name"], owner=p.owner)
            if plan_hash is not None and plan_hash not in used:
                await delete_child(p, world, kind, body)
    return True
