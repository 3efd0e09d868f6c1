"""Step 3: which plan is in force? The kept one while nothing it depends on changed, else a new one."""

from __future__ import annotations

import dataclasses

from tonnage.api import quantities
from tonnage.api.demand import demand_of, placement_of
from tonnage.api.status import ConditionType
from tonnage.api.v1alpha1 import Spec
from tonnage.cluster.port import CONFIG_MAP
from tonnage.control.children import own_children
from tonnage.control.world import Pass, World
from tonnage.engines import UnknownEngineVersionError, rules_for
from tonnage.gpus.placement import Placement
from tonnage.models import ModelProfile
from tonnage.models.wire import to_wire
from tonnage.planning.choose import plan_for
from tonnage.planning.plan import Demand, Plan, Rejection
from tonnage.rendering.names import hash_in, short_hash
from tonnage.rendering.plan import Kept, hash_of, read_kept

NEEDS_ROOM = {"NoUsableNode", "NotEnoughMemory"}


async def decide_plan(p: Pass, world: World) -> bool:
    """Keep or make the plan; a rejection leaves everything that is deployed as it is."""
    if p.spec is None or p.model is None:
        return False
    version = p.spec.engine.version or world.settings.engine_version
    demand, placement = demand_of(p.spec), placement_of(p.spec)
    inputs = _inputs(p.spec, demand=demand, placement=placement, source=p.source, version=version)
    kept, plan_hash = _kept(p, world, inputs=inputs)
    if kept is None:
        outcome = _plan(demand, placement=placement, version=version, model=p.model, world=world)
        if isinstance(outcome, Rejection):
            return _rejected(p, world, outcome)
        kept = Kept(inputs=inputs, source=p.source, model=to_wire(p.model), plan=outcome)
    needed = kept.plan.request_bytes
    given = p.spec.template.resources.memory
    if given is not None and quantities.whole_bytes(given) < needed:
        return _rejected(p, world, _too_little(given, needed_bytes=needed))
    world.waiting_for_room.discard(p.key)
    p.kept, p.plan_hash = p.memory.kept = kept, plan_hash or hash_of(kept.plan, spec=p.spec)
    p.found(ConditionType.PLANNED, True, "Planned", kept.plan.reason)
    return True


def _inputs(spec: Spec, *, demand: Demand, placement: Placement, source: str, version: str) -> str:
    """Identity of everything that may replace a plan. Nodes are not in it: one that joins changes nothing."""
    return short_hash(
        [
            dataclasses.asdict(demand),
            dataclasses.asdict(placement),
            source,
            version,
            spec.engine.verification.value,
        ]
    )


def _kept(p: Pass, world: World, *, inputs: str) -> tuple[Kept | None, str]:
    """The decision made for these inputs before, and its plan's hash; also if its ConfigMap was deleted."""
    for config_map in own_children(p, world, CONFIG_MAP):
        plan_hash = hash_in(config_map["metadata"]["name"], owner=p.owner)
        kept = read_kept(config_map) if plan_hash else None
        if kept is not None and kept.inputs == inputs:
            return kept, plan_hash or ""
    if p.memory.kept is not None and p.memory.kept[0].inputs == inputs:
        return p.memory.kept
    return None, ""


def _plan(
    demand: Demand, *, placement: Placement, version: str, model: ModelProfile, world: World
) -> Plan | Rejection:
    try:
        engine = rules_for(version)
    except UnknownEngineVersionError as error:
        return Rejection(reason="UnknownEngineVersion", message=str(error))
    nodes = tuple(world.store.nodes.values())
    return plan_for(demand, model=model, nodes=nodes, engine=engine, placement=placement)


def _rejected(p: Pass, world: World, rejection: Rejection) -> bool:
    if rejection.reason in NEEDS_ROOM:
        world.waiting_for_room.add(p.key)
    p.found(ConditionType.PLANNED, False, rejection.reason, rejection.message)
    return False


def _too_little(given: str, *, needed_bytes: int) -> Rejection:
    return Rejection(
        reason="MemoryRequestTooSmall",
        message=(
            f"spec.template.resources.memory is {given}, the plan needs {quantities.gib(needed_bytes)}: "
            f"remove it or set at least {quantities.memory_quantity(needed_bytes)}"
        ),
        numbers={"needed_bytes": needed_bytes},
    )
