"""ERNIE 4.5 with experts. Read in vLLM 0.32.0 `model_executor/models/ernie45_moe.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tonnage.models.body import Body, Source
from tonnage.models.decoder import Bias, Mixture, Style, Windows, read_decoder
from tonnage.models.profile import Trait

_STYLE: Final = Style(
    windows=Windows.ALL,
    per_layer=False,
    needed=("use_moe",),
    qkv_bias=Bias(fields=("use_bias",)),
    mlp_bias=Bias(fields=("use_bias",)),
    mixture=Mixture(
        count="moe_num_experts",
        count_aliases=("num_experts",),
        router_element="float32",
        correction_bias="float32",
        first_dense="moe_layer_start_index",
        last="moe_layer_end_index",
        every="moe_layer_interval",
        shared_count="moe_num_shared_experts",
        shared_path="shared_experts",
        tiled=False,
    ),
)


def read_ernie_moe(source: Source) -> Body:
    """ERNIE 4.5 with experts. Raises `ConfigError`.

    Where the token table makes the logits the engine's model fails on every stage of a pipeline that lacks
    one of the two.
    """
    body = read_decoder(source, _STYLE)
    return replace(body, traits=body.traits | {Trait.ONE_STAGE}) if body.outside.tied else body
