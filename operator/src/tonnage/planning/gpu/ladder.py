"""The quality ladder: what may be given up, in order of what it was seen to cost (docs/quality.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from tonnage.engines import is_quantized
from tonnage.gpus.inventory import Pool
from tonnage.models import Trait
from tonnage.planning.gpu.question import AS_SHIPPED, GpuQuestion
from tonnage.planning.plan import Quality

FP8: Final = "fp8"
_GRAPHS: Final = "FULL_AND_PIECEWISE"
QUALITIES: Final = tuple(Quality)


@dataclass(frozen=True, slots=True)
class Step:
    """One step down: the KV dtype, "auto" for the model's own, and the weights, "" as shipped or "fp8"; with
    CUDA graphs or, `eager`, without."""

    kv_dtype: str
    weights: str = ""
    eager: bool = False

    @property
    def quality(self) -> Quality:
        """The rung it stands on."""
        weights = Quality.NEAR_LOSSLESS if self.weights else Quality.LOSSLESS
        return max(weights, quality_of_kv(self.kv_dtype), key=QUALITIES.index)

    @property
    def graph_mode(self) -> str:
        """The engine's mode of CUDA graphs."""
        return "NONE" if self.eager else _GRAPHS


LADDER: Final = tuple(
    Step(kv_dtype, weights)
    for kv_dtypes in (
        ("auto", "int8_per_token_head", "fp8"),
        ("turboquant_k8v4",),
        ("turboquant_4bit_nc",),
        ("int4_per_token_head",),
        ("nvfp4",),
    )
    for weights in ("", FP8)
    for kv_dtype in kv_dtypes
)
"""Least lossy first. Up to 8 bits the cache is narrowed before the weights, since no figure of ours says
which costs less and the cache is what a workload needs; 4-bit caches come last, and each with shipped
weights first."""

_NEARLY: Final = frozenset({"int8_per_token_head", "fp8_per_token_head"})

_TRITON_MAJORS: Final = frozenset({7, 8, 12})
_RUN_WELL: Final[Mapping[str, frozenset[int]]] = {
    "int8_per_token_head": _TRITON_MAJORS,
    "int4_per_token_head": _TRITON_MAJORS,
    "turboquant_k8v4": frozenset({8, 9}),
    "turboquant_4bit_nc": frozenset({8, 9}),
    "nvfp4": frozenset({10}),
}
"""Majors of compute capability on which a KV dtype costs no faster kernel. Per-token-head formats run in
Triton alone, which on Hopper and Blackwell means to give up FlashAttention 3 and 4; TurboQuant needs
FlashAttention 2; nvfp4 has its kernel on Blackwell. By what kernels there are, not measured."""


def quality_of_kv(kv_dtype: str) -> Quality:
    """What a KV dtype may lose: 8 bits a little, fewer more."""
    if not is_quantized(kv_dtype):
        return Quality.LOSSLESS
    return Quality.NEAR_LOSSLESS if kv_dtype.startswith("fp8") or kv_dtype in _NEARLY else Quality.ECONOMY


def steps(question: GpuQuestion) -> tuple[Step, ...]:
    """The steps that the demand allows, least lossy first; what is pinned is obeyed.

    Every rung is gone through with CUDA graphs before it is without: an engine that runs eagerly answers all
    the same, but decodes several times slower.
    """
    allowed = QUALITIES[: QUALITIES.index(question.demand.quality) + 1]
    possible = _possible(question)
    return tuple(
        replace(step, eager=eager)
        for quality in allowed
        for eager in (False, True)
        for step in possible
        if step.quality is quality
    )


def _possible(question: GpuQuestion) -> list[Step]:
    pinned, weights = question.demand.kv_dtype, _weights(question)
    if pinned is not None:
        return [Step(pinned, each) for each in ("", FP8) if each in weights]
    return [step for step in LADDER if step.weights in weights and not _is_shipped(step, question)]


def _weights(question: GpuQuestion) -> tuple[str, ...]:
    """What may become of the weights: of a quantized checkpoint, nothing."""
    pinned, shape = question.hardware.quantization, question.model.shape
    if pinned == AS_SHIPPED or shape.quantization is not None or Trait.DECLARED_PLAIN in shape.traits:
        return ("",)
    possible = (FP8,) if question.engine.online_fp8 else ()
    return possible if pinned == FP8 else ("", *possible)


def _is_shipped(step: Step, question: GpuQuestion) -> bool:
    """Whether "auto" stores what the step says already: the checkpoint declares it."""
    declared = question.model.shape.kv_dtype or "auto"
    return step.kv_dtype != "auto" and step.kv_dtype == declared.removesuffix("_e4m3")


def runs_well(kv_dtype: str, *, pool: Pool, latent: bool) -> bool:
    """Whether the planner may choose this KV dtype for a pool by itself.

    On Hopper an fp8 latent cache is left to Triton (engines/kernels.py), which is slower than what runs there
    otherwise.
    """
    major = pool.compute_capability[0] if pool.compute_capability else 0
    if not is_quantized(kv_dtype):
        return True
    if kv_dtype.startswith("fp8"):
        return FP8 in pool.computes and not (latent and major == 9)
    return major in _RUN_WELL.get(kv_dtype, frozenset())
