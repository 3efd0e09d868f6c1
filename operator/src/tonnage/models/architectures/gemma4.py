"""Gemma 4: two shapes of attention, layers that read another's cache, per-layer inputs, experts beside the
MLP.

Sources: vLLM 0.32.0 `model_executor/models/gemma4.py`; transformers 5.19.0 `Gemma4TextConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tonnage.models.architectures.gemma3n import project
from tonnage.models.body import (
    MAX_CONTEXT,
    MAX_EXPERTS,
    MAX_HEAD_SIZE,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_VOCABULARY,
    Body,
    Source,
)
from tonnage.models.decoder import AttentionShape, Windows, cache_of, layer_kinds, mlp
from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.profile import Layer, Outside, Trait
from tonnage.models.sheet import Sheet

_PERIOD = 6
_GLOBAL_HEAD_SIZE = 512
_OVERRIDES = frozenset({"head_dim", "num_key_value_heads"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What all layers are built from; `attentions` and `windows` have an entry for each layer."""

    attentions: tuple[AttentionShape, ...]
    windows: tuple[int | None, ...]
    own_caches: int
    intermediate: int
    shared_intermediate: int
    input_size: int
    experts: int | None
    expert_intermediate: int
    bias: bool


def read_gemma4(source: Source) -> Body:
    """The text model of Gemma 4, alone or inside a wrapper. Raises `ConfigError`."""
    if source.fields.raw("use_bidirectional_attention") not in (None, "vision"):
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: {source.architecture} sets use_bidirectional_attention for all tokens; "
            "not planned yet",
        )
    plan = _plan(source)
    layers = tuple(_layer(source, plan, index) for index in range(len(plan.attentions)))
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    head_size = max(attention.head_size for attention in plan.attentions)
    return Body(
        layers=layers,
        outside=_outside(source, plan, vocabulary=vocabulary),
        hidden_size=source.hidden,
        vocab_size=vocabulary,
        num_attention_heads=plan.attentions[0].query_heads,
        head_size=head_size,
        head_elements=2 * head_size,
        traits=_traits(source, plan),
    )


def _traits(source: Source, plan: _Plan) -> frozenset[Trait]:
    """Shared caches need all of a model's layers in one place (attention.py `validate_kv_sharing_target`)."""
    found = {
        Trait.UNEVEN_HEADS: len({attention.head_size for attention in plan.attentions}) > 1,
        Trait.SOFTCAP: source.fields.raw("attn_logit_softcapping"),
        Trait.ONE_STAGE: source.fields.raw("num_kv_shared_layers"),
        # The engine counts text models as able to see images too (`Gemma4ModelArchConfigConvertor`).
        Trait.BIDIRECTIONAL_IMAGES: source.fields.raw("use_bidirectional_attention") == "vision",
    }
    return frozenset(trait for trait, stated in found.items() if stated)


def _plan(source: Source) -> _Plan:
    layers = source.layers
    sliding = _sliding_layers(source, layers)
    shared = source.optional_size("num_kv_shared_layers", high=MAX_LAYERS) or 0
    _check_sharing(source, sliding, shared)
    intermediate = source.size("intermediate_size")
    window = source.size("sliding_window", high=MAX_CONTEXT)
    experts = source.optional_size("num_experts", low=1, high=MAX_EXPERTS)
    return _Plan(
        attentions=_attentions(source, sliding),
        windows=tuple(window if slides else None for slides in sliding),
        own_caches=layers - shared,
        intermediate=intermediate,
        shared_intermediate=intermediate * (2 if source.fields.flag("use_double_wide_mlp") else 1),
        input_size=source.optional_size("hidden_size_per_layer_input") or 0,
        experts=experts,
        expert_intermediate=source.size("moe_intermediate_size") if experts else 0,
        bias=source.fields.flag("attention_bias"),
    )


def _sliding_layers(source: Source, layers: int) -> list[bool]:
    """Which layers have a window; the last never has one (`Gemma4TextConfig.__post_init__`)."""
    stated = layer_kinds(source, Windows.EVERY_NTH_FULL, layers=layers)
    sliding = stated or [(index + 1) % _PERIOD != 0 for index in range(layers)]
    return [*sliding[:-1], False]


