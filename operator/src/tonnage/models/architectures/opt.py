"""OPT: learned positions, and token tables narrower than the model (vLLM 0.32.0 opt.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tonnage.models.body import MAX_CONTEXT, Body, Source
from tonnage.models.decoder import Bias, Style, Windows, read_decoder
from tonnage.models.profile import Outside

_BIAS: Final = Bias(fields=("enable_bias",))
_UNUSED_POSITIONS: Final = 2

_STYLE: Final = Style(
    names={"num_key_value_heads": "", "intermediate_size": "ffn_dim"},
    reads_head_dim=False,
    windows=Windows.ALL,
    per_layer=False,
    gated=False,
    qkv_bias=_BIAS,
    output_bias=_BIAS,
    mlp_bias=_BIAS,
    layer_path="model.decoder.layers",
    output="out_proj",
    mlp_path="",
    inward="fc1",
    outward="fc2",
)


def read_opt(source: Source) -> Body:
    """The body of an OPT. Raises `ConfigError`."""
    per_norm = 2 if source.fields.flag("layer_norm_elementwise_affine") else 0
    body = read_decoder(source, replace(_STYLE, norms=2 * per_norm))
    return replace(body, outside=_outside(source, body, per_norm=per_norm))


def _outside(source: Source, body: Body, *, per_norm: int) -> Outside:
    """Every stage of a pipeline builds all of it."""
    sheet = source.sheet("")
    hidden = body.hidden_size
    width = source.optional_size("word_embed_proj_dim", low=1) or hidden
    sheet.embedding(body.vocab_size, width)
    positions = source.size("max_position_embeddings", high=MAX_CONTEXT)
    sheet.tensor(positions + _UNUSED_POSITIONS, hidden)
    if width != hidden:
        sheet.replicated("model.decoder.project_out", hidden, width)
        sheet.replicated("model.decoder.project_in", width, hidden)
    normed = source.fields.flag("do_layer_norm_before") and not source.fields.flag("_remove_final_layer_norm")
    if normed and per_norm:
        sheet.vector(hidden, count=per_norm)
    tied = source.fields.flag("tie_word_embeddings")
    if not tied:
        sheet.head("lm_head", body.vocab_size, width)
    return Outside(every=sheet.parameters, tied=tied)
