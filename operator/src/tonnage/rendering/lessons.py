"""What one start teaches: from the plan in force and what its worker told. Pure.

A worker tells of the fullest device of its pod (`memory` of `/capacity`), which is the one that counts; so
replicas of several ranks teach by it, and those of several pods or stages, where each holds something else,
do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tonnage.models import ModelProfile
from tonnage.planning.budget import Budget
from tonnage.planning.gpu.again import sized_again
from tonnage.planning.gpu.candidates import key_of
from tonnage.planning.plan import Plan
from tonnage.planning.residuals import Key
from tonnage.planning.term import GIB, Term
from tonnage.rendering.findings import VERIFIED
from tonnage.rendering.observations import DeviceMemory, Report
from tonnage.rendering.plan import Kept

_SAME_DEVICE: Final = 32
"""A device's total and the plan's may differ by a 32nd: plans count on the safe side."""
_OTHERS_BYTES: Final = 2 * GIB
"""More than this beyond the context's upper figure, in use before anything is loaded, is somebody else's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A start: `measured_bytes` stood beside its KV cache where `law` had estimated so many."""

    key: Key
    measured_bytes: int
    law: Term


def lesson_of(plan: Plan, *, plan_hash: str, model: ModelProfile, report: Report) -> Lesson | None:
    """What a worker's report teaches of a plan and its model; None where it teaches nothing.

    It must be of this very plan, verified, by the engine version that was planned for, on a device of its
    own; and its figures must be such as that device can have.
    """
    memory, gpu = report.memory, plan.gpu
    if memory is None or gpu is None or gpu.nodes_per_replica > 1:
        return None
    if (report.state, report.plan_hash) != (VERIFIED, plan_hash):
        return None
    if report.engine_version.partition("+")[0] != plan.engine_version.partition("+")[0]:
        return None
    found = sized_again(plan, model=model)
    if found is None:
        return None
    key = key_of(
        found.choice,
        engine_version=plan.engine_version,
        architecture=model.shape.architecture,
        compiled=bool(gpu.captured_sizes) and not memory.compiled,
    )
    if key is None or not _is_possible(memory, found.budget, device_bytes=gpu.device_bytes):
        return None
    measured = memory.total_bytes - memory.free_at_ready_bytes - plan.memory.kv
    if measured < found.budget.at_ready.lower:
        return None
    return Lesson(key=key, measured_bytes=measured, law=found.budget.at_ready)


def key_of_start(kept: Kept) -> Key | None:
    """What starts of a plan that is kept teach by as its pods start, compiling; None if they do not."""
    model = kept.resolved()
    found = sized_again(kept.plan, model=model.profile) if model is not None else None
    if found is None or model is None:
        return None
    architecture = model.profile.shape.architecture
    return key_of(
        found.choice, engine_version=kept.plan.engine_version, architecture=architecture, compiled=False
    )


def _is_possible(memory: DeviceMemory, budget: Budget, *, device_bytes: int) -> bool:
    """Does the device have these bytes, and was it free but for what an engine takes first?"""
    in_use = memory.total_bytes - memory.free_at_start_bytes
    return (
        abs(memory.total_bytes - device_bytes) <= device_bytes // _SAME_DEVICE
        and 0 <= memory.free_at_ready_bytes <= memory.free_at_start_bytes
        and 0 <= in_use <= budget.context.upper + _OTHERS_BYTES
    )
