"""Multi-head latent attention: one vector per token holds what all heads need; DeepSeek's and its kin.

Read in vLLM 0.32.0 `model_executor/models/{deepseek_v2,glm4_moe_lite,AXK1,longcat_flash}.py` and
`models/deepseek_v32/`. Layers of multi-token prediction are not loaded with the model; only speculative
decoding loads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tonnage.models.body import (
    MAX_EXPERTS,
    MAX_HEAD_SIZE,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_VOCABULARY,
    Body,
    Source,
)
from tonnage.models.decoder import aliased_count, mlp
from tonnage.models.errors import ConfigError
from tonnage.models.parameters import MODEL, ranks, whole
from tonnage.models.profile import LatentAttention, Layer, Outside, TokenBytes, Trait
from tonnage.models.schemes import Unquantized
from tonnage.models.sheet import Sheet

LATENT_TYPES: Final = frozenset(
    {
        "axk1",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "kimi_k2",
        "longcat_flash",
    }
)
"""model_type values for which the engine uses latent attention and whose models are read here
(transformers_utils/model_arch_config_convertor.py `is_deepseek_mla`)."""

INDEX_TILE: Final = 128
"""Elements of an indexer key that share one float32 scale (`quant_block_size`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentShape:
    """Sizes of latent attention; `query_rank` is None where queries are projected in one step.

    A head's query and key have `plain` elements without position and `rotary` with; `latent` elements make
    the plain keys and the values of all heads.
    """

    hidden: int
    heads: int
    plain: int
    rotary: int
    value: int
    latent: int
    query_rank: int | None

    @property
    def cached(self) -> int:
        """Elements that a token leaves in the cache."""
        return self.latent + self.rotary


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexer:
    """The indexer of sparse attention: `heads` of `size` pick the tokens that a query attends to; `layers`
    says which layers have one."""

    heads: int
    size: int
    layers: tuple[bool, ...]

    @property
    def cache(self) -> TokenBytes:
        """One fp8 key per token and its scales (`DeepseekV32IndexerCache`)."""
        return TokenBytes(role="indexer", bytes_per_state=self.size + self.size // INDEX_TILE * 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """What chooses the experts: a weight of this element, `corrected` with a float32 bias of the choice."""

    element: str = MODEL
    corrected: bool


def read_deepseek(source: Source) -> Body:
    """DeepSeek-V2, V3, V3.2, Kimi-K2, GLM-5: latent attention, then an MLP or routed experts.

    Raises `ConfigError`, also for a model_type that the engine serves without latent attention.
    """
    corrected = source.fields.optional_text("topk_method") == "noaux_tc"
    return _read(source, Router(corrected=corrected), norms=2)


def read_glm4_lite(source: Source) -> Body:
    """GLM-4.7-Flash: as DeepSeek, with a router in float32. Raises `ConfigError`.

    Its config class takes head_dim for another name of qk_rope_head_dim; which of two wins is not known.
    """
    rotary = source.size("qk_rope_head_dim", high=MAX_HEAD_SIZE)
    if (source.optional_size("head_dim", high=MAX_HEAD_SIZE) or rotary) != rotary:
        source.fields.fail(
            "head_dim", f"differs from qk_rope_head_dim, {rotary}, which it is another name of"
        )
    return _read(source, Router(element="float32", corrected=True), norms=2)


def read_axk1(source: Source) -> Body:
    """A.X-K1: as DeepSeek, with a norm behind the MLP. Raises `ConfigError`."""
    corrected = source.fields.optional_text("topk_method") in (None, "noaux_tc")
    return _read(source, Router(corrected=corrected), norms=3)


def read_longcat(source: Source) -> Body:
    """LongCat-Flash: a layer has two attentions, two MLPs, and experts beside them.

    The router also chooses among experts that hold nothing. Raises `ConfigError`.
    """
    shape = latent_shape(source)
    layers = source.size("num_layers", high=MAX_LAYERS)
    return latent_body(source, shape, [_longcat_layer(source, shape, index) for index in range(layers)])


def latent_body(source: Source, shape: LatentShape, layers: Sequence[Layer], *, sparse: bool = False) -> Body:
    """The body around layers of latent attention; the output head is never shared with the token table."""
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    return Body(
        layers=tuple(layers),
        outside=untied_outside(source, hidden=shape.hidden, vocabulary=vocabulary),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.heads,
        head_size=shape.cached,
        head_elements=shape.plain + shape.rotary + shape.value,
        traits=frozenset({Trait.SPARSE}) if sparse else frozenset(),
    )


def untied_outside(source: Source, *, hidden: int, vocabulary: int) -> Outside:
    """Token table, final norm and an output head of its own, whatever tie_word_embeddings says."""
    table, last = source.sheet("model.embed_tokens"), source.sheet("")
    table.embedding(vocabulary, hidden)
    last.vector(hidden)
    last.head("lm_head", vocabulary, hidden)
    return Outside(last=last.parameters, embedding=table.parameters)


def latent_shape(source: Source) -> LatentShape:
    """Sizes of latent attention. Raises `ConfigError`."""
    model_type = source.fields.optional_text("model_type")
    if model_type not in LATENT_TYPES:
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: {source.architecture} of model_type {model_type!r}: the engine uses latent "
            f"attention for {', '.join(sorted(LATENT_TYPES))}",
        )
    return LatentShape(
        hidden=source.hidden,
        heads=source.size("num_attention_heads", high=MAX_HEADS),
        plain=source.size("qk_nope_head_dim", high=MAX_HEAD_SIZE),
        rotary=source.size("qk_rope_head_dim", high=MAX_HEAD_SIZE),
        value=source.size("v_head_dim", high=MAX_HEAD_SIZE),
        latent=source.size("kv_lora_rank", high=MAX_HEAD_SIZE),
        query_rank=source.optional_size("q_lora_rank", low=1),
    )


def read_indexer(source: Source) -> Indexer | None:
    """The indexer of sparse attention, None where the config has none."""
    if source.optional_size("index_topk", low=1) is None:
        return None
    return Indexer(
        heads=source.size("index_n_heads", high=MAX_HEADS),
        size=source.size("index_head_dim", high=MAX_HEAD_SIZE),
        layers=tuple(_has_indexer(source, index) for index in range(source.layers)),
    )


def latent_attention(
    sheet: Sheet, shape: LatentShape, *, path: str = "self_attn", indexer: Indexer | None = None
) -> None:
    """Write down latent attention with its caches; the queries' and the keys' first projections are fused.

    `indexer` is None in layers without one.
    """
    query = shape.plain + shape.rotary
    query_rows = [ranks(shape.heads * query)]
    if shape.query_rank is None:
        sheet.replicated(f"{path}.kv_a_proj_with_mqa", shape.hidden, shape.cached)
        sheet.matrix(f"{path}.q_proj", query_rows, whole(shape.hidden))
    else:
        sheet.replicated(f"{path}.fused_qkv_a_proj", shape.hidden, shape.query_rank, shape.cached)
        sheet.vector(shape.query_rank)
        sheet.matrix(f"{path}.q_b_proj", query_rows, whole(shape.query_rank))
    sheet.vector(shape.latent)
    sheet.column_parallel(f"{path}.kv_b_proj", shape.latent, shape.heads * (shape.plain + shape.value))
    sheet.row_parallel(f"{path}.o_proj", shape.heads * shape.value, shape.hidden)
    if indexer is not None and shape.query_rank is not None:
        _indexer(sheet, indexer, hidden=shape.hidden, query_rank=shape.query_rank, path=f"{path}.indexer")
    sheet.attention(f"{path}.attn")
    sheet.cache(LatentAttention(latent_size=shape.cached))


def is_expert_layer(source: Source, index: int) -> bool:
    """Whether layer `index` has routed experts: after the dense ones, every `moe_layer_freq`-th."""
    first = source.size("first_k_dense_replace", low=0, high=MAX_LAYERS)
    every = source.optional_size("moe_layer_freq", low=1, high=MAX_LAYERS) or 1
    return index >= first and index % every == 0


def deepseek_mixture(sheet: Sheet, source: Source, router: Router, *, hidden: int, path: str = "mlp") -> None:
    """Write down routed experts, their router and the shared experts, which are one MLP."""
    count = _expert_count(source)
    intermediate = source.size("moe_intermediate_size")
    sheet.tensor(count, hidden, element=router.element)
    if router.corrected:
        sheet.vector(count, element="float32")
    sheet.experts(
        f"{path}.experts",
        count=count,
        hidden=hidden,
        intermediate=intermediate,
        tiled=router.corrected or source.fields.flag("norm_topk_prob"),
    )
    shared = source.optional_size("n_shared_experts", high=MAX_EXPERTS)
    if shared:
        mlp(sheet, f"{path}.shared_experts", hidden=hidden, intermediate=shared * intermediate, gated=True)


def _expert_count(source: Source) -> int:
    count = aliased_count(source, "n_routed_experts", "num_local_experts", "num_experts")
    if not count:
        source.fields.fail("n_routed_experts", "is missing or 0; it is the number of experts")
    return count


def _read(source: Source, router: Router, *, norms: int) -> Body:
    shape = latent_shape(source)
    indexer = read_indexer(source)
    if indexer is not None and shape.query_rank is None:
        source.fields.fail("q_lora_rank", "is missing; the indexer of sparse attention reads it")
    layers = []
    for index in range(source.layers):
        sheet = source.sheet(f"model.layers.{index}.")
        latent_attention(sheet, shape, indexer=indexer if indexer and indexer.layers[index] else None)
        if is_expert_layer(source, index):
            deepseek_mixture(sheet, source, router, hidden=shape.hidden)
        else:
            intermediate = source.size("intermediate_size")
            mlp(sheet, "mlp", hidden=shape.hidden, intermediate=intermediate, gated=True)
        sheet.vector(shape.hidden, count=norms)
        layers.append(sheet.layer())
    return latent_body(source, shape, layers, sparse=indexer is not None)


def _longcat_layer(source: Source, shape: LatentShape, index: int) -> Layer:
    plain = source.fields.optional_texts("disable_quant_module", max_items=16) or ()
    path = f"model.layers.{index}."
    attention = _longcat_sheet(source, path, plain="self_attn" in plain)
    mlps = _longcat_sheet(source, path, plain="mlps" in plain)
    for half in range(2):
        latent_attention(attention, shape, path=f"self_attn.{half}")
        intermediate = source.size("ffn_hidden_size")
        mlp(mlps, f"mlps.{half}", hidden=shape.hidden, intermediate=intermediate, gated=True)
    rest = source.sheet(path)
    rest.vector(shape.hidden, count=4)
    experts = _expert_count(source)
    choices = experts + source.size("zero_expert_num", low=0, high=MAX_EXPERTS)
    rest.tensor(choices, shape.hidden, element="float32")
    rest.vector(choices, element="float32")
    intermediate = source.size("expert_ffn_hidden_size")
    rest.experts("mlp.experts", count=experts, hidden=shape.hidden, intermediate=intermediate)
    held = attention.layer()
    return Layer(caches=held.caches, parameters=held.parameters + mlps.parameters + rest.parameters)


def _longcat_sheet(source: Source, path: str, *, plain: bool) -> Sheet:
    return Sheet(Unquantized(), prefix=source.prefix + path) if plain else source.sheet(path)


def _indexer(sheet: Sheet, indexer: Indexer, *, hidden: int, query_rank: int, path: str) -> None:
    # Its key and head weights are fused and stay in the model's dtype whatever the scheme.
    sheet.replicated(f"{path}.wq_b", query_rank, indexer.heads * indexer.size)
    sheet.tensor(indexer.size + indexer.heads, hidden)
    sheet.vector(indexer.size, element="float32", count=2)
    sheet.cache(indexer.cache)


def _has_indexer(source: Source, index: int) -> bool:
    """Layers without one reuse the choice of a layer before them."""
    pattern = _pattern(source)
    if pattern is not None:
        return index >= len(pattern) or pattern[index] != "S"
    offset = source.optional_size("index_skip_topk_offset", high=MAX_LAYERS)
    every = source.optional_size("index_topk_freq", low=1, high=MAX_LAYERS) or 1
    return max(index - (2 if offset is None else offset) + 1, 0) % every == 0


def _pattern(source: Source) -> Sequence[str] | None:
    if isinstance(source.fields.raw("index_topk_pattern"), str):
        return source.fields.optional_text("index_topk_pattern", max_length=MAX_LAYERS)
    return source.fields.optional_texts("index_topk_pattern", max_items=MAX_LAYERS)
