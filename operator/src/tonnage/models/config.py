"""config.json -> `ModelShape`: what a model stores per token, layer by layer. Hostile input ends in
`ConfigError`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Final

from tonnage.models.errors import ConfigError
from tonnage.models.families import FAMILIES, LATENT_MODEL_TYPES, NOT_PLANNED, PLAIN, Family, WindowRule
from tonnage.models.fields import Fields
from tonnage.models.profile import (
    CacheSpec,
    FullAttention,
    LatentAttention,
    LayerRun,
    ModelShape,
    SlidingWindow,
)

MAX_LAYERS: Final = 1024
MAX_CONTEXT: Final = 2**31 - 1
_MAX_HEADS: Final = 4096
_MAX_HEAD_SIZE: Final = 16384
_MAX_HIDDEN: Final = 2**20
_MAX_VOCAB: Final = 2**24
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}", re.ASCII)
_DTYPES: Final = {"bfloat16", "float16", "float32"}

_CONTEXT_KEYS: Final = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
"""In the order and number of vLLM 0.32.0 model_arch_config_convertor.py `derive_max_model_len_and_key`."""

_UNSCALED_ROPE: Final = frozenset(
    {"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"}
)
"""RoPE types whose configs already state the scaled length (vllm/config/model.py
`_get_and_verify_max_len`)."""

_UNSTATED_CONTEXT: Final = 2048
"""What the engine assumes where no key states a length (same function)."""


def parse_config(
    config: Mapping[str, object],
    *,
    hf_quant_config: Mapping[str, object] | None = None,
    assume_full_attention: bool = False,
) -> ModelShape:
    """Read the parsed config.json of a text model; `hf_quant_config` is ModelOpt's file beside it, if
    there is one.

    An architecture that is not in `FAMILIES` is refused by name unless `assume_full_attention`, which
    reads it as layers of plain attention. Raises `ConfigError` with what was wrong, where, and what to
    do.
    """
    architecture = _architecture(config)
    family = _family(architecture, config, assume_full_attention=assume_full_attention)
    fields = Fields(config, where="config.json", defaults=family.defaults)
    _refuse_unplanned(fields, architecture)
    layers = fields.integer(
        family.names.get("num_hidden_layers", "num_hidden_layers"), low=1, high=MAX_LAYERS
    )
    heads = fields.integer(
        family.names.get("num_attention_heads", "num_attention_heads"), low=1, high=_MAX_HEADS
    )
    hidden = fields.integer(family.names.get("hidden_size", "hidden_size"), low=1, high=_MAX_HIDDEN)
    head_size = _head_size(fields, family, hidden_size=hidden, heads=heads)
    specs = _specs(fields, family, architecture, layers=layers, heads=heads, head_size=head_size)
    limit, default = _context(fields, family)
    return ModelShape(
        architecture=architecture,
        dtype=_dtype(fields),
        max_context_tokens=limit,
        default_context_tokens=default,
        vocab_size=fields.integer("vocab_size", low=1, high=_MAX_VOCAB),
        hidden_size=hidden,
        num_attention_heads=heads,
        head_elements=_latent_head_elements(fields) if family.latent else 2 * head_size,
        layers=runs_of(specs),
        fixed_kv_dtype=family.fixed_kv_dtype,
        quantization=_quantization(fields, hf_quant_config),
        tied_embeddings=fields.flag("tie_word_embeddings"),
    )


def runs_of(specs: Iterable[CacheSpec]) -> tuple[LayerRun, ...]:
    """Consecutive equal specs as runs."""
    return tuple(LayerRun(spec=spec, layers=sum(1 for _ in run)) for spec, run in groupby(specs))


def _architecture(config: Mapping[str, object]) -> str:
    names = Fields(config, where="config.json").optional_texts("architectures", max_items=16)
    if not names:
        raise ConfigError(
            "ConfigInvalid",
            "config.json: architectures is missing or empty; the engine picks the model class by it",
        )
    if not _NAME.fullmatch(names[0]):
        raise ConfigError("ConfigInvalid", f"config.json: architectures[0] {names[0]!r} is not a class name")
    return names[0]


def _family(architecture: str, config: Mapping[str, object], *, assume_full_attention: bool) -> Family:
    family = FAMILIES.get(architecture)
    if family is not None:
        return family
    if not assume_full_attention:
        raise ConfigError(
            "UnknownArchitecture",
            f"config.json: the KV cache of architecture {architecture} is not known; known: "
            f"{', '.join(sorted(FAMILIES))}. "
            "If every layer is plain attention, set model.assumeFullAttention: true",
        )
    if "hidden_size" not in config and isinstance(config.get("text_config"), dict):
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: {architecture} wraps a text model in text_config; such models are not planned yet",
        )
    return PLAIN


def _refuse_unplanned(fields: Fields, architecture: str) -> None:
    for key, why in NOT_PLANNED.items():
        if fields.raw(key):
            raise ConfigError(
                "UnsupportedAttention", f"config.json: {architecture} sets {key}: {why}; not planned yet"
            )
    if fields.raw("is_causal") is False:
        raise ConfigError(
            "UnsupportedAttention", f"config.json: {architecture} is not causal and keeps no KV cache"
        )


def _head_size(fields: Fields, family: Family, *, hidden_size: int, heads: int) -> int:
    # model_arch_config_convertor.py get_head_size: head_dim 0 or null means it is derived.
    stated = (
        fields.optional_integer("head_dim", low=0, high=_MAX_HEAD_SIZE) if family.reads_head_dim else None
    )
    size = stated or hidden_size // heads
    if size < 1:
        fields.fail(
            "hidden_size", f"is {hidden_size}, less than one element for each of {heads} attention heads"
        )
    if size > _MAX_HEAD_SIZE:
        fields.fail(
            "hidden_size", f"is {hidden_size}, more than {_MAX_HEAD_SIZE} for each of {heads} attention heads"
        )
    return size


def _specs(
    fields: Fields, family: Family, architecture: str, *, layers: int, heads: int, head_size: int
) -> list[CacheSpec]:
    if family.latent:
        return [_latent_spec(fields, architecture)] * layers
    kv_heads = _kv_heads(fields, family, heads=heads)
    full = FullAttention(kv_heads=kv_heads, head_size=head_size, head_size_v=head_size)
    window = _window(fields, family)
    if window is None:
        _layer_kinds(fields, family, layers=layers)
        return [full] * layers
    sliding = SlidingWindow(
        kv_heads=kv_heads, head_size=head_size, head_size_v=head_size, window_tokens=window
    )
    windowed = _windowed_layers(fields, family, architecture, layers=layers)
    return [sliding if has_window else full for has_window in windowed]


def _latent_spec(fields: Fields, architecture: str) -> LatentAttention:
    model_type = fields.optional_text("model_type")
    rank = fields.optional_integer("kv_lora_rank", low=1, high=_MAX_HEAD_SIZE)
    if rank is None or model_type not in LATENT_MODEL_TYPES:
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: {architecture} with model_type {model_type!r} and kv_lora_rank {rank} does not "
            "use latent attention in the engine; it does with a rank and model_type "
            f"{', '.join(sorted(LATENT_MODEL_TYPES))}",
        )
    return LatentAttention(latent_size=rank + fields.integer("qk_rope_head_dim", low=1, high=_MAX_HEAD_SIZE))


def _latent_head_elements(fields: Fields) -> int:
    names = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    return sum(fields.integer(name, low=1, high=_MAX_HEAD_SIZE) for name in names)


def _kv_heads(fields: Fields, family: Family, *, heads: int) -> int:
    name = family.names.get("num_key_value_heads", "num_key_value_heads")
    if family.multi_query and not fields.flag("new_decoder_architecture"):
        return 1 if fields.flag("multi_query") else heads
    kv_heads = fields.optional_integer(name, low=1, high=_MAX_HEADS)
    if kv_heads is None:
        return heads
    if heads % kv_heads:
        fields.fail(name, f"is {kv_heads}, which does not divide the {heads} attention heads")
    return kv_heads


def _window(fields: Fields, family: Family) -> int | None:
    """Tokens of the window, None where there is none; 0 means none (vllm/config/model.py)."""
    if family.windows is WindowRule.NONE:
        return None
    if family.window_switch is not None and not fields.flag(family.window_switch):
        return None
    return fields.optional_integer("sliding_window", low=0, high=MAX_CONTEXT) or None


def _windowed_layers(fields: Fields, family: Family, architecture: str, *, layers: int) -> list[bool]:
    kinds = _layer_kinds(fields, family, layers=layers)
    windowed = _default_windows(fields, family, layers) if kinds is None else kinds
    if len(set(windowed)) > 1 and not family.per_layer:
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: {architecture} gives a sliding window to {sum(windowed)} of {layers} layers; the "
            "engine has it for all layers of this architecture or for none",
        )
    return windowed


def _layer_kinds(fields: Fields, family: Family, *, layers: int) -> list[bool] | None:
    kinds = fields.optional_texts("layer_types", max_items=MAX_LAYERS)
    if kinds is None:
        return None
    if len(kinds) != layers:
        fields.fail("layer_types", f"has {len(kinds)} entries for {layers} layers")
    unknown = sorted(set(kinds) - {"full_attention", "sliding_attention"})
    if unknown:
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: layer_types holds {unknown[0]!r}, whose cache is not planned yet",
        )
    if family.windows is WindowRule.NONE and "sliding_attention" in kinds:
        raise ConfigError(
            "UnsupportedAttention",
            "config.json: layer_types holds sliding_attention, which is not known of this architecture",
        )
    return [kind == "sliding_attention" for kind in kinds]


def _default_windows(fields: Fields, family: Family, layers: int) -> list[bool]:
    if family.windows is WindowRule.EVERY_NTH_FULL:
        stated = (
            fields.optional_integer(family.nth_field, low=1, high=MAX_LAYERS) if family.nth_field else None
        )
        return [(layer + 1) % (stated or family.nth_full) != 0 for layer in range(layers)]
    if family.windows is WindowRule.FROM_LAYER:
        first = fields.integer("max_window_layers", low=0, high=MAX_CONTEXT)
        return [layer >= first for layer in range(layers)]
    return [True] * layers


def _context(fields: Fields, family: Family) -> tuple[int, int]:
    """(the model's limit, what the engine serves when asked for nothing), in tokens."""
    stated = [fields.optional_integer(key, low=1, high=MAX_CONTEXT) for key in _CONTEXT_KEYS]
    lengths = [length for length in stated if length is not None]
    limit: float = min(lengths, default=_UNSTATED_CONTEXT)
    limit = fields.optional_integer("model_max_length", low=1, high=MAX_CONTEXT) or limit
    ropes = _ropes(fields)
    if family.rope_scales_context:
        limit *= _rope_factor(ropes)
    limit_tokens = min(int(limit), MAX_CONTEXT)
    if limit_tokens < 1:
        fields.fail("rope_scaling", "scales the context to less than one token")
    if any(_rope_type(rope) == "longrope" for rope in ropes):
        original = fields.optional_integer("original_max_position_embeddings", low=1, high=MAX_CONTEXT)
        return limit_tokens, min(original or limit_tokens, limit_tokens)
    return limit_tokens, limit_tokens


def _ropes(fields: Fields) -> list[Fields]:
    """The RoPE objects: one, or one per kind of layer; the older key wins, as in transformers 5."""
    name = "rope_scaling" if fields.raw("rope_scaling") else "rope_parameters"
    rope = fields.optional_object(name)
    if not rope:
        return []
    nested = [value for value in rope.values() if isinstance(value, dict)]
    objects = nested if len(nested) == len(rope) else [rope]
    return [Fields(each, where=f"config.json {name}") for each in objects if each]


def _rope_type(rope: Fields) -> str | None:
    return rope.optional_text("rope_type") or rope.optional_text("type")


def _rope_factor(ropes: list[Fields]) -> float:
    factor = 1.0
    for rope in ropes:
        if _rope_type(rope) not in _UNSCALED_ROPE:
            factor = rope.optional_number("factor", low=1e-3, high=1e6) or factor
    return factor


def _dtype(fields: Fields) -> str | None:
    name = "dtype" if fields.raw("dtype") is not None else "torch_dtype"
    stated = fields.optional_text(name)
    if stated is None:
        return None
    dtype = stated.removeprefix("torch.")
    if dtype not in _DTYPES:
        fields.fail(name, f"is {dtype!r}; the engine serves {', '.join(sorted(_DTYPES))}")
    return dtype


def _quantization(fields: Fields, hf_quant_config: Mapping[str, object] | None) -> str | None:
    declared = fields.optional_object("quantization_config") or fields.optional_object("compression_config")
    if declared is None:
        return None if hf_quant_config is None else "modelopt"
    inner = Fields(declared, where="config.json quantization_config")
    method = inner.optional_text("quant_method", max_length=40) or "undeclared"
    return method.lower().replace("_", "-")
