"""Mamba, FalconMamba and Mamba-2: recurrent state and nothing else.

Read in vLLM 0.32.0 `model_executor/models/{mamba,mamba2}.py`.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.architectures.state import (
    Mamba2Names,
    MambaNames,
    attention_free_body,
    mamba2_mixer,
    mamba2_shape,
    mamba_mixer,
    mamba_shape,
    plain_head,
    vocabulary_size,
)
from tonnage.models.body import MAX_HEAD_SIZE, Body, Source
from tonnage.models.profile import Outside, Trait

_MAX_EXPANSION: Final = 1024
_MAMBA: Final = MambaNames(
    state="state_size",
    kernel="conv_kernel",
    steps="time_step_rank",
    bias="use_bias",
    kernel_bias="use_conv_bias",
)
_MAMBA2: Final = Mamba2Names(
    heads="num_heads",
    head_size="head_dim",
    groups="n_groups",
    state="state_size",
    kernel="conv_kernel",
    bias="use_bias",
    kernel_bias="use_conv_bias",
)


def read_mamba(source: Source) -> Body:
    """Mamba and FalconMamba, whose norms of time steps and state vectors have no weights. Raises
    `ConfigError`."""
    shape = mamba_shape(source, _MAMBA, inner=_inner(source))
    layers = []
    for index in range(source.layers):
        sheet = source.sheet(f"backbone.layers.{index}.")
        mamba_mixer(sheet, shape, norms=False)
        sheet.vector(source.hidden)
        layers.append(sheet.layer())
    return attention_free_body(source, layers, _outside(source), head_size=0)


def read_mamba2(source: Source) -> Body:
    """Mamba-2, which knows no pipeline. The engine takes a mixer's `head_dim` for a head size. Raises
    `ConfigError`."""
    shape = mamba2_shape(source, _MAMBA2, inner=_inner(source))
    layers = []
    for index in range(source.layers):
        sheet = source.sheet(f"backbone.layers.{index}.")
        mamba2_mixer(sheet, "mixer", shape)
        sheet.vector(source.hidden)
        layers.append(sheet.layer())
    size = source.size("head_dim", high=MAX_HEAD_SIZE)
    traits = frozenset({Trait.ONE_STAGE})
    return attention_free_body(source, layers, _outside(source), head_size=size, traits=traits)


def _inner(source: Source) -> int:
    """Channels of the mixers: `intermediate_size`, else `expand` times the hidden size."""
    stated = source.optional_size("intermediate_size", low=1)
    return stated or source.size("expand", high=_MAX_EXPANSION) * source.hidden


def _outside(source: Source) -> Outside:
    """All of it on every pipeline stage, as the models build it."""
    every = source.sheet("")
    every.embedding(vocabulary_size(source), source.hidden)
    every.vector(source.hidden)
    tied = source.fields.flag("tie_word_embeddings")
    if not tied:
        plain_head(every, vocabulary_size(source), source.hidden)
    return Outside(every=every.parameters, tied=tied)
