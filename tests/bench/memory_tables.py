"""Tables of estimators against figures: how many rows each answers, and how far off it is."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Answer = float | str
"""A figure, or why there is none."""

OWN: Final = " *"
"""Ends the name of an arm that is the peer's own package."""

_NAME: Final = 32
_COLUMNS: Final = ("answered", "equal", "in 1 %", "median", "90 %", "worst", "over 1 % more")
_WIDTHS: Final = (10, 7, 8, 10, 10, 10, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """An estimator and its answer to every row."""

    name: str
    answers: list[Answer]

    def only(self, chosen: Sequence[int]) -> Arm:
        """The same arm on the chosen rows."""
        return Arm(name=self.name, answers=[self.answers[number] for number in chosen])


def print_table(title: str, arms: Sequence[Arm], figures: Sequence[int]) -> None:
    """One line for each arm. Answers are rounded down; error is |answer - figure| / figure; the last column
    counts answers that promise more than 1 % too much."""
    print(f"\n{title}: {len(figures)} rows")
    print(_line("", _COLUMNS))
    for arm in arms:
        print(_line(arm.name, _summary(arm.answers, figures)))


def print_unanswered(arms: Sequence[Arm]) -> None:
    """How many rows each arm does not answer, by reason."""
    print("\nNot answered")
    for arm in arms:
        reasons = Counter(answer for answer in arm.answers if isinstance(answer, str))
        for reason, count in reasons.most_common():
            print(f"  {arm.name:{_NAME}}{count:>5}  {reason}")


def print_agreement(arms: Sequence[Arm]) -> None:
    """How often a re-expressed formula gives what the package itself gives."""
    print("\nFormulas against the peers' own packages")
    answers = {arm.name: arm.answers for arm in arms}
    for name, formulas in answers.items():
        if name + OWN in answers:
            pairs = [
                (formula, package)
                for formula, package in zip(formulas, answers[name + OWN], strict=True)
                if not isinstance(formula, str) and not isinstance(package, str)
            ]
            same = sum(int(formula) == int(package) for formula, package in pairs)
            print(f"  {name:{_NAME}}equal on {same} of {len(pairs)} rows that both answer")


def ninth_tenth(ordered: Sequence[float]) -> float:
    """The 90th percentile of ascending values, by nearest rank."""
    return ordered[math.ceil(0.9 * len(ordered)) - 1]


def _summary(answers: Sequence[Answer], figures: Sequence[int]) -> tuple[str, ...]:
    pairs = [
        (int(answer), figure)
        for answer, figure in zip(answers, figures, strict=True)
        if not isinstance(answer, str)
    ]
    if not pairs:
        return ("0",)
    errors = sorted(abs(answer - figure) / figure for answer, figure in pairs)
    counts = (
        len(pairs),
        sum(answer == figure for answer, figure in pairs),
        sum(error <= 0.01 for error in errors),
    )
    shares = (statistics.median(errors), ninth_tenth(errors), errors[-1])
    more = sum(answer > figure * 1.01 for answer, figure in pairs)
    return (*map(str, counts), *map(_percent, shares), str(more))


def _line(name: str, texts: Sequence[str]) -> str:
    columns = "".join(f"{text:>{width}}" for text, width in zip(texts, _WIDTHS, strict=False))
    return f"  {name:{_NAME}}{columns}"


def _percent(share: float) -> str:
    if share == 0:
        return "0 %"
    if share < 0.0001:
        return "<0.01 %"
    return f"{share * 100:.2f} %" if share < 1 else f"{share * 100:,.0f} %"
