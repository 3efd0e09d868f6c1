"""Common decoders of which one detail follows the config: each is a `Style` with that detail filled in.

Sources are files of vLLM 0.32.0 `model_executor/models`, named at each reader.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tonnage.models.body import MAX_CONTEXT, Body, Source
from tonnage.models.decoder import (
    ATTENTION_BIAS,
    LLAMA,
    LLAMA_BIAS,
    MLP_BIAS,
    Bias,
    QkNorm,
    Style,
    Windows,
    read_decoder,
    window_tokens,
)
from tonnage.models.parameters import Dimension, Parameter, whole
from tonnage.models.profile import Trait

_APERTUS: Final = replace(LLAMA, gated=False, qk_norm=QkNorm.HEAD)
_XIELU: Final = Parameter("bfloat16", (Dimension((whole(1),)),), count=2)

_CHATGLM: Final = Style(
    names={
        "num_hidden_layers": "num_layers",
        "intermediate_size": "ffn_hidden_size",
        "vocab_size": "padded_vocab_size",
    },
    windows=Windows.ALL,
    per_layer=False,
    reads_head_dim=False,
    qkv_bias=Bias(fields=("add_bias_linear", "add_qkv_bias")),
    output_bias=Bias(fields=("add_bias_linear",)),
    mlp_bias=Bias(fields=("add_bias_linear",)),
    every_stage=True,
    layer_path="transformer.encoder.layers",
    attention_path="self_attention",
    qkv="query_key_value",
    output="dense",
    inward="dense_h_to_4h",
    outward="dense_4h_to_h",
    head="transformer.output_layer",
    unplanned=("vision_config",),
)

_COHERE2: Final = Style(
    windows=Windows.EVERY_NTH_FULL,
    nth_full=4,
    qk_norm=QkNorm.RANK_HEADS,
    qk_norm_switch="use_qk_norm",
    norms=1,
    tied=True,
    every_stage=True,
)

_FALCON: Final = Style(
    names={"num_key_value_heads": "num_kv_heads", "intermediate_size": ""},
    reads_head_dim=False,
    multi_query=True,
    gated=False,
    final_norms=2,
    qkv_bias=Bias(fields=("bias",)),
    output_bias=Bias(fields=("bias",)),
    mlp_bias=Bias(fields=("bias",)),
    every_stage=True,
    layer_path="transformer.h",
    attention_path="self_attention",
    qkv="query_key_value",
    output="dense",
    inward="dense_h_to_4h",
    outward="dense_4h_to_h",
    traits=frozenset({Trait.FIXED_KV_DTYPE}),
)

_GRANITE: Final = Style(windows=Windows.ALL, qkv_bias=LLAMA_BIAS, output_bias=LLAMA_BIAS, mlp_bias=MLP_BIAS)

_HYPERCLOVAX: Final = Style(
    windows=Windows.ALL,
    per_layer=False,
    qkv_bias=ATTENTION_BIAS,
    output_bias=ATTENTION_BIAS,
    mlp_bias=MLP_BIAS,
)


def read_apertus(source: Source) -> Body:
    """Apertus (apertus.py): the activation of each MLP learns two numbers (activation.py `XIELU`)."""
    body = read_decoder(source, _APERTUS)
    layers = tuple(replace(layer, parameters=(*layer.parameters, _XIELU)) for layer in body.layers)
    return replace(body, layers=layers)


def read_chatglm(source: Source) -> Body:
    """ChatGLM 2 and 3, GLM-4-9B (chatglm.py): LayerNorm has a bias, and groups of heads need a switch."""
    per_norm = 1 if source.fields.flag("rmsnorm") else 2
    groups = "multi_query_group_num" if source.fields.flag("multi_query_attention") else ""
    style = replace(
        _CHATGLM,
        names={**_CHATGLM.names, "num_key_value_heads": groups},
        norms=2 * per_norm,
        final_norms=per_norm if source.fields.flag("post_layer_norm") else 0,
    )
    return read_decoder(source, style)


def read_cohere2(source: Source) -> Body:
    """Command R7B (commandr.py): the engine's windows hold one token more than the config says."""
    windows = [window and min(window + 1, MAX_CONTEXT) for window in window_tokens(source, _COHERE2)]
    return read_decoder(source, _COHERE2, windows=windows)


def read_falcon(source: Source) -> Body:
    """Falcon (falcon.py): parallel blocks have one norm, or two; its attention is told of no KV dtype and no
    window."""
    return read_decoder(source, replace(_FALCON, norms=2 * _falcon_norms(source)))


def _falcon_norms(source: Source) -> int:
    if not source.fields.flag("parallel_attn"):
        return 2
    stated = source.optional_size("num_ln_in_parallel_attn")
    if stated is None:
        return 2 if source.fields.flag("new_decoder_architecture") else 1
    return 2 if stated == 2 else 1


def read_granite(source: Source) -> Body:
    """Granite (granite.py): layers have sinks where the config says so, or lists kinds of layers."""
    listed = source.fields.raw("layer_types") is not None
    return read_decoder(source, replace(_GRANITE, sinks=_granite_sinks(source, default=listed)))


def read_granite_swa(source: Source) -> Body:
    """Granite with sliding windows and sinks (granite.py; transformers `GraniteSWAConfig`)."""
    style = replace(_GRANITE, windows=Windows.FIRST_OF_NTH_FULL, nth_full=4)
    return read_decoder(source, replace(style, sinks=_granite_sinks(source, default=True)))


def _granite_sinks(source: Source, *, default: bool) -> bool:
    if source.fields.raw("attention_sinks") is None:
        return default
    return source.fields.flag("attention_sinks")


def read_hyperclovax(source: Source) -> Body:
    """HyperCLOVA X (hyperclovax.py): two more norms in a layer where the config says so."""
    norms = 4 if source.fields.flag("use_post_norm") else 2
    return read_decoder(source, replace(_HYPERCLOVAX, norms=norms))
