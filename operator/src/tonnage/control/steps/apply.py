"""Step 4: bring the children to what the plan says, the plan itself first."""

from __future__ import annotations

from tonnage.cluster.port import DISRUPTION_BUDGET, WORKLOADS
from tonnage.control.children import apply_children, child_id, delete_child, own_child, own_children
from tonnage.control.in_force import other_workloads, plan_in_force, workload_in_force
from tonnage.control.packing import pack, unpack
from tonnage.control.world import Pass, World
from tonnage.rendering.children import build_access, build_children
from tonnage.rendering.deployment import most_unavailable
from tonnage.rendering.gpu import build_claim_templates
from tonnage.rendering.groups import spans_nodes
from tonnage.rendering.names import Manifest
from tonnage.rendering.workloads import Stands, next_replicas, placed_replicas


async def bring_children(p: Pass, world: World) -> bool:
    """Apply what differs from the plan in force."""
    desired = desired_children(p, world)
    p.workload = next((known for known in map(child_id, desired) if known[0] in WORKLOADS), None)
    desired = _paced(p, world, desired)
    p.memory.rendered = pack(desired)
    await apply_children(p, world, desired)
    if not any(body["kind"] == DISRUPTION_BUDGET.kind for body in desired):
        for budget in own_children(p, world, DISRUPTION_BUDGET):
            await delete_child(p, world, DISRUPTION_BUDGET, budget)
    return True


def _paced(p: Pass, world: World, desired: list[Manifest]) -> list[Manifest]:
    """While another workload serves, the wanted one has as many replicas as are its turn, and is not begun
    while the roll-out is paused. Groups come one after the other."""
    others = [Stands.of(body) for body in other_workloads(p, world)]
    grouped = p.kept is not None and spans_nodes(p.kept.plan)
    if p.spec is None or p.kept is None or p.workload is None or not (others or grouped):
        return desired
    live = own_child(p, world, *p.workload)
    if p.spec.rollout.paused and live is None and others:
        return [body for body in desired if child_id(body) != p.workload]
    spare = most_unavailable(p.kept, spec=p.spec)
    replicas = next_replicas(p.spec.wanted_replicas, others=others, spare=spare)
    if p.kept.plan.gpu is not None and grouped:
        bound = world.hardware.bound_pods(p.key, plan_hash=p.plan_hash)
        replicas = placed_replicas(
            replicas,
            before=live["spec"].get("replicas", 1) if live is not None else 0,
            placed=bound // p.kept.plan.gpu.nodes_per_replica,
        )
    return [
        {**body, "spec": {**body["spec"], "replicas": replicas}} if child_id(body) == p.workload else body
        for body in desired
    ]


async def heal_children(p: Pass, world: World) -> None:
    """While nothing new may be brought about: keep what was deployed before as it was.

    Of a workload that another process rendered, only what does not depend on the spec can be mended.
    """
    rendered = unpack(p.memory.rendered) if p.memory.rendered is not None else []
    workload = workload_in_force(p, world)
    if not rendered and workload is not None:
        plan, plan_hash = plan_in_force(p, world, workload)
        groups = plan is not None and spans_nodes(plan)
        rendered = build_access(p.owner, replicas=workload["spec"].get("replicas"), groups=groups)
        if plan is not None:
            rendered += build_claim_templates(plan, plan_hash=plan_hash, owner=p.owner)
    await apply_children(p, world, rendered)


def desired_children(p: Pass, world: World) -> list[Manifest]:
    """The objects of the plan in force."""
    if p.spec is None or p.kept is None:
        return []
    return build_children(p.kept, plan_hash=p.plan_hash, spec=p.spec, owner=p.owner, settings=world.settings)
