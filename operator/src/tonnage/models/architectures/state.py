"""Recurrent state: what a request keeps whatever its length, and the mixers that keep it.

State shapes are those of vLLM 0.32.0 `model_executor/layers/mamba/mamba_utils.py`, without the slots of
speculative decoding; a convolution remembers its kernel's width less one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tonnage.models.body import (
    MAX_CONTEXT,
    MAX_HEAD_SIZE,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_VOCABULARY,
    Body,
    Source,
)
from tonnage.models.decoder import AttentionShape, cache_of
from tonnage.models.errors import ConfigError
from tonnage.models.parameters import MODEL, Dimension, Parameter, Part, heads, ranks, whole
from tonnage.models.profile import Layer, Outside, RecurrentState, Trait
from tonnage.models.sheet import Sheet, vocabulary

MAMBA: Final = "mamba1"
MAMBA2: Final = "mamba2"
DELTA_NET: Final = "gdn_attention"
SHORT_CONVOLUTION: Final = "short_conv"
"""The engine's kernels of each kind (v1/attention/backends/registry.py `MambaAttentionBackendEnum`)."""

MAX_KERNEL: Final = 4096
MAX_GROUPS: Final = 4096

_STATE_ELEMENTS: Final = {
    "auto": MODEL,
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
}
"""vllm/config/cache.py `MambaDType`; "auto" is the dtype the model is served in."""

