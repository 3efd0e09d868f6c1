"""What a plan's workers lacked, by the figures they left, and so what a new plan must keep free. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tonnage.api import quantities
from tonnage.planning.plan import Plan
from tonnage.rendering.findings import ExitMessage, parse_exit_message
from tonnage.rendering.names import PLAN
from tonnage.rendering.observations import Pod

_GIB: Final = 2**30
_STEP_BYTES: Final = 256 * 2**20
_MOST_PARTS: Final = 8
SLACK_BYTES: Final = 512 * 2**20
"""Kept free beyond what was missing: an engine ends with the first allocation that fails, so that what the
same step would have asked for next is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """A worker of a plan ran out of device memory: it lacked `missing_bytes` of one device. `over`: its pod
    serves again."""

    pod: str
    over: bool
    reason: str
    message: str
    missing_bytes: int

    @property
    def withheld_bytes(self) -> int:
        """What a new plan keeps free of each device: what was missing and some, in steps of 256 MiB."""
        wanted = self.missing_bytes + SLACK_BYTES
        return -(-wanted // _STEP_BYTES) * _STEP_BYTES


def find_setback(pods: Iterable[Pod], *, plan: Plan, plan_hash: str) -> Setback | None:
    """The worst setback of a plan's workers on accelerators; None if none told figures of one.

    On CPU nodes the kernel ends what is too large, and there are no figures.
    """
    if plan.gpu is None:
        return None
    found = (_setback(pod) for pod in pods if pod.labels.get(PLAN) == plan_hash)
    return max(filter(None, found), key=lambda each: (each.missing_bytes, each.pod), default=None)


def _setback(pod: Pod) -> Setback | None:
    told = parse_exit_message(pod.last_exit.message) if pod.last_exit is not None else None
    if told is None:
        return None
    try:
        missing = _missing(told)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not 0 < missing < 1024 * _GIB:
        return None
    return Setback(
        pod=pod.name, over=pod.ready, reason=told.reason, message=told.message, missing_bytes=missing
    )


def _missing(told: ExitMessage) -> int:
    """Bytes that were wanted and not there."""
    wanted = {"OutOfMemory": "triedBytes", "InsufficientMemory": "neededBytes"}[told.reason]
    return int(told.figures[wanted]) - int(told.figures["freeBytes"])


def unexplained(setback: Setback, *, plan: Plan) -> str:
    """Why no other plan is tried, empty where one may be: no estimate is so wrong (the largest error that was
    seen is 4 GiB of 140), so that something else has the device, and may be gone soon."""
    device = plan.gpu.device_bytes if plan.gpu is not None else 0
    if setback.withheld_bytes <= device // _MOST_PARTS:
        return ""
    return (
        f"that is more than an eighth of a device of {quantities.gib(device)}, so no matter of estimates; is "
        "another process there?"
    )


def replanned(withheld_bytes: int) -> str:
    """What the condition Planned adds of a plan that was made after a setback."""
    return (
        f"; {quantities.gib(withheld_bytes)} of each device are kept free, since workers of the plan before "
        "ran out of device memory"
    )


def given_up(setback: Setback, *, withheld_bytes: int, plan: Plan) -> str:
    """What Degraded says where the plan that was made after a setback failed too."""
    return (
        f"pod {setback.pod}: {setback.message}; {_lacked(setback)}, in a plan that keeps "
        f"{quantities.gib(withheld_bytes)} free already: no other is tried. Is something else on the device? "
        f"Else set workload.concurrency below {plan.concurrency} or workload.contextLength below "
        f"{plan.context_length}, and rollout.allowDowntime: true where there is no room beside; once the "
        "cause is gone, annotate it with tonnage.dev/replan for a new plan"
    )


def not_replanned(setback: Setback, *, why: str) -> str:
    """What Degraded says where no plan with more room is made."""
    return (
        f"pod {setback.pod}: {setback.message}; {_lacked(setback)}, and no plan is made that keeps "
        f"{quantities.gib(setback.withheld_bytes)} more free: {why}"
    )


def _lacked(setback: Setback) -> str:
    return f"{quantities.gib(setback.missing_bytes)} were missing"
