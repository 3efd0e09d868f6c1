"""The decision: a plan is kept while what it depends on stays, and made anew when that changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from tonnage.gpus.nodes import Node
from tonnage.models import ResolvedModel
from tonnage.planning.gpu.contend import Contender
from tonnage.planning.plan import Rejection
from tonnage.rendering.decision import (
    Decision,
    Subject,
    contender_of,
    plan_on_nodes,
    replan_of,
    standing,
)
from tonnage.rendering.decision import made as decided
from tonnage.rendering.plan import Kept
from unit.planning.gpu.samples import plan as gpu_plan
from unit.planning.gpu.samples import pool
from unit.planning.samples import SMOLLM2, node
from unit.rendering.samples import spec


def subject(
    source: str = "s1",
    version: str = "0.32.0",
    revision: str = "abcdef0",
    refreshed: str = "",
    replan: str = "",
    **fields: Any,
) -> Subject:
    workload = {"contextLength": 2048, "concurrency": 8, "typicalTokens": 512}
    return Subject(
        spec=spec(**{"workload": workload, **fields}),
        source=source,
        model=ResolvedModel(profile=SMOLLM2, revision=revision),
        refreshed=refreshed,
        replan=replan,
        default_version=version,
    )


def decide(
    asked: Subject, *, nodes: Sequence[Node], before: Sequence[tuple[Kept, str]]
) -> Decision | Rejection:
    """What a pass does on CPU nodes."""
    return standing(asked, before=before, groups=False) or decided(
        asked, plan_on_nodes(asked, nodes=nodes), groups=False
    )


def made(asked: Subject) -> Decision:
    found = decide(asked, nodes=[node()], before=())
    assert isinstance(found, Decision), found
    return found


def test_what_was_decided_before_holds_whatever_nodes_there_are() -> None:
    first = made(subject())
    assert first.made
    again = decide(subject(), nodes=[], before=[(first.kept, first.plan_hash)])
    assert again == Decision(kept=first.kept, plan_hash=first.plan_hash, made=False)
    assert isinstance(decide(subject(), nodes=[], before=()), Rejection)


@pytest.mark.parametrize(
    "changed",
    [
        subject(source="s2"),
        subject(revision="abcdef1"),
        subject(version="0.33.0"),
        subject(engine={"version": "0.33.0"}),
        subject(engine={"verification": "Report"}),
        subject(workload={"contextLength": 1024}),
        subject(quality="Lossless"),
        subject(template={"nodeSelector": {"a": "b"}}),
    ],
)
def test_a_change_of_what_it_depends_on_makes_it_anew(changed: Subject) -> None:
    first = made(subject())
    fitting = node(labels={"a": "b"})
    other = decide(changed, nodes=[fitting], before=[(first.kept, first.plan_hash)])
    assert isinstance(other, Decision), other
    assert other.made
    assert other.kept.inputs != first.kept.inputs


@pytest.mark.parametrize("change", [{"replicas": 3}, {"model": {"uri": "pvc://a/b", "servedName": "x"}}])
def test_a_change_of_anything_else_keeps_it(change: dict[str, Any]) -> None:
    first = made(subject())
    other = decide(subject(**change), nodes=[node()], before=[(first.kept, first.plan_hash)])
    assert other == Decision(kept=first.kept, plan_hash=first.plan_hash, made=False)


def test_a_refresh_that_finds_the_same_files_keeps_it_and_is_noted() -> None:
    first = made(subject())
    other = decide(subject(refreshed="r1"), nodes=[], before=[(first.kept, first.plan_hash)])
    assert isinstance(other, Decision)
    assert (other.made, other.plan_hash) == (False, first.plan_hash)
    assert other.kept == dataclasses.replace(first.kept, refreshed="r1")


def test_a_memory_request_below_the_plan_is_refused() -> None:
    small = subject(template={"resources": {"memory": "1Gi"}})
    refused = decide(small, nodes=[node()], before=())
    assert isinstance(refused, Rejection)
    assert refused.reason == "MemoryRequestTooSmall"
    assert "1Gi" in refused.message


def test_an_engine_version_without_rules_is_refused() -> None:
    refused = decide(subject(version="0.1.0"), nodes=[node()], before=())
    assert isinstance(refused, Rejection)
    assert refused.reason == "UnknownEngineVersion"


# plans on GPUs


def on_gpus(asked: Subject) -> Decision:
    found = decided(asked, gpu_plan(pool("H100-80GB")), groups=False)
    assert isinstance(found, Decision), found
    return found


def test_a_plan_stays_where_gpus_join_and_where_they_leave() -> None:
    for first in (made(subject()), on_gpus(subject())):
        again = standing(subject(), before=[(first.kept, first.plan_hash)], groups=False)
        assert again == Decision(kept=first.kept, plan_hash=first.plan_hash, made=False)


@pytest.mark.parametrize(("asked_for", "kept"), [("GPU", False), ("CPU", True)])
def test_another_accelerator_that_is_asked_for_replaces_a_plan(asked_for: str, kept: bool) -> None:
    first = made(subject())
    found = standing(
        subject(hardware={"accelerator": asked_for}), before=[(first.kept, first.plan_hash)], groups=False
    )
    assert (found is not None) == kept


@pytest.mark.parametrize(
    "fields",
    [
        {"hardware": {"products": ["L40S"]}},
        {"hardware": {"parallelism": {"tensor": 2}}},
        {"hardware": {"parallelism": {"pipeline": 2}}},
        {"hardware": {"maxGPUsPerReplica": 4}},
        {"weights": {"quantization": "fp8"}},
    ],
)
def test_what_is_said_of_hardware_replaces_a_plan_on_gpus_and_is_refused_on_cpu_nodes(
    fields: dict[str, Any],
) -> None:
    for first in (on_gpus(subject()), made(subject())):
        assert standing(subject(**fields), before=[(first.kept, first.plan_hash)], groups=False) is None
    refused = plan_on_nodes(subject(**fields), nodes=[node()])
    assert isinstance(refused, Rejection)
    (section,) = fields
    assert refused.reason == "NeedsGpus"
    assert f"{section}." in refused.message
    assert contender(subject(**fields)).hardware != contender(subject()).hardware


def contender(asked: Subject, *, surges: bool = True) -> Contender:
    found = contender_of(asked, key="ns/a", created="", priority=0, surges=surges)
    assert isinstance(found, Contender)
    return found


def test_who_may_go_down_needs_no_room_beside() -> None:
    assert contender(subject()).surges
    assert not contender(subject(), surges=False).surges
    assert not contender(subject(rollout={"allowDowntime": True})).surges


def test_an_engine_that_is_not_known_is_told() -> None:
    found = contender_of(subject(version="0.1.0"), key="ns/a", created="", priority=0, surges=False)
    assert isinstance(found, Rejection)
    assert found.reason == "UnknownEngineVersion"


@pytest.mark.parametrize("first", [made(subject()), on_gpus(subject())])
def test_a_new_plan_is_made_once_for_each_time_one_is_asked_for(first: Decision) -> None:
    once, twice = replan_of({"tonnage.dev/replan": "1"}), replan_of({"tonnage.dev/replan": "2"})
    assert standing(subject(replan=once), before=[(first.kept, first.plan_hash)], groups=False) is None
    second = decided(subject(replan=once), first.kept.plan, groups=False)
    assert isinstance(second, Decision)
    # the same plan, so nothing is rolled out
    assert second.plan_hash == first.plan_hash
    before = [(second.kept, second.plan_hash)]
    assert standing(subject(replan=once), before=before, groups=False) is not None
    assert standing(subject(replan=replan_of({})), before=before, groups=False) is not None
    assert standing(subject(replan=twice), before=before, groups=False) is None
