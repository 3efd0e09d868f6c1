"""Zamba2: Mamba-2 mixers; some layers first go through a transformer block that they share, each with
adapters of its own.

Read in vLLM 0.32.0 `model_executor/models/zamba2.py`, which knows no pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tonnage.models.architectures.state import (
    Mamba2Names,
    Mamba2Shape,
    counted_layer_types,
    mamba2_mixer,
    mamba2_shape,
    vocabulary_size,
)
from tonnage.models.body import MAX_HEADS, MAX_LAYERS, Body, Source
from tonnage.models.decoder import mlp
from tonnage.models.errors import ConfigError
from tonnage.models.profile import FullAttention, Layer, Outside, Trait
from tonnage.models.sheet import Sheet

_TYPES: Final = ("linear_attention", "hybrid")
_UNLISTED: Final = (
    ("linear_attention",)
    + (*("linear_attention",) * 5, "hybrid") * 7
    + (*("linear_attention",) * 4, "hybrid")
    + (*("linear_attention",) * 3, "hybrid")
    + ("linear_attention",) * 2
)
"""What transformers takes where a config lists no layers."""

_MAX_EXPANSION: Final = 1024
_MAMBA: Final = Mamba2Names(
    heads="n_mamba_heads",
    head_size=None,
    groups="mamba_ngroups",
    state="mamba_d_state",
    kernel="mamba_d_conv",
    bias="add_bias_linear",
    kernel_bias="use_conv_bias",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Sizes of the shared blocks: attention is twice as wide as the model, `adapters` of rank `rank`."""

    hidden: int
    heads: int
    intermediate: int
    rank: int
    attention_adapters: bool
    bias: bool

    @property
    def wide(self) -> int:
        return 2 * self.hidden

    @property
    def head_size(self) -> int:
        return self.wide // self.heads


def read_zamba2(source: Source) -> Body:
    """Zamba2. The output head is always the token table. Raises `ConfigError`.

    A shared block is written down in the first layer that uses it.
    """
    _refuse_long_context(source)
    block = _block(source)
    inner = source.size("mamba_expand", high=_MAX_EXPANSION) * source.hidden
    mamba = mamba2_shape(source, _MAMBA, inner=inner)
    types = counted_layer_types(source, "layers_block_type", known=_TYPES) or _unlisted(source)
    table, last = source.sheet(""), source.sheet("")
    table.embedding(vocabulary_size(source), source.hidden)
    last.vector(source.hidden)
    return Body(
        layers=tuple(_layers(source, block, mamba, types)),
        outside=Outside(last=last.parameters, embedding=table.parameters, tied=True),
        hidden_size=source.hidden,
        vocab_size=vocabulary_size(source),
        num_attention_heads=block.heads,
        head_size=block.head_size,
        head_elements=2 * block.head_size,
        traits=frozenset({Trait.ONE_STAGE}),
    )


def _refuse_long_context(source: Source) -> None:
    if source.fields.flag("use_long_context") and source.fields.raw("max_position_embeddings") != 16384:
        raise ConfigError(
            "UnsupportedAttention",
            "config.json: Zamba2 with use_long_context serves 16384 tokens; set max_position_embeddings so",
        )


def _layers(source: Source, block: _Block, mamba: Mamba2Shape, types: tuple[str, ...]) -> Iterator[Layer]:
    """Names by which the engine looks up quantization count from the number of hybrid layers on."""
    blocks = source.size("num_mem_blocks", high=MAX_LAYERS)
    hybrids = types.count("hybrid")
    used = 0
    for index, kind in enumerate(types):
        sheet, shared = source.sheet(f"{hybrids + index}."), source.sheet("model.")
        if kind == "hybrid":
            if used < blocks:
                _shared_block(shared, block)
            _adapters(shared, block, used)
            sheet.replicated("linear", block.hidden, block.hidden)
            used += 1
        mamba2_mixer(sheet, "mixer", mamba)
        sheet.vector(block.hidden)
        attending, mixing = shared.layer(), sheet.layer()
        yield Layer(
            caches=attending.caches + mixing.caches, parameters=attending.parameters + mixing.parameters
        )


def _block(source: Source) -> _Block:
    hidden = source.hidden
    count = source.size("num_attention_heads", high=MAX_HEADS)
    if 2 * hidden % count:
        source.fields.fail("num_attention_heads", f"is {count}, which does not divide twice {hidden}")
    kv_heads = source.optional_size("num_key_value_heads", low=1, high=MAX_HEADS)
    if kv_heads not in (None, count):
        source.fields.fail("num_key_value_heads", f"is {kv_heads}; the engine's Zamba2 has {count}")
    return _Block(
        hidden=hidden,
        heads=count,
        intermediate=source.optional_size("intermediate_size") or 4 * hidden,
        rank=source.size("adapter_rank"),
        attention_adapters=source.fields.flag("use_shared_attention_adapter"),
        bias=source.fields.flag("add_bias_linear"),
    )


def _unlisted(source: Source) -> tuple[str, ...]:
    if source.layers != len(_UNLISTED):
        source.fields.fail("layers_block_type", f"is missing for {source.layers} layers")
    return _UNLISTED


def _shared_block(sheet: Sheet, block: _Block) -> None:
    sheet.qkv(
        "qkv_proj",
        block.wide,
        query_heads=block.heads,
        kv_heads=block.heads,
        head_size=block.head_size,
    )
    sheet.row_parallel("o_proj", block.wide, block.hidden)
    mlp(
        sheet,
        "feed_forward",
        hidden=block.hidden,
        intermediate=block.intermediate,
        gated=True,
        bias=block.bias,
    )
    sheet.vector(block.wide)
    sheet.vector(block.hidden)


def _adapters(sheet: Sheet, block: _Block, use: int) -> None:
    """What one use of a shared block has for itself: adapters and a cache."""
    if block.attention_adapters:
        for name in ("linear_q_adapter", "linear_k_adapter", "linear_v_adapter"):
            sheet.column_parallel(f"{name}.A", block.wide, block.rank)
            sheet.column_parallel(f"{name}.B", block.rank, block.wide)
    name = f"feed_forward.gate_up_proj_adapter_list.{use}"
    sheet.column_parallel(f"{name}.A", block.hidden, block.rank)
    sheet.column_parallel(f"{name}.B", block.rank, block.intermediate, block.intermediate)
    sheet.cache(FullAttention(kv_heads=block.heads, head_size=block.head_size, head_size_v=block.head_size))
