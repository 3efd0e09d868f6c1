"""The models' verdict on every row of the table; tests/cluster asks a real API server about the same rows."""

from __future__ import annotations

import pytest

from tonnage.api.acceptance import accept
from unit.api.table import ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_models_judge_as_the_table_says(row: Row) -> None:
    assert row.judged_rightly(), (row, accept(row.body))


def test_the_table_is_large_and_names_its_rows_once() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 160
