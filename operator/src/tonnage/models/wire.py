"""`ModelProfile` <-> one line of JSON that fits a Kubernetes termination message (4,096 bytes, some kept
for reasons)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from tonnage.models.config import MAX_CONTEXT, MAX_LAYERS
from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields, parse_json
from tonnage.models.profile import (
    CacheSpec,
    FullAttention,
    LatentAttention,
    LayerRun,
    ModelProfile,
    ModelShape,
    SlidingWindow,
    Weights,
)
from tonnage.models.safetensors import ELEMENT_BITS

VERSION: Final = 1
MAX_WIRE_BYTES: Final = 3500
_WHERE: Final = "model profile"
_HUGE: Final = 2**62
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
        "headElements",
        "specs",
        "runs",
        "fixedKvDtype",
        "quantization",
        "tied",
        "weights",
        "parameters",
    }
)


def encode_wire(profile: ModelProfile) -> str:
    """One line of compact JSON; raises `ConfigError` (ProfileInvalid) past `MAX_WIRE_BYTES`."""
    text = json.dumps(to_wire(profile), separators=(",", ":"))
    if len(text.encode()) > MAX_WIRE_BYTES:
        raise ConfigError(
            "ProfileInvalid",
            f"{_WHERE} takes {len(text.encode())} bytes, more than the {MAX_WIRE_BYTES} allowed",
        )
    return text


def decode_wire(text: str | bytes) -> ModelProfile:
    """The reverse of `encode_wire`; unknown keys, versions and types are refused with `ConfigError`."""
    data = text.encode("utf-8", errors="replace") if isinstance(text, str) else text
    return from_wire(parse_json(data, what=_WHERE, max_bytes=MAX_WIRE_BYTES))


def to_wire(profile: ModelProfile) -> dict[str, object]:
    """The profile as a JSON object: each distinct cache spec once, layers as [spec number, layers] runs."""
    shape = profile.shape
    specs = list(dict.fromkeys(run.spec for run in shape.layers))
    return {
        "schema": VERSION,
        "architecture": shape.architecture,
        "dtype": shape.dtype,
        "maxContext": shape.max_context_tokens,
        "defaultContext": shape.default_context_tokens,
        "vocab": shape.vocab_size,
        "hidden": shape.hidden_size,
        "heads": shape.num_attention_heads,
        "headElements": shape.head_elements,
        "specs": [_spec_to_wire(spec) for spec in specs],
        "runs": [[specs.index(run.spec), run.layers] for run in shape.layers],
        "fixedKvDtype": shape.fixed_kv_dtype,
        "quantization": shape.quantization,
        "tied": shape.tied_embeddings,
        "weights": dict(profile.weights.bytes_by_dtype),
        "parameters": profile.weights.parameters,
    }


def from_wire(wire: Mapping[str, object]) -> ModelProfile:
    """The profile in a JSON object that `to_wire` made. Raises `ConfigError` (ProfileInvalid)."""
    fields = Fields(wire, where=_WHERE, reason="ProfileInvalid")
    if fields.integer("schema", low=0, high=_HUGE) != VERSION:
        fields.fail(
            "schema",
            f"is {fields.raw('schema')}, this version reads {VERSION}: the inspector is another version",
        )
    if set(wire) != _KEYS:
        fields.fail("keys", f"differ: {', '.join(sorted(str(key)[:40] for key in set(wire) ^ _KEYS)[:5])}")
    return ModelProfile(shape=_shape(fields), weights=_weights(fields))


def _shape(fields: Fields) -> ModelShape:
    architecture = fields.optional_text("architecture")
    if not architecture:
        fields.fail("architecture", "is missing")
    return ModelShape(
        architecture=architecture,
        dtype=fields.optional_text("dtype", max_length=20),
        max_context_tokens=fields.integer("maxContext", low=1, high=MAX_CONTEXT),
        default_context_tokens=fields.integer("defaultContext", low=1, high=MAX_CONTEXT),
        vocab_size=fields.integer("vocab", low=1, high=_HUGE),
        hidden_size=fields.integer("hidden", low=1, high=_HUGE),
        num_attention_heads=fields.integer("heads", low=1, high=_HUGE),
        head_elements=fields.integer("headElements", low=1, high=_HUGE),
        layers=_runs(fields),
        fixed_kv_dtype=fields.flag("fixedKvDtype"),
        quantization=fields.optional_text("quantization", max_length=40),
        tied_embeddings=fields.flag("tied"),
    )


def _runs(fields: Fields) -> tuple[LayerRun, ...]:
    specs = [_spec_from_wire(item, fields) for item in _list(fields, "specs")]
    runs = []
    for item in _list(fields, "runs"):
        numbers = _numbers(item, fields, "runs", count=2)
        if not 0 <= numbers[0] < len(specs) or not 1 <= numbers[1] <= MAX_LAYERS:
            fields.fail("runs", "holds a run of no known spec or of an absurd length")
        runs.append(LayerRun(spec=specs[numbers[0]], layers=numbers[1]))
    if not 1 <= sum(run.layers for run in runs) <= MAX_LAYERS:
        fields.fail("runs", f"describes no layer or more than {MAX_LAYERS}")
    return tuple(runs)


def _weights(fields: Fields) -> Weights:
    stored = fields.optional_object("weights")
    if stored is None or not set(stored) <= set(ELEMENT_BITS):
        fields.fail("weights", "is not an object of safetensors dtypes")
    inner = Fields(stored, where=f"{_WHERE} weights", reason="ProfileInvalid")
    return Weights(
        bytes_by_dtype=tuple((dtype, inner.integer(dtype, low=0, high=_HUGE)) for dtype in sorted(stored)),
        parameters=fields.integer("parameters", low=0, high=_HUGE),
    )


def _spec_to_wire(spec: CacheSpec) -> list[object]:
    if isinstance(spec, LatentAttention):
        return ["latent", spec.latent_size]
    if isinstance(spec, SlidingWindow):
        return ["window", spec.kv_heads, spec.head_size, spec.head_size_v, spec.window_tokens]
    return ["full", spec.kv_heads, spec.head_size, spec.head_size_v]


def _spec_from_wire(item: object, fields: Fields) -> CacheSpec:
    if not isinstance(item, list) or not item:
        fields.fail("specs", "holds something else than lists")
    kind, rest = item[0], item[1:]
    if kind == "latent":
        (latent_size,) = _positives(rest, fields, count=1)
        return LatentAttention(latent_size=latent_size)
    if kind == "window":
        kv_heads, size, size_v, window = _positives(rest, fields, count=4)
        return SlidingWindow(kv_heads=kv_heads, head_size=size, head_size_v=size_v, window_tokens=window)
    if kind == "full":
        kv_heads, size, size_v = _positives(rest, fields, count=3)
        return FullAttention(kv_heads=kv_heads, head_size=size, head_size_v=size_v)
    fields.fail("specs", f"holds the unknown kind {str(kind)[:40]!r}")


def _positives(value: object, fields: Fields, *, count: int) -> list[int]:
    numbers = _numbers(value, fields, "specs", count=count)
    if min(numbers) < 1 or max(numbers) > MAX_CONTEXT:
        fields.fail("specs", "holds a size that is not positive or absurd")
    return numbers


def _numbers(value: object, fields: Fields, name: str, *, count: int) -> list[int]:
    if not isinstance(value, list) or len(value) != count:
        fields.fail(name, f"holds something else than {count} numbers")
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int):
            fields.fail(name, "holds something else than whole numbers")
    return list(value)


def _list(fields: Fields, name: str) -> list[object]:
    value = fields.raw(name)
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_LAYERS:
        fields.fail(name, f"is not a list of 1 to {MAX_LAYERS} entries")
    return value
