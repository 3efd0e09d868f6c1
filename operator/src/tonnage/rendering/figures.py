"""Fractions as text: there are no floats in the API."""

from __future__ import annotations


def figure(value: float) -> str:
    """A fraction as text: as many digits as it needs, none after a whole number (no floats in the API)."""
    return str(int(value)) if value == int(value) else repr(value)


def short_figure(value: float) -> str:
    """A fraction for people, two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
