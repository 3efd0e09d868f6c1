"""MIG profiles: what their names say, and how much memory an instance shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tonnage.gpus.cards import Accelerator

_GIB: Final = 2**30
_SLICES: Final = 8
_UNLISTED_SHARE: Final = 0.90

# `nvidia-smi mig -lgip`, as printed for each card in public reports (the "MIG User Guide" prints the same
# table for the A100). CUDA shows the same figure: 4.75 GiB of a 1g.5gb, 19.50 of an A100-80GB's 2g.20gb and
# 16.00 of a 1g.18gb were seen in engines.
LISTED_GIB: Final[Mapping[str, Mapping[str, float]]] = {
    "A30": {"1g.6gb": 5.81, "2g.12gb": 11.69},
    "A100-40GB": {
        "1g.5gb": 4.75,
        "1g.10gb": 9.75,
        "2g.10gb": 9.75,
        "3g.20gb": 19.62,
        "4g.20gb": 19.62,
        "7g.40gb": 39.38,
    },
    "A100-80GB": {
        "1g.10gb": 9.50,
        "1g.20gb": 19.50,
        "2g.20gb": 19.50,
        "3g.40gb": 39.25,
        "4g.40gb": 39.25,
        "7g.80gb": 79.00,
    },
    "H100-80GB": {
        "1g.10gb": 9.75,
        "1g.20gb": 19.62,
        "2g.20gb": 19.62,
        "3g.40gb": 39.50,
        "4g.40gb": 39.50,
        "7g.80gb": 79.25,
    },
    "H100-PCIe": {
        "1g.10gb": 9.75,
        "1g.20gb": 19.62,
        "2g.20gb": 19.62,
        "3g.40gb": 39.50,
        "4g.40gb": 39.50,
        "7g.80gb": 79.25,
    },
    "H100-NVL": {"1g.12gb": 10.62, "1g.24gb": 21.50, "2g.24gb": 21.50},
    "H200": {"1g.18gb": 16.00, "2g.35gb": 32.50, "7g.141gb": 140.00},
}


@dataclass(frozen=True, slots=True)
class Profile:
    """A MIG profile: `compute` slices of 7 (4 on an A30), and the gigabytes in its name. `part` is set where
    it is a compute instance, which shares the memory of its GPU instance with others."""

    name: str
    compute: int
    gigabytes: int
    part: bool


def read_profile(text: str) -> Profile | None:
    """The profile that `1g.5gb`, `1g.5gb+me` or `1c.3g.20gb` names; None for anything else. What follows a
    plus sign (in resource names: a period) is about engines for media, not about memory."""
    match = re.fullmatch(r"(?:([0-9]+)c\.)?([0-9]+)g\.([0-9]+)gb(?:[+.-][a-z.+]+)?", text)
    if match is None:
        return None
    part = match[1] is not None and match[1] != match[2]
    return Profile(
        name=f"{match[2]}g.{match[3]}gb", compute=int(match[2]), gigabytes=int(match[3]), part=part
    )


def instance_bytes(card: Accelerator, profile: Profile) -> tuple[int, str]:
    """The total that an instance shows, and where the figure is from; never more than its card.

    A profile that is not listed: 90% of its share of the card's eight memory slices ("MIG User Guide",
    supported profiles). Of the listed ones none has less than 91% of that share.
    """
    listed = LISTED_GIB.get(card.name, {}).get(profile.name)
    if listed is not None:
        size = min(int(listed * _GIB), card.safe_bytes)
        return size, f"catalogue: {profile.name} of {card.name}, as nvidia-smi lists it"
    slices = min(max(round(_SLICES * profile.gigabytes / card.stated_gb), 1), _SLICES)
    size = int(card.safe_bytes * slices / _SLICES * _UNLISTED_SHARE)
    return size, f"catalogue: 90% of {slices} of 8 memory slices of {card.name}"
