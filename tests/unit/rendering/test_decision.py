"""The decision: a plan is kept while what it depends on stays, and made anew when that changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tonnage.models import ResolvedModel
from tonnage.planning.plan import Rejection
from tonnage.rendering.decision import Decision, Subject, decide
from unit.planning.samples import SMOLLM2, node
from unit.rendering.samples import spec


def subject(
    source: str = "s1",
    version: str = "0.32.0",
    revision: str = "abcdef0",
    refreshed: str = "",
    **fields: Any,
) -> Subject:
    workload = {"contextLength": 2048, "concurrency": 8, "typicalTokens": 512}
    return Subject(
        spec=spec(**{"workload": workload, **fields}),
        source=source,
        model=ResolvedModel(profile=SMOLLM2, revision=revision),
        refreshed=refreshed,
        default_version=version,
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
