"""Which changes of a status are worth an Event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tonnage.api.status import ConditionType

NORMAL, WARNING = "Normal", "Warning"
# Ready repeats what these say; Available and Progressing are told by the Deployment's own Events
_TOLD = (
    ConditionType.ACCEPTED,
    ConditionType.MODEL_RESOLVED,
    ConditionType.PLANNED,
    ConditionType.CAPACITY_VERIFIED,
    ConditionType.DEGRADED,
)
_TOLD_WHEN_MENDED = (ConditionType.PLANNED, ConditionType.CAPACITY_VERIFIED)


def transitions(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(type, reason, message) of each Event: failures by condition, and the end of two of them.

    What goes well from the start is in the conditions and costs no Event.
    """
    old = {c["type"]: c for c in before.get("conditions", ())}
    for condition in after.get("conditions", ()):
        kind = ConditionType(condition["type"])
        was = old.get(condition["type"], {})
        if kind not in _TOLD or (was.get("status"), was.get("reason")) == (
            condition["status"],
            condition["reason"],
        ):
            continue
        bad = "True" if kind is ConditionType.DEGRADED else "False"
        if condition["status"] == bad:
            yield WARNING, condition["reason"], condition["message"] or condition["reason"]
        elif kind in _TOLD_WHEN_MENDED and (was.get("status"), condition["status"]) == (bad, "True"):
            yield NORMAL, condition["reason"], condition["message"] or condition["reason"]
