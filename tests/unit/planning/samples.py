"""A small cluster and shorthand for planning on it."""

from __future__ import annotations

from typing import Any

from tonnage.engines import EngineRules, rules_for
from tonnage.gpus.nodes import Node
from tonnage.gpus.placement import Placement, select_nodes
from tonnage.models import ModelProfile
from tonnage.planning.choose import plan_for
from tonnage.planning.demand import Question
from tonnage.planning.plan import Demand, Plan, Rejection
from unit.models.samples import profile_of, smollm2_config

GIB = 2**30
ENGINE: EngineRules = rules_for("0.32.0")
SMOLLM2: ModelProfile = profile_of(smollm2_config())


def node(name: str = "node-a", *, gib: float = 64, **changes: Any) -> Node:
    fields: dict[str, Any] = {
        "name": name,
        "labels": {},
        "taints": (),
        "ready": True,
        "schedulable": True,
        "memory_capacity_bytes": int(gib * GIB),
        "memory_allocatable_bytes": int(gib * GIB),
        "cpu_allocatable_millis": 8000,
        **changes,
    }
    return Node(**fields)


def question(
    demand: Demand | None = None, *, model: ModelProfile = SMOLLM2, nodes: tuple[Node, ...] | None = (node(),)
) -> Question:
    selection = select_nodes(nodes, placement=Placement())
    return Question(demand=demand or Demand(), model=model, engine=ENGINE, selection=selection)


def answer(
    demand: Demand | None = None, *, model: ModelProfile = SMOLLM2, nodes: tuple[Node, ...] = (node(),)
) -> Plan | Rejection:
    return plan_for(demand or Demand(), model=model, nodes=nodes, engine=ENGINE)


def plan(demand: Demand | None = None, **options: Any) -> Plan:
    found = answer(demand, **options)
    assert isinstance(found, Plan), found
    return found


def rejection(demand: Demand | None = None, **options: Any) -> Rejection:
    found = answer(demand, **options)
    assert isinstance(found, Rejection), found
    return found
