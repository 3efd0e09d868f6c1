"""Texts of a status: whatever a worker wrote, the API server can read them."""

from __future__ import annotations

import pytest

from tonnage.api.texts import clipped


@pytest.mark.parametrize(
    "character", ["\ud800", "\x7f", "\x80", "\x85", "\x9f", "\u2028", "\ufffe", "\uffff"]
)
def test_what_no_apply_could_carry_is_replaced(character: str) -> None:
    assert clipped(f"ended: {character}!", 64) == "ended: \ufffd!"


@pytest.mark.parametrize("text", ["\x1b[0m\n\t\x00", "é", "🚀", "\ufffd"])
def test_everything_else_is_left_as_it_is(text: str) -> None:
    assert clipped(text, 64) == text
