"""Step 5: remove what an earlier plan left, once nothing runs by it."""

from __future__ import annotations

from tonnage.cluster.port import CONFIG_MAP
from tonnage.control.children import delete_child
from tonnage.control.world import Pass, World
from tonnage.rendering.names import COMPONENT, PLAN, PLAN_COMPONENT


async def prune_leftovers(p: Pass, world: World) -> bool:
    """Delete the plan ConfigMaps that neither the Deployment nor any pod uses."""
    used = {p.plan_hash, *(pod.labels.get(PLAN, "") for pod in world.store.pods(p.key))}
    for config_map in world.store.children(p.key, CONFIG_MAP):
        labels = config_map["metadata"]["labels"]
        if labels.get(COMPONENT) == PLAN_COMPONENT and labels.get(PLAN) not in used:
            await delete_child(p, world, CONFIG_MAP, config_map)
    return True
