"""Qwen3-Next and Qwen3.5: gated delta nets, and gated attention in every n-th layer.

Read in vLLM 0.32.0 `model_executor/models/{qwen3_next,qwen3_5}.py` and
`model_executor/layers/mamba/gdn/qwen_gdn_linear_attn.py`.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.architectures.state import (
    DeltaShape,
    counted_layer_types,
    delta_net_state,
    delta_shape,
    hybrid_body,
    plain_head,
    remember_tokens,
    state_element,
    vocabulary_size,
)
from tonnage.models.body import MAX_LAYERS, Body, Source
from tonnage.models.decoder import AttentionShape, Mixture, Style, attention_shape, has_experts, mixture, mlp
from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.parameters import ranks
from tonnage.models.profile import Layer, Outside
from tonnage.models.sheet import Sheet

_STYLE: Final = Style()
_MIXTURE: Final = Mixture(
    count="num_experts",
    shared_intermediate="shared_expert_intermediate_size",
    every="decoder_sparse_step",
    only_dense="mlp_only_layers",
)
_OF_EXPERTS: Final = frozenset({"Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"})
"""Their models fail to start without a layer of experts."""

_MARLIN_METHODS: Final = frozenset({"awq", "awq_marlin", "gptq", "gptq_marlin", "auto-round", "inc"})


def read_qwen3_next(source: Source) -> Body:
    """Qwen3-Next. The output head is never shared with the token table. Raises `ConfigError`."""
    shape, net = _attention_shape(source), delta_shape(source)
    experts = [has_experts(source, _MIXTURE, index) for index in range(source.layers)]
    if not any(experts):
        source.fields.fail("num_experts", "leaves no layer with experts; the engine's model has some")
    layers = []
    for index, kind in enumerate(_layer_types(source)):
        sheet = source.sheet(f"model.layers.{index}.")
        if kind == "linear_attention":
            _interleaved_net(sheet, net, shape.hidden)
        else:
            _attention(sheet, source, shape)
        _feed_forward(sheet, source, shape.hidden, experts=experts[index])
        _norms(sheet, source, shape.hidden)
        layers.append(sheet.layer())
    vocabulary = vocabulary_size(source)
    every, last = source.sheet("model."), source.sheet("")
    every.embedding(vocabulary, shape.hidden)
    plain_head(every, vocabulary, shape.hidden)
    last.vector(shape.hidden)
    outside = Outside(every=every.parameters, last=last.parameters)
    return hybrid_body(source, layers, outside, shape)


def read_qwen3_5(source: Source) -> Body:
    """The text model of Qwen3.5, dense or of experts as its model_type says. Raises `ConfigError`.

    The state's dtype is `mamba_ssm_dtype`'s (model_executor/models/config.py
    `Qwen3_5ForConditionalGenerationConfig`).
    """
    shape = _attention_shape(source)
    net = delta_shape(source, element=state_element(source, "mamba_ssm_dtype"))
    experts = _of_experts(source)
    layers: list[Layer] = []
    for index, kind in enumerate(_layer_types(source)):
        sheet = source.sheet(f"model.layers.{index}.")
        if kind == "linear_attention":
            _net(sheet, net, shape.hidden, replicated=_replicates_gates(source))
        else:
            _attention(sheet, source, shape)
        _feed_forward(sheet, source, shape.hidden, experts=experts)
        _norms(sheet, source, shape.hidden)
        layers.append(sheet.layer())
    vocabulary = vocabulary_size(source)
    table, last = source.sheet("model."), source.sheet("")
    table.embedding(vocabulary, shape.hidden)
    last.vector(shape.hidden)
    tied = source.fields.flag("tie_word_embeddings")
    if not tied:
        last.head("lm_head", vocabulary, shape.hidden)
    outside = Outside(every=table.parameters, last=last.parameters, tied=tied)
    return hybrid_body(source, layers, outside, shape)


def _of_experts(source: Source) -> bool:
    model_type = source.fields.optional_text("model_type")
    dense = model_type == "qwen3_5_text" and source.architecture not in _OF_EXPERTS
    if not dense and model_type != "qwen3_5_moe_text":
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: model_type {model_type!r} is not known of {source.architecture}; known: "
            "qwen3_5_text for models without experts, qwen3_5_moe_text for models with",
        )
    return not dense


def _replicates_gates(source: Source) -> bool:
    """Whether the gates' projection is whole on every rank: `maybe_disable_tp` of the net, for kernels that
    cannot take its narrow share."""
    for fields in (source.root, source.fields):
        declared = fields.optional_object("quantization_config")
        if declared:
            inner = Fields(declared, where="config.json quantization_config")
            method = inner.optional_text("quant_method", max_length=40)
            return method is not None and method.lower() in _MARLIN_METHODS
    return False


def _attention_shape(source: Source) -> AttentionShape:
    source.size("head_dim")
    return attention_shape(source, _STYLE)


def _layer_types(source: Source) -> tuple[str, ...]:
    stated = counted_layer_types(source, "layer_types", known=("linear_attention", "full_attention"))
    if stated is not None:
        return stated
    interval = source.optional_size("full_attention_interval", low=1, high=MAX_LAYERS) or 4
    return tuple(
        "linear_attention" if number % interval else "full_attention"
        for number in range(1, source.layers + 1)
    )


def _attention(sheet: Sheet, source: Source, shape: AttentionShape) -> None:
    gate = source.fields.raw("attn_output_gate")
    gated = True if gate is None else source.fields.flag("attn_output_gate")
    sheet.qkv(
        "self_attn.qkv_proj",
        shape.hidden,
        query_heads=shape.query_heads * (2 if gated else 1),
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        bias=source.fields.flag("qkv_bias"),
    )
    sheet.row_parallel("self_attn.o_proj", shape.query_heads * shape.head_size, shape.hidden)
    sheet.attention("self_attn.attn")
    sheet.vector(shape.head_size, count=2)
    remember_tokens(sheet, shape)


def _interleaved_net(sheet: Sheet, net: DeltaShape, hidden: int) -> None:
    """A net whose projections interleave what each key head needs: one output each."""
    sheet.column_parallel("linear_attn.in_proj_qkvz", hidden, 2 * net.keys + 2 * net.values)
    sheet.column_parallel("linear_attn.in_proj_ba", hidden, 2 * net.value_heads)
    _rest_of_net(sheet, net, hidden)


def _net(sheet: Sheet, net: DeltaShape, hidden: int, *, replicated: bool) -> None:
    sheet.column_parallel("linear_attn.in_proj_qkvz", hidden, net.keys, net.keys, net.values, net.values)
    project = sheet.replicated if replicated else sheet.column_parallel
    project("linear_attn.in_proj_ba", hidden, net.value_heads, net.value_heads)
    _rest_of_net(sheet, net, hidden)


def _rest_of_net(sheet: Sheet, net: DeltaShape, hidden: int) -> None:
    sheet.tensor(ranks(net.convolved), 1, net.kernel)
    sheet.vector(ranks(net.value_heads))
    sheet.vector(ranks(net.value_heads), element="float32")
    sheet.vector(net.value_size)
    sheet.row_parallel("linear_attn.out_proj", net.values, hidden)
    sheet.cache(delta_net_state(net))


def _feed_forward(sheet: Sheet, source: Source, hidden: int, *, experts: bool) -> None:
    if not experts:
        mlp(sheet, "mlp", hidden=hidden, intermediate=source.size("intermediate_size"), gated=True)
        return
    mixture(sheet, source, _MIXTURE, hidden=hidden, gated=True)
    # The shared expert's gate is never quantized, and there even without a shared expert.
    sheet.tensor(1, hidden)


def _norms(sheet: Sheet, source: Source, hidden: int) -> None:
    scales = 2 if source.fields.flag("layer_scale") else 0
    sheet.vector(hidden, count=2 + scales)
