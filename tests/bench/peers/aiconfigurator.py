"""aiconfigurator: bytes of one sequence on one rank as a curve over its length, and the inverse.

Read in aiconfigurator-core 0.12.0 as published on PyPI (ai-dynamo/aiconfigurator):
`get_kvcache_max_tokens`, `get_kvcache_bytes_per_sequence` and `get_kvcache_elements_per_token` of
sdk/models/base.py and their overrides in moe.py, gemma4.py, step3p7.py, qwen35.py, kimi_k3.py,
deepseek_v32.py and deepseek_v4.py; `ARCHITECTURE_TO_MODEL_FAMILY`, `MULTIMODAL_TEXT_CONFIG_KEY` and the sizes
of indexer entries in sdk/common.py;
`_infer_quant_modes_from_raw_config` in sdk/models/helpers.py; `_infer_quantization_fields` and
`_parse_hf_config_json` in sdk/utils.py; for other architectures `NaiveKVCacheEstimator` of sdk/memory.py.
An older state of the same in ai-dynamo/aiconfigurator@aaffa1726bbc src/aiconfigurator/sdk/memory.py.

Pipeline parallelism does not divide the cache there, deliberately. The weights of a rank are a sum over the
operators of its performance model, which only the package itself has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.peers.question import Config, Peer, Question, UnansweredError, ceil_div, needed, number, part

_WRAPPED: Final = frozenset(
    {
        "Gemma4ForConditionalGeneration",
        "KimiK25ForConditionalGeneration",
        "KimiK3ForConditionalGeneration",
        "Llama4ForConditionalGeneration",
        "MiniMaxM3SparseForConditionalGeneration",
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration",
        "Step3p7FlashForCausalLM",
        "Step3p7ForConditionalGeneration",
    }
)
_FP8_CACHE: Final = {"fp8", "fp8_block", "nvfp4"}
"""Quantizations of weights that make it assume an FP8 cache, whatever the checkpoint or the engine does."""
_KNOWN: Final = {*_FP8_CACHE, "", "mxfp4", "w4a16_mxfp4", "mixed_precision", "compressed-tensors"}


_KDA_SLOTS: Final = 5
"""States it reserves for each request of Kimi-K3."""


class _UnsupportedError(ValueError):
    """The native model cannot be built; the tool then falls back to its naive estimator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """`rate` bytes for each full `every` tokens, up to `window` tokens unless that is 0."""

    rate: float
    window: int = 0
    every: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Bytes of one sequence on one rank: `fixed` plus the terms. `limit` tokens if it stops growing."""

    terms: tuple[Term, ...]
    limit: int
    fixed: float = 0.0

    def bytes_of(self, tokens: int) -> float:
        """Bytes of a sequence of so many tokens."""
        return self.fixed + sum(
            term.rate * ((min(tokens, term.window) if term.window else tokens) // term.every)
            for term in self.terms
        )

    def longest(self, budget: float) -> int:
        """The longest sequence within `budget` bytes, by doubling and bisection."""
        low, high = 0, 1
        while self.bytes_of(high) <= budget:
            if self.bytes_of(2 * high) == self.bytes_of(high):
                return self.limit or 2 * high
            low, high = high, 2 * high
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (middle, high) if self.bytes_of(middle) <= budget else (low, middle)
        return low


def tokens(question: Question) -> float:
    """Its own figure: the longest single sequence in the bytes of a rank."""
    return _positive(curve(question).longest(question.kv_bytes))


def tokens_in_requests(question: Question) -> float:
    """The same curve in the engine's terms: sequences of the row's length in the bytes, times the length."""
    per_request = curve(question).bytes_of(question.context_tokens)
    if not per_request:
        raise UnansweredError("a token takes no bytes")
    return question.kv_bytes * question.context_tokens / per_request


def curve(question: Question) -> Curve:
    """The native curve of the architecture, else the naive one."""
    family = _FAMILIES.get(question.architecture)
    if family is None:
        return _naive(question, question.config)
    wrapped = question.architecture in _WRAPPED and "text_config" in question.config
    text = part(question.config, "text_config") if wrapped else question.config
    try:
        element = element_bytes(question)
        if needed(text, "num_attention_heads") % question.tensor_parallel:
            raise _UnsupportedError("heads do not divide")
    except _UnsupportedError:
        return _naive(question, text)
    return family(text, question.tensor_parallel, element)


def element_bytes(question: Question) -> int:
    """Bytes of one KV element: what was asked for, else what the weights' quantization suggests."""
    if question.kv_dtype.startswith("fp8"):
        return 1
    if question.kv_dtype != "auto":
        raise _UnsupportedError(question.kv_dtype)
    weights, cache = declared(question)
    if weights not in _KNOWN or cache not in ("", "fp8", "bfloat16"):
        raise _UnsupportedError(f"{weights or 'none'}, {cache or 'none'}")
    fp8 = question.architecture == "DeepseekV4ForCausalLM" or weights in _FP8_CACHE or cache == "fp8"
    return 1 if fp8 else 2


