"""NVIDIA cards: what the driver calls them, how much memory CUDA shows, their compute capability.

Sources. Compute capability: NVIDIA, "CUDA GPU Compute Capability" (developer.nvidia.com/cuda-gpus). Stated
memory: NVIDIA's data sheet of each product, and the table of the "MIG User Guide" (docs.nvidia.com) for B200
and GB200. Visible memory: what engines logged as the card's total in start-ups collected for this project,
and measured on an H200; it is less than stated, because ECC and the driver keep some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Card:
    """A card: `product` is the driver's name, `stated_gb` the data sheet's figure.

    `visible_gib` is the largest total that CUDA was seen to show; None where no log was at hand. `also`
    are further names of it, and of variants with the same memory.
    """

    name: str
    product: str
    stated_gb: int
    visible_gib: float | None
    compute_capability: tuple[int, int]
    also: tuple[str, ...] = ()

    @property
    def memory_bytes(self) -> int:
        """The total that the engine's memory utilization is a share of: the visible one, or, where that is
        not known, the stated figure in GiB, which is a little more than CUDA shows."""
        return int((self.visible_gib or self.stated_gb) * _GIB)


CARDS: Final = (
    Card("T4", "Tesla T4", 16, 14.74, (7, 5)),
    Card("A100-40GB", "NVIDIA A100-SXM4-40GB", 40, 39.56, (8, 0), ("NVIDIA A100-PCIE-40GB",)),
    Card("A100-80GB", "NVIDIA A100-SXM4-80GB", 80, 79.33, (8, 0), ("A100", "NVIDIA A100 80GB PCIe")),
    Card("A10", "NVIDIA A10", 24, 22.16, (8, 6), ("NVIDIA A10G",)),
    Card("A40", "NVIDIA A40", 48, None, (8, 6)),
    Card("RTX-3090", "NVIDIA GeForce RTX 3090", 24, 23.65, (8, 6)),
    Card("RTX-A6000", "NVIDIA RTX A6000", 48, None, (8, 6)),
    Card("L4", "NVIDIA L4", 24, 22.16, (8, 9)),
    Card("L40S", "NVIDIA L40S", 48, 44.42, (8, 9)),
    Card("RTX-4090", "NVIDIA GeForce RTX 4090", 24, 23.65, (8, 9)),
    Card("RTX-6000-Ada", "NVIDIA RTX 6000 Ada Generation", 48, None, (8, 9)),
    Card("H100-80GB", "NVIDIA H100 80GB HBM3", 80, 79.19, (9, 0), ("H100", "NVIDIA H100 PCIe")),
    Card("H100-NVL", "NVIDIA H100 NVL", 94, None, (9, 0)),
    Card("H20", "NVIDIA H20", 96, None, (9, 0)),
    Card("H200", "NVIDIA H200", 141, 139.81, (9, 0), ("NVIDIA H200 NVL",)),
    Card("GH200-96GB", "NVIDIA GH200 480GB", 96, None, (9, 0), ("GH200",)),
    Card("B200", "NVIDIA B200", 180, None, (10, 0)),
    Card("GB200", "NVIDIA GB200", 186, None, (10, 0)),
    Card("B300", "NVIDIA B300", 288, 276.6, (10, 3)),
    Card("RTX-5090", "NVIDIA GeForce RTX 5090", 32, 31.40, (12, 0)),
    Card("RTX-PRO-4500", "NVIDIA RTX PRO 4500 Blackwell", 32, 31.38, (12, 0)),
    Card(
        "RTX-PRO-6000",
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        96,
        95.01,
        (12, 0),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition",),
    ),
    Card("GB10", "NVIDIA GB10", 128, 121.7, (12, 1)),
)
"""Sorted by compute capability, then name of the family. GB10 shares its memory with the system."""

COMMON: Final = ("L4", "A10", "RTX-4090", "L40S", "A100-80GB", "H100-80GB", "RTX-PRO-6000", "H200", "B200")
"""Names of the cards that a comparison shows when nobody says which."""

_REPRESENTATIVES: Final[Mapping[tuple[int, int], str]] = {
    (7, 5): "T4",
    (8, 0): "A100-80GB",
    (8, 6): "A10",
    (8, 9): "L40S",
    (9, 0): "H100-80GB",
    (10, 0): "B200",
    (10, 3): "B300",
    (12, 0): "RTX-PRO-6000",
    (12, 1): "GB10",
}


def card_named(name: str) -> Card | None:
    """The card with this name: ours, the driver's, or that of a Kubernetes label; case, spaces and hyphens
    do not matter."""
    wanted = _plain(name)
    for card in CARDS:
        if wanted in map(_plain, (card.name, card.product, *card.also)):
            return card
    return None


def representative(compute_capability: tuple[int, int]) -> Card | None:
    """The card that stands for a compute capability when no card is named."""
    name = _REPRESENTATIVES.get(compute_capability)
    return None if name is None else card_named(name)


def _plain(name: str) -> str:
    text = name.lower().replace(" ", "").replace("-", "").replace("_", "")
    return text.removeprefix("nvidia").removeprefix("geforce")
