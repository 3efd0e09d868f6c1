"""The choice: exact figures, the ladder of rungs, what leaves a plan alone, the nearest plan that fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tonnage.engines import rules_for
from tonnage.gpus.nodes import Toleration
from tonnage.gpus.placement import Placement
from tonnage.models import FAMILIES
from tonnage.planning.choose import plan_for
from tonnage.planning.plan import Demand, Plan, Quality, Rejection
from unit.models.samples import (
    latent_config,
    llama_config,
    profile_of,
    published_configs,
    published_quantization,
    smollm2_config,
)
from unit.planning.samples import ENGINE, GIB, SMOLLM2, answer, node, plan, rejection

MIB = 2**20


def test_smollm2_by_hand() -> None:
    """Context 2048, 8 requests of 512: 8 x 4 blocks of 128 tokens, the null block and one to spare."""
    found = plan(Demand(context_length=2048, concurrency=8))
    assert (found.block_size, found.bytes_per_block, found.blocks) == (128, 30 * 128 * 3 * 128 * 2, 34)
    assert found.memory.kv == 34 * found.bytes_per_block
    assert (found.concurrency_at_context, found.concurrency_at_typical) == (34 / 16, 34 / 4)
    assert found.tokens == int(34 / 16 * 2048)
    assert (found.max_num_seqs, found.max_num_batched_tokens) == (8, 2048)
    assert (found.kv_dtype, found.weights_dtype, found.quality) == ("auto", "bfloat16", Quality.LOSSLESS)
    assert (found.pool, found.product, found.gpus_per_replica, found.tensor_parallel) == ("cpu", "CPU", 0, 1)
    assert (found.engine_version, found.engine_rules) == ("0.32.0", "0.32.0")
    assert (found.attention_backend, found.prefix_caching) == (None, True)


def test_weights_count_the_packed_output_head() -> None:
    """269,030,016 bytes of tensors, and the kernels' copy of a 49152 x 576 table in bfloat16."""
    assert plan().memory.weights == 269_030_016 + 49152 * 576 * 2


@pytest.mark.parametrize(
    ("changes", "stored", "dtype", "weight_bytes"),
    [
        ({}, "BF16", "bfloat16", 1_000_000 + 1024 * 512 * 2 + 24 * 512 * 2),
        ({"tie_word_embeddings": False}, "BF16", "bfloat16", 1_000_000 + 2 * (1024 + 24) * 512 * 2),
        ({"dtype": "float32"}, "F32", "bfloat16", 500_000 + (1024 + 24) * 512 * 2),
        ({"dtype": None}, "F16", "float16", 1_000_000 + (1024 + 24) * 512 * 2),
        ({"dtype": None}, "F32", "bfloat16", 500_000 + (1024 + 24) * 512 * 2),
        (
            {"architectures": ["Gemma2ForCausalLM"], "dtype": "float16"},
            "F16",
            "bfloat16",
            1_000_000 + 1048 * 1024,
        ),
    ],
)
def test_weights_in_the_serving_dtype(
    changes: dict[str, Any], stored: str, dtype: str, weight_bytes: int
) -> None:
    found = plan(model=profile_of(llama_config(**changes), weight_bytes=1_000_000, stored_dtype=stored))
    assert (found.weights_dtype, found.memory.weights) == (dtype, weight_bytes)


def test_defaults() -> None:
    found = plan()
    assert (found.context_length, found.typical_tokens, found.concurrency) == (8192, 2048, 16)
    assert plan(Demand(context_length=4099)).typical_tokens == 1025


def test_one_long_request_is_held_even_when_typical_ones_need_less() -> None:
    found = plan(Demand(context_length=8192, concurrency=2, typical_tokens=100))
    assert found.blocks == 64 + 2
    assert found.concurrency_at_context > 1


def test_latent_attention_on_cpu() -> None:
    config = latent_config(num_hidden_layers=27)
    found = plan(Demand(context_length=4096, concurrency=4, typical_tokens=4096), model=profile_of(config))
    assert (found.block_size, found.bytes_per_block) == (16, 27 * 16 * 576 * 2)
    assert found.blocks == 4 * 256 + 2
    assert (found.attention_backend, found.prefix_caching) == ("CPU_MLA", False)
    assert found.max_num_batched_tokens == 4096
    assert found.alternatives == ()
    assert "MLA stores 31104 bytes per token" in found.saved_by_architecture


def test_windows_hold_the_step_beside_the_window() -> None:
    """min(127 + 2048, 4096) tokens of a window in blocks of 128, and one more; 32 blocks of the others."""
    config = llama_config(architectures=["Gemma2ForCausalLM"], sliding_window=128)
    found = plan(Demand(concurrency=1), model=profile_of(config))
    assert found.blocks == 32 + 17 + 1 + 2
    assert found.saved_by_architecture.endswith("; 2 of 4 layers forget all but the last 128 tokens")


