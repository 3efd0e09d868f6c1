"""`ModelProfile` <-> one line of text that fits a Kubernetes termination message (4,096 bytes, some kept
for reasons): JSON, deflated, in base64.

Tensors repeat from layer to layer, so each distinct spec, tensor and layer is told once and deflating takes
what is left: the largest published profile takes about half of the room.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Hashable, Mapping
from typing import Final

from tonnage.models.body import MAX_CONTEXT, MAX_LAYERS
from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields, parse_json
from tonnage.models.parameters import (
    ELEMENT_BYTES,
    MODEL,
    ROUTER,
    Dimension,
    Parameter,
    Part,
    Rounding,
    Split,
    Tile,
)
from tonnage.models.profile import (
    CacheSpec,
    ChunkedLocal,
    CrossAttention,
    FullAttention,
    LatentAttention,
    Layer,
    LayerRun,
    ModelProfile,
    ModelShape,
    Outside,
    RecurrentState,
    SlidingWindow,
    TokenBytes,
    Trait,
    Weights,
)
from tonnage.models.safetensors import ELEMENT_BITS

VERSION: Final = 2
MAX_WIRE_BYTES: Final = 3500
_MAX_JSON_BYTES: Final = 256 * 2**10
_WHERE: Final = "model profile"
_HUGE: Final = 2**62
_MAX_ITEMS: Final = 4096
_SPLITS: Final = tuple(Split)
_ROUNDINGS: Final = tuple(Rounding)
_TILES: Final = tuple(Tile)
_ELEMENTS: Final = (MODEL, ROUTER, *ELEMENT_BYTES)
_PLACES: Final = ("first", "last", "every", "embedding")
_KEYS: Final = frozenset(
    {
        "schema",
        "architecture",
        "dtype",
        "maxContext",
        "defaultContext",
        "vocab",
        "hidden",
        "heads",
        "headSize",
        "headElements",
        "traits",
        "kvDtype",
        "encoderTokens",
        "tensors",
        "specs",
        "kinds",
        "runs",
        "outside",
        "quantization",
        "tied",
        "weightsKnown",
        "weights",
        "parameters",
    }
)
_MAY_LACK: Final = frozenset({"expertsPerToken"})
"""Keys that are there only where they say something, so that other profiles read as they did before."""


def encode_wire(profile: ModelProfile) -> str:
    """One line of text; raises `ConfigError` (ProfileInvalid) past `MAX_WIRE_BYTES`."""
    plain = json.dumps(to_wire(profile), separators=(",", ":")).encode()
    text = base64.b64encode(zlib.compress(plain, 9)).decode("ascii")
    if len(text) > MAX_WIRE_BYTES:
        raise ConfigError(
            "ProfileInvalid", f"{_WHERE} takes {len(text)} bytes, more than the {MAX_WIRE_BYTES} allowed"
        )
    return text


def decode_wire(text: str | bytes) -> ModelProfile:
    """The reverse of `encode_wire`; unknown keys, versions and types are refused with `ConfigError`."""
    data = text.encode("utf-8", errors="replace") if isinstance(text, str) else text
    if len(data) > MAX_WIRE_BYTES:
        raise ConfigError("ProfileInvalid", f"{_WHERE} has {len(data)} bytes, more than {MAX_WIRE_BYTES}")
    try:
        inflater = zlib.decompressobj()
        plain = inflater.decompress(base64.b64decode(data, validate=True), _MAX_JSON_BYTES)
    except (binascii.Error, zlib.error):
        raise ConfigError("ProfileInvalid", f"{_WHERE} is not deflated base64: damaged or foreign") from None
    if not inflater.eof:
        raise ConfigError("ProfileInvalid", f"{_WHERE} is cut short or inflates past {_MAX_JSON_BYTES} bytes")
    return from_wire(parse_json(plain, what=_WHERE, max_bytes=_MAX_JSON_BYTES))


def to_wire(profile: ModelProfile) -> dict[str, object]:
    """The profile as a JSON object: distinct tensors, specs and layers once each, the rest by number."""
    shape = profile.shape
    tensors: dict[Hashable, int] = {}
    specs: dict[Hashable, int] = {}
    kinds: dict[Hashable, int] = {}
    runs = [[_number(kinds, run.layer), run.layers] for run in shape.layers]
    kind_rows = [
        [
            [_number(specs, spec) for spec in layer.caches],
            [_number(tensors, tensor) for tensor in layer.parameters],
            int(layer.shares_cache),
        ]
        for layer in (run.layer for run in shape.layers)
    ]
    rows = {number: row for (number, _), row in zip(runs, kind_rows, strict=True)}
    outside = {
        place: [_number(tensors, tensor) for tensor in getattr(shape.outside, place)] for place in _PLACES
    }
    state_specs = [spec for spec in specs if isinstance(spec, RecurrentState)]
    for spec in state_specs:
        for tensor in spec.tensors:
            _number(tensors, tensor)
    return {
        "schema": VERSION,
        "architecture": shape.architecture,
        "dtype": shape.dtype,
        "maxContext": shape.max_context_tokens,
        "defaultContext": shape.default_context_tokens,
        "vocab": shape.vocab_size,
        "hidden": shape.hidden_size,
        "heads": shape.num_attention_heads,
        "headSize": shape.head_size,
        "headElements": shape.head_elements,
        "traits": sorted(shape.traits),
        "kvDtype": shape.kv_dtype,
        "encoderTokens": shape.encoder_tokens,
        "tensors": [_tensor_row(tensor) for tensor in tensors if isinstance(tensor, Parameter)],
        "specs": [_spec_row(spec, tensors) for spec in specs],
        "kinds": [rows[number] for number in sorted(rows)],
        "runs": runs,
        "outside": outside,
        "quantization": shape.quantization,
        "tied": shape.tied_embeddings,
        "weightsKnown": shape.weights_known,
        "weights": dict(profile.weights.bytes_by_dtype),
        "parameters": profile.weights.parameters,
        **({"expertsPerToken": shape.experts_per_token} if shape.experts_per_token else {}),
    }


def from_wire(wire: Mapping[str, object]) -> ModelProfile:
    """The profile in a JSON object that `to_wire` made. Raises `ConfigError` (ProfileInvalid)."""
    fields = Fields(wire, where=_WHERE, reason="ProfileInvalid")
    if fields.integer("schema", low=0, high=_HUGE) != VERSION:
        fields.fail(
            "schema",
            f"is {fields.raw('schema')}, this version reads {VERSION}: the inspector is another version",
        )
    differing = (set(wire) - _MAY_LACK) ^ _KEYS
    if differing:
        fields.fail("keys", f"differ: {', '.join(sorted(str(key)[:40] for key in differing)[:5])}")
    return ModelProfile(shape=_shape(fields), weights=_weights(fields))


def _number(table: dict[Hashable, int], item: Hashable) -> int:
    return table.setdefault(item, len(table))


def _tensor_row(tensor: Parameter) -> list[object]:
    only_if = [] if tensor.only_if is None else _dimension_row(tensor.only_if)
    dimensions = [_dimension_row(dimension) for dimension in tensor.dimensions]
    return [tensor.element, tensor.experts, tensor.count, only_if, *dimensions]


def _dimension_row(dimension: Dimension) -> list[object]:
    fits = [_part_row(part) for part in dimension.fits]
    parts = [_part_row(part) for part in dimension.parts]
    return [dimension.per, _ROUNDINGS.index(dimension.rounding), fits, *parts]


def _part_row(part: Part) -> list[int]:
    return [part.size, _SPLITS.index(part.split), part.heads, part.multiple, _TILES.index(part.tile)]


def _spec_row(spec: object, tensors: dict[Hashable, int]) -> list[object]:
    if isinstance(spec, FullAttention):
        return ["full", spec.kv_heads, spec.head_size, spec.head_size_v]
    if isinstance(spec, SlidingWindow):
        return ["window", spec.kv_heads, spec.head_size, spec.head_size_v, spec.window_tokens]
    if isinstance(spec, ChunkedLocal):
        return ["chunked", spec.kv_heads, spec.head_size, spec.head_size_v, spec.chunk_tokens]
    if isinstance(spec, CrossAttention):
        return ["cross", spec.kv_heads, spec.head_size, spec.head_size_v]
    if isinstance(spec, LatentAttention):
        return ["latent", spec.latent_size]
    if isinstance(spec, TokenBytes):
        numbers = [spec.bytes_per_state, spec.tokens_per_state, spec.window_tokens]
        return ["bytes", spec.role, *numbers, spec.block_tokens, spec.alignment]
    if isinstance(spec, RecurrentState):
        return ["state", spec.kind, spec.chunk_tokens, *(tensors[tensor] for tensor in spec.tensors)]
    raise TypeError(f"no row for {type(spec).__name__}")


def _shape(fields: Fields) -> ModelShape:
    architecture = fields.optional_text("architecture")
    if not architecture:
        fields.fail("architecture", "is missing")
    tensors = [_tensor(row, fields) for row in _list(fields, "tensors", fields.raw("tensors"))]
    return ModelShape(
        architecture=architecture,
        dtype=fields.optional_text("dtype", max_length=20),
        max_context_tokens=fields.integer("maxContext", low=1, high=MAX_CONTEXT),
        default_context_tokens=fields.integer("defaultContext", low=1, high=MAX_CONTEXT),
        vocab_size=fields.integer("vocab", low=1, high=_HUGE),
        hidden_size=fields.integer("hidden", low=1, high=_HUGE),
        num_attention_heads=fields.integer("heads", low=0, high=_HUGE),
        head_size=fields.integer("headSize", low=0, high=_HUGE),
        head_elements=fields.integer("headElements", low=0, high=_HUGE),
        layers=_runs(fields, tensors),
        outside=_outside(fields, tensors),
        traits=frozenset(_traits(fields)),
        kv_dtype=fields.optional_text("kvDtype", max_length=40),
        encoder_tokens=fields.integer("encoderTokens", low=0, high=_HUGE),
        quantization=fields.optional_text("quantization", max_length=40),
        tied_embeddings=fields.flag("tied"),
        weights_known=fields.flag("weightsKnown"),
        experts_per_token=fields.optional_integer("expertsPerToken", low=1, high=_HUGE) or 0,
    )


def _traits(fields: Fields) -> list[Trait]:
    try:
        return [Trait(name) for name in fields.optional_texts("traits", max_items=len(Trait)) or ()]
    except ValueError:
        fields.fail("traits", "holds a trait of another version")


def _runs(fields: Fields, tensors: list[Parameter]) -> tuple[LayerRun, ...]:
    specs = [_spec(row, fields, tensors) for row in _list(fields, "specs", fields.raw("specs"))]
    kinds = []
    for row in _list(fields, "kinds", fields.raw("kinds")):
        held = _list(fields, "kinds", row)
        if len(held) != 3 or held[2] not in {0, 1}:
            fields.fail("kinds", "holds something else than specs and tensors")
        caches = tuple(specs[number] for number in _numbers(fields, "kinds", held[0], below=len(specs)))
        inner = _numbers(fields, "kinds", held[1], below=len(tensors))
        parameters = tuple(tensors[number] for number in inner)
        kinds.append(Layer(caches=caches, parameters=parameters, shares_cache=held[2] == 1))
    runs = []
    for row in _list(fields, "runs", fields.raw("runs")):
        kind, layers = _exactly(fields, "runs", _numbers(fields, "runs", row, below=MAX_LAYERS + 1), count=2)
        if kind >= len(kinds) or layers < 1:
            fields.fail("runs", "holds a run of no known layer or of no length")
        runs.append(LayerRun(layer=kinds[kind], layers=layers))
    if not 1 <= sum(run.layers for run in runs) <= MAX_LAYERS:
        fields.fail("runs", f"describes no layer or more than {MAX_LAYERS}")
    return tuple(runs)


def _outside(fields: Fields, tensors: list[Parameter]) -> Outside:
    stored = fields.optional_object("outside")
    if stored is None or set(stored) != set(_PLACES):
        fields.fail("outside", "is not an object of the four places")
    held = {
        place: tuple(tensors[n] for n in _numbers(fields, "outside", stored[place], below=len(tensors)))
        for place in _PLACES
    }
    return Outside(**held, tied=fields.flag("tied"))


def _tensor(row: object, fields: Fields) -> Parameter:
    if not isinstance(row, list) or not 4 <= len(row) <= 12:
        fields.fail("tensors", "holds something else than rows of 4 to 12 items")
    element = row[0]
    if element not in _ELEMENTS:
        fields.fail("tensors", "holds an element of another version")
    experts, count = _exactly(fields, "tensors", _numbers(fields, "tensors", row[1:3]), count=2)
    only_if = None if row[3] == [] else _dimension(row[3], fields)
    dimensions = tuple(_dimension(item, fields) for item in row[4:])
    return Parameter(str(element), dimensions, experts, max(count, 1), only_if)


def _dimension(row: object, fields: Fields) -> Dimension:
    if not isinstance(row, list) or not 4 <= len(row) <= 64:
        fields.fail("tensors", "holds a dimension of no part")
    per, rounding = _exactly(fields, "tensors", _numbers(fields, "tensors", row[:2]), count=2)
    if per < 1 or rounding >= len(_ROUNDINGS):
        fields.fail("tensors", "holds a dimension that cannot be")
    fits = tuple(_part(item, fields) for item in _list(fields, "tensors", row[2]))
    parts = tuple(_part(item, fields) for item in row[3:])
    return Dimension(parts, per, _ROUNDINGS[rounding], fits)


def _part(row: object, fields: Fields) -> Part:
    numbers = _exactly(fields, "tensors", _numbers(fields, "tensors", row), count=5)
    size, split, heads, multiple, tile = numbers
    known = split < len(_SPLITS) and tile < len(_TILES)
    if not known or min(heads, multiple) < 1 or (_SPLITS[split] is Split.HEADS and size % heads):
        fields.fail("tensors", "holds a part that cannot be")
    return Part(size, _SPLITS[split], heads, multiple, _TILES[tile])


def _spec(row: object, fields: Fields, tensors: list[Parameter]) -> CacheSpec:
    items = _list(fields, "specs", row)
    if not items or not isinstance(items[0], str):
        fields.fail("specs", "holds something else than kinds with sizes")
    kind, rest = items[0], items[1:]
    if kind == "state" and rest and isinstance(rest[0], str):
        chunk = _numbers(fields, "specs", rest[1:2], below=MAX_CONTEXT)
        numbers = _numbers(fields, "specs", rest[2:], below=len(tensors))
        return RecurrentState(
            kind=rest[0][:40],
            tensors=tuple(tensors[number] for number in numbers),
            chunk_tokens=chunk[0] if chunk else 0,
        )
    if kind == "bytes" and rest and isinstance(rest[0], str):
        numbers = _exactly(fields, "specs", _numbers(fields, "specs", rest[1:], below=MAX_CONTEXT), count=5)
        return TokenBytes(
            role=rest[0][:40],
            bytes_per_state=max(numbers[0], 1),
            tokens_per_state=max(numbers[1], 1),
            window_tokens=numbers[2],
            block_tokens=numbers[3],
            alignment=max(numbers[4], 1),
        )
    sizes = _numbers(fields, "specs", rest, below=MAX_CONTEXT + 1)
    if not sizes or (kind != "full" and min(sizes) < 1) or min(sizes[:2]) < 1:
        fields.fail("specs", "holds a size that is not positive or absurd")
    if kind == "latent":
        return LatentAttention(latent_size=_exactly(fields, "specs", sizes, count=1)[0])
    if kind in {"full", "cross"}:
        kv_heads, size, size_v = _exactly(fields, "specs", sizes, count=3)
        made = FullAttention if kind == "full" else CrossAttention
        return made(kv_heads=kv_heads, head_size=size, head_size_v=size_v)
    if kind in {"window", "chunked"}:
        kv_heads, size, size_v, tokens = _exactly(fields, "specs", sizes, count=4)
        if kind == "chunked":
            return ChunkedLocal(kv_heads=kv_heads, head_size=size, head_size_v=size_v, chunk_tokens=tokens)
        return SlidingWindow(kv_heads=kv_heads, head_size=size, head_size_v=size_v, window_tokens=tokens)
    fields.fail("specs", f"holds the unknown kind {kind[:40]!r}")


def _weights(fields: Fields) -> Weights:
    stored = fields.optional_object("weights")
    if stored is None or not set(stored) <= set(ELEMENT_BITS):
        fields.fail("weights", "is not an object of safetensors dtypes")
    inner = Fields(stored, where=f"{_WHERE} weights", reason="ProfileInvalid")
    return Weights(
        bytes_by_dtype=tuple((dtype, inner.integer(dtype, low=0, high=_HUGE)) for dtype in sorted(stored)),
        parameters=fields.integer("parameters", low=0, high=_HUGE),
    )


def _numbers(fields: Fields, name: str, value: object, *, below: int = _HUGE) -> list[int]:
    found = []
    for item in _list(fields, name, value):
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < below:
            fields.fail(name, "holds something else than whole numbers in range")
        found.append(item)
    return found


def _exactly(fields: Fields, name: str, numbers: list[int], *, count: int) -> list[int]:
    if len(numbers) != count:
        fields.fail(name, f"holds something else than {count} numbers")
    return numbers


def _list(fields: Fields, name: str, value: object) -> list[object]:
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        fields.fail(name, f"is not a list of at most {_MAX_ITEMS} entries")
    return value
