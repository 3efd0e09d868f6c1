"""Fields of the API that this version refuses: an ordered table, each row with what to write instead.

A field whose non-default value is not built yet is refused with reason NotSupportedYet, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tonnage.api.operation import ScalingMode
from tonnage.api.v1alpha1 import Spec
from tonnage.api.workload import EvictionMode, OffloadMode, SharingMode


@dataclass(frozen=True, slots=True)
class Unsupported:
    """One refused use of a field: where, when it applies, and what to write instead."""

    path: str
    applies: Callable[[Spec], bool]
    instead: str


NOT_BUILT: tuple[Unsupported, ...] = (
    Unsupported(
        "cache.eviction.mode", lambda s: s.cache.eviction.mode is EvictionMode.STREAMING, "Auto or None"
    ),
    Unsupported("cache.offload.mode", lambda s: s.cache.offload.mode is OffloadMode.FIXED, "Auto or None"),
    Unsupported("cache.sharing.mode", lambda s: s.cache.sharing.mode is SharingMode.POOL, "None"),
    Unsupported(
        "hardware.parallelism.decodeContext",
        lambda s: s.hardware.parallelism.decode_context not in (None, 1),
        "1, or nothing",
    ),
    Unsupported("scaling.mode", lambda s: s.scaling.mode is ScalingMode.INTERNAL, "None or External"),
)


def unsupported(spec: Spec) -> tuple[Unsupported, ...]:
    """Every use of a field that this version refuses, in the order of the table."""
    return tuple(row for row in NOT_BUILT if row.applies(spec))
