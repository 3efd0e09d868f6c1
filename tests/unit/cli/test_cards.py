"""The table of cards."""

from __future__ import annotations

import pytest

from tonnage.gpus.cards import CARDS, COMMON, card_named, representative


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("h100", "H100-80GB"),
        ("H100 80GB", "H100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA-A100-SXM4-80GB", "A100-80GB"),
        ("a100-40gb", "A100-40GB"),
        ("Tesla-T4", "T4"),
        ("rtx 4090", "RTX-4090"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("GB200", "GB200"),
    ],
)
def test_names_that_people_and_drivers_use(asked: str, name: str) -> None:
    card = card_named(asked)
    assert card is not None
    assert card.name == name


@pytest.mark.parametrize("asked", ["", "H", "RTX", "nvidia", "H1000"])
def test_other_names_are_no_card(asked: str) -> None:
    assert card_named(asked) is None


def test_table_is_consistent() -> None:
    every = [name for card in CARDS for name in (card.name, card.product, *card.also)]
    assert len(every) == len(set(every))
    assert all(card_named(name) for name in COMMON)
    for card in CARDS:
        assert card.visible_gib is None or card.visible_gib < card.stated_gb
        assert representative(card.compute_capability) is not None
    assert representative((1, 0)) is None