_RENAMED_TYPES: Final = {"mamba": "linear_attention", "attention": "full_attention"}
"""Older names of layer types (transformers `configuration_utils.py` `_LEGACY_LAYER_TYPE_REMAP`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MambaShape:
    """Sizes of a Mamba mixer: `inner` channels of `state` elements each, a convolution over `kernel` tokens
    and time steps of rank `steps`; `chunk` tokens are scanned at a time (0: the engine's choice)."""

    hidden: int
    inner: int
    state: int
    kernel: int
    steps: int
    bias: bool
    kernel_bias: bool
    chunk: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2Shape:
    """Sizes of a Mamba-2 mixer: `inner` channels in `heads` heads of `head_size`; `groups` of heads share
    the vectors by which states of `state` elements are written and read. `chunk` as in `MambaShape`."""

    hidden: int
    inner: int
    heads: int
    head_size: int
    groups: int
    state: int
    kernel: int
    bias: bool
    kernel_bias: bool
    chunk: int
    norm: bool = True
    element: str = MODEL

    @property
    def shared(self) -> Part:
        """Both vectors of the groups are this long: a single group is copied to every rank."""
        return heads(1, self.state) if self.groups == 1 else ranks(self.groups * self.state)

    @property
    def spread(self) -> Part:
        """The groups themselves: more than one must divide among ranks (`MambaMixer2`)."""
        return whole(1) if self.groups == 1 else ranks(self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class MambaNames:
    """How a config names the sizes of `MambaShape`."""

    state: str
    kernel: str
    steps: str
    bias: str
    kernel_bias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2Names:
    """How a config names the sizes of `Mamba2Shape`; a `head_size` of None follows from the channels."""

    heads: str
    head_size: str | None
    groups: str
    state: str
    kernel: str
    bias: str
    kernel_bias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaShape:
    """Sizes of a gated delta net: key and value heads, and a convolution over `kernel` tokens."""

    key_heads: int
    value_heads: int
    key_size: int
    value_size: int
    kernel: int
    element: str = MODEL

    @property
    def keys(self) -> int:
        """Elements of all keys."""
        return self.key_heads * self.key_size

    @property
    def values(self) -> int:
        """Elements of all values."""
        return self.value_heads * self.value_size

    @property
    def convolved(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.keys + self.values


def mamba_mixer(sheet: Sheet, shape: MambaShape, *, norms: bool) -> None:
    """Write down a Mamba mixer and its state; `norms` are those of time steps and state vectors, where they
    have weights.

    The engine never quantizes it: layers/mamba/mamba_mixer.py `MambaMixer` passes no quantization on.
    """
    inner = ranks(shape.inner)
    sheet.tensor(inner, 1, shape.kernel)
    if shape.kernel_bias:
        sheet.vector(inner)
    sheet.tensor(ranks(2 * shape.inner), shape.hidden)
    if shape.bias:
        sheet.vector(inner, inner)
        sheet.vector(shape.hidden)
    sheet.tensor(shape.steps + 2 * shape.state, inner)
    sheet.tensor(inner, shape.steps)
    sheet.tensor(inner, shape.state, element="float32")
    sheet.vector(inner, count=2)
    sheet.tensor(shape.hidden, inner)
    if norms:
        sheet.vector(shape.steps)
        sheet.vector(shape.state, count=2)
    sheet.cache(
        RecurrentState(
            kind=MAMBA,
            tensors=(_state(whole(shape.kernel - 1), inner), _state(inner, whole(shape.state))),
            chunk_tokens=shape.chunk,
        )
    )


def mamba2_mixer(sheet: Sheet, path: str, shape: Mamba2Shape) -> None:
    """Write down a Mamba-2 mixer and its state (layers/mamba/mamba_mixer2.py `MambaMixer2`).

    Its convolution is never quantized. Channels of groups are written down group by group, so that ranks
    which cannot divide the groups are refused as by the engine.
    """
    inner, per_head = ranks(shape.inner), ranks(shape.heads)
    sheet.tensor(inner, 1, shape.kernel)
    sheet.tensor(shape.spread, 2 * shape.state, shape.kernel)
    if shape.kernel_bias:
        sheet.vector(inner, shape.shared, shape.shared)
    sheet.matrix(
        f"{path}.in_proj",
        [inner, inner, shape.shared, shape.shared, per_head],
        whole(shape.hidden),
        bias=shape.bias,
    )
    sheet.vector(per_head, element="float32")
    sheet.vector(per_head, count=2)
    sheet.row_parallel(f"{path}.out_proj", shape.inner, shape.hidden, bias=shape.bias)
    if shape.norm:
        sheet.vector(inner)
    sheet.cache(mamba2_state(shape))


def mamba2_state(shape: Mamba2Shape) -> RecurrentState:
    """The state of a Mamba-2 mixer."""
    convolution = Parameter(
        MODEL,
        (
            Dimension((whole(shape.kernel - 1),)),
            Dimension((ranks(shape.inner), shape.shared, shape.shared)),
        ),
    )
    temporal = _state(ranks(shape.heads), whole(shape.head_size), whole(shape.state), element=shape.element)
    return RecurrentState(kind=MAMBA2, tensors=(convolution, temporal), chunk_tokens=shape.chunk)


def delta_net_state(shape: DeltaShape) -> RecurrentState:
    """The state of a gated delta net."""
    return RecurrentState(
        kind=DELTA_NET,
        tensors=(
            _state(whole(shape.kernel - 1), ranks(shape.convolved)),
            _state(
                ranks(shape.value_heads),
                whole(shape.value_size),
                whole(shape.key_size),
                element=shape.element,
            ),
        ),
    )


def gated_key_state(count: int, size: int, kernel: int) -> RecurrentState:
    """The state of Kimi's delta attention with `count` heads of `size`, which is always float32."""
    return RecurrentState(
        kind=DELTA_NET,
        tensors=(
            _state(whole(kernel - 1), ranks(3 * count * size)),
            _state(ranks(count), whole(size), whole(size), element="float32"),
        ),
    )


def short_convolution_state(channels: int, kernel: int) -> RecurrentState:
    """The state of a short convolution."""
    return RecurrentState(kind=SHORT_CONVOLUTION, tensors=(_state(whole(kernel - 1), ranks(channels)),))


def delta_shape(source: Source, *, element: str = MODEL) -> DeltaShape:
    """Sizes of gated delta nets, in the names of Qwen3-Next. Raises `ConfigError`."""
    return DeltaShape(
        key_heads=source.size("linear_num_key_heads", high=MAX_HEADS),
        value_heads=source.size("linear_num_value_heads", high=MAX_HEADS),
        key_size=source.size("linear_key_head_dim", high=MAX_HEAD_SIZE),
        value_size=source.size("linear_value_head_dim", high=MAX_HEAD_SIZE),
        kernel=source.size("linear_conv_kernel_dim", high=MAX_KERNEL),
        element=element,
    )


def state_element(source: Source, name: str) -> str:
    """The element of the recurrent state that a config asks for, `MODEL` where it does not."""
    stated = source.fields.optional_text(name)
    if stated is None:
        return MODEL
    element = _STATE_ELEMENTS.get(stated)
    if element is None:
        source.fields.fail(name, f"is {stated!r}; the engine knows {', '.join(_STATE_ELEMENTS)}")
    return element


def layer_types(source: Source, name: str, *, known: Sequence[str]) -> tuple[str, ...] | None:
    """The type of each layer as the config lists them, older names renewed; None where it lists none.

    Raises `ConfigError` for types other than `known`.
    """
    stated = source.fields.optional_texts(name, max_items=MAX_LAYERS)
    if stated is None:
        return None
    types = tuple(_RENAMED_TYPES.get(each, each) for each in stated)
    unknown = sorted(set(types) - set(known))
    if unknown:
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: {name} holds {unknown[0]!r}, which is not known of {source.architecture}",
        )
    return types


def counted_layer_types(source: Source, name: str, *, known: Sequence[str]) -> tuple[str, ...] | None:
    """As `layer_types`, one for each of `num_hidden_layers`."""
    types = layer_types(source, name, known=known)
    if types is not None and len(types) != source.layers:
        source.fields.fail(name, f"has {len(types)} entries for {source.layers} layers")
    return types


def remember_tokens(sheet: Sheet, shape: AttentionShape) -> None:
    """The cache of full attention."""
    sheet.cache(cache_of(shape, window=None))


def plain_head(sheet: Sheet, rows: int, columns: int) -> None:
    """An output head that the engine's model never quantizes."""
    sheet.tensor(vocabulary(rows), columns)


def hybrid_body(
    source: Source,
    layers: Sequence[Layer],
    outside: Outside,
    shape: AttentionShape,
    *,
    traits: frozenset[Trait] = frozenset(),
) -> Body:
    """The body of a model with attention in some layers. The engine picks kernels by `head_dim` where the
    config states it, also for models that do not read it."""
    return Body(
        layers=tuple(layers),
        outside=outside,
        hidden_size=shape.hidden,
        vocab_size=vocabulary_size(source),
        num_attention_heads=shape.query_heads,
        head_size=source.optional_size("head_dim", high=MAX_HEAD_SIZE) or shape.head_size,
        head_elements=2 * shape.head_size,
        traits=traits,
    )


def attention_free_body(
    source: Source,
    layers: Sequence[Layer],
    outside: Outside,
    *,
    head_size: int,
    traits: frozenset[Trait] = frozenset(),
) -> Body:
    """The body of a model without attention; `head_size` is what the engine takes for one all the same."""
    return Body(
        layers=tuple(layers),
        outside=outside,
        hidden_size=source.hidden,
        vocab_size=vocabulary_size(source),
        num_attention_heads=0,
        head_size=head_size,
        head_elements=0,
        traits=traits,
    )


def vocabulary_size(source: Source) -> int:
    """Rows of the token table."""
    return source.size("vocab_size", high=MAX_VOCABULARY)


def mamba_shape(source: Source, names: MambaNames, *, inner: int) -> MambaShape:
    """Sizes of Mamba mixers. Raises `ConfigError`."""
    stated = source.fields.raw(names.steps)
    automatic = stated is None or stated == "auto"
    return MambaShape(
        hidden=source.hidden,
        inner=inner,
        state=source.size(names.state),
        kernel=source.size(names.kernel, high=MAX_KERNEL),
        steps=-(-source.hidden // 16) if automatic else source.size(names.steps),
        bias=source.fields.flag(names.bias),
        kernel_bias=source.fields.flag(names.kernel_bias),
        chunk=_chunk_tokens(source),
    )


def mamba2_shape(
    source: Source, names: Mamba2Names, *, inner: int, norm: bool = True, element: str = MODEL
) -> Mamba2Shape:
    """Sizes of Mamba-2 mixers; the channels are those of all heads. Raises `ConfigError`."""
    count = source.size(names.heads, high=MAX_HEADS)
    size = inner // count
    if names.head_size is not None and source.fields.raw(names.head_size) not in (None, "auto"):
        size = source.size(names.head_size, high=MAX_HEAD_SIZE)
    if count * size != inner:
        source.fields.fail(names.heads, f"is {count}, which heads of {size} do not make {inner} channels of")
    return Mamba2Shape(
        hidden=source.hidden,
        inner=inner,
        heads=count,
        head_size=size,
        groups=source.size(names.groups, high=MAX_GROUPS),
        state=source.size(names.state),
        kernel=source.size(names.kernel, high=MAX_KERNEL),
        bias=source.fields.flag(names.bias),
        kernel_bias=source.fields.flag(names.kernel_bias),
        chunk=_chunk_tokens(source),
        norm=norm,
        element=element,
    )


def _chunk_tokens(source: Source) -> int:
    """Tokens that kernels scan at a time, 0 where the config leaves it to the engine
    (`ModelConfig.get_mamba_chunk_size`)."""
    for name in ("mamba_chunk_size", "chunk_size"):
        stated = source.optional_size(name, low=1, high=MAX_CONTEXT)
        if stated is not None:
            return stated
    return 0


def _state(*dimensions: Part, element: str = MODEL) -> Parameter:
    return Parameter(element, tuple(Dimension((part,)) for part in dimensions))
