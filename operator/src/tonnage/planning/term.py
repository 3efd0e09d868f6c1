"""A figure that is estimated: what is likely, between which bounds, and where that is known from."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Term:
    """Bytes of one purpose on one device.

    `likely` is the estimate; nothing that was measured lies outside `lower` and `upper`, and plans subtract
    `upper`. `source` says in a few words what was measured or read.
    """

    lower: int
    likely: int
    upper: int
    source: str = ""

    def __post_init__(self) -> None:
        if not self.lower <= self.likely <= self.upper:
            raise ValueError(f"{self.lower} <= {self.likely} <= {self.upper} does not hold ({self.source})")


def term(likely: float, *, lower: float, upper: float, source: str) -> Term:
    """A term in whole bytes."""
    return Term(int(lower), int(likely), int(upper), source)


def nothing(source: str = "") -> Term:
    """No bytes at all."""
    return Term(0, 0, 0, source)


def largest(terms: tuple[Term, ...], *, source: str) -> Term:
    """What stands where only one of several is there at a time."""
    return Term(
        max(each.lower for each in terms),
        max(each.likely for each in terms),
        max(each.upper for each in terms),
        source,
    )
