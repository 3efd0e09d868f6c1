"""What makes a plan invalid, one figure at a time: the pure part of the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from oracle.engine.case import Answer, answer_from, case_from, line_of
from oracle.grid import Scenario, answer, files
from oracle.starts import of_plan
from oracle.validity import holds, objections
from tonnage.planning.plan import Plan

SCENARIO = Scenario("meta-llama--Meta-Llama-3.1-8B", "H100", "chat", "Lossless")


def planned() -> Plan:
    found = answer(SCENARIO)
    assert isinstance(found, Plan)
    return found


def agreeing(plan: Plan, **changes: Any) -> Answer:
    """An answer that bears the plan out, with changes."""
    assert plan.gpu is not None
    fields: dict[str, Any] = {
        "stage": "started",
        "weight_bytes": plan.memory.weights - 1,
        "backends": ("FLASH_ATTN",),
        "kv_dtype_served": True,
        "block_tokens": plan.block_size,
        "blocks": plan.blocks,
        "block_bytes": plan.bytes_per_block,
        "tokens": plan.tokens,
        "concurrency": plan.concurrency_at_context,
        "requests": {
            plan.context_length: plan.concurrency_at_context,
            plan.typical_tokens: plan.concurrency_at_typical,
        },
        "settings": {
            "dtype": plan.weights_dtype,
            "max_model_len": plan.context_length,
            "max_num_seqs": plan.max_num_seqs,
            "max_num_batched_tokens": plan.max_num_batched_tokens,
            "prefix_caching": plan.prefix_caching,
            "captured_sizes": list(plan.gpu.captured_sizes),
        },
    }
    return Answer(**{**fields, **changes})


def test_an_answer_that_agrees_has_nothing_against_the_plan() -> None:
    assert objections(planned(), agreeing(planned())) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage": "cache", "refused": "ValueError: too small"}, "refused (cache): ValueError: too small"),
        ({"blocks": 1}, "blocks: "),
        ({"tokens": 1}, "tokens: "),
        ({"block_bytes": 1}, "bytes of a block: "),
        ({"block_tokens": 32}, "tokens of a block: 16 planned, 32 by the engine"),
        ({"concurrency": 1.0}, "requests at contextLength: "),
        ({"requests": {}}, "one request of 8192 tokens does not fit"),
        ({"weight_bytes": 2**40}, "weights: "),
        ({"weight_bytes": None}, "weights: "),
        ({"kv_dtype_served": False}, "auto is served by no backend there (FLASH_ATTN)"),
        ({"backends": ("TRITON_ATTN",)}, "FLASH_ATTN planned, TRITON_ATTN by the engine"),
    ],
)
def test_one_figure_is_enough(changes: dict[str, Any], words: str) -> None:
    found = objections(planned(), agreeing(planned(), **changes))
    assert any(each.startswith(words) for each in found), found


@pytest.mark.parametrize("name", ["dtype", "max_model_len", "max_num_seqs", "captured_sizes"])
def test_settings_that_the_engine_changed_are_told(name: str) -> None:
    plan = planned()
    settings = {**agreeing(plan).settings, name: "other"}
    assert len(objections(plan, agreeing(plan, settings=settings))) == 1


def test_the_block_that_is_held_back_serves_nobody() -> None:
    """Requests of 4 blocks: 12 blocks are three of them less the one that is held back."""
    twelve = Answer(stage="started", blocks=12, requests={64: 3.0})
    assert holds(twelve, length_tokens=64, requests=2)
    assert not holds(twelve, length_tokens=64, requests=3)
    thirteen = replace(twelve, blocks=13, requests={64: 3.25})
    assert holds(thirteen, length_tokens=64, requests=3)
    assert not holds(thirteen, length_tokens=64, requests=3, spare_blocks=1)
    assert not holds(thirteen, length_tokens=65, requests=1)


def test_cases_and_answers_survive_their_line() -> None:
    config, quantization = files(SCENARIO.model)
    case = of_plan(planned(), config=config, hf_quant_config=quantization)
    assert case.platform == "cuda:9.0"
    assert case_from(case.text) == case
    assert replace(case, card=None).platform == "cpu"
    assert answer_from(line_of(agreeing(planned()))) == agreeing(planned())
