"""Plans of the sample, and what was not chosen instead, by vLLM's own KV-cache code (docs/verification-of-
plans.md)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oracle import grid, rivals, starts
from oracle.client import Oracle
from oracle.engine.case import Card, Case
from oracle.grid import Scenario
from oracle.validity import objections
from tonnage.planning.plan import Plan

_NEAREST = 1
"""How many rivals of a plan are checked here; `make soak-oracle` checks all."""


def planned(scenario: Scenario) -> Plan:
    found = grid.answer(scenario)
    assert isinstance(found, Plan)
    return found


def case_of(scenario: Scenario) -> Case:
    config, quantization = grid.files(scenario.model)
    return starts.of_plan(planned(scenario), config=config, hf_quant_config=quantization)


@pytest.mark.parametrize("scenario", grid.sample(), ids=lambda each: each.name)
def test_the_engine_bears_the_plan_out(scenario: Scenario, oracle: Oracle) -> None:
    plan = planned(scenario)
    assert objections(plan, oracle.check(case_of(scenario))) == ()
    if plan.gpu is None:
        return
    asked = grid.question(scenario)
    for rival in rivals.rivals(asked)[:_NEAREST]:
        assert rivals.valid_after_all(rival, asked, oracle, files=grid.files(scenario.model)) == ""


def test_the_sample_is_of_many_kinds() -> None:
    plans = [planned(each) for each in grid.sample()]
    assert len(plans) == len(grid.MODELS) + 1 == 41
    on_gpus = [plan.gpu for plan in plans if plan.gpu is not None]
    assert {gpu.compute_capability for gpu in on_gpus} >= {(7, 5), (8, 0), (8, 9), (9, 0), (10, 0)}
    assert {plan.kv_dtype for plan in plans} >= {"auto", "fp8", "int8_per_token_head"}
    assert any(plan.gpu is None for plan in plans)
    assert any(gpu.pipeline_parallel > 1 for gpu in on_gpus)
    assert any(gpu.quantization for gpu in on_gpus)
    assert any(gpu.enforce_eager for gpu in on_gpus)


LLAMA = Scenario("meta-llama--Meta-Llama-3.1-8B", "H100", "chat", "Lossless")


def test_the_engine_refuses_less_than_one_request(oracle: Oracle) -> None:
    """512 blocks are 8192 tokens; the block that is held back makes them too few."""
    case = replace(case_of(LLAMA), kv_bytes=512 * planned(LLAMA).bytes_per_block)
    short, enough = (
        oracle.check(each) for each in (case, replace(case, kv_bytes=513 * planned(LLAMA).bytes_per_block))
    )
    assert (short.stage, enough.stage, enough.blocks) == ("cache", "started", 513)
    assert "To serve at least one request" in short.refused
    assert short.weight_bytes == enough.weight_bytes == 16_060_522_496


def test_the_engine_refuses_arguments_and_kernels(oracle: Oracle) -> None:
    """9 ranks cannot share 32 heads; an fp8 cache is served by no kernel of a T4."""
    case = case_of(LLAMA)
    ranks = oracle.check(replace(case, arguments={**case.arguments, "tensor_parallel_size": 9}))
    assert ranks.stage in {"arguments", "model"}
    assert "divisible" in ranks.refused
    card = Card(compute_capability=(7, 5), name="Tesla T4", memory_bytes=15 * 2**30)
    arguments = {**case.arguments, "kv_cache_dtype": "fp8", "dtype": "float16"}
    del arguments["attention_backend"]
    assert oracle.check(replace(case, card=card, arguments=arguments)).stage in {"arguments", "model"}


def test_equal_cases_are_asked_once(oracle: Oracle) -> None:
    first, asked = oracle.check(case_of(LLAMA)), oracle.asked
    assert oracle.check(case_of(LLAMA)) is first
    assert oracle.asked == asked


def test_a_case_that_takes_too_long_is_given_up() -> None:
    with Oracle(case_seconds=0.01) as hurried:
        found = hurried.check(replace(case_of(LLAMA), card=None))
        assert (found.stage, found.refused) == ("process", "no answer within 0 s")
