"""vLLM on NVIDIA GPUs: rules by release, newest last. Read in the source of the release named, confirmed on
an H200 for 0.26.0 and against the engine's own sizing code for 0.32.0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_GIB: Final = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTier:
    """The API server's default batch on cards with at least `memory_bytes` whose name lacks `not_named`."""

    memory_bytes: int
    not_named: str
    batched_tokens: int
    max_num_seqs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRules:
    """How one engine version sizes its KV cache on NVIDIA GPUs.

    `version`, `rules_version` and `assumed` as in `EngineRules`. `batch_tiers` are tried in order.
    `caches_hybrid_prefixes`: prefix caching is on by default for models with recurrent state too.
    `whole_state_kinds`: with prefix caching, these kinds keep a state for every block of a request.
    `checkpoint_kinds`: these keep one state more, the checkpoint of a prefill. `reserves_null_block`: the
    admission check counts the block that the pool holds back. `second_runner_of` are the architectures that
    the second model runner serves, None for all. `online_fp8` is the flag that stores unquantized weights in
    fp8, "" where it is not known. `quantizations` are the methods of checkpoints that it serves, with the
    least compute capability of each. `host_bytes` to `shared_memory_bytes_per_rank` are main memory of a
    pod: of the engine's processes, and the limit of /dev/shm.
    """

    version: str
    rules_version: str
    assumed: bool
    default_block_tokens: int
    batch_tiers: tuple[BatchTier, ...]
    default_utilization: float
    caches_hybrid_prefixes: bool
    whole_state_kinds: frozenset[str]
    checkpoint_kinds: frozenset[str]
    reserves_null_block: bool
    second_runner_of: frozenset[str] | None
    online_fp8: str
    quantizations: Mapping[str, tuple[int, int]]
    host_bytes: int
    host_bytes_per_rank: int
    shared_memory_bytes: int
    shared_memory_bytes_per_rank: int

    def second_runner(self, architecture: str) -> bool:
        """Whether the second model runner serves this architecture."""
        return self.second_runner_of is None or architecture in self.second_runner_of

    def batch_tier(self, *, memory_bytes: int, name: str) -> BatchTier:
        """The default batch of a card."""
        return next(
            tier
            for tier in self.batch_tiers
            if memory_bytes >= tier.memory_bytes
            and (not tier.not_named or tier.not_named not in name.lower())
        )


# vllm/engine/arg_utils.py get_batch_defaults, API server: an A100 is told apart by its name, an A800 not.
_TIERS: Final = (
    BatchTier(memory_bytes=160 * _GIB, not_named="", batched_tokens=16384, max_num_seqs=1024),
    BatchTier(memory_bytes=70 * _GIB, not_named="a100", batched_tokens=8192, max_num_seqs=1024),
    BatchTier(memory_bytes=0, not_named="", batched_tokens=2048, max_num_seqs=256),
)

# model_executor/layers/quantization 0.32, `get_min_capability` of each method. Where a card has no fp8 or
# fp4 arithmetic, Marlin computes in 16 bits from weights that stay small; compressed-tensors is a family of
# schemes, of which the strictest that shapes are known of wants 7.5.
_QUANTIZATIONS: Final = {
    "awq": (7, 5),
    "compressed-tensors": (7, 5),
    "deepseek_v4_fp8": (9, 0),
    "fp8": (7, 5),
    "gpt_oss_mxfp4": (8, 0),
    "gptq": (7, 5),
    "modelopt": (8, 0),
    "modelopt_fp4": (7, 5),
    "modelopt_mixed": (7, 5),
    "mxfp4": (8, 0),
}

# Not measured. vLLM's own example for Kubernetes (docs/deployment/k8s.md) limits /dev/shm to 2 GiB; main
# memory is what the server and, for each rank, a process with CUDA's libraries and pinned buffers are given
# room for.
_HOST: Final = {
    "host_bytes": 4 * _GIB,
    "host_bytes_per_rank": 4 * _GIB,
    "shared_memory_bytes": 1 * _GIB,
    "shared_memory_bytes_per_rank": 1 * _GIB,
}

GPU_0_26: Final = GpuRules(
    version="0.26.0",
    rules_version="0.26.0",
    assumed=False,
    default_block_tokens=16,
    batch_tiers=_TIERS,
    default_utilization=0.92,
    # arg_utils.py _set_default_chunked_prefill_and_prefix_caching_args: "opt-in for now".
    caches_hybrid_prefixes=False,
    # models/config.py MambaModelConfig: mode "all" for models that support it, "align" for others.
    whole_state_kinds=frozenset({"mamba1", "mamba2"}),
    checkpoint_kinds=frozenset(),
    # kv_cache_utils.py get_kv_cache_configs checks against all bytes; measured: 1,024 blocks, 16,384 tokens.
    reserves_null_block=False,
    # Measured on an H200: these were served by the second runner, other mixtures and hybrids by the first.
    second_runner_of=frozenset(
        {"DeepseekV2ForCausalLM", "Gemma2ForCausalLM", "LlamaForCausalLM", "Qwen3ForCausalLM"}
    ),
    online_fp8="",
    quantizations=_QUANTIZATIONS,
    **_HOST,
)

GPU_0_32: Final = GpuRules(
    version="0.32.0",
    rules_version="0.32.0",
    assumed=False,
    default_block_tokens=16,
    batch_tiers=_TIERS,
    default_utilization=0.92,
    caches_hybrid_prefixes=True,
    whole_state_kinds=frozenset(),
    # layers/mamba/mamba_mixer2.py get_kv_cache_spec: num_prefill_checkpoint_blocks=1.
    checkpoint_kinds=frozenset({"mamba2"}),
    reserves_null_block=True,
    # config/vllm.py `_get_v2_model_runner_unsupported_features`: none that plans use.
    second_runner_of=None,
    # layers/quantization/fp8.py: "no longer supports online quantization. Please use fp8_per_tensor".
    online_fp8="fp8_per_tensor",
    quantizations=_QUANTIZATIONS,
    **_HOST,
)

GPU_RULES: Final = (GPU_0_26, GPU_0_32)
