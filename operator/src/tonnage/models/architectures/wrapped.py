"""What wrappers of a text model have in common: the text part, encoders of images and audio, projections.

Encoders are built on every stage of a pipeline (vllm/model_executor/models/interfaces.py 0.32
`_mark_tower_model` leaves them out only where no input of their kind is allowed). Ranks divide an encoder
as they divide the text model unless it is said otherwise; `--mm-encoder-tp-mode data` is not planned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tonnage.models.body import MAX_HEADS, MAX_HIDDEN, MAX_LAYERS, Body, Source
from tonnage.models.decoder import read_decoder
from tonnage.models.errors import ConfigError
from tonnage.models.families import FAMILIES, text_architecture
from tonnage.models.family import reader_of
from tonnage.models.fields import Fields
from tonnage.models.parameters import Parameter, Part, Split, ranks, whole
from tonnage.models.profile import Trait
from tonnage.models.schemes import Unquantized
from tonnage.models.sheet import Sheet

MAX_SIDE = 2**16
MAX_KERNEL = 1024

_ASK_TEXT = frozenset({"Qwen3MoeForCausalLM"})
"""Text models that read `hf_text_config` (vllm/model_executor/models/qwen3_moe.py 0.32)."""


def read_text(source: Source, *, tied: bool | None) -> Body:
    """The text model of a wrapper, by the reader of its own family.

    `tied`: what the wrapper says of the output head, which most text models take for their own
    (vllm/config/vllm.py 0.32 `with_hf_config`); None leaves it to the text part. Raises `ConfigError`.
    """
    if source.root.raw("is_mm_prefix_lm") is not None:
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: {source.architecture} sets is_mm_prefix_lm, which overrides what is known of it",
        )
    wrapper = FAMILIES[source.architecture]
    family = FAMILIES[text_architecture(wrapper, source.fields, source.architecture)]
    if tied is not None:
        source = replace(source, fields=source.fields.replaced({"tie_word_embeddings": tied}))
    return reader_of(family)(source) if family.reader else read_decoder(source, family.style)


def read_any_text(source: Source, *, tied: bool) -> Body:
    """As `read_text`, for wrappers of a text model of any family: those that read the text part of the whole
    config do not hear of `tied`."""
    asks_text = text_architecture(FAMILIES[source.architecture], source.fields, source.architecture)
    return read_text(source, tied=None if asks_text in _ASK_TEXT else tied)


def root_tied(source: Source, *, default: bool) -> bool:
    """`tie_word_embeddings` of the whole config; `default` is its config class's."""
    return source.root.replaced(defaults={"tie_word_embeddings": default}).flag("tie_word_embeddings")


def any_tied(source: Source) -> bool:
    """As config classes have it that take over what older configs state in the text part."""
    return root_tied(source, default=False) or source.fields.flag("tie_word_embeddings")


def part(source: Source, name: str, defaults: Mapping[str, object]) -> Fields:
    """The object that describes an encoder; absent ones have only `defaults`."""
    return Fields(source.root.optional_object(name) or {}, where=f"config.json {name}", defaults=defaults)


def tower(source: Source, path: str, *, quantized: bool = True) -> Sheet:
    """A sheet for the encoder at `path` ("visual."), whose linear layers no scheme touches if not
    `quantized`."""
    return Sheet(source.scheme if quantized else Unquantized(), prefix=path)


def quant_method(source: Source) -> str:
    """The declared quantization ("compressed-tensors", "fp8"), "" where config.json declares none: some
    encoders are quantized by some methods only."""
    for fields, name in (
        (source.root, "quantization_config"),
        (source.root, "compression_config"),
        (source.fields, "quantization_config"),
    ):
        declared = fields.optional_object(name)
        if declared:
            method = declared.get("quant_method")
            return method.lower().replace("_", "-") if isinstance(method, str) else ""
    return ""


def with_towers(
    body: Body,
    *towers: Sheet,
    tensors: Iterable[Parameter] = (),
    traits: frozenset[Trait] = frozenset(),
) -> Body:
    """The text model with the encoders in front of it, and with other `tensors` of theirs."""
    held = _counted([*(tensor for sheet in towers for tensor in sheet.parameters), *tensors])
    return replace(
        body,
        outside=replace(body.outside, every=body.outside.every + held),
        traits=body.traits | traits | {Trait.MULTIMODAL},
    )


