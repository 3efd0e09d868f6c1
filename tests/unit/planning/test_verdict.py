"""Where an engine that measures would fail, in the order of its own checks."""

from __future__ import annotations

import pytest

from tonnage.planning.budget import Budget, budget
from tonnage.planning.fit import Device, EngineOptions, LaidOut, lay_out
from tonnage.planning.graphs import captured_sizes
from tonnage.planning.load import load_of
from unit.planning.starts import GIB, shape_named
from unit.planning.verdict import verdict


def start(
    *, sequences: int = 256, context: int = 8192, total_gib: int = 80, weights_gib: float = 15
) -> tuple[Budget, LaidOut]:
    options = EngineOptions(context_tokens=context, max_num_seqs=sequences, max_num_batched_tokens=8192)
    laid = lay_out(shape_named("Qwen/Qwen3-8B"), device=Device(compute_capability=(9, 0)), options=options)
    sizes = captured_sizes(sequences=sequences, tokens=8192)
    load = load_of(laid, weights=int(weights_gib * GIB), graph_sizes=sizes)
    return budget(load, total_bytes=total_gib * GIB), laid


def test_a_start_with_room_is_not_refused() -> None:
    assert verdict(*start(), utilization=0.9) is None
    assert verdict(*start(), utilization=0.9, free_bytes=72 * GIB) is None


@pytest.mark.parametrize(
    ("options", "utilization", "free", "reason"),
    [
        ({}, 0.9, 71 * GIB, "DeviceInUse"),
        ({"weights_gib": 73}, 0.9, None, "WeightsDoNotFit"),
        ({"weights_gib": 71.5}, 0.9, None, "NoMemoryForKvCache"),
        ({"weights_gib": 66, "context": 40960}, 0.9, None, "ContextDoesNotFit"),
        ({"sequences": 1024}, 0.97, None, "NoRoomOutside"),
    ],
)
def test_the_first_check_that_fails_is_named(
    options: dict[str, int], utilization: float, free: int | None, reason: str
) -> None:
    found = verdict(*start(**options), utilization=utilization, free_bytes=free)
    assert found is not None
    assert found.reason == reason
    assert "GiB" in found.message
    assert all(isinstance(number, int) for number in found.numbers.values())


def test_bursts_need_more_than_a_start() -> None:
    found, _ = start()
    quiet, busy = found.outside(utilization=0.9), found.outside(utilization=0.9, bursts=True)
    assert busy.likely < quiet.likely
    assert busy.lower < quiet.lower
