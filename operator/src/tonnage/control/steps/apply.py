"""Step 4: bring the children to what the plan says, the plan itself first."""

from __future__ import annotations

from tonnage.cluster.port import DEPLOYMENT, DISRUPTION_BUDGET
from tonnage.control.children import apply_children, delete_child, own_child, own_children
from tonnage.control.in_force import plan_in_force
from tonnage.control.packing import pack, unpack
from tonnage.control.world import Pass, World
from tonnage.rendering.children import build_access, build_children
from tonnage.rendering.gpu import build_claim_templates
from tonnage.rendering.names import Manifest


async def bring_children(p: Pass, world: World) -> bool:
    """Apply what differs from the plan in force."""
    desired = desired_children(p, world)
    p.memory.rendered = pack(desired)
    await apply_children(p, world, desired)
    if not any(body["kind"] == DISRUPTION_BUDGET.kind for body in desired):
        for budget in own_children(p, world, DISRUPTION_BUDGET):
            await delete_child(p, world, DISRUPTION_BUDGET, budget)
    return True


async def heal_children(p: Pass, world: World) -> None:
    """While nothing new may be brought about: keep what was deployed before as it was.

    Of a Deployment that another process rendered, only what does not depend on the spec can be mended.
    """
    rendered = unpack(p.memory.rendered) if p.memory.rendered is not None else []
    deployment = own_child(p, world, DEPLOYMENT, p.owner.name)
    if not rendered and deployment is not None:
        rendered = build_access(p.owner, replicas=deployment["spec"].get("replicas"))
        plan, plan_hash = plan_in_force(p, world, deployment)
        if plan is not None:
            rendered += build_claim_templates(plan, plan_hash=plan_hash, owner=p.owner)
    await apply_children(p, world, rendered)


def desired_children(p: Pass, world: World) -> list[Manifest]:
    """The objects of the plan in force."""
    if p.spec is None or p.kept is None:
        return []
    return build_children(p.kept, plan_hash=p.plan_hash, spec=p.spec, owner=p.owner, settings=world.settings)
