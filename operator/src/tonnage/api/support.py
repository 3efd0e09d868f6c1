"""Fields of the API that this version refuses: an ordered table, each row with what to write instead.

A field whose non-default value is not built yet is refused with reason NotSupportedYet, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tonnage.api.operation import ScalingMode
from tonnage.api.v1alpha1 import Spec
from tonnage.api.workload import Accelerator, EvictionMode, OffloadMode, Quality, SharingMode


@dataclass(frozen=True, slots=True)
class Unsupported:
    """One refused use of a field: where, when it applies, and what to write instead."""

    path: str
    applies: Callable[[Spec], bool]
    instead: str


NOT_BUILT: tuple[Unsupported, ...] = (
    Unsupported("quality", lambda s: s.quality is Quality.ECONOMY, "NearLossless or Lossless"),
    Unsupported(
        "cache.eviction.mode", lambda s: s.cache.eviction.mode is EvictionMode.STREAMING, "Auto or None"
    ),
    Unsupported("cache.offload.mode", lambda s: s.cache.offload.mode is OffloadMode.FIXED, "Auto or None"),
    Unsupported("cache.sharing.mode", lambda s: s.cache.sharing.mode is SharingMode.POOL, "None"),
    Unsupported(
        "weights.quantization", lambda s: s.weights.quantization not in ("Auto", "None"), "Auto or None"
    ),
    Unsupported("hardware.accelerator", lambda s: s.hardware.accelerator is Accelerator.GPU, "CPU"),
    Unsupported("hardware.products", lambda s: bool(s.hardware.products), "an empty list"),
    Unsupported(
        "hardware.parallelism",
        lambda s: any(
            size not in (None, 1)
            for size in (
                s.hardware.parallelism.tensor,
                s.hardware.parallelism.pipeline,
                s.hardware.parallelism.decode_context,
            )
        ),
        "1 for each size, or nothing",
    ),
    Unsupported(
        "hardware.maxGPUsPerReplica", lambda s: s.hardware.max_gpus_per_replica is not None, "nothing"
    ),
    Unsupported("scaling.mode", lambda s: s.scaling.mode is ScalingMode.INTERNAL, "None or External"),
    Unsupported("rollout.allowDowntime", lambda s: s.rollout.allow_downtime, "false"),
)


def unsupported(spec: Spec) -> tuple[Unsupported, ...]:
    """Every use of a field that this version refuses, in the order of the table."""
    return tuple(row for row in NOT_BUILT if row.applies(spec))
