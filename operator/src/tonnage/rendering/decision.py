"""The decision about one object: which plan is in force? The kept one while nothing it depends on changed,
else a new one. Pure: the operator and the command line ask the same function, and so cannot differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from tonnage.api import quantities
from tonnage.api.demand import demand_of, placement_of
from tonnage.api.v1alpha1 import Spec
from tonnage.engines import UnknownEngineVersionError, rules_for
from tonnage.gpus.nodes import Node
from tonnage.gpus.placement import Placement
from tonnage.models import ResolvedModel
from tonnage.models.wire import to_wire
from tonnage.planning.choose import plan_for
from tonnage.planning.plan import Demand, Plan, Rejection
from tonnage.rendering.names import short_hash
from tonnage.rendering.plan import Kept, hash_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a decision is about: the spec, the model it names as it was read, with the identity of its place
    and the refresh it was read for, and the engine version that is meant where the spec names none."""

    spec: Spec
    source: str
    model: ResolvedModel
    refreshed: str = ""
    default_version: str

    @property
    def engine_version(self) -> str:
        """The version of the engine that is planned for."""
        return self.spec.engine.version or self.default_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The plan in force with its hash; `made` says that it was made now, not kept from before."""

    kept: Kept
    plan_hash: str
    made: bool


def decide(
    subject: Subject, *, nodes: Iterable[Node] | None, before: Iterable[tuple[Kept, str]]
) -> Decision | Rejection:
    """The decision, or why there is none. `before` are earlier decisions about the object with their plans'
    hashes; the first that was made for the same inputs holds, whatever the nodes are now.
    `nodes` is None where they may not be read."""
    demand, placement = demand_of(subject.spec), placement_of(subject.spec)
    inputs = _inputs(subject, demand=demand, placement=placement)
    known = next((each for each in before if each[0].inputs == inputs), None)
    if known is None:
        outcome = _plan(subject, demand=demand, placement=placement, nodes=nodes)
        if isinstance(outcome, Rejection):
            return outcome
        kept = _keep(subject, inputs=inputs, plan=outcome)
    else:
        kept = dataclasses.replace(known[0], refreshed=subject.refreshed)
    given, needed = subject.spec.template.resources.memory, kept.plan.request_bytes
    if given is not None and quantities.whole_bytes(given) < needed:
        return _too_little(given, needed_bytes=needed)
    plan_hash = known[1] if known else hash_of(kept, spec=subject.spec)
    return Decision(kept=kept, plan_hash=plan_hash, made=known is None)


def _keep(subject: Subject, *, inputs: str, plan: Plan) -> Kept:
    model = subject.model
    return Kept(
        inputs=inputs,
        source=subject.source,
        revision=model.revision,
        download_bytes=model.download_bytes,
        model=to_wire(model.profile),
        plan=plan,
        refreshed=subject.refreshed,
    )


def _inputs(subject: Subject, *, demand: Demand, placement: Placement) -> str:
    """Identity of everything that may replace a plan. Nodes are not in it: one that joins changes nothing."""
    return short_hash(
        [
            dataclasses.asdict(demand),
            dataclasses.asdict(placement),
            subject.source,
            subject.model.revision,
            subject.engine_version,
            subject.spec.engine.verification.value,
        ]
    )


def _plan(
    subject: Subject, *, demand: Demand, placement: Placement, nodes: Iterable[Node] | None
) -> Plan | Rejection:
    try:
        engine = rules_for(subject.engine_version)
    except UnknownEngineVersionError as error:
        return Rejection(reason="UnknownEngineVersion", message=str(error))
    model, known = subject.model.profile, None if nodes is None else tuple(nodes)
    return plan_for(demand, model=model, nodes=known, engine=engine, placement=placement)


def _too_little(given: str | int, *, needed_bytes: int) -> Rejection:
    return Rejection(
        reason="MemoryRequestTooSmall",
        message=(
            f"spec.template.resources.memory is {given}, the plan needs {quantities.gib(needed_bytes)}: "
            f"remove it or set at least {quantities.memory_quantity(needed_bytes)}"
        ),
        numbers={"needed_bytes": needed_bytes},
    )
