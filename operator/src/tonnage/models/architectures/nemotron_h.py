"""Nemotron-H and Nemotron 3: one mixer per layer: Mamba-2, attention, an MLP or experts.

Read in vLLM 0.32.0 `model_executor/models/nemotron_h.py`; how the config lists the layers and which older
names it takes, in transformers 5.19.0 `models/nemotron_h/configuration_nemotron_h.py`. Layers of
multi-token prediction are not loaded with the model.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.architectures.state import (
    Mamba2Names,
    Mamba2Shape,
    hybrid_body,
    layer_types,
    mamba2_mixer,
    mamba2_shape,
    state_element,
    vocabulary_size,
)
from tonnage.models.body import (
    MAX_CONTEXT,
    MAX_EXPERTS,
    MAX_HEAD_SIZE,
    MAX_HEADS,
    MAX_LAYERS,
    Body,
    Source,
)
from tonnage.models.decoder import AttentionShape, Style, attention_shape, cache_of, mlp
from tonnage.models.parameters import ROUTER
from tonnage.models.profile import Layer, Outside
from tonnage.models.sheet import Sheet

_STYLE: Final = Style()
_TYPES: Final = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}
_UNLISTED: Final = ("linear_attention", "moe", "full_attention", "mlp")
"""What transformers takes where a config lists no layers."""

_MAX_SHARED: Final = 1024


def read_nemotron_h(source: Source) -> Body:
    """Nemotron-H. The output head is never shared with the token table. Raises `ConfigError`.

    The state's dtype is `mamba_ssm_cache_dtype`'s, float32 without one (model_executor/models/config.py
    `NemotronHForCausalLMConfig`).
    """
    source.size("head_dim", high=MAX_HEAD_SIZE)
    source.size("num_key_value_heads", high=MAX_HEADS)
    shape = attention_shape(source, _STYLE)
    mamba = _mamba_shape(source)
    layers = [_layer(source, shape, mamba, index, kind) for index, kind in enumerate(_layer_types(source))]
    every = source.sheet("")
    every.embedding(vocabulary_size(source), shape.hidden)
    every.vector(shape.hidden)
    every.head("lm_head", vocabulary_size(source), shape.hidden)
    return hybrid_body(source, layers, Outside(every=every.parameters), shape)


def _layer(source: Source, shape: AttentionShape, mamba: Mamba2Shape, index: int, kind: str) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    if kind == "linear_attention":
        mamba2_mixer(sheet, "mixer", mamba)
    elif kind == "full_attention":
        _attention(sheet, source, shape)
    elif kind == "moe":
        _experts(sheet, source, shape.hidden)
    else:
        mlp(
            sheet,
            "mixer",
            hidden=shape.hidden,
            intermediate=source.size("intermediate_size"),
            gated=False,
            bias=source.fields.flag("mlp_bias"),
        )
    sheet.vector(shape.hidden)
    return sheet.layer()


def _attention(sheet: Sheet, source: Source, shape: AttentionShape) -> None:
    sheet.qkv(
        "mixer.qkv_proj",
        shape.hidden,
        query_heads=shape.query_heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
    )
    sheet.row_parallel("mixer.o_proj", shape.query_heads * shape.head_size, shape.hidden)
    sheet.attention("mixer.attn")
    sheet.cache(cache_of(shape, window=source.optional_size("sliding_window", low=1, high=MAX_CONTEXT)))


def _experts(sheet: Sheet, source: Source, hidden: int) -> None:
    """Routed experts, which may work in a narrower space than the model, and one shared expert."""
    count = source.size("n_routed_experts", high=MAX_EXPERTS)
    sheet.tensor(count, hidden, element=ROUTER)
    sheet.vector(count, element="float32")
    latent = source.optional_size("moe_latent_size", low=1)
    if latent is not None:
        bias = source.fields.flag("mlp_bias")
        sheet.replicated("mixer.fc1_latent_proj", hidden, latent, bias=bias)
        sheet.replicated("mixer.fc2_latent_proj", latent, hidden, bias=bias)
    sheet.experts(
        "mixer.experts",
        count=count,
        hidden=latent or hidden,
        intermediate=source.size("moe_intermediate_size"),
        gated=False,
    )
    shared = source.optional_size("n_shared_experts", high=_MAX_SHARED) or 0
    if shared:
        width = shared * source.size("moe_shared_expert_intermediate_size")
        mlp(sheet, "mixer.shared_experts", hidden=hidden, intermediate=width, gated=False)


def _mamba_shape(source: Source) -> Mamba2Shape:
    names = Mamba2Names(
        heads="mamba_num_heads",
        head_size="mamba_head_dim",
        groups=_older(source, "mamba_n_groups", "n_groups"),
        state="ssm_state_size",
        kernel=_older(source, "mamba_d_conv", "conv_kernel"),
        bias="use_bias",
        kernel_bias=_older(source, "mamba_conv_bias", "use_conv_bias"),
    )
    size = source.size("mamba_head_dim", high=MAX_HEAD_SIZE)
    inner = source.size("mamba_num_heads", high=MAX_HEADS) * size
    if source.fields.optional_text("mamba_ssm_cache_dtype") is None:
        source.fields.fail("mamba_ssm_cache_dtype", "is null")
    element = state_element(source, "mamba_ssm_cache_dtype")
    return mamba2_shape(source, names, inner=inner, element=element)


def _older(source: Source, older: str, name: str) -> str:
    """The older name of a field where the config uses it."""
    return name if source.fields.raw(older) is None else older


def _layer_types(source: Source) -> tuple[str, ...]:
    known = tuple(_TYPES.values())
    for name in ("layer_types", "layers_block_type"):
        stated = layer_types(source, name, known=known)
        if stated is not None:
            return _some(source, name, stated)
    name = "hybrid_override_pattern"
    pattern = source.fields.optional_text(name, max_length=MAX_LAYERS)
    if pattern is None:
        return _UNLISTED
    unknown = sorted(set(pattern) - set(_TYPES))
    if unknown:
        source.fields.fail(name, f"holds {unknown[0]!r}; the engine knows {' '.join(_TYPES)}")
    return _some(source, name, tuple(_TYPES[letter] for letter in pattern))


def _some(source: Source, name: str, types: tuple[str, ...]) -> tuple[str, ...]:
    if not types:
        source.fields.fail(name, "is empty")
    return types
