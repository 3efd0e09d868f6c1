"""What the engine makes of its options: the defaults it fills in and the starts it refuses, before it sizes
anything.

Source: vllm/engine/arg_utils.py, vllm/config/model.py, vllm/config/vllm.py, vllm/platforms/cpu.py of the
engine versions in `tonnage.engines`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tonnage.engines import (
    KV_DTYPES,
    EngineRules,
    GpuRules,
    UnknownEngineVersionError,
    gpu_rules_for,
    is_quantized,
    rules_for,
)
from tonnage.models import CrossAttention, FullAttention, ModelShape, SlidingWindow, Trait

MAX_RANKS = 1024
MAX_TOKENS = 2**31 - 1
_COMPRESSED_KV_DTYPES = frozenset({"auto", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_ds_mla"})
"""What DeepSeek-V4's attention takes (vllm/models/deepseek_v4/attention.py 0.32)."""
_WITH_KV_SCALES = ("fp8", "modelopt", "deepseek_v4_fp8", "compressed-tensors")
"""Checkpoint formats whose attention layers have KV scales (layers/attention/attention.py
`_init_kv_cache_quant`)."""


class RefusedError(ValueError):
    """A start that the engine refuses or that is not known here; `reason` is a word, the message says why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What the engine runs on: `compute_capability` of an NVIDIA GPU such as (9, 0), None for CPU nodes.

    `name` and `memory_bytes` decide the engine's default batch sizes.
    """

    compute_capability: tuple[int, int] | None
    name: str = ""
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The engine's options that decide its KV cache; None leaves the engine its default.

    `context_tokens` -1 asks for the longest that fits (`--max-model-len -1`).
    """

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    decode_context_parallel: int = 1
    expert_parallel: bool = False
    dtype: str | None = None
    kv_dtype: str = "auto"
    kv_dtype_skip_layers: tuple[str, ...] = ()
    block_tokens: int | None = None
    context_tokens: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    prefix_caching: bool | None = None
    hybrid_manager: bool = True
    enforce_eager: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A model, a device and options with nothing left to default. `context_tokens` is the limit where
    `auto_fit`."""

    shape: ModelShape
    device: Device
    options: EngineOptions
    rules: GpuRules | EngineRules
    dtype: str
    kv_dtype: str
    context_tokens: int
    auto_fit: bool
    max_num_seqs: int
    max_num_batched_tokens: int
    batches_in_flight: int
    prefix_caching: bool

    @property
    def on_cpu(self) -> bool:
        """Whether the engine runs on CPU nodes."""
        return self.device.compute_capability is None

    @property
    def in_flight_tokens(self) -> int:
        """Tokens scheduled but not settled (vllm/config/vllm.py `max_in_flight_tokens`)."""
        return self.max_num_batched_tokens * self.batches_in_flight


def settle(shape: ModelShape, *, device: Device, options: EngineOptions, engine_version: str) -> Settled:
    """The engine's settings for these options. Raises `RefusedError`."""
    rules = _rules(device, engine_version)
    _check_ranges(options)
    context, auto_fit = _context(shape, options)
    _check_ranks(shape, options)
    _check_kv_dtype(shape, options)
    batched, sequences = _batch(shape, device, options, rules, context)
    prefix_caching = _prefix_caching(shape, device, options, rules)
    if _latent_on_cpu(shape, device):
        # platforms/cpu.py: MLA turns chunked prefill and prefix caching off, so a step holds whole requests.
        batched = max(context, batched)
    return Settled(
        shape=shape,
        device=device,
        options=options,
        rules=rules,
        dtype=_dtype(shape, device, options, rules),
        kv_dtype=_kv_dtype(shape, device, options),
        context_tokens=context,
        auto_fit=auto_fit,
        max_num_seqs=sequences,
        max_num_batched_tokens=batched,
        batches_in_flight=_batches_in_flight(rules, options),
        prefix_caching=prefix_caching,
    )


def attention_free(shape: ModelShape) -> bool:
    """Whether the architecture has no attention at all (`IsAttentionFree`), not merely this model."""
    return shape.num_attention_heads == 0 and shape.recurrent


def encoder_decoder(shape: ModelShape) -> bool:
    """Whether the model attends to an encoder's output."""
    return any(isinstance(spec, CrossAttention) for spec, _ in shape.cache_runs)


def _rules(device: Device, engine_version: str) -> GpuRules | EngineRules:
    try:
        return (
            rules_for(engine_version) if device.compute_capability is None else gpu_rules_for(engine_version)
        )
    except UnknownEngineVersionError as error:
        raise RefusedError("unknown_engine_version", str(error)) from None