def nodes_of(gib: float) -> dict[str, Any]:
    return {"nodes": (node(gib=gib),)}


FEW = Demand(concurrency=64)


@pytest.mark.parametrize(
    ("demand", "gib", "kv_dtype", "quality", "alternatives"),
    [
        (FEW, 8, "auto", Quality.LOSSLESS, ["less lossy choice fits already"]),
        (FEW, 4.5, "fp8", Quality.NEAR_LOSSLESS, ["more than any usable node has"]),
        (replace(FEW, quality=Quality.LOSSLESS), 8, "auto", Quality.LOSSLESS, []),
        (replace(FEW, quality=Quality.ECONOMY), 4.5, "fp8", Quality.NEAR_LOSSLESS, ["more than any usable"]),
        (replace(FEW, kv_dtype="fp8_e5m2"), 8, "fp8_e5m2", Quality.NEAR_LOSSLESS, []),
        (replace(FEW, kv_dtype="bfloat16"), 8, "bfloat16", Quality.LOSSLESS, []),
    ],
)
def test_the_first_rung_that_fits(
    demand: Demand, gib: float, kv_dtype: str, quality: Quality, alternatives: list[str]
) -> None:
    found = plan(demand, **nodes_of(gib))
    assert (found.kv_dtype, found.quality) == (kv_dtype, quality)
    assert len(found.alternatives) == len(alternatives)
    assert all(text in each.why for text, each in zip(alternatives, found.alternatives, strict=True))


def test_fp8_halves_the_block_and_keeps_the_count() -> None:
    wide, narrow = plan(FEW, **nodes_of(8)), plan(FEW, **nodes_of(4.5))
    assert wide.blocks == narrow.blocks
    assert wide.bytes_per_block == 2 * narrow.bytes_per_block


def test_a_model_that_fp8_does_not_serve_has_one_rung() -> None:
    found = plan(model=profile_of(llama_config(head_dim=80)))
    assert found.alternatives == ()


def test_the_plan_fits_to_the_byte() -> None:
    needed = plan(replace(FEW, quality=Quality.LOSSLESS)).request_bytes
    exact = node(memory_allocatable_bytes=needed)
    short = node(memory_allocatable_bytes=needed - 1)
    assert isinstance(answer(replace(FEW, quality=Quality.LOSSLESS), nodes=(exact,)), Plan)
    found = rejection(replace(FEW, quality=Quality.LOSSLESS), nodes=(short,))
    assert found.reason == "NotEnoughMemory"
    assert found.numbers["missingBytes"] == 1


def test_a_node_joining_changes_nothing() -> None:
    one = (node("a", gib=8),)
    many = (node("z", gib=900), *one, node("b", gib=1), node("c", ready=False))
    assert plan(FEW, nodes=one) == plan(FEW, nodes=many) == plan(FEW, nodes=many[::-1])


def test_placement_decides_which_nodes_count() -> None:
    tainted = node(gib=64, labels={"pool": "llm"})
    found = plan_for(
        Demand(),
        model=SMOLLM2,
        nodes=[tainted],
        engine=ENGINE,
        placement=Placement(node_selector={"pool": "web"}),
    )
    assert isinstance(found, Rejection)
    assert found.reason == "NoUsableNode"
    placement = Placement(node_selector={"pool": "llm"}, tolerations=(Toleration(operator="Exists"),))
    assert isinstance(
        plan_for(Demand(), model=SMOLLM2, nodes=[tainted], engine=ENGINE, placement=placement), Plan
    )


def test_not_enough_memory_names_what_would_fit() -> None:
    demand = Demand(concurrency=64, quality=Quality.LOSSLESS)
    nodes = (node("small", gib=2), node("large", gib=4.5))
    found = rejection(demand, nodes=nodes)
    assert found.reason == "NotEnoughMemory"
    assert found.numbers["node"] == "large"
    assert found.numbers["availableBytes"] == int(4.5 * GIB)
    assert found.numbers["nearLosslessFits"] == 1
    length, requests = found.numbers["maxContextLength"], found.numbers["maxConcurrency"]
    assert isinstance(length, int)
    assert isinstance(requests, int)
    assert (
        f"contextLength <= {length}, or workload.concurrency <= {requests}, or quality: Near" in found.message
    )
    assert "the largest of 2 usable nodes, large, has 4.50 GiB" in found.message
    assert isinstance(answer(replace(demand, context_length=length), nodes=nodes), Plan)
    assert isinstance(answer(replace(demand, context_length=length + 1), nodes=nodes), Rejection)
    assert isinstance(answer(replace(demand, concurrency=requests), nodes=nodes), Plan)
    assert isinstance(answer(replace(demand, concurrency=requests + 1), nodes=nodes), Rejection)
    assert isinstance(answer(replace(demand, quality=Quality.NEAR_LOSSLESS), nodes=nodes), Plan)


