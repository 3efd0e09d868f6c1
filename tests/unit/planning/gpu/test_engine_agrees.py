"""132 plans, each of which vLLM 0.32's own sizing code was asked about (tests/data/plan_oracle.jsonl): the
same blocks, tokens, concurrency, pages and kernels from the arguments that the plan starts the engine
with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tonnage.planning.fit import Device, EngineOptions, fit
from tonnage.planning.gpu.question import Hardware
from tonnage.planning.plan import Plan, Quality
from unit.models.samples import DATA
from unit.planning.gpu.samples import model, node, plan, pool

ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (DATA / "plan_oracle.jsonl").read_text().splitlines()
]

# What the engine makes of "auto" before it reports it (model_executor/models/config.py 0.32, on Blackwell):
# a plan states it, else the two would not be equal.
RESOLVED = {"zai-org--GLM-5-FP8": "fp8_e4m3"}


def name_of(row: dict[str, Any]) -> str:
    chosen = row["chosen"]
    return f"{row['model']}-{row['card']}-{row['demand']['quality']}-{chosen['tensor']}x{chosen['pipeline']}"


def planned(row: dict[str, Any]) -> Plan:
    nodes = [node(f"n{number}", devices=row["devices"]) for number in range(row["nodes"])]
    return plan(
        pool(row["card"], *nodes),
        profile=model(row["model"]),
        hardware=Hardware(**row["hardware"]),
        **{**row["demand"], "quality": Quality(row["demand"]["quality"])},
    )


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_the_engine_makes_of_a_plan_what_it_says(row: dict[str, Any]) -> None:
    found, engine, arguments = planned(row), row["engine"], row["engine_args"]
    assert found.gpu is not None
    chosen = {
        "tensor": found.tensor_parallel,
        "pipeline": found.gpu.pipeline_parallel,
        "kv_dtype": "auto" if found.kv_dtype == RESOLVED.get(row["model"]) else found.kv_dtype,
        "quantization": found.gpu.quantization,
        "eager": found.gpu.enforce_eager,
    }
    assert chosen == row["chosen"]
    assert (found.bytes_per_block, found.block_size) == (engine["bytes_per_block"], engine["block_size"])
    assert found.attention_backend is None or found.attention_backend in engine["backends"]
    assert arguments["max_num_batched_tokens"] == found.max_num_batched_tokens
    over = found.memory.weights - engine["parameter_bytes"]
    if found.gpu.pipeline_parallel > 1:
        # The engine's figure is of the first stage, a plan's of the fullest.
        assert over >= 0
    elif not found.gpu.quantization:
        # Before it stores weights in fp8, the engine's code knows them as shipped.
        assert 0 <= over < 2**28 + engine["parameter_bytes"] // 20
    answer = fit(
        model(row["model"]).shape,
        device=Device(compute_capability=found.gpu.compute_capability),
        options=EngineOptions(
            tensor_parallel=found.tensor_parallel,
            pipeline_parallel=found.gpu.pipeline_parallel,
            kv_dtype=arguments["kv_cache_dtype"],
            block_tokens=arguments["block_size"],
            context_tokens=arguments["max_model_len"],
            max_num_seqs=arguments["max_num_seqs"],
            max_num_batched_tokens=arguments["max_num_batched_tokens"],
        ),
        kv_bytes=row["kv_bytes"],
    )
    assert (answer.num_blocks, answer.kv_tokens) == (engine["num_blocks"], engine["tokens"])
    assert answer.max_concurrency == engine["concurrency"]


def test_the_plans_are_of_many_kinds() -> None:
    assert len(ROWS) == 132
    assert {row["card"] for row in ROWS} >= {"L4", "L40S", "A100-80GB", "H100-80GB", "H200", "B200"}
    kv_dtypes = {row["chosen"]["kv_dtype"] for row in ROWS}
    assert kv_dtypes >= {"auto", "fp8", "int8_per_token_head", "turboquant_k8v4", "turboquant_4bit_nc"}
    assert any(row["chosen"]["pipeline"] > 1 for row in ROWS)
    assert any(row["chosen"]["quantization"] for row in ROWS)
