"""Plans worked out by hand: bytes of a block from the published shape, blocks that the workload needs, and
the ranks and the rung that follow from what a card has."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tonnage.gpus.discover import take_inventory
from tonnage.gpus.inventory import Inventory, Pool, Sharing
from tonnage.models import ModelProfile
from tonnage.planning.gpu.choose import takes_gpus
from tonnage.planning.gpu.question import Hardware
from tonnage.planning.plan import Plan, Quality
from unit.gpus import clusters
from unit.planning.gpu.samples import (
    ECONOMY,
    GIB,
    LLAMA_8B,
    LLAMA_70B,
    LOSSLESS,
    NEAR,
    answer,
    model,
    node,
    plan,
    pool,
    rejection,
)

V3 = model("deepseek-ai--DeepSeek-V3")
GPT_OSS = model("openai--gpt-oss-120b")
QWEN_30B = model("Qwen--Qwen3-30B-A3B")


@dataclass(frozen=True, kw_only=True)
class Known:
    """A question and its answer; `block_bytes` of one rank, `needed` blocks without the two held back: for 16
    requests of a quarter of 32,768 tokens in blocks of 16 where nothing else is said."""

    on: Pool
    of: ModelProfile = LLAMA_70B
    demand: dict[str, Any] = field(default_factory=lambda: {"context_length": 32768})
    gpus: int
    kv_dtype: str = "auto"
    quality: Quality = LOSSLESS
    quantization: str = ""
    backend: str | None = "FLASH_ATTN"
    block_bytes: int
    needed: int = 16 * 8192 // 16


KNOWN = {
    # 32 layers x 16 tokens x 8 KV heads x (128 + 128) x 2 bytes; 8 requests of 2048 are more than one of
    # 8192.
    "Llama-3.1-8B on one L4": Known(
        on=pool("L4"),
        of=LLAMA_8B,
        demand={"context_length": 8192, "concurrency": 8},
        gpus=1,
        block_bytes=32 * 16 * 8 * 256 * 2,
        needed=8 * 2048 // 16,
    ),
    # 16 requests of 8192 are 16 GiB of cache, more than a card of 22 GiB has beside 15 GiB of weights.
    "Llama-3.1-8B on two L4": Known(
        on=pool("L4"),
        of=LLAMA_8B,
        gpus=2,
        block_bytes=32 * 16 * 4 * 256 * 2,
    ),
    "Llama-3.1-8B on one H100": Known(
        on=pool("H100-80GB"),
        of=LLAMA_8B,
        demand={"context_length": 131072, "concurrency": 8},
        gpus=1,
        block_bytes=32 * 16 * 8 * 256 * 2,
        needed=8 * 32768 // 16,
    ),
    # 131 GiB of weights; 80 layers, 8 KV heads of which each of 4 ranks has 2.
    "Llama-3.1-70B on four A100-80GB": Known(
        on=pool("A100-80GB", node(devices=4)),
        gpus=4,
        block_bytes=80 * 16 * 2 * 256 * 2,
    ),
    "Llama-3.1-70B on two H200": Known(
        on=pool("H200", node(devices=2)),
        gpus=2,
        block_bytes=80 * 16 * 4 * 256 * 2,
    ),
    "Llama-3.1-70B on eight L40S": Known(
        on=pool("L40S"),
        gpus=8,
        block_bytes=80 * 16 * 1 * 256 * 2,
    ),
    # Four have 7 GiB each for a cache of 10; a byte and a scale for every head take 264 of 512 bytes.
    "Llama-3.1-70B on four L40S, 8-bit cache": Known(
        on=pool("L40S", node(devices=4)),
        gpus=4,
        kv_dtype="int8_per_token_head",
        quality=NEAR,
        backend="TRITON_ATTN",
        block_bytes=80 * 16 * 2 * 264,
    ),
    # Half of 131 GiB leaves a pair of H100 too little; fp8 weights halve the linear layers.
    "Llama-3.1-70B on two H100, fp8 weights": Known(
        on=pool("H100-80GB", node(devices=2)),
        gpus=2,
        quality=NEAR,
        quantization="fp8_per_tensor",
        block_bytes=80 * 16 * 4 * 256 * 2,
    ),
    # 61 latent vectors of 512 + 64 elements, whole on every rank.
    "DeepSeek-V3 on eight H200": Known(
        on=pool("H200"),
        of=V3,
        gpus=8,
        backend="FLASH_ATTN_MLA",
        block_bytes=61 * 16 * 576 * 2,
    ),
    # Two groups of 18 layers; a window of 128 reserves what is in flight: 2 x 2048 tokens of a batch.
    "gpt-oss-120b on one H100": Known(
        on=pool("H100-80GB", node(devices=1)),
        of=GPT_OSS,
        demand={"context_length": 131072, "concurrency": 4},
        gpus=1,
        block_bytes=18 * 16 * 8 * 128 * 2,
        needed=4 * (32768 // 16 + -(-(127 + 2 * 8192) // 16) + 1),
    ),
    "Qwen3-30B-A3B on two L40S": Known(
        on=pool("L40S"),
        of=QWEN_30B,
        gpus=2,
        block_bytes=48 * 16 * 2 * 256 * 2,
    ),
    # 57 GiB of weights on a card of 44: fp8 weights alone leave 12.2 GiB for a cache of 15.
    "Qwen3-30B-A3B on one L40S, fp8 weights and 8-bit cache": Known(
        on=pool("L40S", node(devices=1)),
        of=QWEN_30B,
        demand={"context_length": 32768, "concurrency": 20},
        needed=20 * 8192 // 16,
        gpus=1,
        kv_dtype="int8_per_token_head",
        quality=NEAR,
        quantization="fp8_per_tensor",
        backend="TRITON_ATTN",
        block_bytes=48 * 16 * 4 * 264,
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_worked_out_by_hand(name: str) -> None:
    known = KNOWN[name]
    found = plan(known.on, profile=known.of, **known.demand)
    assert found.gpu is not None
    assert (found.gpus_per_replica, found.tensor_parallel) == (known.gpus, known.gpus)
    assert (found.kv_dtype, found.quality) == (known.kv_dtype, known.quality)
    assert (found.gpu.quantization, found.attention_backend) == (known.quantization, known.backend)
    assert found.bytes_per_block == known.block_bytes
    memory = found.memory
    left = found.gpu.device_bytes - (memory.total - memory.kv)
    assert found.blocks == left // known.block_bytes >= known.needed + 2
    assert memory.kv == found.blocks * known.block_bytes
    assert found.concurrency_at_typical >= found.concurrency


def test_deepseek_v3_over_two_nodes_of_h100() -> None:
    """79 GiB of weights are more than a rank of eight has; two stages of 31 and 30 layers."""
    found = plan(pool("H100-80GB", node("a"), node("b")), profile=V3, context_length=32768)
    assert found.gpu is not None
    assert (found.gpus_per_replica, found.tensor_parallel, found.gpu.pipeline_parallel) == (16, 8, 2)
    assert (found.gpu.devices_per_pod, found.gpu.nodes_per_replica) == (8, 2)
    assert found.memory.kv == found.blocks * 31 * 16 * 576 * 2


def test_what_a_renderer_needs() -> None:
    found = plan(pool("H100-80GB", selectors=("device.attributes['x']",)), context_length=8192, concurrency=8)
    gpu = found.gpu
    assert gpu is not None
    assert (gpu.resource, gpu.node_labels) == (
        "nvidia.com/gpu",
        {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    )
    assert gpu.selectors == ("device.attributes['x']",)
    assert (gpu.compute_capability, gpu.devices_per_pod, gpu.nodes_per_replica) == ((9, 0), 1, 1)
    assert (found.max_num_seqs, found.max_num_batched_tokens, found.block_size) == (8, 8192, 16)
    assert (gpu.graph_mode, gpu.enforce_eager) == ("FULL_AND_PIECEWISE", False)
    assert gpu.captured_sizes == (1, 2, 4, 8, 16)
    # 10 GiB of main memory for one rank, of which 2 are the limit of /dev/shm.
    assert (found.request_bytes, found.shared_memory_bytes) == (10 * GIB, 2 * GIB)
    after_the_check = found.memory.weights + found.memory.activation + found.memory.graphs + found.memory.kv
    share = float(gpu.memory_utilization)
    assert share * gpu.device_bytes <= after_the_check < (share + 0.001) * gpu.device_bytes


@pytest.mark.parametrize(
    ("sequences", "capability", "largest", "count"),
    [(1, "H100-80GB", 2, 2), (16, "H100-80GB", 32, 7), (100, "H100-80GB", 200, 29), (600, "B200", 1024, 84)],
)
def test_captured_sizes_are_the_engines_own(
    sequences: int, capability: str, largest: int, count: int
) -> None:
    """vllm/config/vllm.py 0.32 `_set_cudagraph_sizes`: 1, 2, 4, by 8 below 256, by 16 up to the limit, and
    the sequences themselves."""
    found = plan(pool(capability), context_length=2048, concurrency=sequences)
    assert found.gpu is not None
    assert (found.gpu.captured_sizes[-1], len(found.gpu.captured_sizes)) == (largest, count)
    assert sequences in found.gpu.captured_sizes


def test_the_scales_of_an_fp8_cache_are_stated() -> None:
    ours = plan(pool("H100-80GB"), context_length=8192, kv_dtype="fp8")
    shipped = plan(pool("H200"), profile=model("nvidia--Llama-3.1-70B-Instruct-FP8"), context_length=8192)
    per_head = plan(pool("L40S"), context_length=8192, kv_dtype="int8_per_token_head")
    scales = [found.gpu.kv_scales for found in (ours, shipped, per_head) if found.gpu is not None]
    assert scales == ["1.0", "checkpoint", ""]
    assert shipped.quality is LOSSLESS


def test_the_dtype_that_a_checkpoint_declares_is_stated() -> None:
    """The engine reports it (vllm/utils/torch_utils.py 0.32 `resolve_kv_cache_dtype_string`): a plan that
    says "auto" would never be verified."""
    found = plan(pool("H100"), profile=model("nvidia--Llama-3.1-70B-Instruct-FP8"), quality=LOSSLESS)
    assert found.gpu is not None
    assert (found.kv_dtype, found.gpu.kv_scales) == ("fp8_e4m3", "checkpoint")
    assert "weights and KV cache as shipped" in found.reason


def test_lossless_never_leaves_what_was_shipped() -> None:
    """The same pair of H100 that a lossier plan would fit."""
    two = pool("H100-80GB", node(devices=2))
    found = rejection(two, profile=LLAMA_70B, context_length=32768, quality=LOSSLESS)
    assert found.reason == "NotEnoughMemory"
    assert "quality NearLossless" in found.message


def test_economy_packs_the_cache_to_four_bits_where_eight_are_too_many() -> None:
    """One request of 90,112 tokens in 4.2 GiB: 8 bits take 5.67 GiB, 8-bit keys and 4-bit values 5.06, 4
    bits 3.89: a head stores 134 bytes in 28 layers, and 512 in the outermost four, which stay as they are."""
    one = pool("A10", node(devices=1))
    demand = {"context_length": 90112, "concurrency": 1}
    assert rejection(one, **demand).reason == "NotEnoughMemory"
    found = plan(one, quality=ECONOMY, **demand)
    states = 8 * (28 * 134 + 4 * 512)
    assert found.bytes_per_block == 32 * states
    assert [round(states * 90112 / GIB, 2), "5.06 GiB" in found.alternatives[2].why] == [3.89, True]
    assert (found.kv_dtype, found.quality, found.attention_backend) == (
        "turboquant_4bit_nc",
        ECONOMY,
        None,
    )


def test_without_cuda_graphs_only_where_nothing_fits_with_them() -> None:
    """A T4 has 14.74 GiB: graphs of 0.9 GiB are what is too much for half of Llama-3.1-8B and this cache."""
    pair = pool("T4", node(devices=2))
    limit = max(
        tokens
        for tokens in range(4096, 65536, 1024)
        if isinstance(_lossless(pair, tokens), Plan) and not _gpu(pair, tokens).enforce_eager
    )
    beyond = _gpu(pair, limit + 1024)
    assert beyond.enforce_eager
    assert (beyond.graph_mode, beyond.captured_sizes) == ("NONE", ())


def _lossless(on: Pool, tokens: int) -> object:
    return answer(on, context_length=tokens, concurrency=1, quality=LOSSLESS)


def _gpu(on: Pool, tokens: int) -> Any:
    found = _lossless(on, tokens)
    assert isinstance(found, Plan), found
    return found.gpu


def test_a_share_of_a_time_sliced_card_is_its_part_and_says_so() -> None:
    shared = pool("H100-80GB", sharing=Sharing.TIME_SLICING, clients=4)
    found = plan(shared, context_length=2048, concurrency=1)
    assert found.gpu is not None
    assert found.memory.total <= shared.memory_bytes // 4
    assert "1/4 of a card that nothing keeps others from filling" in found.reason
    # The engine's check counts the whole device.
    assert float(found.gpu.memory_utilization) < 0.25
    whole = replace(shared, sharing=Sharing.MIG, clients=1, memory_bytes=shared.memory_bytes // 4)
    slice_of_its_own = plan(whole, context_length=2048, concurrency=1)
    assert slice_of_its_own.memory == found.memory
    assert "nothing keeps" not in slice_of_its_own.reason


def test_a_share_under_mps_starts_whatever_total_the_engine_sees() -> None:
    """A fourth of an H100 is what the pool states; a check against the whole card must pass too."""
    part = pool("H100-80GB").memory_bytes // 4
    found = plan(
        pool("H100-80GB", sharing=Sharing.MPS, clients=4, memory_bytes=part),
        context_length=8192,
        concurrency=1,
    )
    assert found.gpu is not None
    assert found.memory.total <= part
    assert float(found.gpu.memory_utilization) < 0.25


def test_one_pod_has_one_shared_device() -> None:
    shared = pool("H100-80GB", sharing=Sharing.MIG, memory_bytes=20 * GIB)
    assert rejection(shared, profile=LLAMA_70B, context_length=8192).reason == "NotEnoughMemory"


def test_gpus_are_taken_where_there_are_any_unless_somebody_says_otherwise() -> None:
    some, none = Inventory(pools=(pool("L4"),)), Inventory(pools=())
    busy = Inventory(pools=(pool("L4", node(free=0)),))
    failed = Inventory(pools=(pool("L4", node(devices=0)),))
    taken = [takes_gpus(None, inventory=each) for each in (some, busy, failed, none)]
    assert taken == [True, True, True, False]
    # nor does a plan fall back to CPU nodes while the node with the cards is restarted
    restarted = take_inventory([replace(clusters.node("h100-0"), ready=False), clusters.node("cpu-0")])
    assert takes_gpus(None, inventory=restarted)
    plugin_to_come = replace(clusters.node("h100-0"), capacity={}, allocatable={})
    assert takes_gpus(None, inventory=take_inventory([plugin_to_come, clusters.node("cpu-0")]))
    assert not takes_gpus(None, inventory=take_inventory([clusters.node("cpu-0")]))
    assert [takes_gpus(name, inventory=some) for name in ("CPU", "GPU")] == [False, True]
    assert takes_gpus("GPU", inventory=none)


def test_prefix_caching_follows_the_engine_unless_it_is_pinned() -> None:
    nano = model("nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16")
    default = plan(pool("H100-80GB"), profile=nano, context_length=32768)
    without = plan(pool("H100-80GB"), profile=nano, context_length=32768, prefix_caching=False)
    assert (default.prefix_caching, without.prefix_caching) == (True, False)
    assert without.concurrency_at_context > default.concurrency_at_context


def test_an_engine_between_known_ones_says_by_whose_rules_it_is_planned() -> None:
    found = plan(pool("H100-80GB"), version="0.40.0", context_length=8192)
    assert (found.engine_version, found.engine_rules) == ("0.40.0", "0.32.0")
    assert found.reason.endswith("vLLM 0.40.0 is planned by the rules of 0.32.0")


def test_hardware_limits_are_obeyed() -> None:
    limits = Hardware(products=("L40S",), tensor_parallel=4)
    found = plan(pool("H200"), pool("L40S"), hardware=limits, context_length=8192)
    assert (found.product, found.tensor_parallel) == ("L40S", 4)
    stages = plan(
        pool("L40S"), hardware=Hardware(tensor_parallel=2, pipeline_parallel=2), context_length=8192
    )
    assert stages.gpu is not None
    assert (stages.gpus_per_replica, stages.gpu.nodes_per_replica, stages.gpu.devices_per_pod) == (4, 1, 4)
