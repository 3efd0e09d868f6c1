"""What a model's architecture saves of the KV cache, against the same model with plain multi-head attention,
and what it would save if it were built otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Final

from tonnage.engines import element_bytes
from tonnage.models import (
    ELEMENT_BYTES,
    MODEL,
    CacheSpec,
    ChunkedLocal,
    CrossAttention,
    FullAttention,
    LatentAttention,
    ModelShape,
    RecurrentState,
    SlidingWindow,
    TokenBytes,
)
from tonnage.planning.weights import size_of

_MAX_SIZE: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """Bytes of one request over all layers of the whole model, before blocks and ranks.

    `bytes_per_token` is what a further token adds while every layer still remembers it, `context_bytes` what
    a request of `context_tokens` holds at its end, states included; `plain_*` the same with a key and a value
    for every query head in every layer that mixes tokens. `techniques` names what saves, with numbers.
    """

    context_tokens: int
    bytes_per_token: int
    context_bytes: int
    plain_bytes_per_token: int
    plain_context_bytes: int
    techniques: tuple[str, ...]

    @property
    def factor(self) -> float:
        """How many times less a request of full length holds."""
        return self.plain_context_bytes / self.context_bytes if self.context_bytes else float("inf")


class WhatIfError(ValueError):
    """A change of the architecture that cannot be read or does not apply; the message says why."""


def savings(
    shape: ModelShape, *, dtype: str, kv_dtype: str = "auto", context_tokens: int | None = None
) -> Savings:
    """The savings of a model whose KV cache stores `kv_dtype`, at `context_tokens` (default: the model's
    limit)."""
    context = context_tokens or shape.max_context_tokens
    model_bytes = ELEMENT_BYTES[dtype]
    stored = element_bytes(kv_dtype, model_bytes=model_bytes)
    held = [(spec, layers) for spec, layers in shape.cache_runs]
    plain = shape.mixing_layers * shape.num_attention_heads * shape.head_elements * stored
    return Savings(
        context_tokens=context,
        bytes_per_token=round(sum(_token_bytes(spec, stored) * layers for spec, layers in held)),
        context_bytes=round(
            sum(_held_bytes(spec, stored, model_bytes, context, shape) * layers for spec, layers in held)
        ),
        plain_bytes_per_token=plain,
        plain_context_bytes=plain * context,
        techniques=tuple(_techniques(shape)),
    )


def what_if(shape: ModelShape, change: str) -> ModelShape:
    """The model with another architecture: "kv_heads=4", "window=1024", "mla=512+64", or several with commas.

    `kv_heads` changes every layer of attention, `window` gives one to every layer of full attention, `mla`
    turns every attention layer into latent attention of that rank and rotary size. Weights are no longer
    known then. Raises `WhatIfError`.
    """
    changed = shape
    for part in change.split(","):
        name, _, value = part.strip().partition("=")
        apply = _CHANGES.get(name)
        if apply is None:
            raise WhatIfError(f"{part.strip()[:60]!r} is not one of {', '.join(_FORMS)}")
        changed = apply(changed, value)
    return replace(changed, weights_known=False)


_FORMS: Final = ("kv_heads=N", "window=TOKENS", "mla=RANK+ROTARY")


def _kv_heads(shape: ModelShape, value: str) -> ModelShape:
    heads = _number(value, "kv_heads")
    if not shape.num_attention_heads or shape.num_attention_heads % heads:
        raise WhatIfError(f"kv_heads={heads} does not divide the {shape.num_attention_heads} attention heads")
    if shape.latent:
        raise WhatIfError(
            "kv_heads does not apply to latent attention, which stores one vector for all heads"
        )

    def changed(spec: CacheSpec) -> CacheSpec:
        if isinstance(spec, FullAttention | SlidingWindow | ChunkedLocal | CrossAttention):
            return replace(spec, kv_heads=heads)
        return spec

    return _with_caches(shape, changed)


def _window(shape: ModelShape, value: str) -> ModelShape:
    tokens = _number(value, "window")
    if shape.latent:
        raise WhatIfError("window does not apply to latent attention: the engine has no kernels for it")

    def changed(spec: CacheSpec) -> CacheSpec:
        if not isinstance(spec, FullAttention):
            return spec
        return SlidingWindow(
            kv_heads=spec.kv_heads,
            head_size=spec.head_size,
            head_size_v=spec.head_size_v,
            window_tokens=tokens,
        )

    return _with_caches(shape, changed)


def _mla(shape: ModelShape, value: str) -> ModelShape:
    match = re.fullmatch(r"(\d{1,6})\+(\d{1,6})", value.strip(), re.ASCII)
    if match is None:
        raise WhatIfError(f"mla={value[:40]} is not of the form 512+64 (rank of the latent + rotary size)")
    latent = LatentAttention(latent_size=_number(match[1], "mla") + int(match[2]))

    def changed(spec: CacheSpec) -> CacheSpec:
        attention = isinstance(spec, FullAttention | SlidingWindow | ChunkedLocal | LatentAttention)
        return latent if attention else spec

    return replace(_with_caches(shape, changed), head_size=latent.latent_size)


_CHANGES: Final[dict[str, Callable[[ModelShape, str], ModelShape]]] = {
    "kv_heads": _kv_heads,
    "window": _window,
    "mla": _mla,
}


def _with_caches(shape: ModelShape, changed: Callable[[CacheSpec], CacheSpec]) -> ModelShape:
    runs = tuple(
        replace(run, layer=replace(run.layer, caches=tuple(changed(spec) for spec in run.layer.caches)))
        for run in shape.layers
    )
    if runs == shape.layers:
        raise WhatIfError("the change applies to no layer of this model")
    return replace(shape, layers=runs)


def _number(value: str, name: str) -> int:
    if not re.fullmatch(r"\d{1,7}", value.strip(), re.ASCII) or not 1 <= int(value) <= _MAX_SIZE:
        raise WhatIfError(f"{name}={value[:40]} is not a number between 1 and {_MAX_SIZE}")
    return int(value)


def _token_bytes(spec: CacheSpec, stored: int) -> float:
    """Bytes that one more token adds."""
    if isinstance(spec, RecurrentState | CrossAttention):
        return 0
    if isinstance(spec, TokenBytes):
        return spec.bytes_per_state / spec.tokens_per_state
    if isinstance(spec, LatentAttention):
        return spec.latent_size * stored
    return spec.kv_heads * (spec.head_size + spec.head_size_v) * stored


def _held_bytes(spec: CacheSpec, stored: int, model_bytes: int, context: int, shape: ModelShape) -> float:
    """Bytes that a request of `context` tokens holds."""
    if isinstance(spec, RecurrentState):
        return sum(
            prod(size_of(dimension, 1) for dimension in tensor.dimensions)
            * tensor.count
            * (model_bytes if tensor.element == MODEL else ELEMENT_BYTES[tensor.element])
            for tensor in spec.tensors
        )
    if isinstance(spec, CrossAttention):
        return shape.encoder_tokens * spec.kv_heads * (spec.head_size + spec.head_size_v) * stored
    return _token_bytes(spec, stored) * min(_remembered(spec) or context, context)


def _remembered(spec: CacheSpec) -> int:
    if isinstance(spec, SlidingWindow | TokenBytes):
        return spec.window_tokens
    return spec.chunk_tokens if isinstance(spec, ChunkedLocal) else 0


def _techniques(shape: ModelShape) -> list[str]:
    runs = list(shape.cache_runs)
    found = [_head_sharing(shape)] if shape.num_attention_heads else []
    total = shape.mixing_layers
    found.extend(_count(runs, SlidingWindow, "window_tokens", total, "forget all but the last {} tokens"))
    found.extend(_count(runs, ChunkedLocal, "chunk_tokens", total, "forget what is before their chunk of {}"))
    states = sum(layers for spec, layers in runs if isinstance(spec, RecurrentState))
    if states:
        found.append(f"{states} of {total} layers keep a state of fixed size")
    compressed = sum(
        layers for spec, layers in runs if isinstance(spec, TokenBytes) and spec.tokens_per_state > 1
    )
    if compressed:
        found.append(f"{compressed} caches hold one entry for several tokens")
    shared = sum(run.layers for run in shape.layers if run.layer.shares_cache)
    if shared:
        found.append(f"{shared} of {total} layers read the cache of another layer")
    return [text for text in found if text]


def _head_sharing(shape: ModelShape) -> str:
    for spec, _ in shape.cache_runs:
        if isinstance(spec, LatentAttention):
            return f"MLA: one vector of {spec.latent_size} for {shape.num_attention_heads} heads"
        if isinstance(spec, FullAttention | SlidingWindow | ChunkedLocal):
            if spec.kv_heads == shape.num_attention_heads:
                return "multi-head attention"
            name = "MQA" if spec.kv_heads == 1 else "GQA"
            return f"{name}: {spec.kv_heads} KV heads for {shape.num_attention_heads} heads"
    return ""


def _count(runs: list[tuple[CacheSpec, int]], kind: type, field: str, total: int, words: str) -> list[str]:
    held = [(getattr(spec, field), layers) for spec, layers in runs if isinstance(spec, kind)]
    if not held:
        return []
    count, longest = sum(layers for _, layers in held), max(tokens for tokens, _ in held)
    return [f"{count} of {total} layers " + words.format(longest)]
