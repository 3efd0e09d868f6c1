"""Would an engine that measures start with these settings, and if not, where would it fail?

The engine's own checks in their order (vllm/v1/worker/gpu_worker.py, v1/core/kv_cache_utils.py), and after
them what no check covers: graphs, the sampler and bursts outside its share of the device. By estimates, so
that it is as often too strict as too lenient; plans use bounds.
"""

from __future__ import annotations

from tonnage.planning.budget import Budget
from tonnage.planning.fit import LaidOut
from tonnage.planning.memory import bytes_for, fits_one_request
from tonnage.planning.plan import Rejection
from tonnage.planning.words import gib


def verdict(
    bytes_of: Budget, laid: LaidOut, *, utilization: float, free_bytes: int | None = None
) -> Rejection | None:
    """Why the engine would not start or not live, None where it would.

    `utilization` is its share of the device, `free_bytes` what was free before it began, None where the
    device is its own.
    """
    share = int(utilization * bytes_of.total_bytes)
    available = bytes_of.measured_kv(utilization=utilization).likely
    return (
        _in_use(share, free_bytes)
        or _too_heavy(bytes_of, share)
        or _nothing_left(available)
        or _too_long(laid, available)
        or _no_room_outside(bytes_of, utilization)
    )


def _in_use(share: int, free: int | None) -> Rejection | None:
    if free is None or free >= share:
        return None
    return Rejection(
        reason="DeviceInUse",
        message=f"{gib(free)} are free at the start, the engine's share of the device is {gib(share)}",
        numbers={"freeBytes": free, "shareBytes": share},
    )


def _too_heavy(bytes_of: Budget, share: int) -> Rejection | None:
    weights = bytes_of.weights.likely
    if weights <= share:
        return None
    return Rejection(
        reason="WeightsDoNotFit",
        message=f"weights take {gib(weights)} of each device, the engine's share of it is {gib(share)}",
        numbers={"weightsBytes": weights, "shareBytes": share},
    )


def _nothing_left(available: int) -> Rejection | None:
    if available > 0:
        return None
    return Rejection(
        reason="NoMemoryForKvCache",
        message=f"the engine would have {gib(available)} for its KV cache",
        numbers={"availableBytes": available},
    )


def _too_long(laid: LaidOut, available: int) -> Rejection | None:
    context = laid.settled.context_tokens
    spare = max(laid.layout.stage_bytes) if laid.layout.groups and not laid.reserves_null_block else 0
    if fits_one_request(laid.layout, kv_bytes=available + spare, context_tokens=context):
        return None
    needed = bytes_for(laid.layout, requests=1, length_tokens=context, spare_blocks=0)
    return Rejection(
        reason="ContextDoesNotFit",
        message=(
            f"one request of {context} tokens needs {gib(needed)} of KV cache, the engine would have "
            f"{gib(available)}"
        ),
        numbers={"neededBytes": needed, "availableBytes": available},
    )


def _no_room_outside(bytes_of: Budget, utilization: float) -> Rejection | None:
    left = bytes_of.outside(utilization=utilization).likely
    if left >= 0:
        return None
    return Rejection(
        reason="NoRoomOutside",
        message=(
            f"CUDA graphs, the sampler and bursts take {gib(-left)} more than a utilization of {utilization} "
            "leaves of the device"
        ),
        numbers={"missingBytes": -left},
    )
