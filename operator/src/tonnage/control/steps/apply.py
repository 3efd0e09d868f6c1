"""Step 4: bring the children to what the plan says, the plan itself first."""

from __future__ import annotations

from tonnage.api.status import ConditionType
from tonnage.cluster.port import BY_KIND, CONFIG_MAP, ApiError
from tonnage.control.children import ConflictError, apply_child
from tonnage.control.world import Pass, World
from tonnage.rendering.deployment import build_deployment, replicas_of
from tonnage.rendering.names import Manifest
from tonnage.rendering.plan import build_plan_config_map
from tonnage.rendering.service import build_disruption_budget, build_service

# answers that repeating does not change: said in a condition, tried again rarely
REFUSALS = {400, 403, 422}
REFUSED_SECONDS = 60.0


async def apply_children(p: Pass, world: World) -> bool:
    """Apply what differs. A name that belongs to somebody else is refused, and nothing of it touched."""
    for body in desired_children(p, world):
        if body["kind"] == CONFIG_MAP.kind and world.store.child(p.key, CONFIG_MAP, body["metadata"]["name"]):
            # immutable: the plan was written once, perhaps by another version of the operator
            continue
        try:
            await apply_child(p, world, BY_KIND[body["kind"]], body)
        except ConflictError as conflict:
            p.found(ConditionType.DEGRADED, True, "NameTaken", str(conflict))
            return False
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            if "being terminated" in error.message:
                return False  # the namespace goes, and everything in it
            what = f"{body['kind']} {body['metadata']['name']}"
            p.found(ConditionType.DEGRADED, True, "ApplyRefused", f"{what} was refused: {error.message}")
            p.again_in(REFUSED_SECONDS)
            return False
    return True


def desired_children(p: Pass, world: World) -> list[Manifest]:
    """The objects of the plan in force, in the order in which they may be made."""
    if p.spec is None or p.kept is None:
        return []
    return [
        build_plan_config_map(p.kept, plan_hash=p.plan_hash, spec=p.spec, owner=p.owner),
        build_service(p.owner),
        build_disruption_budget(p.owner),
        build_deployment(
            p.kept.plan,
            plan_hash=p.plan_hash,
            spec=p.spec,
            owner=p.owner,
            settings=world.settings,
            replicas=replicas_of(p.spec),
        ),
    ]
