"""What is compared with a plan, and when it would have been better: with answers that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from oracle.client import Oracle
from oracle.engine.case import Answer, Case
from oracle.grid import Scenario, answer, files, question
from oracle.rivals import Rival, rivals, valid_after_all
from tonnage.planning.plan import Plan

SCENARIO = Scenario("meta-llama--Meta-Llama-3.1-70B", "L40S", "documents", "Economy")


class MadeUp(Oracle):
    """Answers as told, and remembers what it was asked."""

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self._fields = fields
        self.cases: list[Case] = []

    def check(self, case: Case) -> Answer:
        self.cases.append(case)
        return Answer(**self._fields)


def found() -> list[Rival]:
    return rivals(question(SCENARIO))


def verdict(rival: Rival, **fields: Any) -> str:
    return valid_after_all(rival, question(SCENARIO), MadeUp(**fields), files=files(SCENARIO.model))


def test_rivals_are_less_lossy_or_take_fewer_gpus() -> None:
    plan = answer(SCENARIO)
    assert isinstance(plan, Plan)
    assert plan.gpu is not None
    for each in found():
        fewer = each.choice.gpus < plan.gpus_per_replica
        assert fewer or each.choice.step.kv_dtype != plan.kv_dtype or each.choice.step.eager
    assert [each.nearness for each in found()] == sorted((each.nearness for each in found()), reverse=True)
    assert all(each.nearness < 1 for each in found())
    assert {each.choice.gpus for each in found()} >= {1, 2}


def test_a_rival_that_holds_the_workload_is_told() -> None:
    """8 requests of 16,384 tokens are 8,192 blocks of 16; one more is held back and one spare."""
    rival = found()[0]
    weights, context = rival.weight_bytes, 32768

    def with_blocks(blocks: int) -> dict[str, Any]:
        requests = {16384: blocks / 1024, context: blocks / 2048}
        return {"stage": "started", "weight_bytes": weights, "blocks": blocks, "requests": requests}

    assert verdict(rival, **with_blocks(8 * 1024 + 2)).startswith(rival.name)
    assert verdict(rival, **with_blocks(8 * 1024 + 1)) == ""
    assert verdict(rival, stage="cache", refused="too small", weight_bytes=weights) == ""


@pytest.mark.parametrize("lighter", [0, 2**30])
def test_bytes_that_the_engine_saves_in_weights_are_the_caches(lighter: int) -> None:
    rival = found()[0]
    oracle = MadeUp(stage="cache", refused="too small", weight_bytes=rival.weight_bytes - lighter)
    valid_after_all(rival, question(SCENARIO), oracle, files=files(SCENARIO.model))
    asked = [case.kv_bytes for case in oracle.cases]
    assert asked == [rival.kv_bytes, *([rival.kv_bytes + lighter] if lighter else [])]


def test_what_our_rules_refuse_is_asked_with_nearly_all_that_the_weights_leave() -> None:
    rival = replace(found()[0], candidate=None, refused="no kernel")
    oracle = MadeUp(stage="model", refused="no kernel")
    assert valid_after_all(rival, question(SCENARIO), oracle, files=files(SCENARIO.model)) == ""
    left = rival.choice.pool.memory_bytes - rival.weight_bytes - 2 * 2**30
    assert [case.kv_bytes for case in oracle.cases] == [max(1, left)]
