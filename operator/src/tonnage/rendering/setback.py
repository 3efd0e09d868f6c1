"""What a plan's workers lacked, by the figures they left, and so what a new plan must keep free. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tonnage.api import quantities
from tonnage.planning.plan import Plan, Rejection
from tonnage.rendering.decision import Decision
from tonnage.rendering.findings import ExitMessage, parse_exit_message
from tonnage.rendering.names import PLAN, REPLAN
from tonnage.rendering.observations import Pod
from tonnage.rendering.plan import Kept

_GIB: Final = 2**30
_STEP_BYTES: Final = 256 * 2**20
_MOST_PARTS: Final = 8
_WHO: Final = "is another process on it?"
SLACK_BYTES: Final = 512 * 2**20
"""Kept free beyond what was missing: an engine ends with the first allocation that fails, so that what the
same step would have asked for next is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """A worker of a plan ran out of device memory: it lacked `missing_bytes` of one device. `over`: its pod
    serves again. `others_bytes` of that device were in the hands of others, as far as the worker knew."""

    pod: str
    over: bool
    reason: str
    message: str
    missing_bytes: int
    others_bytes: int = 0

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
    found = (_setback(pod, plan=plan) for pod in pods if pod.labels.get(PLAN) == plan_hash)
    return max(filter(None, found), key=lambda each: (each.missing_bytes, each.pod), default=None)


def _setback(pod: Pod, *, plan: Plan) -> Setback | None:
    told = parse_exit_message(pod.last_exit.message) if pod.last_exit is not None else None
    if told is None:
        return None
    try:
        missing, others = _missing(told), _others(told, plan=plan)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not 0 < missing < 1024 * _GIB:
        return None
    return Setback(
        pod=pod.name,
        over=pod.ready,
        reason=told.reason,
        message=told.message,
        missing_bytes=missing,
        others_bytes=others,
    )


def _missing(told: ExitMessage) -> int:
    """Bytes that were wanted and not there."""
    wanted = {"OutOfMemory": "triedBytes", "InsufficientMemory": "neededBytes"}[told.reason]
    return int(told.figures[wanted]) - int(told.figures["freeBytes"])


def _others(told: ExitMessage, *, plan: Plan) -> int:
    """Bytes of the device that others have: by the allocator's word, or, at a start, what was neither free
    nor the worker's own before it loads: its context and what torch opened (0.67 GiB in qwen3-8b-preflight).
    """
    if "otherBytes" in told.figures or told.reason == "OutOfMemory":
        return int(told.figures.get("otherBytes", 0))
    if "totalBytes" not in told.figures:
        return 0
    taken = int(told.figures["totalBytes"]) - int(told.figures["freeBytes"])
    return max(0, taken - plan.memory.context - plan.memory.non_torch)


def unexplained(setback: Setback, *, kept: Kept) -> str:
    """What Degraded says where no other plan is tried, empty where one may be: no estimate is so wrong (the
    largest error that was seen is 4 GiB of 140) that an eighth of a device is missing beside what the plan
    keeps free already, so that something else has the device, and may be gone soon."""
    device = kept.plan.gpu.device_bytes if kept.plan.gpu is not None else 0
    if kept.withheld_bytes + setback.withheld_bytes <= device // _MOST_PARTS:
        return ""
    others = setback.others_bytes
    who = f"others have {quantities.gib(others)} of it, end them" if others else _WHO
    return (
        f"{_lacked(setback, kept=kept)}; that is more than an eighth of a device of "
        f"{quantities.gib(device)}, so no matter of estimates: no plan keeps as much free; {who}"
    )


def given_up(setback: Setback, *, kept: Kept, outcome: Decision | Rejection) -> str:
    """What Degraded says where no other plan is made unasked, or none is possible. `outcome` is what came of
    planning with as much more kept free as was missing."""
    free = quantities.gib(kept.withheld_bytes + setback.withheld_bytes)
    lacked = _lacked(setback, kept=kept)
    if isinstance(outcome, Rejection):
        return (
            f"{lacked}. With {free} of each device kept free there is no plan: {outcome.message}. Whatever "
            "you change is planned with as much kept free, while workers of this plan fail"
        )
    plan = outcome.kept.plan
    return (
        f"{lacked}. {plan.gpus_per_replica}x {plan.product} can hold the same work with {free} of each kept "
        f"free, in {plan.blocks} KV blocks instead of {kept.plan.blocks}: annotate the object with {REPLAN} "
        "to have that plan, no other is tried unasked"
    )


def _lacked(setback: Setback, *, kept: Kept) -> str:
    before = kept.withheld_bytes
    already = f", in a plan that keeps {quantities.gib(before)} free already" if before else ""
    missing = quantities.gib(setback.missing_bytes)
    return f"pod {setback.pod}: {setback.message}; {missing} were missing{already}"


def replanned(withheld_bytes: int) -> str:
    """What the condition Planned adds of a plan that was made after a setback, or could not be; empty where
    there was none."""
    if not withheld_bytes:
        return ""
    return (
        f"; {quantities.gib(withheld_bytes)} of each device are kept free, since workers of the plan before "
        "ran out of device memory"
    )
