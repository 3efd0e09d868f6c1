"""Step 3: which plan is in force? Gathers what the decision is made from, and keeps it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

from tonnage.api.demand import placement_of
from tonnage.api.status import ConditionType
from tonnage.api.workload import Accelerator
from tonnage.cluster.port import CONFIG_MAP
from tonnage.control.in_force import accept_plan, kept_in_force, plan_in_force, workload_in_force
from tonnage.control.world import Pass, World
from tonnage.planning.plan import Plan, Rejection
from tonnage.rendering.decision import (
    Decision,
    Subject,
    beside_the_plan,
    contender_of,
    made,
    plan_on_nodes,
    replan_of,
    standing,
)
from tonnage.rendering.observations import Pod
from tonnage.rendering.plan import Kept, kept_plans
from tonnage.rendering.setback import find_setback, given_up, replanned, unexplained

# what another node may do away with; of GPUs it may be any reason, since other products take other things
NEEDS_ROOM: Final = frozenset({"NoUsableNode", "NotEnoughMemory", "NodesUnknown", "MultiNodeNotSupported"})
# how long the first passes of all others take
UNSEEN_SECONDS: Final = 0.2


async def decide_plan(p: Pass, world: World) -> bool:
    """Keep or make the plan; a rejection leaves everything that is deployed as it is."""
    if p.spec is None or p.reading is None or p.known is None:
        return False
    subject = Subject(
        spec=p.spec,
        source=p.reading.source,
        model=p.known.model,
        refreshed=p.known.refreshed,
        replan=replan_of(p.body["metadata"].get("annotations", {})),
        default_version=world.settings.engine_version,
    )
    groups = world.groups_served()
    outcome = standing(subject, before=_before(p, world), groups=groups)
    if outcome is None:
        withheld = _lacked_until_now(p, world, subject)
        planned = await _plan(p, world, subject, withheld_bytes=withheld)
        if planned is None:
            return False
        outcome = made(subject, planned, groups=groups, withheld_bytes=withheld)
        if isinstance(outcome, Rejection):
            text = outcome.message + replanned(withheld)
            return _rejected(p, world, dataclasses.replace(outcome, message=text))
    if isinstance(outcome, Rejection):
        return _rejected(p, world, outcome)
    outcome = await _after_setback(p, world, subject, outcome)
    _wait_for_room(p, world, waits=p.contends)
    p.kept, p.plan_hash = p.memory.kept = outcome.kept, outcome.plan_hash
    accept_plan(
        p,
        world,
        plan=outcome.kept.plan,
        plan_hash=outcome.plan_hash,
        replicas=p.spec.wanted_replicas,
        priority_class=p.spec.template.priority_class_name,
        placement=placement_of(p.spec),
    )
    plan = outcome.kept.plan
    text = plan.reason + replanned(outcome.kept.withheld_bytes) + beside_the_plan(subject, plan)
    p.found(ConditionType.PLANNED, True, "Planned", text)
    return True


def _lacked_until_now(p: Pass, world: World, subject: Subject) -> int:
    """What the next plan keeps free of each device since workers of the plan in force lack it, however the
    next one comes about: with what is kept free already, so that what is asked for after a failed plan is not
    planned as it was. 0 where they serve, for another model, and where no estimate can be the cause."""
    kept, plan_hash = kept_in_force(p, world, workload_in_force(p, world))
    if kept is None or kept.source != subject.source:
        return 0
    setback = find_setback(_pods(p, world), plan=kept.plan, plan_hash=plan_hash)
    if setback is None or setback.over or unexplained(setback, kept=kept):
        return 0
    return kept.withheld_bytes + setback.withheld_bytes


async def _after_setback(p: Pass, world: World, subject: Subject, decision: Decision) -> Decision:
    """Once a plan's workers ran out of device memory, one that keeps more free; but only once unasked."""
    kept = decision.kept
    setback = find_setback(_pods(p, world), plan=kept.plan, plan_hash=decision.plan_hash)
    if setback is None or (kept.withheld_bytes and setback.over):
        return decision
    text = unexplained(setback, kept=kept)
    if not text:
        withheld = kept.withheld_bytes + setback.withheld_bytes
        planned = await _plan(p, world, subject, withheld_bytes=withheld)
        if planned is None:
            return decision
        outcome = made(subject, planned, groups=world.groups_served(), withheld_bytes=withheld)
        if isinstance(outcome, Decision) and not kept.withheld_bytes:
            return outcome
        text = given_up(setback, kept=kept, outcome=outcome)
    if not setback.over:
        p.found(ConditionType.DEGRADED, True, setback.reason, text)
    return decision


def _pods(p: Pass, world: World) -> list[Pod]:
    """Those that are there, and the one whose group was made anew since it failed."""
    ended = p.memory.ended
    return [*world.store.pods(p.key), *([ended] if ended is not None else [])]


def _before(p: Pass, world: World) -> Iterator[tuple[Kept, str]]:
    """Decisions made before: those in ConfigMaps, and the last one even if its ConfigMap was deleted."""
    yield from kept_plans(world.store.children(p.key, CONFIG_MAP), owner=p.owner)
    if p.memory.kept is not None:
        yield p.memory.kept


async def _plan(
    p: Pass, world: World, subject: Subject, *, withheld_bytes: int = 0
) -> Plan | Rejection | None:
    """A new plan; None where it is too early for one."""
    nodes = world.nodes()
    accelerator = subject.spec.hardware.accelerator
    # what ran out of device memory stays on GPUs, also while the cluster shows none
    stays = withheld_bytes and accelerator is not Accelerator.CPU
    if not stays and not world.arbiter.takes_gpus(accelerator):
        return plan_on_nodes(subject, nodes=nodes)
    if nodes is None and not world.arbiter.is_stated:
        return _NODES_UNKNOWN
    if world.unseen - {p.key}:
        p.found(ConditionType.PLANNED, None, "Waiting", "the plans of all other objects are read first")
        p.again_in(UNSEEN_SECONDS)
        return None
    contender = contender_of(
        subject,
        key="/".join(p.key),
        created=str(p.body["metadata"].get("creationTimestamp", "")),
        priority=world.hardware.priority(subject.spec.template.priority_class_name),
        surges=world.hardware.bound_pods(p.key) > 0,
        in_force=plan_in_force(p, world, workload_in_force(p, world))[0],
        withheld_bytes=withheld_bytes,
    )
    if isinstance(contender, Rejection):
        return contender
    outcome = await world.arbiter.outcome(p.key, contender)
    p.contends = isinstance(outcome, Rejection)
    return outcome


def _rejected(p: Pass, world: World, rejection: Rejection) -> bool:
    _wait_for_room(p, world, waits=p.contends or rejection.reason in NEEDS_ROOM)
    p.found(ConditionType.PLANNED, False, rejection.reason, rejection.message)
    return False


def _wait_for_room(p: Pass, world: World, *, waits: bool) -> None:
    """Is the object to be looked at again when there may be room?"""
    if waits:
        world.waiting_for_room.add(p.key)
    else:
        world.waiting_for_room.discard(p.key)


_NODES_UNKNOWN: Final = Rejection(
    reason="NodesUnknown",
    message=(
        "the nodes may not be read, so nothing is known of GPUs: set the chart's value rbac.nodes, or state "
        "the GPUs in inventory.pools"
    ),
)