def test_a_node_too_small_for_the_engine_alone() -> None:
    found = rejection(**nodes_of(1))
    assert "is not KV: use a larger node or a smaller model" in found.message
    assert "maxConcurrency" not in found.numbers


def test_a_newer_engine_is_planned_by_the_newest_rules_and_says_so() -> None:
    found = plan_for(Demand(), model=SMOLLM2, nodes=[node()], engine=rules_for("0.40.0"))
    assert isinstance(found, Plan)
    assert (found.engine_version, found.engine_rules) == ("0.40.0", "0.32.0")
    assert found.reason.endswith("vLLM 0.40.0 is planned by the rules of 0.32.0")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "GQA stores 2048 bytes per token, 4.0x less than multi-head attention"),
        ({"num_key_value_heads": 1}, "MQA stores 1024 bytes per token, 8.0x less than multi-head attention"),
        (
            {"num_key_value_heads": 8},
            "multi-head attention stores 8192 bytes per token, so heads save nothing",
        ),
    ],
)
def test_what_the_architecture_saves(changes: dict[str, Any], says: str) -> None:
    assert plan(model=profile_of(llama_config(**changes))).saved_by_architecture == says


def test_smollm2_saves_by_gqa() -> None:
    assert (
        plan().saved_by_architecture
        == "GQA stores 23040 bytes per token, 3.0x less than multi-head attention"
    )


SERVED = sorted(
    name
    for name, config in published_configs().items()
    if config["architectures"][0] in FAMILIES
    and "quantization_config" not in config
    and published_quantization(name) is None
)


@pytest.mark.parametrize("name", SERVED)
def test_published_models_get_a_short_sentence(name: str) -> None:
    found = answer(model=profile_of(published_configs()[name]), nodes=(node(gib=100_000),))
    if isinstance(found, Plan):
        assert len(found.reason) <= 512
        assert found.reason.endswith("GiB")
        assert found.concurrency_at_context >= 1
        assert len(found.alternatives) <= 5
    else:
        assert found.reason in {"UnsupportedHeadSize", "UnsupportedAttention", "UnsupportedQuantization"}


DEMANDS = st.builds(
    Demand,
    context_length=st.none() | st.integers(1, 8192),
    concurrency=st.integers(1, 300),
    typical_tokens=st.none() | st.integers(1, 8192),
    quality=st.sampled_from(Quality),
    kv_dtype=st.none() | st.sampled_from(ENGINE.kv_dtypes),
)
WINDOWED = profile_of(
    {**smollm2_config(), "sliding_window": 600, "layer_types": ["sliding_attention", "full_attention"] * 15}
)
MODELS = st.sampled_from([SMOLLM2, WINDOWED])


@settings(max_examples=200)
@given(DEMANDS, MODELS, st.integers(1, 64 * 1024))
def test_a_plan_holds_the_workload_and_fits_a_node(demand: Demand, model: Any, mib: int) -> None:
    nodes = (node(memory_allocatable_bytes=mib * MIB),)
    found = answer(demand, model=model, nodes=nodes)
    assert found == answer(demand, model=model, nodes=nodes)
    if isinstance(found, Plan):
        assert found.memory.total + found.shared_memory_bytes <= found.request_bytes <= mib * MIB
        assert found.request_bytes % MIB == 0
        assert found.memory.kv == found.blocks * found.bytes_per_block
        assert found.concurrency_at_typical > demand.concurrency
        assert found.concurrency_at_context > 1
        assert found.max_num_batched_tokens >= found.max_num_seqs
    else:
        assert found.reason in {"NotEnoughMemory", "InvalidDemand", "KvDtypeNotAllowed"}


@settings(max_examples=100)
@given(DEMANDS, MODELS, st.integers(1, 8191))
def test_a_longer_context_never_needs_less(demand: Demand, model: Any, length: int) -> None:
    nodes = (node(gib=100_000),)
    pair = [
        answer(replace(demand, context_length=each), model=model, nodes=nodes)
        for each in (length, length + 1)
    ]
    shorter, longer = pair
    assume(isinstance(shorter, Plan) and isinstance(longer, Plan))
    assert isinstance(shorter, Plan)
    assert isinstance(longer, Plan)
    assert shorter.memory.total <= longer.memory.total
