"""config.json -> `ModelShape`: what a model stores and holds, layer by layer. Hostile input ends in
`ConfigError`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tonnage.models.body import MAX_CONTEXT, MAX_EXPERTS, Body, Source
from tonnage.models.decoder import read_decoder
from tonnage.models.errors import ConfigError
from tonnage.models.families import FAMILIES, NOT_PLANNED, PLAIN, with_text
from tonnage.models.family import Family, reader_of
from tonnage.models.fields import Fields
from tonnage.models.profile import ModelShape, Trait, runs_of
from tonnage.models.quantization import Quantization, read_quantization

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

_UNSCALED_ROPE: Final = frozenset({"longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"})
"""RoPE types whose configs already state the scaled length (vllm/config/model.py
`_get_and_verify_max_len`)."""

_CHOSEN_EXPERTS: Final = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_top_k", "moe_k")
"""Names under which vllm/model_executor/models 0.32 read how many experts a router picks."""

_UNSTATED_CONTEXT: Final = 2048
"""What the engine assumes where no key states a length (same function)."""


def parse_config(
    config: Mapping[str, object],
    *,
    hf_quant_config: Mapping[str, object] | None = None,
    assume_full_attention: bool = False,
) -> ModelShape:
    """Read the parsed config.json of a model; `hf_quant_config` is ModelOpt's file beside it, if there is
    one.

    An architecture that is not in `FAMILIES` is refused by name unless `assume_full_attention`, which
    reads it as layers of plain attention. Raises `ConfigError` with what was wrong, where, and what to
    do.
    """
    architecture = _architecture(config)
    family = _family(architecture, config, assume_full_attention=assume_full_attention)
    root = Fields(config, where="config.json", defaults={} if family.text else family.defaults)
    fields = _text_fields(root, family)
    if family.texts:
        family = with_text(family, fields, architecture)
        fields = fields.replaced(defaults=family.defaults)
    _refuse_unplanned(fields, family, architecture)
    quantization = read_quantization(root, fields, hf_quant_config)
    source = Source(
        architecture=architecture,
        fields=fields,
        root=root,
        scheme=quantization.scheme,
        prefix=family.prefix,
    )
    body = reader_of(family)(source) if family.reader else read_decoder(source, family.style)
    return _shape(source, family, body, quantization)


def _shape(source: Source, family: Family, body: Body, quantization: Quantization) -> ModelShape:
    limit, default = _context(source.fields, family)
    return ModelShape(
        architecture=source.architecture,
        dtype=_dtype(source),
        max_context_tokens=limit,
        default_context_tokens=default,
        vocab_size=body.vocab_size,
        hidden_size=body.hidden_size,
        num_attention_heads=body.num_attention_heads,
        head_size=body.head_size,
        head_elements=body.head_elements,
        layers=runs_of(body.layers),
        outside=body.outside,
        traits=body.traits | {Trait.DECLARED_PLAIN} if quantization.declared_plain else body.traits,
        kv_dtype=quantization.kv_dtype,
        encoder_tokens=body.encoder_tokens,
        quantization=quantization.method,
        tied_embeddings=body.outside.tied,
        weights_known=quantization.known and family is not PLAIN,
        experts_per_token=_experts_per_token(source, body),
    )


def _experts_per_token(source: Source, body: Body) -> int:
    routed = any(parameter.experts for layer in body.layers for parameter in layer.parameters)
    stated = (source.optional_size(name, high=MAX_EXPERTS) for name in _CHOSEN_EXPERTS) if routed else ()
    return next((chosen for chosen in stated if chosen), 0)


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
        from difflib import get_close_matches  # noqa: PLC0415 - only errors need it

        near = get_close_matches(architecture, FAMILIES, n=3, cutoff=0.5)
        raise ConfigError(
            "UnknownArchitecture",
            f"config.json: architecture {architecture} is not one of the {len(FAMILIES)} that are known"
            f"{'; closest: ' + ', '.join(near) if near else ''}. "
            "If every layer is plain attention, set model.assumeFullAttention: true (for CPU nodes alone)",
        )
    if "hidden_size" not in config and isinstance(config.get("text_config"), dict):
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: {architecture} wraps a text model in text_config; such models are not planned yet",
        )
    return PLAIN


def _text_fields(root: Fields, family: Family) -> Fields:
    if not family.text:
        return root
    fields = root
    for name in family.text.split("."):
        inner = fields.optional_object(name)
        if not inner and family.flat:
            return root.replaced(defaults=family.defaults)
        if not inner:
            fields.fail(name, "is missing or empty; it describes the text model")
        fields = Fields(inner, where=f"config.json {family.text}", defaults=family.defaults)
    return fields


def _refuse_unplanned(fields: Fields, family: Family, architecture: str) -> None:
    for key, why in NOT_PLANNED.items():
        if key not in family.plans and fields.raw(key):
            raise ConfigError(
                "UnsupportedAttention", f"config.json: {architecture} sets {key}: {why}; not planned yet"
            )
    if fields.raw("is_causal") is False:
        raise ConfigError(
            "UnsupportedAttention", f"config.json: {architecture} is not causal and keeps no KV cache"
        )


def _context(fields: Fields, family: Family) -> tuple[int, int]:
    """(the model's limit, what the engine serves when asked for nothing), in tokens."""
    stated = [fields.optional_integer(key, low=1, high=MAX_CONTEXT) for key in _CONTEXT_KEYS]
    lengths = [length for length in stated if length is not None]
    if not lengths:
        # No limit is known: the engine takes any length it is told, and its own default when told none.
        return MAX_CONTEXT, _UNSTATED_CONTEXT
    limit: float = min(lengths)
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
    stated = rope.optional_text("rope_type") or rope.optional_text("type")
    return "longrope" if stated == "su" else stated  # `patch_rope_parameters_dict` of the engine


def _rope_factor(ropes: list[Fields]) -> float:
    factor = 1.0
    for rope in ropes:
        if _rope_type(rope) not in _UNSCALED_ROPE:
            factor = rope.optional_number("factor", low=1e-3, high=1e6) or factor
    return factor


def _dtype(source: Source) -> str | None:
    """The declared dtype: of the whole model, else of its text part."""
    for fields in (source.root, source.fields):
        name = "dtype" if fields.raw("dtype") is not None else "torch_dtype"
        stated = fields.optional_text(name)
        if stated is None:
            continue
        dtype = stated.removeprefix("torch.")
        if dtype not in _DTYPES:
            fields.fail(name, f"is {dtype!r}; the engine serves {', '.join(sorted(_DTYPES))}")
        return dtype
    return None