def declared(question: Question) -> tuple[str, str]:
    """(algorithm of the weights, of the cache) that the checkpoint declares; "" where it does not."""
    outer = part(question.hf_quant_config or {}, "quantization")
    inner = part(question.config, "quantization_config")
    if not inner and question.architecture in _WRAPPED:
        inner = part(part(question.config, "text_config"), "quantization_config")
    weights = outer.get("quant_algo") or _first(inner, "quant_algo", "quant_method", "quantization_method")
    cache = outer.get("kv_cache_quant_algo") or _first(
        inner, "kv_cache_quant_algo", "kv_cache_quant_method", "kv_cache_dtype"
    )
    scheme = part(inner, "kv_cache_scheme")
    if not cache and "float" in str(scheme.get("type")):
        cache = "fp8" if number(scheme, "num_bits") <= 8 else "bfloat16"
    names = {"e4m3": "fp8", "e5m2": "fp8", "fp16": "bfloat16", "float16": "bfloat16", "bf16": "bfloat16"}
    lowered = str(cache or "").lower()
    return str(weights or "").lower(), names.get(lowered, lowered)


def _first(config: Config, *names: str) -> object:
    return next((config[name] for name in names if config.get(name)), "")


Family = Callable[[Config, int, int], Curve]
"""(text config, ranks of tensor parallelism, bytes of an element) -> curve."""


def _plain(config: Config, ranks: int, element: int) -> Curve:
    """Every layer remembers everything: also windows of Llama 4 and MiMo-V2, Mamba layers, MLP layers."""
    return _linear(config, _layers(config) * _head_bytes(config, ranks, element))


def _latent(config: Config, ranks: int, element: int) -> Curve:
    del ranks
    size = (number(config, "kv_lora_rank") or 512) + (number(config, "qk_rope_head_dim") or 64)
    return _linear(config, _layers(config) * size * element)


def _sparse(config: Config, ranks: int, element: int) -> Curve:
    """DeepSeek-V3.2, GLM-5: rotary part in 16 bits, and the indexer's entry with a scale for each 128."""
    del ranks
    index = needed(config, "index_head_dim")
    entry = needed(config, "kv_lora_rank") * element + needed(config, "qk_rope_head_dim") * 2
    return _linear(config, _layers(config) * (entry + index + ceil_div(index, 128) * 4))


def _deepseek_v4(config: Config, ranks: int, element: int) -> Curve:
    """Each layer a window; compressed ones one entry for each `ratio` tokens and a decode state."""
    del ranks
    ratios = config.get("compress_ratios")
    if not isinstance(ratios, list):
        raise UnansweredError("config.json has no compress_ratios")
    size, index = needed(config, "head_dim"), needed(config, "index_head_dim")
    window, terms, fixed = needed(config, "sliding_window"), [], 0.0
    for ratio in ratios[: _layers(config)]:
        terms.append(Term(rate=size * element, window=window))
        if ratio:
            indexed = ratio == 4
            terms.append(Term(rate=size * element + (index * 0.5 if indexed else 0), every=ratio))
            fixed += 2 * ratio * 4 * (2 * (size + index) if indexed else size)
    return Curve(terms=tuple(terms), fixed=fixed, limit=_limit(config))


