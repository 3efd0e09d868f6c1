"""DeepSeek-V4: a window of every token, and compressed latents of all tokens before it.

Read in vLLM 0.32.0 `models/deepseek_v4/` (attention.py, compressor.py, nvidia/model.py) and
`v1/attention/backends/mla/sparse_swa.py`. Every layer keeps a sliding window. A layer that compresses 4
tokens into one also keeps the compressed latents, an indexer that picks among them and the state of both
compressors; one that compresses 128 keeps the latents and one state. The layout is that of the FlashMLA
kernels, which the engine takes by default: latents in fp8 with their scales, pages padded to 576 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tonnage.models.architectures.latent import INDEX_TILE, untied_outside
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
from tonnage.models.errors import ConfigError
from tonnage.models.parameters import ranks, whole
from tonnage.models.profile import Layer, Outside, TokenBytes, Trait
from tonnage.models.sheet import Sheet

LATENT_BYTES: Final = 584
"""A latent of 512 elements: 448 in fp8, 64 with position in bfloat16, 8 bytes of scales."""

PAGE_ALIGNMENT: Final = 576
LATENT_BLOCK: Final = 256
"""Tokens of a block of compressed latents, the only size that the kernels run (sparse_mla.py)."""

WINDOW_BLOCK: Final = 64
LATENT_SIZE: Final = 512
INDEX_SIZE: Final = 128
SPARSE: Final = 4
DENSE: Final = 128
STATE_BLOCKS: Final = {SPARSE: 4, DENSE: 8}
"""Tokens of a block of compressor state by tokens that are compressed into one."""

SINK_HEADS: Final = 64
"""Heads of a rank are padded to as many for the sinks (nvidia/flashmla.py `get_padded_num_q_heads`)."""

_STATE_ELEMENT: Final = 4
_MAX_STREAMS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    hidden: int
    heads: int
    query_rank: int
    output_rank: int
    output_groups: int
    window: int
    streams: int
    index_heads: int
    fp8_tile: int


def read_deepseek_v4(source: Source) -> Body:
    """DeepSeek-V4. Raises `ConfigError`, also for sizes that its kernels are not made for."""
    _refuse(source)
    shape = _Shape(
        hidden=source.hidden,
        heads=source.size("num_attention_heads", high=MAX_HEADS),
        query_rank=source.size("q_lora_rank"),
        output_rank=source.size("o_lora_rank"),
        output_groups=source.size("o_groups", high=MAX_HEADS),
        window=source.size("sliding_window", high=MAX_CONTEXT),
        streams=source.size("hc_mult", high=_MAX_STREAMS),
        index_heads=source.size("index_n_heads", high=MAX_HEADS),
        fp8_tile=_fp8_tile(source),
    )
    if shape.heads * LATENT_SIZE % shape.output_groups:
        source.fields.fail("o_groups", f"is {shape.output_groups}, which does not divide the output of heads")
    layers = [_layer(source, shape, index, ratio) for index, ratio in enumerate(_ratios(source))]
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    return Body(
        layers=tuple(layers),
        outside=_outside(source, shape, vocabulary),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.heads,
        head_size=LATENT_SIZE,
        head_elements=2 * LATENT_SIZE,
        traits=frozenset({Trait.SPARSE, Trait.SINKS, Trait.BLOCK_OUTERMOST}),
    )


def _refuse(source: Source) -> None:
    model_type = source.fields.optional_text("model_type")
    if model_type != "deepseek_v4":
        _unsupported(source, f"has model_type {model_type!r}; the engine reads deepseek_v4")
    if source.optional_size("vision_n_layers", high=MAX_LAYERS):
        _unsupported(source, "has a vision tower (vision_n_layers); not planned yet")
    if source.size("head_dim", high=MAX_HEAD_SIZE) != LATENT_SIZE:
        _unsupported(source, f"has head_dim other than {LATENT_SIZE}, which its kernels are made for")
    if source.size("index_head_dim", high=MAX_HEAD_SIZE) != INDEX_SIZE:
        _unsupported(source, f"has index_head_dim other than {INDEX_SIZE}, which its kernels are made for")


def _unsupported(source: Source, what: str) -> None:
    raise ConfigError("UnsupportedAttention", f"config.json: {source.architecture} {what}")


def _ratios(source: Source) -> tuple[int, ...]:
    """How many tokens each layer compresses into one, 1 where it keeps its window only."""
    stated, layers = source.fields.raw("compress_ratios"), source.layers
    if not isinstance(stated, list) or not layers <= len(stated) <= MAX_LAYERS:
        source.fields.fail("compress_ratios", f"is not a list of one number for each of {layers} layers")
    for ratio in stated[:layers]:
        if isinstance(ratio, bool) or ratio not in (0, 1, SPARSE, DENSE):
            source.fields.fail("compress_ratios", f"holds something else than 0, 1, {SPARSE} and {DENSE}")
    return tuple(max(1, int(ratio)) for ratio in stated[:layers])


def _layer(source: Source, shape: _Shape, index: int, ratio: int) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    _attention(sheet, shape)
    if ratio == SPARSE:
        _indexer(sheet, shape)
    sheet.cache(_window(shape))
    if ratio > 1:
        sheet.cache(_latents("compressed", LATENT_BYTES, ratio))
        _compressor(sheet, shape, size=LATENT_SIZE, ratio=ratio)
    _experts(sheet, source, shape, index)
    sheet.vector(shape.hidden, count=2)
    _streams(sheet, shape)
    return sheet.layer()


def _attention(sheet: Sheet, shape: _Shape) -> None:
    columns = shape.heads * LATENT_SIZE
    output = shape.output_groups * shape.output_rank
    sheet.replicated("attn.fused_wqa_wkv", shape.hidden, shape.query_rank, LATENT_SIZE)
    sheet.column_parallel("attn.wq_b", shape.query_rank, columns)
    sheet.column_parallel("attn.wo_a", columns // shape.output_groups, output)
    sheet.row_parallel("attn.wo_b", output, shape.hidden)
    sheet.vector(shape.query_rank)
    sheet.vector(LATENT_SIZE)
    sheet.vector(ranks(shape.heads, multiple=SINK_HEADS), element="float32")


def _indexer(sheet: Sheet, shape: _Shape) -> None:
    sheet.replicated("attn.indexer.wq_b", shape.query_rank, shape.index_heads * INDEX_SIZE)
    sheet.tensor(shape.index_heads, shape.hidden)
    sheet.cache(_latents("indexer", INDEX_SIZE + INDEX_SIZE // INDEX_TILE * 4, SPARSE))
    _compressor(sheet, shape, size=INDEX_SIZE, ratio=SPARSE)


def _compressor(sheet: Sheet, shape: _Shape, *, size: int, ratio: int) -> None:
    """Keys and scores of the tokens that are not compressed yet; with the small ratio windows overlap."""
    overlap = 2 if ratio == SPARSE else 1
    width = overlap * size
    sheet.tensor(ratio, width, element="float32")
    sheet.tensor(2 * width, shape.hidden)
    sheet.vector(size)
    sheet.cache(
        TokenBytes(
            role="compressor",
            bytes_per_state=2 * width * _STATE_ELEMENT,
            window_tokens=overlap * ratio,
            block_tokens=STATE_BLOCKS[ratio],
            alignment=PAGE_ALIGNMENT,
        )
    )


def _window(shape: _Shape) -> TokenBytes:
    return TokenBytes(
        role="window",
        bytes_per_state=LATENT_BYTES,
        window_tokens=shape.window,
        block_tokens=WINDOW_BLOCK,
        alignment=PAGE_ALIGNMENT,
    )


def _latents(role: str, state_bytes: int, ratio: int) -> TokenBytes:
    return TokenBytes(
        role=role,
        bytes_per_state=state_bytes,
        tokens_per_state=ratio,
        block_tokens=LATENT_BLOCK,
        alignment=PAGE_ALIGNMENT,
    )


def _experts(sheet: Sheet, source: Source, shape: _Shape, index: int) -> None:
    count = source.size("n_routed_experts", high=MAX_EXPERTS)
    intermediate = source.size("moe_intermediate_size")
    sheet.tensor(count, shape.hidden)
    if index < source.size("num_hash_layers", low=0, high=MAX_LAYERS):
        chosen = source.size("num_experts_per_tok", high=MAX_EXPERTS)
        sheet.tensor(source.size("vocab_size", high=MAX_VOCABULARY), chosen, element="int32")
    elif source.fields.optional_text("topk_method") == "noaux_tc":
        sheet.vector(count, element="float32")
    sheet.experts("ffn.experts", count=count, hidden=shape.hidden, intermediate=intermediate)
    shared = source.optional_size("n_shared_experts", high=MAX_EXPERTS)
    if shared:
        width = ranks(shared * intermediate, multiple=shape.fp8_tile)
        sheet.matrix("ffn.shared_experts.gate_up_proj", [width, width], whole(shape.hidden))
        sheet.matrix("ffn.shared_experts.down_proj", [whole(shape.hidden)], width)


def _streams(sheet: Sheet, shape: _Shape) -> None:
    """What mixes the residual streams before the attention and before the experts."""
    mixes = (2 + shape.streams) * shape.streams
    for _ in range(2):
        sheet.tensor(mixes, shape.streams * shape.hidden, element="float32")
    sheet.vector(mixes, element="float32", count=2)
    sheet.vector(3, element="float32", count=2)


def _outside(source: Source, shape: _Shape, vocabulary: int) -> Outside:
    common = untied_outside(source, hidden=shape.hidden, vocabulary=vocabulary)
    every = source.sheet("")
    every.tensor(shape.streams, shape.streams * shape.hidden, element="float32")
    every.vector(shape.streams, element="float32")
    every.vector(1, element="float32")
    return Outside(last=common.last, every=every.parameters, embedding=common.embedding)


def _fp8_tile(source: Source) -> int:
    """Elements by which the engine pads the shared experts of a rank: the tile of fp8 weights, else 1."""
    declared = source.root.optional_object("quantization_config") or {}
    tile = declared.get("weight_block_size")
    if not isinstance(tile, list) or not tile or isinstance(tile[0], bool) or not isinstance(tile[0], int):
        return 1
    return tile[0] if 1 <= tile[0] <= MAX_HEAD_SIZE else 1
