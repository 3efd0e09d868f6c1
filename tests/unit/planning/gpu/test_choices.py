"""The golden table of choices (tests/oracle/choices.txt): a part of its lines is planned anew here."""

from __future__ import annotations

import pytest

from oracle.choices import TABLE, section
from oracle.grid import MODELS, NODES, WORKLOADS

_PART = 5


def test_the_table_has_every_model_once() -> None:
    lines = TABLE.read_text().splitlines()
    assert [each.removeprefix("# ") for each in lines if each.startswith("# ")] == list(MODELS)
    assert sum(" | " in each and not each.startswith("What") for each in lines) == (
        len(MODELS) * len(NODES) * len(WORKLOADS)
    )


@pytest.mark.parametrize("model", MODELS[::_PART])
def test_choices_are_those_of_the_table(model: str) -> None:
    """`make golden-choices` writes it anew; what it changes is to be looked at before it is committed."""
    text = TABLE.read_text()
    start = text.index(f"\n# {model}\n")
    planned = "".join(f"{line}\n" for line in section(model))
    assert text[start : start + len(planned)] == planned
