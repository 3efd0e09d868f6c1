"""Quantities and durations, to and from integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.api import quantities


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("64Gi", 64 * 2**30),
        ("500M", 500_000_000),
        ("1", 1),
        ("1500m", 2),
        ("1.5Gi", 3 * 2**29),
        ("1e3", 1000),
        (7, 7),
    ],
)
def test_bytes(text: str | int, wanted: int) -> None:
    assert quantities.whole_bytes(text) == wanted


@pytest.mark.parametrize("text", ["", "Gi", "1K", "-1", "1 Gi", "one"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        quantities.quantity(text)


@pytest.mark.parametrize(("text", "wanted"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("1500ms", 2)])
def test_seconds(text: str, wanted: int) -> None:
    assert quantities.seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "5", "5d", "s", "1m 5s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        quantities.seconds(text)


@given(st.integers(min_value=0, max_value=2**60))
def test_memory_keeps_its_value_through_text(amount: int) -> None:
    assert quantities.whole_bytes(quantities.memory_quantity(amount)) == amount