def _gpt_oss(config: Config, ranks: int, element: int) -> Curve:
    layers, head_bytes = _layers(config), _head_bytes(config, ranks, element)
    windows = layers // 2
    return _windowed(config, full=(layers - windows) * head_bytes, windowed=windows * head_bytes, window=128)


def _gemma4(config: Config, ranks: int, element: int) -> Curve:
    kinds = _layer_types(config)
    full = {
        "num_key_value_heads": config.get("num_global_key_value_heads") or config.get("num_key_value_heads"),
        "head_dim": config.get("global_head_dim") or config.get("head_dim"),
    }
    return _windowed(
        config,
        full=kinds.count("full_attention") * _head_bytes(full, ranks, element),
        windowed=kinds.count("sliding_attention") * _head_bytes(config, ranks, element),
        window=number(config, "sliding_window"),
    )


def _step(config: Config, ranks: int, element: int) -> Curve:
    kinds = _layer_types(config)[: _layers(config)]
    head_bytes = _head_bytes(config, ranks, element)
    return _windowed(
        config,
        full=kinds.count("full_attention") * head_bytes,
        windowed=kinds.count("sliding_attention") * head_bytes,
        window=number(config, "sliding_window", "sliding_window_size"),
    )


def _qwen35(config: Config, ranks: int, element: int) -> Curve:
    """Full layers grow; each gated-delta layer keeps one request's state."""
    kinds = _layer_types(config)
    key_heads, key = needed(config, "linear_num_key_heads"), needed(config, "linear_key_head_dim")
    heads, value = needed(config, "linear_num_value_heads"), needed(config, "linear_value_head_dim")
    state_bytes = {"bfloat16": 2, "float16": 2}.get(str(config.get("mamba_ssm_dtype")), 4)
    window = needed(config, "linear_conv_kernel_dim") - 1
    state = heads // ranks * key * value * state_bytes
    state += (2 * key_heads * key + heads * value) // ranks * window * 2
    rate = kinds.count("full_attention") * _head_bytes(config, ranks, element)
    return Curve(
        terms=(Term(rate=rate),), fixed=kinds.count("linear_attention") * state, limit=_limit(config)
    )


