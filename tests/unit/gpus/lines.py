"""Objects in line for devices: each is given all that it wants, in order of rank, or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tonnage.gpus.inventory import Inventory
from tonnage.gpus.reservations import Need, rank, settle


@dataclass(frozen=True, slots=True)
class Line:
    """Who was given what, who was refused, and what is left."""

    granted: tuple[Need, ...]
    refused: tuple[Need, ...]
    left: Inventory


def line_up(inventory: Inventory, waiting: Iterable[Need], *, reserved: Iterable[Need] = ()) -> Line:
    """Those that wait, one after another, each with what accepted plans and those ahead leave."""
    settled = settle(inventory, reserved=reserved)
    granted, refused, left = list(settled.granted), list[Need](), settled.left
    for need in sorted(waiting, key=rank):
        one = settle(left, reserved=[need])
        if len(one.granted[0].nodes) == need.pods:
            granted.append(one.granted[0])
            left = one.left
        else:
            refused.append(need)
    return Line(tuple(granted), tuple(refused), left)
