"""From a model and options to answers: what each card, or given KV bytes, hold of the model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tonnage.cli.model import ModelFiles
from tonnage.gpus.cards import Card, representative
from tonnage.models import ModelShape
from tonnage.planning.fit import Device, EngineOptions, Fit, fit
from tonnage.planning.savings import Savings, savings, what_if


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What was asked: the model, the engine's options and version."""

    files: ModelFiles
    shape: ModelShape
    options: EngineOptions
    engine_version: str

    def fit(self, device: Device, *, kv_dtype: str, kv_bytes: int) -> Fit:
        """The engine's answer with this KV dtype."""
        options = replace(self.options, kv_dtype=kv_dtype)
        return fit(
            self.shape,
            device=device,
            options=options,
            kv_bytes=kv_bytes,
            engine_version=self.engine_version,
        )

    def savings(self, *, kv_dtype: str = "auto") -> Savings:
        """What the architecture saves at the context asked for."""
        asked = self.options.context_tokens
        context = self.shape.default_context_tokens if asked is None or asked < 1 else asked
        stated = self.options.dtype or self.shape.dtype
        dtype = stated if stated in {"float16", "bfloat16"} else "bfloat16"
        return savings(
            self.shape,
            dtype="float32" if self.options.dtype == "float32" else dtype,
            kv_dtype=kv_dtype,
            context_tokens=context,
        )

    def changed(self, change: str) -> Question:
        """The question about a changed model. Raises `WhatIfError`."""
        return replace(self, shape=what_if(self.shape, change))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rank runs; `card` is None for given KV bytes without a card. `share_bytes` is what the engine
    may take of `memory_bytes`; both are 0 where that was not asked."""

    device: Device
    card: str | None = None
    memory_bytes: int = 0
    share_bytes: int = 0
    utilization: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one place holds with one KV dtype: `fit` for `kv_bytes` on each rank.

    `exact` says that the bytes were given; otherwise they are an upper bound: the engine's share less the
    weights, with nothing taken off for activations, CUDA graphs and other processes.
    """

    place: Place
    kv_dtype: str
    kv_bytes: int
    exact: bool
    fit: Fit
    weights_bytes: int | None

    @property
    def weights_too_large(self) -> bool:
        """Whether the weights alone exceed the engine's share."""
        return not self.exact and self.weights_bytes is not None and self.kv_bytes == 0

    @property
    def reason(self) -> str | None:
        """The word for why not."""
        return "weights_too_large" if self.weights_too_large and self.fit.supported else self.fit.reason


def device_of(options: argparse.Namespace, *, card: Card | None = None) -> Device:
    """The device that options describe; what they leave open is that of the card, or of the usual card of
    the compute capability."""
    if options.cpu:
        return Device(compute_capability=None)
    capability = card.compute_capability if card else options.compute_capability or (9, 0)
    stands_for = card or representative(capability)
    return Device(
        compute_capability=capability,
        name=options.device_name or (stands_for.product if stands_for else ""),
        memory_bytes=options.device_memory or (stands_for.memory_bytes if stands_for else 0),
    )


def place_of(options: argparse.Namespace, card: Card | None) -> Place:
    """A card, or the device that --device-memory describes, with the engine's share of its memory."""
    device = device_of(options, card=card)
    return Place(
        device=device,
        card=card.name if card else device.name or "device",
        memory_bytes=device.memory_bytes,
        share_bytes=int(device.memory_bytes * options.gpu_memory_utilization),
        utilization=options.gpu_memory_utilization,
    )


def given(question: Question, place: Place, *, kv_dtype: str, kv_bytes: int) -> Answer:
    """The answer for given KV bytes."""
    found = question.fit(place.device, kv_dtype=kv_dtype, kv_bytes=kv_bytes)
    return Answer(
        place=place,
        kv_dtype=kv_dtype,
        kv_bytes=kv_bytes,
        exact=True,
        fit=found,
        weights_bytes=_heaviest(question, found),
    )


def bounded(question: Question, place: Place, *, kv_dtypes: Sequence[str]) -> Iterator[Answer]:
    """The answers for what a card has beside the weights, at most."""
    for kv_dtype in kv_dtypes:
        found = question.fit(place.device, kv_dtype=kv_dtype, kv_bytes=0)
        weights = _heaviest(question, found)
        kv_bytes = max(0, place.share_bytes - (weights or 0)) if found.supported else 0
        if kv_bytes:
            found = question.fit(place.device, kv_dtype=kv_dtype, kv_bytes=kv_bytes)
        yield Answer(
            place=place,
            kv_dtype=kv_dtype,
            kv_bytes=kv_bytes,
            exact=False,
            fit=found,
            weights_bytes=weights,
        )


def ranks_that_hold(question: Question, place: Place, *, kv_dtype: str) -> int | None:
    """The fewest tensor-parallel ranks, beyond those asked for, on which it fits."""
    ranks = question.options.tensor_parallel
    for more in (2, 4, 8, 16):
        if more > ranks:
            wider = replace(question, options=replace(question.options, tensor_parallel=more))
            if next(bounded(wider, place, kv_dtypes=(kv_dtype,))).fit.fits:
                return more
    return None


def _heaviest(question: Question, found: Fit) -> int | None:
    """Weight bytes of a rank of the heaviest stage; where the format is not known, an even share of the
    checkpoint, which is no more than that."""
    if found.weights_bytes_by_stage is not None:
        return max(found.weights_bytes_by_stage)
    stored = question.files.checkpoint_bytes
    if stored is None:
        return None
    return stored // (question.options.tensor_parallel * question.options.pipeline_parallel)
