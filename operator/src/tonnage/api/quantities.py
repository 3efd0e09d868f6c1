"""Kubernetes quantities and durations as integers, and back."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

_SUFFIX = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** (i + 1) for i, unit in enumerate(("k", "M", "G", "T", "P", "E"))},
    **{f"{unit}i": Decimal(1024) ** (i + 1) for i, unit in enumerate(("K", "M", "G", "T", "P", "E"))},
}
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}


def quantity(text: str | int) -> Decimal:
    """The value of a Kubernetes quantity such as 64Gi, 500m or 1e3; ValueError if it is none."""
    match = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)(m|k|[KMGTPE]i?|)", str(text))
    if match is None or match[2] == "K":
        raise ValueError(f"{text!r} is not a Kubernetes quantity")
    return Decimal(match[1]) * _SUFFIX[match[2]]


def whole_bytes(text: str | int) -> int:
    """A memory quantity in bytes, rounded up."""
    return int(quantity(text).to_integral_value(ROUND_CEILING))


def milli_cores(text: str | int) -> int:
    """A CPU quantity in thousandths of a core, rounded up."""
    return int((quantity(text) * 1000).to_integral_value(ROUND_CEILING))


def exact_seconds(text: str) -> Decimal:
    """A duration such as 50ms, 90s or 1h30m in seconds; ValueError if it is none."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", text)
    if not parts or "".join(a + b for a, b in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 90s or 15m")
    return sum((Decimal(amount) * _SECONDS[unit] for amount, unit in parts), Decimal(0))


def seconds(text: str) -> int:
    """A duration in whole seconds, rounded up; ValueError if it is none."""
    return int(exact_seconds(text).to_integral_value(ROUND_CEILING))


def memory_quantity(amount_bytes: int) -> str:
    """Bytes in the spelling that the API server keeps: the largest binary unit that divides them.

    apimachinery pkg/api/resource `CanonicalizeBytes`: what 1,024 does not divide is spelled in decimal units.
    """
    if amount_bytes % 1024:
        return decimal_quantity(amount_bytes)
    return _largest(amount_bytes, base=1024, units=("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))


def decimal_quantity(amount: int) -> str:
    """A whole number in the spelling that the API server keeps: the largest decimal unit that divides it."""
    return _largest(amount, base=1000, units=("", "k", "M", "G", "T", "P", "E"))


def _largest(amount: int, *, base: int, units: tuple[str, ...]) -> str:
    power = 0
    while amount and amount % base == 0 and power + 1 < len(units):
        amount, power = amount // base, power + 1
    return f"{amount}{units[power]}"


def gib(amount_bytes: int) -> str:
    """Bytes for people: GiB with two decimals, MiB below one GiB."""
    if amount_bytes < 2**30:
        return f"{amount_bytes / 2**20:.1f} MiB"
    return f"{amount_bytes / 2**30:.2f} GiB"