def _check_ranges(options: EngineOptions) -> None:
    ranges = (
        ("tensor parallel size", options.tensor_parallel, MAX_RANKS),
        ("pipeline parallel size", options.pipeline_parallel, MAX_RANKS),
        ("decode context parallel size", options.decode_context_parallel, MAX_RANKS),
        ("block size", options.block_tokens, 2**20),
        ("max_num_seqs", options.max_num_seqs, 2**20),
        ("max_num_batched_tokens", options.max_num_batched_tokens, MAX_TOKENS),
    )
    for name, value, most in ranges:
        if value is not None and not 1 <= value <= most:
            raise RefusedError("invalid_option", f"{name} is {value}; it must be between 1 and {most}")
    if options.kv_dtype not in KV_DTYPES:
        raise RefusedError(
            "unknown_kv_dtype",
            f"KV dtype {options.kv_dtype[:40]!r} is not known; known: {', '.join(sorted(KV_DTYPES))}",
        )
    if options.dtype not in {None, "auto", "bfloat16", "float16", "half", "float32", "float"}:
        raise RefusedError(
            "invalid_option", f"dtype {str(options.dtype)[:40]!r} is not bfloat16, float16 or float32"
        )


def _check_kv_dtype(shape: ModelShape, options: EngineOptions) -> None:
    if Trait.BLOCK_OUTERMOST in shape.traits and options.kv_dtype not in _COMPRESSED_KV_DTYPES:
        raise RefusedError(
            "unsupported_kv_dtype",
            f"the engine stores the caches of {shape.architecture} in its own fp8 layout; "
            f"KV dtype {options.kv_dtype} is none of {', '.join(sorted(_COMPRESSED_KV_DTYPES))}",
        )
    if Trait.BLOCK_OUTERMOST in shape.traits and (options.block_tokens or 256) % 256:
        raise RefusedError(
            "unsupported_block_size",
            f"{shape.architecture} compresses up to 128 tokens into one entry and needs blocks of a multiple "
            f"of 256 tokens, not {options.block_tokens}",
        )
    scales = (shape.quantization or "").startswith(
        _WITH_KV_SCALES
    ) and Trait.BLOCK_OUTERMOST not in shape.traits
    if options.kv_dtype == "fp8_e5m2" and scales:
        raise RefusedError(
            "unsupported_kv_dtype", "fp8_e5m2 kv-cache is not supported with fp8 checkpoints; use fp8_e4m3"
        )
    if Trait.BLOCK_OUTERMOST in shape.traits and not options.hybrid_manager:
        raise RefusedError(
            "unsupported_option",
            f"the engine cannot run {shape.architecture} without its hybrid KV cache manager",
        )
    boundary = options.kv_dtype.startswith("turboquant_") and not shape.recurrent
    single = any(name.isdecimal() for name in options.kv_dtype_skip_layers)
    skips = boundary or (single and is_quantized(options.kv_dtype))
    if options.pipeline_parallel > 1 and skips:
        raise RefusedError(
            "unplanned_option",
            "layers that skip the KV dtype give pipeline stages block sizes of their own, which is not "
            "planned; use tensor parallelism",
        )


def _check_ranks(shape: ModelShape, options: EngineOptions) -> None:
    tensor, stages, context = (
        options.tensor_parallel,
        options.pipeline_parallel,
        options.decode_context_parallel,
    )
    if shape.num_attention_heads % tensor:
        raise RefusedError(
            "tp_not_divisible",
            f"Total number of attention heads ({shape.num_attention_heads}) must be divisible by tensor "
            f"parallel size ({tensor}); use a divisor of {shape.num_attention_heads}",
        )
    if stages > 1 and Trait.ONE_STAGE in shape.traits:
        raise RefusedError(
            "pp_unsupported",
            f"the engine runs {shape.architecture} in one pipeline stage only; use tensor parallelism",
        )
    if stages > sum(run.layers for run in shape.layers):
        raise RefusedError("pp_unsupported", f"there are {stages} pipeline stages for fewer layers")
    if context > 1:
        _check_context_ranks(shape, options)


