"""Every rule: what it objects to, in words that say what to do, and that it lets the rest pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tonnage.gpus.inventory import Vendor
from tonnage.models import ModelProfile, Trait, parse_config
from tonnage.planning.gpu import rules
from tonnage.planning.gpu.candidates import Choice, Sizer
from tonnage.planning.gpu.ladder import Step
from tonnage.planning.gpu.question import Hardware
from tonnage.planning.plan import Rejection
from unit.models.samples import llama_config
from unit.planning.gpu.samples import (
    ECONOMY,
    GIB,
    LLAMA_8B,
    LLAMA_70B,
    LOSSLESS,
    answer,
    model,
    node,
    plan,
    pool,
    question,
    rejection,
)

FP8_CHECKPOINT = model("Qwen--Qwen3-32B-FP8")
UNKNOWN_WEIGHTS = replace(LLAMA_8B, shape=replace(LLAMA_8B.shape, weights_known=False))
PLAIN = model("Qwen--Qwen3-32B")
NO_METHOD = replace(PLAIN, shape=replace(PLAIN.shape, traits=PLAIN.shape.traits | {Trait.DECLARED_PLAIN}))
STRANGE = replace(LLAMA_8B, shape=replace(LLAMA_8B.shape, quantization="torchao"))


@pytest.mark.parametrize(
    ("profile", "hardware", "demand", "reason", "words"),
    [
        (LLAMA_8B, {}, {"concurrency": 0}, "InvalidDemand", "workload.concurrency is 0"),
        (LLAMA_8B, {}, {"context_length": 200_000}, "ContextTooLong", "limit of 131072 tokens"),
        (LLAMA_8B, {}, {"context_length": 64, "typical_tokens": 65}, "InvalidDemand", "typicalTokens 65"),
        (LLAMA_8B, {"tensor_parallel": 0}, {}, "InvalidDemand", "hardware.parallelism.tensor is 0"),
        (LLAMA_8B, {"pipeline_parallel": 2000}, {}, "InvalidDemand", "between 1 and 1024"),
        (LLAMA_8B, {"max_gpus": 0}, {}, "InvalidDemand", "hardware.maxGPUsPerReplica is 0"),
        (
            LLAMA_8B,
            {"tensor_parallel": 4, "pipeline_parallel": 2, "max_gpus": 4},
            {},
            "InvalidDemand",
            "asks for 8 GPUs, hardware.maxGPUsPerReplica allows 4",
        ),
        (model("tfdefault--whisper"), {}, {}, "UnsupportedAttention", "reads with an encoder"),
        (model("tfdefault--bert"), {}, {}, "UnsupportedAttention", "`tonnage fit` sizes the others"),
        (UNKNOWN_WEIGHTS, {}, {}, "UnknownWeights", "an architecture that is not known here"),
        (STRANGE, {}, {}, "UnsupportedQuantization", "torchao, which is not planned on GPUs"),
        (
            NO_METHOD,
            {"quantization": "fp8"},
            {},
            "UnsupportedQuantization",
            "without a method that vLLM reads",
        ),
        (LLAMA_8B, {"quantization": "awq"}, {}, "UnsupportedQuantization", "possible: Auto, None, fp8"),
        (
            model("openai--gpt-oss-20b"),
            {"quantization": "fp8"},
            {},
            "UnsupportedQuantization",
            "quantized with gpt_oss_mxfp4 already; set it to Auto",
        ),
        (LLAMA_8B, {}, {"kv_dtype": "int3"}, "UnsupportedKvDtype", "cache.dtype int3 is not known"),
        (
            LLAMA_8B,
            {},
            {"kv_dtype": "fp8", "quality": LOSSLESS},
            "KvDtypeNotAllowed",
            "is NearLossless, but quality is Lossless; set quality to NearLossless",
        ),
        (
            LLAMA_8B,
            {},
            {"kv_dtype": "turboquant_4bit_nc"},
            "KvDtypeNotAllowed",
            "set quality to Economy or cache.dtype to Auto",
        ),
        (
            LLAMA_8B,
            {"quantization": "fp8"},
            {"quality": LOSSLESS},
            "QuantizationNotAllowed",
            "weights.quantization fp8 is NearLossless, but quality is Lossless",
        ),
    ],
)
def test_questions_that_no_cluster_could_answer(
    profile: ModelProfile, hardware: dict[str, Any], demand: dict[str, Any], reason: str, words: str
) -> None:
    found = rejection(pool("H200"), profile=profile, hardware=Hardware(**hardware), **demand)
    assert found.reason == reason
    assert words in found.message


def test_a_fixed_kv_dtype_is_not_pinned_away() -> None:
    shape = replace(LLAMA_8B.shape, traits=frozenset({Trait.FIXED_KV_DTYPE}))
    ignored = replace(LLAMA_8B, shape=shape)
    found = rejection(pool("H200"), profile=ignored, context_length=4096, kv_dtype="fp8")
    assert found.reason == "UnsupportedKvDtype"
    assert "the engine ignores it" in found.message


def test_no_cluster_at_all() -> None:
    assert rejection(context_length=4096).reason == "NoAccelerators"
    cpu = pool("L4", vendor=Vendor.CPU)
    assert rejection(cpu, context_length=4096).reason == "NoAccelerators"


@pytest.mark.parametrize(
    ("card", "changes", "profile", "hardware", "reason", "words"),
    [
        ("H200", {"vendor": Vendor.AMD}, LLAMA_8B, {}, "UnsupportedVendor", "memory on AMD devices"),
        ("H200", {"compute_capability": None}, LLAMA_8B, {}, "UnknownDevice", "is not known"),
        ("H200", {"memory_bytes": 0}, LLAMA_8B, {}, "UnknownDevice", "is not known"),
        ("H200", {"compute_capability": (7, 0)}, LLAMA_8B, {}, "UnsupportedDevice", "less than the 7.5"),
        ("GB10", {}, LLAMA_8B, {}, "UnsupportedDevice", "shared with the system"),
        ("H200", {}, LLAMA_8B, {"products": ("L4",)}, "ProductNotAllowed", "none of hardware.products (L4)"),
        ("H200", {}, LLAMA_8B, {"products": ("h200",)}, "ProductNotAllowed", "names it: write H200; it"),
        (
            "T4",
            {},
            model("openai--gpt-oss-20b"),
            {},
            "UnsupportedQuantization",
            "need compute capability 8.0",
        ),
        ("H200", {"product": "?"}, LLAMA_8B, {"products": ("H200",)}, "ProductNotAllowed", "write ?"),
        ("H200", {}, LLAMA_8B, {"tensor_parallel": 16}, "NotEnoughGpus", "no node has 16 H200"),
        ("H200", {}, LLAMA_8B, {"tensor_parallel": 3}, "EngineRefuses", "divisible by tensor parallel size"),
        (
            "A100-80GB",
            {},
            LLAMA_8B,
            {"quantization": "fp8"},
            "UnsupportedQuantization",
            "does not compute in",
        ),
        ("A100-80GB", {}, model("zai-org--GLM-5.1"), {}, "EngineRefuses", "no attention backend"),
    ],
)
def test_pools_that_cannot_be_used(
    card: str,
    changes: dict[str, Any],
    profile: ModelProfile,
    hardware: dict[str, Any],
    reason: str,
    words: str,
) -> None:
    found = rejection(
        pool(card, **changes), profile=profile, hardware=Hardware(**hardware), context_length=4096
    )
    assert found.reason == reason
    assert words in found.message


@pytest.mark.parametrize("name", ["H200", "NVIDIA H200", "NVIDIA-H200", "nvidia-h200"])
def test_a_product_is_known_by_all_its_names(name: str) -> None:
    as_labelled = pool("H200", product="NVIDIA-H200")
    found = plan(as_labelled, hardware=Hardware(products=(name,)), context_length=4096)
    assert found.product == "NVIDIA-H200"


def test_other_pools_are_used_beside_those_that_cannot_be() -> None:
    found = plan(pool("GB10"), pool("L4"), pool("H200", vendor=Vendor.INTEL), context_length=4096)
    assert found.product == "L4"


@pytest.mark.parametrize(
    ("card", "kv_dtype", "runs"),
    [
        ("L40S", "int8_per_token_head", True),
        ("H100-80GB", "int8_per_token_head", False),
        ("B200", "int8_per_token_head", False),
        ("H100-80GB", "fp8", True),
        ("L4", "fp8", True),
        ("A100-80GB", "fp8", False),
        ("A10", "turboquant_4bit_nc", True),
        ("B200", "turboquant_4bit_nc", False),
        ("B200", "nvfp4", True),
        ("H100-80GB", "nvfp4", False),
        ("T4", "int4_per_token_head", True),
    ],
)
def test_the_planner_takes_only_what_a_card_runs_well(card: str, kv_dtype: str, runs: bool) -> None:
    asked = question([pool(card)], quality=ECONOMY)
    objection = rules.kv_dtype_runs_well(asked, pool(card), Step(kv_dtype))
    assert (objection is None) == runs
    pinned = question([pool(card)], quality=ECONOMY, kv_dtype=kv_dtype)
    assert rules.kv_dtype_runs_well(pinned, pool(card), Step(kv_dtype)) is None


def test_a_pinned_kv_dtype_is_obeyed_where_a_kernel_has_it_and_refused_elsewhere() -> None:
    slow = plan(pool("H100-80GB"), context_length=8192, kv_dtype="int8_per_token_head")
    assert (slow.kv_dtype, slow.attention_backend) == ("int8_per_token_head", "TRITON_ATTN")
    none = rejection(
        pool("H100-80GB"),
        profile=model("deepseek-ai--DeepSeek-V3"),
        context_length=8192,
        kv_dtype="int8_per_token_head",
    )
    assert none.reason == "UnsupportedKvDtype"
    assert "no attention backend" in none.message


def test_fp8_of_a_latent_cache_is_left_alone_on_hopper() -> None:
    asked = question([pool("H200")], profile=model("deepseek-ai--DeepSeek-V3"))
    assert rules.kv_dtype_runs_well(asked, pool("H200"), Step("fp8")) is not None
    assert rules.kv_dtype_runs_well(asked, pool("B200"), Step("fp8")) is None


def test_pinned_weights() -> None:
    both = (pool("A100-80GB"), pool("H100-80GB"))
    fp8 = plan(*both, hardware=Hardware(quantization="fp8"), context_length=8192)
    assert fp8.gpu is not None
    assert (fp8.product, fp8.gpu.quantization) == ("H100-80GB", "fp8_per_tensor")
    shipped = rejection(
        pool("L40S", node(devices=1)),
        profile=model("Qwen--Qwen3-30B-A3B"),
        hardware=Hardware(quantization="None"),
        context_length=32768,
    )
    assert "weights.quantization Auto" in shipped.message
    # What is fp8 already stays as it is, and is as shipped.
    declared = plan(
        pool("H100-80GB"), profile=FP8_CHECKPOINT, hardware=Hardware(quantization="fp8"), context_length=8192
    )
    assert declared.gpu is not None
    assert (declared.quality, declared.gpu.quantization) == (LOSSLESS, "")


def test_an_old_engine_is_not_asked_for_what_it_may_not_know() -> None:
    found = answer(
        pool("H100-80GB"), version="0.26.0", hardware=Hardware(quantization="fp8"), context_length=8192
    )
    assert isinstance(found, Rejection)
    assert found.message == (
        "weights.quantization fp8 is not known of vLLM 0.26.0; use a newer one or an fp8 checkpoint"
    )


def test_a_quantized_checkpoint_is_not_quantized_again() -> None:
    found = rejection(pool("L4", node(devices=1)), profile=FP8_CHECKPOINT, context_length=8192)
    assert found.reason == "NotEnoughMemory"
    # The engine refuses `--quantization` for what declares something, whether it can read that or not.
    small = pool("H100-80GB", node(devices=1))
    assert plan(small, profile=PLAIN, quality=ECONOMY, context_length=40960, concurrency=16).gpu.quantization
    found = answer(small, profile=NO_METHOD, quality=ECONOMY, context_length=40960, concurrency=16)
    assert isinstance(found, Rejection) or not found.gpu.quantization


@pytest.mark.parametrize(
    ("nodes", "missing"),
    [
        ([node(free=4)], None),
        ([node(free=3)], 1),
        ([node("a", free=3), node("b", free=2)], 1),
        ([node("a", free=0), node("b", free=4)], None),
        ([node(free=8, gib=20)], 4),
        # the one with most free never has four
        ([node("a", free=0), node("b", devices=2, free=2)], 4),
    ],
)
def test_devices_must_be_free_on_one_node_with_the_main_memory(nodes: list[Any], missing: int | None) -> None:
    """Four ranks want 4 + 4 x 4 GiB and /dev/shm of 5."""
    asked = question([pool("H100-80GB", *nodes)], profile=LLAMA_70B)
    choice = Choice(step=Step("auto"), pool=asked.pools[0], tensor=4, pipeline=1, batched_tokens=2048)
    assert rules.main_memory_bytes(asked, choice) == 25 * GIB
    found = rules.devices_free(asked, choice)
    assert (None if found is None else found.numbers["missing"]) == missing


def test_a_replica_has_two_blocks_more_than_its_requests() -> None:
    """32 blocks for 512 tokens, the one that the engine holds back, and one to spare, to the byte: with less,
    only without CUDA graphs."""
    demand: dict[str, Any] = {"context_length": 512, "concurrency": 1, "quality": LOSSLESS}
    roomy = plan(pool("L4", node(devices=1)), **demand)
    least = roomy.memory.total - roomy.memory.kv + 34 * roomy.bytes_per_block
    enough, short = (
        plan(pool("L4", node(devices=1), memory_bytes=least - less), **demand) for less in (0, 1)
    )
    assert enough.gpu is not None
    assert short.gpu is not None
    assert (enough.blocks, enough.gpu.enforce_eager, short.gpu.enforce_eager) == (34, False, True)


def test_stages_want_a_node_each() -> None:
    two = [node("a", free=8), node("b", free=7)]
    asked = question([pool("H100-80GB", *two)], profile=LLAMA_70B)
    choice = Choice(step=Step("auto"), pool=asked.pools[0], tensor=8, pipeline=2, batched_tokens=2048)
    found = rules.devices_free(asked, choice)
    assert found is not None
    assert (found.message, found.numbers["missing"]) == ("fewer than 2 nodes have 8 H100-80GB free", 1)


def test_sizes_are_objected_to_with_numbers() -> None:
    asked = question([pool("L4")], context_length=32768, concurrency=64)
    steps = {
        tensor: Choice(step=Step("auto"), pool=asked.pools[0], tensor=tensor, pipeline=1, batched_tokens=2048)
        for tensor in (1, 2, 16)
    }
    sizer = Sizer(asked)
    short = rules.sized(asked, steps[1], sizer=sizer)
    assert isinstance(short, Rejection)
    assert short.reason == "WorkloadDoesNotFit"
    assert short.message.startswith("each of 1x L4 has ")
    assert short.message.endswith("the workload needs 64.00 GiB")
    large = question([pool("L4")], profile=LLAMA_70B)
    alone = rules.sized(large, steps[1], sizer=Sizer(large))
    assert isinstance(alone, Rejection)
    assert alone.message == "weights of 131.42 GiB are more than the 21.96 GiB of each of 1x L4"
    limited = question([pool("L4")], hardware=Hardware(max_gpus=1))
    over = rules.sized(limited, steps[2], sizer=Sizer(limited))
    assert isinstance(over, Rejection)
    assert over.message == "2 GPUs are more than hardware.maxGPUsPerReplica 1"
    seven = replace(LLAMA_8B, shape=parse_config(llama_config(num_attention_heads=6, num_key_value_heads=6)))
    odd = question([pool("L4")], profile=seven, context_length=1024)
    refused = rules.sized(odd, steps[16], sizer=Sizer(odd))
    assert isinstance(refused, Rejection)
    assert refused.reason == "EngineRefuses"


def test_an_engine_that_fits_its_weights_alone_is_too_large_with_the_rest() -> None:
    nearly = pool("L4", node(devices=1), memory_bytes=int(15.5 * GIB))
    found = rejection(nearly, context_length=1024, concurrency=1, quality=LOSSLESS)
    assert "and what the engine needs beside them" in found.message
