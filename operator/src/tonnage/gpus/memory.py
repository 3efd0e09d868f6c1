"""How much memory of a device is believed: the catalogue's figure where there is one, never more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tonnage.gpus.cards import Accelerator
from tonnage.gpus.mig import Profile, instance_bytes

_GIB: Final = 2**30
REPORTED_SHARE: Final = 0.97
"""What CUDA shows of the memory that NVML, and so a label or a slice, states: never less than 97.6% (24 GB
cards with ECC: 21.96 of 22.49 GiB), 99.4% of an H100 (79.19 of the label's 81,559 MiB)."""
_TOLERANCE: Final = 1.03
_LITTLE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Memory:
    """A device's total in bytes and its source. `own_bytes` is the report that the total is made of, 0 where
    it is the catalogue's figure; `doubt` says what was not believed, or is empty."""

    total_bytes: int
    source: str
    own_bytes: int = 0
    doubt: str = ""


def device_memory(
    accelerator: Accelerator | None, *, reported_bytes: int, rounding_bytes: int = 0
) -> Memory | None:
    """The total of a whole device; None where nothing says it.

    `reported_bytes` is what a label or a slice states, 0 if nothing does, `rounding_bytes` how far it may be
    off because it was rounded. The catalogue's figure holds, unless the report is below what any device of
    this product shows: then the report is believed, less what reports overstate.
    """
    if accelerator is None:
        return _reported(reported_bytes - rounding_bytes)
    safe = Memory(accelerator.safe_bytes, accelerator.safe_source)
    if not reported_bytes:
        return safe
    if reported_bytes + rounding_bytes < accelerator.safe_bytes:
        doubt = f"{_gib(reported_bytes)} is less than any {accelerator.name} shows ({_gib(safe.total_bytes)})"
        return _reported(reported_bytes - rounding_bytes, doubt=doubt)
    if reported_bytes > accelerator.stated_gb * _GIB * _TOLERANCE:
        doubt = f"{_gib(reported_bytes)} is more than a {accelerator.name} has ({accelerator.stated_gb} GB)"
        return Memory(safe.total_bytes, safe.source, doubt=doubt)
    return safe


def instance_memory(card: Accelerator | None, *, profile: Profile, reported_bytes: int) -> Memory | None:
    """The total of a MIG instance; None where nothing says it."""
    if card is None:
        return _reported(reported_bytes)
    size, source = instance_bytes(card, profile)
    if not 0 < reported_bytes < size:
        return Memory(size, source)
    if reported_bytes < size * _LITTLE:
        doubt = f"{_gib(reported_bytes)} is less than a {profile.name} of {card.name} shows ({_gib(size)})"
        return _reported(reported_bytes, doubt=doubt)
    return Memory(reported_bytes, "what the node reports of the instance", own_bytes=reported_bytes)


def _reported(size: int, *, doubt: str = "") -> Memory | None:
    if size <= 0:
        return None
    share = f"{REPORTED_SHARE:.0%} of the {_gib(size)} that the node reports"
    return Memory(int(size * REPORTED_SHARE), share, own_bytes=size, doubt=doubt)


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"
