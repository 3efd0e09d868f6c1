"""The human form of answers: heading, table, footnotes, bars."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tonnage.cli import document, table
from tonnage.cli.answers import Answer, Question, ranks_that_hold
from tonnage.cli.bar import bar, legend, memories
from tonnage.cli.style import printable, style_of
from tonnage.planning.savings import Savings


def write(question: Question, answers: Sequence[Answer], changes: Sequence[tuple[str, Savings]]) -> None:
    """Write everything to standard output."""
    style = style_of(sys.stdout)
    saved = question.savings()
    lines = [*table.heading(question, saved, answers), ""]
    if changes:
        lines += [*table.what_ifs(changes, saved), ""]
    lines += table.rows(answers, _hints(question, answers), style)
    lines += ["", *table.footnotes(answers)]
    reasons = {document.message(answer) for answer in answers}
    if len(reasons) == 1 and None not in reasons:
        lines += ["", *(printable(reason) for reason in reasons if reason)]
    elif len(answers) == 1:
        lines += ["", *table.details(answers[0])]
    bars = memories(answers)
    if bars:
        lines += ["", legend(style), *(bar(each, style=style) for each in bars)]
    sys.stdout.write("\n".join(lines) + "\n")


def _hints(question: Question, answers: Sequence[Answer]) -> dict[str, int]:
    """For places that do not hold the model: ranks on which they would."""
    hints: dict[str, int] = {}
    for answer in answers:
        place = answer.place
        if answer.exact or answer.kv_dtype != "auto" or answer.fit.fits or not answer.fit.supported:
            continue
        ranks = ranks_that_hold(question, place, kv_dtype="auto")
        if ranks is not None and place.card is not None:
            hints[place.card] = ranks
    return hints
