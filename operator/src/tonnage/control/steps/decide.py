"""Step 3: which plan is in force? Gathers what the decision is made from, and keeps it."""

from __future__ import annotations

from collections.abc import Iterator

from tonnage.api.status import ConditionType
from tonnage.cluster.port import CONFIG_MAP
from tonnage.control.world import Pass, World
from tonnage.planning.plan import Rejection
from tonnage.rendering.decision import Subject, decide
from tonnage.rendering.plan import Kept, kept_plans

NEEDS_ROOM = {"NoUsableNode", "NotEnoughMemory"}


async def decide_plan(p: Pass, world: World) -> bool:
    """Keep or make the plan; a rejection leaves everything that is deployed as it is."""
    if p.spec is None or p.reading is None or p.known is None:
        return False
    subject = Subject(
        spec=p.spec,
        source=p.reading.source,
        model=p.known.model,
        refreshed=p.known.refreshed,
        default_version=world.settings.engine_version,
    )
    outcome = decide(subject, nodes=world.nodes(), before=_before(p, world))
    if isinstance(outcome, Rejection):
        return _rejected(p, world, outcome)
    world.waiting_for_room.discard(p.key)
    p.kept, p.plan_hash = p.memory.kept = outcome.kept, outcome.plan_hash
    p.found(ConditionType.PLANNED, True, "Planned", outcome.kept.plan.reason)
    return True


def _before(p: Pass, world: World) -> Iterator[tuple[Kept, str]]:
    """Decisions made before: those in ConfigMaps, and the last one even if its ConfigMap was deleted."""
    yield from kept_plans(world.store.children(p.key, CONFIG_MAP), owner=p.owner)
    if p.memory.kept is not None:
        yield p.memory.kept


def _rejected(p: Pass, world: World, rejection: Rejection) -> bool:
    if rejection.reason in NEEDS_ROOM:
        world.waiting_for_room.add(p.key)
    p.found(ConditionType.PLANNED, False, rejection.reason, rejection.message)
    return False
