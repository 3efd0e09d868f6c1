"""What is new, and how soon it is worth a write. Pure.

What a user waits for is told at once or nearly so, so that the steps of one transition, which come within
moments, are one write. Counts and texts may wait longer, and the use of the cache is never worth more than a
write a minute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from tonnage.rendering.findings import Worker
from tonnage.rendering.observations import Report
from tonnage.rendering.status import kv_used

_CACHE_USE = "kvUsedSummary"


class News(Enum):
    """What is new in a status; the value is for how many seconds it may be held back."""

    GENERATION = 0.0
    CONDITIONS = 1.0
    DETAILS = 5.0
    CACHE_USE = 60.0

    @property
    def hold_seconds(self) -> float:
        """For how long a write may wait: from the last one for the use of the cache, else from the change."""
        return self.value


def news(before: Mapping[str, Any], after: Mapping[str, Any]) -> News | None:
    """The most urgent thing that `after` says and `before` did not; None if they are equal."""
    if after == before:
        return None
    if after["observedGeneration"] != before.get("observedGeneration"):
        return News.GENERATION
    if _headline(after) != _headline(before):
        return News.CONDITIONS
    if {**after, _CACHE_USE: ""} != {**before, _CACHE_USE: ""}:
        return News.DETAILS
    return News.CACHE_USE


def _headline(status: Mapping[str, Any]) -> tuple[object, ...]:
    conditions = ((c["type"], c["status"], c["reason"]) for c in status.get("conditions", ()))
    return status.get("phase"), *conditions


def say_the_same(before: Sequence[Worker], after: Sequence[Worker], *, status: Mapping[str, Any]) -> bool:
    """Do the workers say what they said before, and use as much of the cache as `status` shows?"""
    shown = status.get(_CACHE_USE, "")
    facts = [[_facts(worker.report) for worker in workers] for workers in (before, after)]
    return facts[0] == facts[1] and kv_used(after, before=shown) == shown


def _facts(report: Report | None) -> Report | None:
    return None if report is None else replace(report, kv_usage=None)