def _counted(tensors: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """Equal tensors as one with a count: layers of an encoder are alike and stay together."""
    counts: dict[Parameter, int] = {}
    for tensor in tensors:
        kind = replace(tensor, count=1)
        counts[kind] = counts.get(kind, 0) + tensor.count
    return tuple(replace(kind, count=count) for kind, count in counts.items())


def size_of(fields: Fields, name: str, *, high: int = MAX_HIDDEN) -> int:
    """A required count or width."""
    return fields.integer(name, low=1, high=high)


def layers_of(fields: Fields, name: str = "num_hidden_layers") -> int:
    """The layers of an encoder."""
    return fields.integer(name, low=1, high=MAX_LAYERS)


def integers(
    fields: Fields, name: str, *, most: int, low: int = 0, high: int = MAX_HIDDEN
) -> tuple[int, ...]:
    """A list of at most `most` integers, () where it is absent or null."""
    value = fields.raw(name)
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or len(value) > most:
        fields.fail(name, f"is not a list of at most {most} integers")
    found = tuple(item for item in value if isinstance(item, int) and not isinstance(item, bool))
    if len(found) != len(value) or not all(low <= item <= high for item in found):
        fields.fail(name, f"holds something else than integers from {low} to {high}")
    return found


def pair_of(fields: Fields, name: str) -> tuple[int, int]:
    """Height and width, stated as two numbers or as one for both."""
    if not isinstance(fields.raw(name), list | tuple):
        side = fields.integer(name, low=1, high=MAX_SIDE)
        return side, side
    sides = integers(fields, name, most=2, low=1, high=MAX_SIDE)
    if len(sides) != 2:
        fields.fail(name, "is not a height and a width")
    return sides[0], sides[1]


def patches_of(fields: Fields) -> int:
    """Patches of the encoder's image, which is a square of its first side."""
    image, patch = pair_of(fields, "image_size")[0], pair_of(fields, "patch_size")[0]
    return int((image // patch) ** 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """Sizes of an encoder's layers. Ranks divide their heads; where they cannot, `whole_if_uneven` encoders
    are whole on every rank and others cannot start."""

    hidden: int
    heads: int
    intermediate: int
    layers: int
    whole_if_uneven: bool = False

    @property
    def heads_share(self) -> Part:
        """The elements of all heads."""
        if self.whole_if_uneven:
            return Part(self.hidden, Split.EVEN, heads=self.heads)
        return ranks(self.hidden, heads=self.heads)

    @property
    def inner_share(self) -> Part:
        """The inner elements of an MLP."""
        if self.whole_if_uneven:
            return Part(self.intermediate, Split.EVEN, heads=self.heads)
        return ranks(self.intermediate)


def encoder_of(
    fields: Fields,
    *,
    hidden: str = "hidden_size",
    heads: str = "num_attention_heads",
    intermediate: str = "intermediate_size",
    layers: str = "num_hidden_layers",
    whole_if_uneven: bool = False,
) -> Encoder:
    """Sizes of an encoder, by the names of the fields that state them. Raises `ConfigError`."""
    found = Encoder(
        hidden=size_of(fields, hidden),
        heads=size_of(fields, heads, high=MAX_HEADS),
        intermediate=size_of(fields, intermediate),
        layers=layers_of(fields, layers),
        whole_if_uneven=whole_if_uneven,
    )
    for name, size in ((hidden, found.hidden), (intermediate, found.intermediate)):
        if size % found.heads and (name == hidden or whole_if_uneven):
            fields.fail(name, f"is {size}, which {found.heads} attention heads do not divide")
    return found


def whole_tiles(encoder: Encoder) -> bool:
    """Whether quantized kernels can take the encoder's MLPs, which some encoders ask before."""
    return encoder.hidden % 64 == 0 and encoder.intermediate % 64 == 0


def encoder_attention(sheet: Sheet, encoder: Encoder, *, qkv: str, output: str, bias: bool = True) -> None:
    """Attention without a cache; queries, keys and values are fused."""
    sheet.matrix(qkv, [encoder.heads_share] * 3, whole(encoder.hidden), bias=bias)
    encoder_output(sheet, encoder, output, bias=bias)


def encoder_output(sheet: Sheet, encoder: Encoder, output: str, *, bias: bool) -> None:
    """The projection of what all heads found."""
    sheet.matrix(output, [whole(encoder.hidden)], encoder.heads_share, bias=bias)


def encoder_mlp(sheet: Sheet, encoder: Encoder, *, inward: str, outward: str) -> None:
    """Two linear layers with biases."""
    sheet.matrix(inward, [encoder.inner_share], whole(encoder.hidden), bias=True)
    sheet.matrix(outward, [whole(encoder.hidden)], encoder.inner_share, bias=True)


def layer_norms(sheet: Sheet, size: int, count: int = 1) -> None:
    """`count` norms of `size` elements with a bias."""
    sheet.vector(size, count=2 * count)
