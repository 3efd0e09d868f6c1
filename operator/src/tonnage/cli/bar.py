"""Memory of a card as a stacked bar: weights, KV cache, reserve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tonnage.cli.style import Style, printable, size

if TYPE_CHECKING:
    from tonnage.cli.answers import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What fills one rank's memory: the weights, the KV cache, and what the engine leaves to others.

    Weights may be more than the card has.
    """

    label: str
    total_bytes: int
    weights_bytes: int
    kv_bytes: int

    @property
    def reserve_bytes(self) -> int:
        """The rest."""
        return max(0, self.total_bytes - self.weights_bytes - self.kv_bytes)


WEIGHTS, KV, RESERVE = "weights", "KV cache", "reserve"
_SIGNS: Final = {WEIGHTS: ("█", "#", "34"), KV: ("▓", "=", "32"), RESERVE: ("░", ".", "90")}


def memories(answers: Sequence[Answer]) -> list[Memory]:
    """One bar for each card of the answers."""
    bars: dict[str, Memory] = {}
    for answer in answers:
        place = answer.place
        if place.card is None or not place.memory_bytes or not answer.fit.supported:
            continue
        memory = Memory(
            label=printable(place.card),
            total_bytes=place.memory_bytes,
            weights_bytes=answer.weights_bytes or 0,
            kv_bytes=answer.kv_bytes,
        )
        bars.setdefault(place.card, memory)
    return list(bars.values())


def cells(memory: Memory, width: int) -> tuple[int, int, int]:
    """Characters of each part; they add up to `width`, and no part that is there gets none."""
    parts = (memory.weights_bytes, memory.kv_bytes, memory.reserve_bytes)
    total = max(sum(parts), 1)
    whole = [part * width // total for part in parts]
    shown = [max(cell, 1) if part else 0 for cell, part in zip(whole, parts, strict=True)]
    largest = max(range(3), key=lambda index: parts[index])
    shown[largest] += width - sum(shown)
    return shown[0], shown[1], shown[2]


def bar(memory: Memory, *, style: Style, width: int = 40) -> str:
    """One line: the bar and its figures. A bar that ends in > holds more than the card."""
    lengths = cells(memory, width)
    drawn = "".join(
        style.paint(signs[0 if style.unicode else 1] * length, signs[2])
        for signs, length in zip(_SIGNS.values(), lengths, strict=True)
        if length
    )
    end = ">" if memory.weights_bytes + memory.kv_bytes > memory.total_bytes else "|"
    figures = (
        f"{size(memory.weights_bytes)} + {size(memory.kv_bytes)} + {size(memory.reserve_bytes)}"
        if end == "|"
        else f"{size(memory.weights_bytes)} of weights, the card has {size(memory.total_bytes)}"
    )
    return f"{memory.label:<14.14} |{drawn}{end} {figures}"


def legend(style: Style) -> str:
    """What the signs mean."""
    index = 0 if style.unicode else 1
    return "  ".join(f"{style.paint(signs[index] * 2, signs[2])} {name}" for name, signs in _SIGNS.items())


def gauge(part: str, amount_bytes: int, *, of_bytes: int, style: Style, width: int = 24) -> str:
    """One part's share of the whole, as long as the whole is wide; what is there is seen."""
    unicode, plain, colour = _SIGNS.get(part, _SIGNS[RESERVE])
    length = max(1, amount_bytes * width // of_bytes) if amount_bytes > 0 and of_bytes > 0 else 0
    return style.paint((unicode if style.unicode else plain) * min(length, width), colour)
