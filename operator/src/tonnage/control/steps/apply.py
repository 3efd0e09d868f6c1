"""Step 4: bring the children to what the plan says, the plan itself first."""

from __future__ import annotations

from tonnage.cluster.port import BY_KIND, DEPLOYMENT
from tonnage.control.children import apply_child, own_child
from tonnage.control.world import Pass, World
from tonnage.rendering.children import build_children
from tonnage.rendering.names import Manifest
from tonnage.rendering.service import build_disruption_budget, build_service


async def apply_children(p: Pass, world: World) -> bool:
    """Apply what differs, in the order in which the children may be made."""
    p.memory.rendered = desired_children(p, world)
    await _apply_all(p.memory.rendered, p, world)
    return True


async def heal_children(p: Pass, world: World) -> None:
    """While nothing new may be brought about: keep what was deployed before as it was.

    Of a Deployment that another process rendered, only what does not depend on the spec can be mended.
    """
    rendered = p.memory.rendered
    if not rendered and own_child(p, world, DEPLOYMENT, p.owner.name) is not None:
        rendered = [build_service(p.owner), build_disruption_budget(p.owner)]
    await _apply_all(rendered, p, world)


async def _apply_all(rendered: list[Manifest], p: Pass, world: World) -> None:
    for body in rendered:
        await apply_child(p, world, BY_KIND[body["kind"]], body)


def desired_children(p: Pass, world: World) -> list[Manifest]:
    """The objects of the plan in force."""
    if p.spec is None or p.kept is None:
        return []
    return build_children(p.kept, plan_hash=p.plan_hash, spec=p.spec, owner=p.owner, settings=world.settings)