def _check_sharing(source: Source, sliding: list[bool], shared: int) -> None:
    """A layer that shares reads the last layer of its own kind before the shared ones; there must be one."""
    if not shared:
        return
    if shared >= len(sliding):
        source.fields.fail("num_kv_shared_layers", f"is {shared}; a layer before those must keep a cache")
    first = len(sliding) - shared
    if not set(sliding[first:]) <= set(sliding[:first]):
        source.fields.fail(
            "num_kv_shared_layers", f"is {shared}, which leaves a kind of layer without a cache to read"
        )


def _attentions(source: Source, sliding: list[bool]) -> tuple[AttentionShape, ...]:
    own = {name: source.fields.raw(name) for name in _OVERRIDES}
    overrides = _overrides(source, sliding)
    return tuple(
        _attention_shape(
            source, Fields(overrides.get(str(index), {}), where=f"config.json, layer {index}", defaults=own)
        )
        for index in range(len(sliding))
    )


def _overrides(source: Source, sliding: list[bool]) -> dict[str, dict[str, object]]:
    """By layer number, the sizes that differ from the model's: those of full layers, or what configs saved by
    transformers 5 list."""
    stated = source.fields.optional_object("per_layer_config")
    if stated is None:
        full = _full_attention(source)
        return {str(index): full for index, slides in enumerate(sliding) if not slides}
    known = {
        key: value for key, value in stated.items() if isinstance(value, dict) and value.keys() <= _OVERRIDES
    }
    if len(known) < len(stated):
        source.fields.fail("per_layer_config", "states something else than head_dim and num_key_value_heads")
    return known


def _full_attention(source: Source) -> dict[str, object]:
    sizes: dict[str, object] = {"head_dim": source.fields.raw("global_head_dim") or _GLOBAL_HEAD_SIZE}
    kv_heads = source.fields.raw("num_global_key_value_heads")
    if source.fields.flag("attention_k_eq_v") and kv_heads is not None:
        sizes["num_key_value_heads"] = kv_heads
    return sizes


def _attention_shape(source: Source, layer: Fields) -> AttentionShape:
    query_heads = source.size("num_attention_heads", high=MAX_HEADS)
    kv_heads = layer.integer("num_key_value_heads", low=1, high=MAX_HEADS)
    if query_heads % kv_heads:
        layer.fail("num_key_value_heads", f"is {kv_heads}, which does not divide the {query_heads} heads")
    return AttentionShape(
        hidden=source.hidden,
        query_heads=query_heads,
        kv_heads=kv_heads,
        head_size=layer.integer("head_dim", low=1, high=MAX_HEAD_SIZE),
    )


def _layer(source: Source, plan: _Plan, index: int) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    shape = plan.attentions[index]
    shares = index >= plan.own_caches
    project(sheet, shape, shares=shares, bias=plan.bias)
    if not shares:
        sheet.cache(cache_of(shape, window=plan.windows[index]))
    mlp(
        sheet,
        "mlp",
        hidden=shape.hidden,
        intermediate=plan.shared_intermediate if shares else plan.intermediate,
        gated=True,
    )
    sheet.vector(shape.hidden, count=4)
    if plan.experts:
        _experts(sheet, plan.experts, hidden=shape.hidden, intermediate=plan.expert_intermediate)
    if plan.input_size:
        sheet.replicated("per_layer_input_gate", shape.hidden, plan.input_size)
        sheet.replicated("per_layer_projection", plan.input_size, shape.hidden)
        sheet.vector(shape.hidden)
    return sheet.layer(shares_cache=shares)


def _experts(sheet: Sheet, count: int, *, hidden: int, intermediate: int) -> None:
    """Experts, their router with a scale per input and per expert, and three norms around them."""
    sheet.vector(hidden)
    sheet.vector(count)
    sheet.tensor(count, hidden)
    sheet.experts("experts", count=count, hidden=hidden, intermediate=intermediate, tiled=False)
    sheet.vector(hidden, count=3)


def _outside(source: Source, plan: _Plan, *, vocabulary: int) -> Outside:
    """Every stage of a pipeline builds all of it."""
    sheet = source.sheet("")
    hidden = source.hidden
    sheet.embedding(vocabulary, hidden)
    if plan.input_size:
        packed = plan.input_size * len(plan.attentions)
        sheet.embedding(source.size("vocab_size_per_layer_input", high=MAX_VOCABULARY), packed)
        sheet.column_parallel("model.per_layer_model_projection", hidden, packed)
        sheet.vector(plan.input_size)
    sheet.vector(hidden)
    tied = source.fields.flag("tie_word_embeddings")
    if not tied:
        sheet.head("lm_head", vocabulary, hidden)
    return Outside(every=sheet.parameters, tied=tied)
