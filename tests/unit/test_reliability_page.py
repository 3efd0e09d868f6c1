"""The table of docs/reliability.md is that of a run: all rows that the tests know, each with an injection."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster.reliability import BEGIN, COMMAND, END, PAGE, ROWS, Report, rows_of


def test_the_page_holds_the_rows_that_the_tests_define() -> None:
    rows = rows_of()
    assert [title for title, _, _ in rows] == list(ROWS)
    assert all(count > 0 and result.strip() for _, count, result in rows)


def test_the_page_names_command_and_date() -> None:
    text = PAGE.read_text()
    table = text[text.index(BEGIN) : text.index(END)]
    assert re.search(rf"`{re.escape(COMMAND)}`, \d{{4}}-\d\d-\d\d:", table)


def test_a_row_without_an_injection_fails() -> None:
    with pytest.raises(AssertionError, match="nothing was injected"):
        Report().row(ROWS[0], injected=0, result="fine")
    with pytest.raises(AssertionError):
        Report().row("something else", injected=1, result="fine")


def test_a_run_that_left_a_row_out_writes_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"head\n{BEGIN}\nold\n{END}\ntail\n")
    report = Report()
    for title in ROWS[:-1]:
        report.row(title, injected=2, result="fine")
    with pytest.raises(AssertionError, match="rows without a run"):
        report.write(page)
    report.row(ROWS[-1], injected=3, result="fine")
    report.write(page)
    assert [title for title, _, _ in rows_of(page)] == list(ROWS)
    assert page.read_text().startswith("head\n")
    assert page.read_text().endswith("tail\n")
