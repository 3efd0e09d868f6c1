"""The common decoder: attention and an MLP or experts per layer, described by a `Style`.

What each family has is read in vLLM 0.32.0 `model_executor/models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

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
from tonnage.models.parameters import heads, ranks
from tonnage.models.profile import CacheSpec, FullAttention, Layer, Outside, SlidingWindow, Trait
from tonnage.models.sheet import Sheet


class Windows(StrEnum):
    """Which layers have a sliding window when `layer_types` does not say."""

    ALL = "all layers, where sliding_window is set"
    EVERY_NTH_FULL = "all but every n-th layer"
    FIRST_OF_NTH_FULL = "all but the first of every n layers"
    FROM_LAYER = "layers from max_window_layers on, where use_sliding_window is set"
    NONE = "no layer"


class QkNorm(StrEnum):
    """Norms of queries and keys: none, one head wide, or over all heads of a rank or of the model."""

    NONE = "none"
    HEAD = "one head wide"
    HEAD_BIASED = "one head wide, with a bias"
    RANK_HEADS = "all heads of a rank"
    ALL_HEADS = "all heads, whole on every rank"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """Whether linear layers have a bias: `always`, or as any of the boolean `fields` says; a config that has
    the field `decided_by` is asked for nothing else."""

    always: bool = False
    fields: tuple[str, ...] = ()
    decided_by: str | None = None

    def read(self, source: Source) -> bool:
        """Whether this config has it."""
        if self.decided_by is not None and source.fields.raw(self.decided_by) is not None:
            return source.fields.flag(self.decided_by)
        return self.always or any(source.fields.flag(name) for name in self.fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Routed experts instead of an MLP.

    Field names say where the config states them; an expert count of 0 or an absent one means no experts.
    `first_dense` names the count of leading layers without experts, `every` the stride of layers with them,
    `last` the last one (-1: the model's last), `kinds` the list that says "sparse" or "dense" for each layer
    where there is one. `count_aliases` are other names of the count in configs that newer versions of
    transformers wrote. `router_element` is the element of the router's weight, unless it is
    `router_quantized` as any matrix. `correction_switch` names the boolean without which there is no
    correction bias. Shared experts are one MLP at `shared_path`: `shared_intermediate` names its width, or
    `shared_count` how many times a routed expert's it is; `shared_gate` weighs it, a `lone_gate` is held
    without one too. `renormalized` names the boolean without which the weights of the chosen experts are not
    renormalized; `tiled` as in `Experts`, on top of that.
    """

    count: str
    intermediate: str = "moe_intermediate_size"
    path: str = "mlp"
    router: str = "gate"
    router_element: str = "model"
    router_quantized: bool = False
    router_bias: bool = False
    correction_bias: str | None = None
    correction_switch: str | None = None
    count_aliases: tuple[str, ...] = ()
    shared_intermediate: str | None = None
    shared_count: str | None = None
    shared_path: str = "shared_expert"
    shared_gate: bool = False
    lone_gate: bool = False
    first_dense: str | None = None
    every: str | None = None
    only_dense: str | None = None
    last: str | None = None
    kinds: str | None = None
    renormalized: str | None = None
    tiled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a family's decoder is built and how its config.json is read.

    `names` maps our field names to the family's own, an empty name to none at all. `per_layer` says whether
    the engine's model honours `layer_types` layer by layer; where it does not, a mixture is refused, as the
    engine itself refuses it or ignores it. `window_switch` names the boolean without which `sliding_window`
    means nothing. `norms` counts vectors of the hidden size in a layer, biases of LayerNorm included,
    `final_norms` those after the last layer, `first_norms` those after the token table. `gated` MLPs fuse
    gate and up projections.

    `qk_norm_switch` names the boolean without which there are no norms of queries and keys, `softcap` the
    field that caps attention scores, `unplanned` fields that must not be true, `needed` ones that must not
    be false. `tied` families have no output head whatever the config says, `own_head` ones always have one;
    `every_stage` ones hold on every stage of a pipeline what others hold on the first or the last. `qkv`,
    `output`, `inward`, `outward` and `head` are the engine's names of the linear layers, `output_gate` that
    of one as wide as the heads. `packed_qkv` and `packed_mlp` say that the engine takes for one layer what it
    fuses elsewhere.
    """

    names: dict[str, str] = field(default_factory=dict)
    reads_head_dim: bool = True
    multi_query: bool = False
    windows: Windows = Windows.NONE
    nth_full: int = 0
    nth_field: str = "sliding_window_pattern"
    per_layer: bool = True
    window_switch: str | None = None
    traits: frozenset[Trait] = frozenset()
    qkv_bias: Bias = Bias()
    output_bias: Bias = Bias()
    mlp_bias: Bias = Bias()
    head_bias: Bias = Bias()
    qk_norm: QkNorm = QkNorm.NONE
    qk_norm_switch: str | None = None
    sinks: bool = False
    norms: int = 2
    final_norms: int = 1
    gated: bool = True
    mixture: Mixture | None = None
    positions: str | None = None
    position_offset: int = 0
    attention_path: str = "self_attn"
    mlp_path: str = "mlp"
    layer_path: str = "model.layers"
    qkv: str = "qkv_proj"
    output: str = "o_proj"
    inward: str = ""
    outward: str = "down_proj"
    head: str = "lm_head"
    packed_qkv: bool = False
    packed_mlp: bool = False
    first_norms: int = 0
    tied: bool = False
    own_head: bool = False
    every_stage: bool = False
    output_gate: str = ""
    softcap: str | None = None
    needed: tuple[str, ...] = ()
    unplanned: tuple[str, ...] = ()


ATTENTION_BIAS: Final = Bias(fields=("attention_bias",))
MLP_BIAS: Final = Bias(fields=("mlp_bias",))
LLAMA_BIAS: Final = Bias(fields=("attention_bias", "bias"))
LLAMA: Final = Style(
    windows=Windows.ALL,
    qkv_bias=Bias(fields=LLAMA_BIAS.fields, decided_by="qkv_bias"),
    output_bias=LLAMA_BIAS,
    mlp_bias=MLP_BIAS,
)
"""What llama.py builds, and with it all models that are made of its layers."""


def read_decoder(source: Source, style: Style, *, windows: Sequence[int | None] | None = None) -> Body:
    """The body of a decoder of this style; `windows` are the layers' windows where the style does not say.

    Raises `ConfigError`.
    """
    _refuse(source, style)
    shape = attention_shape(source, style)
    windows = window_tokens(source, style) if windows is None else windows
    layers = tuple(
        _layer(source, style, shape, index=index, window=window) for index, window in enumerate(windows)
    )
    vocabulary = source.size(style.names.get("vocab_size", "vocab_size"), high=MAX_VOCABULARY)
    return Body(
        layers=layers,
        outside=outside(source, style, hidden=shape.hidden, vocabulary=vocabulary),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.query_heads,
        head_size=shape.head_size,
        head_elements=2 * shape.head_size,
        traits=_traits(source, style),
    )


def _refuse(source: Source, style: Style) -> None:
    refused = [name for name in style.unplanned if source.fields.raw(name)]
    refused += [name for name in style.needed if source.fields.raw(name) is False]
    if refused:
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: {source.architecture} sets {refused[0]} to {source.fields.raw(refused[0])!r:.60}; "
            "not planned",
        )


def _traits(source: Source, style: Style) -> frozenset[Trait]:
    found = set(style.traits)
    if style.sinks:
        found.add(Trait.SINKS)
    if style.softcap is not None and source.fields.raw(style.softcap):
        found.add(Trait.SOFTCAP)
    return frozenset(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """Sizes of grouped-query attention."""

    hidden: int
    query_heads: int
    kv_heads: int
    head_size: int


def attention_shape(source: Source, style: Style) -> AttentionShape:
    """Heads and sizes, checked against each other."""
    hidden = source.size(style.names.get("hidden_size", "hidden_size"))
    query_heads = source.size(style.names.get("num_attention_heads", "num_attention_heads"), high=MAX_HEADS)
    return AttentionShape(
        hidden=hidden,
        query_heads=query_heads,
        kv_heads=_kv_heads(source, style, query_heads),
        head_size=_head_size(source, style, hidden=hidden, query_heads=query_heads),
    )


def cache_of(shape: AttentionShape, *, window: int | None) -> CacheSpec:
    """What one layer of this attention stores; `window` None remembers all tokens."""
    if window is None:
        return FullAttention(kv_heads=shape.kv_heads, head_size=shape.head_size, head_size_v=shape.head_size)
    return SlidingWindow(
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        head_size_v=shape.head_size,
        window_tokens=window,
    )


def attention(sheet: Sheet, source: Source, style: Style, shape: AttentionShape) -> None:
    """Write down the attention of one layer, without its cache."""
    path = style.attention_path
    bias = style.qkv_bias.read(source)
    if style.packed_qkv:
        rows = (shape.query_heads + 2 * shape.kv_heads) * shape.head_size
        sheet.column_parallel(f"{path}.{style.qkv}", shape.hidden, rows, bias=bias)
    else:
        sheet.qkv(
            f"{path}.{style.qkv}",
            shape.hidden,
            query_heads=shape.query_heads,
            kv_heads=shape.kv_heads,
            head_size=shape.head_size,
            bias=bias,
        )
    sheet.row_parallel(
        f"{path}.{style.output}",
        shape.query_heads * shape.head_size,
        shape.hidden,
        bias=style.output_bias.read(source),
    )
    sheet.attention(f"{path}.attn")
    if style.output_gate:
        sheet.column_parallel(
            f"{path}.{style.output_gate}", shape.hidden, shape.query_heads * shape.head_size
        )
    if _switched(source, style.qk_norm_switch):
        qk_norms(sheet, style.qk_norm, shape)
    if style.sinks:
        sheet.vector(ranks(shape.query_heads))


def qk_norms(sheet: Sheet, kind: QkNorm, shape: AttentionShape) -> None:
    """Norms of queries and keys."""
    size = shape.head_size
    if kind is QkNorm.HEAD:
        sheet.vector(size, count=2)
    elif kind is QkNorm.HEAD_BIASED:
        sheet.vector(size, count=4)
    elif kind is QkNorm.RANK_HEADS:
        sheet.vector(ranks(shape.query_heads * size), heads(shape.kv_heads, size))
    elif kind is QkNorm.ALL_HEADS:
        sheet.vector(shape.query_heads * size, shape.kv_heads * size)


def mlp(
    sheet: Sheet,
    path: str,
    *,
    hidden: int,
    intermediate: int,
    gated: bool,
    bias: bool = False,
    inward: str = "",
    outward: str = "down_proj",
    packed: bool = False,
) -> None:
    """Write down an MLP: gate and up fused, or `packed` in one layer, and down, or up and down; `path` may be
    empty."""
    inward = inward or ("gate_up_proj" if gated else "up_proj")
    rows = (intermediate, intermediate) if gated else (intermediate,)
    rows = (sum(rows),) if packed else rows
    prefix = f"{path}." if path else ""
    sheet.column_parallel(f"{prefix}{inward}", hidden, *rows, bias=bias)
    sheet.row_parallel(f"{prefix}{outward}", intermediate, hidden, bias=bias)


def mixture(sheet: Sheet, source: Source, style: Mixture, *, hidden: int, gated: bool) -> None:
    """Write down routed experts, their router and any shared expert."""
    count = expert_count(source, style)
    if not count:
        source.fields.fail(style.count, "is missing or 0; it is the number of experts")
    if style.router_quantized:
        sheet.replicated(f"{style.path}.{style.router}", hidden, count)
    else:
        sheet.tensor(count, hidden, element=style.router_element)
    if style.router_bias:
        sheet.vector(count)
    if style.correction_bias is not None and _switched(source, style.correction_switch):
        sheet.vector(count, element=style.correction_bias)
    intermediate = source.size(style.intermediate)
    sheet.experts(
        f"{style.path}.experts",
        count=count,
        hidden=hidden,
        intermediate=intermediate,
        gated=gated,
        tiled=style.tiled and _switched(source, style.renormalized),
    )
    shared = _shared_intermediate(source, style, intermediate)
    if shared:
        mlp(sheet, f"{style.path}.{style.shared_path}", hidden=hidden, intermediate=shared, gated=gated)
    if style.lone_gate or (style.shared_gate and shared):
        sheet.tensor(1, hidden)


def expert_count(source: Source, style: Mixture) -> int | None:
    """The number of routed experts, None where the config of a family that may have none states none."""
    return aliased_count(source, style.count, *style.count_aliases)


def aliased_count(source: Source, name: str, *aliases: str) -> int | None:
    """A count of experts that newer versions of transformers write under another name; what is written
    wins over the default of `name`, and two different numbers are refused."""
    written = {
        source.optional_size(key, high=MAX_EXPERTS) for key in (name, *aliases) if source.fields.written(key)
    }
    if len(written) > 1:
        source.fields.fail(name, f"and {' or '.join(aliases)} are different numbers of experts")
    return written.pop() if written else source.optional_size(name, high=MAX_EXPERTS)


def _shared_intermediate(source: Source, style: Mixture, intermediate: int) -> int | None:
    if style.shared_count is not None:
        return intermediate * (source.optional_size(style.shared_count, high=MAX_EXPERTS) or 0)
    return source.optional_size(style.shared_intermediate) if style.shared_intermediate else None


def _switched(source: Source, switch: str | None) -> bool:
    return switch is None or source.fields.flag(switch)


def outside(source: Source, style: Style, *, hidden: int, vocabulary: int) -> Outside:
    """Token table, positions, final norm and output head."""
    table = source.sheet("model.embed_tokens")
    table.embedding(vocabulary, hidden)
    first, last = source.sheet(""), source.sheet("")
    if style.positions is not None:
        first.tensor(source.size(style.positions, high=MAX_CONTEXT) + style.position_offset, hidden)
    if style.first_norms:
        first.vector(hidden, count=style.first_norms)
    if style.final_norms:
        last.vector(hidden, count=style.final_norms)
    tied = style.tied or (not style.own_head and source.fields.flag("tie_word_embeddings"))
    if not tied:
        last.head(style.head, vocabulary, hidden, bias=style.head_bias.read(source))
    if style.every_stage:
        return Outside(every=(*table.parameters, *first.parameters, *last.parameters), tied=tied)
    return Outside(first=first.parameters, last=last.parameters, embedding=table.parameters, tied=tied)


def window_tokens(source: Source, style: Style) -> list[int | None]:
    """For each layer the tokens of its window, None for full attention."""
    layers = source.size(style.names.get("num_hidden_layers", "num_hidden_layers"), high=MAX_LAYERS)
    window = _window(source, style)
    if window is None:
        kinds = layer_kinds(source, style.windows, layers=layers)
        if kinds and any(kinds) and style.per_layer and not source.fields.states("sliding_window"):
            raise ConfigError(
                "UnsupportedAttention",
                "config.json: layer_types holds sliding_attention, but sliding_window is missing",
            )
        return [None] * layers
    windowed = _windowed_layers(source, style, layers=layers)
    return [window if has_window else None for has_window in windowed]


def layer_kinds(source: Source, windows: Windows, *, layers: int) -> list[bool] | None:
    """`layer_types` as "has a window", None where it is absent."""
    kinds = source.fields.optional_texts("layer_types", max_items=MAX_LAYERS)
    if kinds is None:
        return None
    if len(kinds) != layers:
        source.fields.fail("layer_types", f"has {len(kinds)} entries for {layers} layers")
    unknown = sorted(set(kinds) - {"full_attention", "sliding_attention"})
    if unknown:
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: layer_types holds {unknown[0]!r}, which is not known of {source.architecture}",
        )
    if windows is Windows.NONE and "sliding_attention" in kinds:
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: layer_types holds sliding_attention, which is not known of {source.architecture}",
        )
    return [kind == "sliding_attention" for kind in kinds]


def _layer(source: Source, style: Style, shape: AttentionShape, *, index: int, window: int | None) -> Layer:
    sheet = source.sheet(f"{style.layer_path}.{index}.")
    attention(sheet, source, style, shape)
    sheet.cache(cache_of(shape, window=window))
    if style.mixture is not None and has_experts(source, style.mixture, index):
        mixture(sheet, source, style.mixture, hidden=shape.hidden, gated=style.gated)
    else:
        mlp(
            sheet,
            style.mlp_path,
            hidden=shape.hidden,
            intermediate=intermediate_size(source, style, shape.hidden),
            gated=style.gated,
            bias=style.mlp_bias.read(source),
            inward=style.inward,
            outward=style.outward,
            packed=style.packed_mlp,
        )
    if style.norms:
        sheet.vector(shape.hidden, count=style.norms)
    return sheet.layer()


def has_experts(source: Source, style: Mixture, index: int) -> bool:
    """Whether layer `index` has routed experts."""
    if not expert_count(source, style):
        return False
    listed = _expert_layers(source, style)
    if listed is not None:
        return index < len(listed) and listed[index]
    if style.last and index > _last_layer(source, style.last):
        return False
    if style.first_dense and index < (source.optional_size(style.first_dense, high=MAX_LAYERS) or 0):
        return False
    if style.only_dense and index in _listed(source, style.only_dense):
        return False
    every = source.optional_size(style.every, low=1, high=MAX_LAYERS) if style.every else None
    return every is None or (index + 1) % every == 0


def _expert_layers(source: Source, style: Mixture) -> list[bool] | None:
    """The list of layers as "has experts", None where there is none."""
    kinds = source.fields.optional_texts(style.kinds, max_items=MAX_LAYERS) if style.kinds else None
    if kinds is None or style.kinds is None:
        return None
    if set(kinds) - {"sparse", "dense"}:
        source.fields.fail(style.kinds, "holds something else than sparse and dense")
    return [kind == "sparse" for kind in kinds]


def _last_layer(source: Source, name: str) -> int:
    stated = source.optional_size(name, low=-1, high=MAX_LAYERS)
    return MAX_LAYERS if stated is None or stated == -1 else stated


def intermediate_size(source: Source, style: Style, hidden: int) -> int:
    """Width of the MLP; families that leave it out use four times the hidden size."""
    name = style.names.get("intermediate_size", "intermediate_size")
    stated = source.optional_size(name, low=1) if name else None
    return stated if stated is not None else 4 * hidden


def _listed(source: Source, name: str) -> Sequence[object]:
    value = source.fields.raw(name)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_LAYERS:
        source.fields.fail(name, f"is not a list of at most {MAX_LAYERS} layers")
    return value


def _head_size(source: Source, style: Style, *, hidden: int, query_heads: int) -> int:
    # model_arch_config_convertor.py get_head_size: head_dim 0 or null means it is derived.
    stated = source.optional_size("head_dim", high=MAX_HEAD_SIZE) if style.reads_head_dim else None
    size = stated or hidden // query_heads
    if size < 1:
        source.fields.fail(
            "hidden_size", f"is {hidden}, less than one element for each of {query_heads} attention heads"
        )
    if size > MAX_HEAD_SIZE:
        source.fields.fail(
            "hidden_size",
            f"is {hidden}, more than {MAX_HEAD_SIZE} for each of {query_heads} attention heads",
        )
    return size


def _kv_heads(source: Source, style: Style, query_heads: int) -> int:
    if style.multi_query and not source.fields.flag("new_decoder_architecture"):
        return 1 if source.fields.flag("multi_query") else query_heads
    name = style.names.get("num_key_value_heads", "num_key_value_heads")
    kv_heads = source.optional_size(name, low=1, high=MAX_HEADS) if name else None
    if kv_heads is None:
        return query_heads
    if query_heads % kv_heads:
        source.fields.fail(name, f"is {kv_heads}, which does not divide the {query_heads} attention heads")
    return kv_heads


def _window(source: Source, style: Style) -> int | None:
    """Tokens of the window, None where there is none; 0 means none (vllm/config/model.py)."""
    if style.windows is Windows.NONE:
        return None
    if style.window_switch is not None and not source.fields.flag(style.window_switch):
        return None
    return source.optional_size("sliding_window", high=MAX_CONTEXT) or None


def _windowed_layers(source: Source, style: Style, *, layers: int) -> list[bool]:
    kinds = layer_kinds(source, style.windows, layers=layers)
    windowed = _default_windows(source, style, layers) if kinds is None else kinds
    if len(set(windowed)) > 1 and not style.per_layer:
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: {source.architecture} gives a sliding window to {sum(windowed)} of {layers} "
            "layers; the engine has it for all layers of this architecture or for none",
        )
    return windowed


def _default_windows(source: Source, style: Style, layers: int) -> list[bool]:
    if style.windows is Windows.EVERY_NTH_FULL:
        stated = source.optional_size(style.nth_field, low=1, high=MAX_LAYERS) if style.nth_field else None
        return [(layer + 1) % (stated or style.nth_full) != 0 for layer in range(layers)]
    if style.windows is Windows.FIRST_OF_NTH_FULL:
        return [layer % style.nth_full != 0 for layer in range(layers)]
    if style.windows is Windows.FROM_LAYER:
        first = source.size("max_window_layers", low=0, high=MAX_CONTEXT)
        return [layer >= first for layer in range(layers)]
    return [True] * layers