def _check_context_ranks(shape: ModelShape, options: EngineOptions) -> None:
    """config/vllm.py and config/parallel.py: the context ranks are some of the tensor ranks, and beyond the
    KV heads."""
    tensor, context = options.tensor_parallel, options.decode_context_parallel
    if tensor % context:
        raise RefusedError(
            "dcp_not_divisible",
            f"tp_size={tensor} must be divisible by dcp_size={context}",
        )
    if any(isinstance(spec, SlidingWindow) for spec, _ in shape.cache_runs):
        raise RefusedError("dcp_unsupported", "decode context parallel ranks do not support sliding windows")
    heads = [spec.kv_heads for spec, _ in shape.cache_runs if isinstance(spec, FullAttention)]
    if heads and (tensor // max(heads) < context or tensor % max(heads)):
        raise RefusedError(
            "dcp_unsupported",
            f"decode context parallel size {context} needs at least {context} tensor parallel ranks for each "
            f"of {max(heads)} KV heads, and there are {tensor}",
        )


def _context(shape: ModelShape, options: EngineOptions) -> tuple[int, bool]:
    asked = options.context_tokens
    if asked is None:
        return shape.default_context_tokens, False
    if asked == -1 and shape.max_context_tokens == MAX_TOKENS:
        # config/model.py `_get_and_verify_max_len` passes -1 on where the model states no limit.
        raise RefusedError(
            "invalid_option",
            f"{shape.architecture} states no length to fit automatically; name a context length",
        )
    if asked == -1:
        return shape.default_context_tokens, True
    if asked < 1:
        raise RefusedError(
            "invalid_option", f"context length is {asked}; it must be positive, or -1 for auto"
        )
    if asked > shape.max_context_tokens:
        raise RefusedError(
            "len_over_derived_max",
            f"context length {asked} is more than the model's own limit of {shape.max_context_tokens} tokens",
        )
    return asked, False


def _batch(
    shape: ModelShape, device: Device, options: EngineOptions, rules: GpuRules | EngineRules, context: int
) -> tuple[int, int]:
    """(max_num_batched_tokens, max_num_seqs)
    (arg_utils.py `_set_default_max_num_seqs_and_batched_tokens_args`)."""
    world = options.tensor_parallel * options.pipeline_parallel
    if isinstance(rules, GpuRules):
        tier = rules.batch_tier(memory_bytes=device.memory_bytes, name=device.name)
        default_batched, default_sequences = tier.batched_tokens, tier.max_num_seqs
    else:
        default_batched = rules.default_batched_tokens * world
        default_sequences = rules.default_max_num_seqs * world
    sequences = options.max_num_seqs or default_sequences
    batched = options.max_num_batched_tokens
    if batched is None:
        chunked = not encoder_decoder(shape) and Trait.ENCODER_ONLY not in shape.traits
        batched = default_batched if chunked else max(context, default_batched)
        if Trait.BIDIRECTIONAL_IMAGES in shape.traits and Trait.MULTIMODAL in shape.traits:
            batched = max(batched, shape.encoder_tokens)
        batched = min(sequences * context, batched)
    if options.max_num_seqs is None:
        sequences = min(sequences, batched)
    return batched, sequences


def _prefix_caching(
    shape: ModelShape, device: Device, options: EngineOptions, rules: GpuRules | EngineRules
) -> bool:
    if _latent_on_cpu(shape, device):
        return False
    if options.prefix_caching is not None:
        return options.prefix_caching
    if attention_free(shape) or encoder_decoder(shape) or Trait.ENCODER_ONLY in shape.traits:
        return False
    return not shape.recurrent or not isinstance(rules, GpuRules) or rules.caches_hybrid_prefixes


def _latent_on_cpu(shape: ModelShape, device: Device) -> bool:
    return device.compute_capability is None and shape.latent


def _batches_in_flight(rules: GpuRules | EngineRules, options: EngineOptions) -> int:
    """config/vllm.py `max_concurrent_batches`: one per stage, and one more with asynchronous scheduling."""
    stages = options.pipeline_parallel
    return stages + 1 if isinstance(rules, GpuRules) else stages * rules.batches_in_flight


def _dtype(shape: ModelShape, device: Device, options: EngineOptions, rules: GpuRules | EngineRules) -> str:
    """config/model.py `_resolve_auto_dtype`: float32, and float16 where the model is unstable in it, become
    the platform's first dtype."""
    asked = {"half": "float16", "float": "float32", "auto": None}.get(options.dtype or "auto", options.dtype)
    if asked is not None:
        return asked
    declared = shape.dtype or "float32"
    if isinstance(rules, EngineRules):
        unstable = declared == "float16" and shape.architecture in rules.no_float16
        return rules.dtypes[0] if declared == "float32" or unstable else declared
    has_bfloat16 = device.compute_capability is None or device.compute_capability >= (8, 0)
    if declared == "float16":
        return declared
    return "bfloat16" if has_bfloat16 else "float16"


def _kv_dtype(shape: ModelShape, device: Device, options: EngineOptions) -> str:
    """What "auto" stands for: what the checkpoint declares, or the family's own rule
    (vllm/utils/torch_utils.py `resolve_kv_cache_dtype_string`, model_executor/models/config.py)."""
    if options.kv_dtype != "auto":
        return options.kv_dtype
    if shape.kv_dtype is not None:
        return shape.kv_dtype
    blackwell = device.compute_capability is not None and device.compute_capability[0] == 10
    if shape.architecture == "GlmMoeDsaForCausalLM" and blackwell:
        return "fp8_e4m3"
    return "auto"
