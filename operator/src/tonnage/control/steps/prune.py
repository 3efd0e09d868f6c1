"""Step 5: remove what an earlier plan left, once the plan in force has taken over."""

from __future__ import annotations

from tonnage.cluster.port import BY_KIND
from tonnage.control.children import OF_PLANS, delete_child, own_child, own_children, scale_child
from tonnage.control.in_force import other_workloads
from tonnage.control.world import Pass, World
from tonnage.rendering.deployment import most_unavailable
from tonnage.rendering.findings import is_rolled_out
from tonnage.rendering.names import PLAN, hash_in
from tonnage.rendering.workloads import Stands, as_deployment, leftovers


async def prune_leftovers(p: Pass, world: World) -> bool:
    """Delete workloads that another has taken over from, and the plans that nothing runs by: their
    ConfigMaps, and the templates of their claims.

    While a roll-out is under way, the old ReplicaSet may have to make pods again: its plan stays.
    """
    if p.spec is None:
        return True
    wanted = own_child(p, world, *p.workload) if p.workload is not None else None
    await _make_way(p, world, ready=Stands.of(wanted).ready if wanted is not None else 0)
    told = as_deployment(wanted) if wanted is not None else None
    if not is_rolled_out(told, wanted=p.spec.wanted_replicas, plan_hash=p.plan_hash):
        return True
    used = {p.plan_hash, *(pod.labels.get(PLAN, "") for pod in world.store.pods(p.key))}
    for kind in OF_PLANS:
        for body in own_children(p, world, kind):
            plan_hash = hash_in(body["metadata"]["name"], owner=p.owner)
            if plan_hash is not None and plan_hash not in used:
                await delete_child(p, world, kind, body)
    return True


async def _make_way(p: Pass, world: World, *, ready: int) -> None:
    """Workloads that the wanted one takes over from go as it comes; while the roll-out is paused they stay,
    unless it had begun."""
    others = other_workloads(p, world)
    if p.spec is None or p.kept is None or not others or (p.spec.rollout.paused and not ready):
        return
    kept = leftovers(
        p.spec.wanted_replicas,
        ready=ready,
        others=[Stands.of(body) for body in others],
        spare=most_unavailable(p.kept, spec=p.spec),
    )
    for body, replicas in zip(others, kept, strict=True):
        kind = BY_KIND[body["kind"]]
        if replicas:
            await scale_child(p, world, kind, body, replicas=replicas)
        else:
            await delete_child(p, world, kind, body)