def _kimi_k3(config: Config, ranks: int, element: int) -> Curve:
    linear = part(config, "linear_attn_config")
    layers, state_layers = _layers(config), len(linear.get("kda_layers") or ())
    heads, size = max(1, needed(linear, "num_heads") // ranks), needed(linear, "head_dim")
    window = (number(linear, "short_conv_kernel_size") or 4) - 1
    state = heads * size * size * 4 + window * 3 * heads * size * 2
    entry = needed(config, "kv_lora_rank") + needed(config, "qk_rope_head_dim")
    rate = (layers - state_layers) * entry * element
    return Curve(terms=(Term(rate=rate),), fixed=state_layers * state * _KDA_SLOTS, limit=_limit(config))


def _naive(question: Question, config: Config) -> Curve:
    """For what the tool cannot model: all layers, or windows where `layer_types` or a pattern name them."""
    element = {"float32": 4, "fp32": 4}.get(str(config.get("torch_dtype") or config.get("dtype")).lower(), 2)
    layers = needed(config, "num_hidden_layers", "n_layer", "num_layers")
    if number(config, "kv_lora_rank"):
        entry = needed(config, "kv_lora_rank") + needed(config, "qk_rope_head_dim")
        return _linear(config, layers * entry * element)
    heads = needed(config, "num_attention_heads", "n_head", "num_heads")
    size = number(config, "head_dim", "attention_head_dim")
    size = size or needed(config, "hidden_size", "n_embd", "n_embed") // heads
    kv_heads = number(config, "num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads") or heads
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        kv_heads = 1
    per_layer = 2 * ceil_div(kv_heads, question.tensor_parallel) * size * element
    window, windows = _naive_windows(config, layers)
    if not window or not windows:
        return _linear(config, layers * per_layer)
    return _windowed(config, full=(layers - windows) * per_layer, windowed=windows * per_layer, window=window)


def _naive_windows(config: Config, layers: int) -> tuple[int, int]:
    window = number(config, "sliding_window", "sliding_window_size")
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and kinds:
        return window, sum("sliding" in str(kind) for kind in kinds)
    pattern = number(config, "sliding_window_pattern")
    return window, layers - layers // pattern if pattern else 0


def _linear(config: Config, rate: float) -> Curve:
    if not rate:
        raise UnansweredError("a token takes no bytes")
    return Curve(terms=(Term(rate=rate),), limit=_limit(config))


def _windowed(config: Config, *, full: float, windowed: float, window: int) -> Curve:
    return Curve(terms=(Term(rate=full), Term(rate=windowed, window=window)), limit=_limit(config))


def _head_bytes(config: Config, ranks: int, element: int) -> int:
    """Bytes of one token in one layer of one rank."""
    size = number(config, "head_dim", "attention_head_dim")
    if not size:
        size = needed(config, "hidden_size") // needed(config, "num_attention_heads")
    return 2 * ceil_div(number(config, "num_key_value_heads"), ranks) * size * element


def _layers(config: Config) -> int:
    listed = config.get("layers_block_type") or config.get("hybrid_override_pattern") or ()
    return number(config, "num_hidden_layers") or len(listed) or needed(config, "num_hidden_layers")


def _layer_types(config: Config) -> list[str]:
    kinds = config.get("layer_types")
    if not isinstance(kinds, list):
        raise UnansweredError("config.json has no layer_types")
    return kinds


def _limit(config: Config) -> int:
    return number(config, "max_position_embeddings")


def _positive(found: int) -> int:
    if not found:
        raise UnansweredError("finds no token")
    return found


_FAMILIES: Final[dict[str, Family]] = {
    **dict.fromkeys(
        (
            "DeciLMForCausalLM",
            "Llama4ForConditionalGeneration",
            "LlamaForCausalLM",
            "MiMoForCausalLM",
            "MiMoV2FlashForCausalLM",
            "MiniMaxM2ForCausalLM",
            "MiniMaxM3ForCausalLM",
            "MiniMaxM3SparseForConditionalGeneration",
            "MixtralForCausalLM",
            "NemotronForCausalLM",
            "NemotronHForCausalLM",
            "Qwen2ForCausalLM",
            "Qwen2MoeForCausalLM",
            "Qwen3ForCausalLM",
            "Qwen3MoeForCausalLM",
            "Qwen3VLForConditionalGeneration",
            "Qwen3VLMoeForConditionalGeneration",
        ),
        _plain,
    ),
    **dict.fromkeys(
        ("DeepSeekForCausalLM", "DeepseekV3ForCausalLM", "KimiK25ForConditionalGeneration"), _latent
    ),
    **dict.fromkeys(("DeepseekV32ForCausalLM", "GlmMoeDsaForCausalLM"), _sparse),
    **dict.fromkeys(("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"), _qwen35),
    **dict.fromkeys(("Step3p5ForCausalLM", "Step3p7ForConditionalGeneration"), _step),
    "DeepseekV4ForCausalLM": _deepseek_v4,
    "Gemma4ForConditionalGeneration": _gemma4,
    "GptOssForCausalLM": _gpt_oss,
    "KimiK3ForConditionalGeneration": _kimi_k3,
}

PEER = Peer(name="aiconfigurator, one sequence", source="PyPI aiconfigurator-core 0.12.0", tokens=tokens)
PEER_IN_REQUESTS = Peer(name="aiconfigurator, requests", source=PEER.source, tokens=tokens_in_requests)
