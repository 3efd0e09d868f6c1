"""Conditions as values: build one, merge a set with the ones before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tonnage.api.status import ConditionType
from tonnage.api.texts import MESSAGE_BYTES, WORD_BYTES, clipped


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition without its times. `status` None means Unknown."""

    type: ConditionType
    status: bool | None
    reason: str
    message: str = ""


def merged(
    findings: Iterable[Finding], *, before: Iterable[Mapping[str, Any]], generation: int, now: str
) -> list[dict[str, Any]]:
    """The wire form of `findings`; `lastTransitionTime` is kept where `status` did not change.

    `before` is `status.conditions` as read; `now` is RFC 3339.
    """
    old = {c.get("type"): c for c in before}
    return [
        _wire(f, before=old.get(f.type.value, {}), generation=generation, now=now)
        for f in sorted(findings, key=lambda f: list(ConditionType).index(f.type))
    ]


def _wire(finding: Finding, *, before: Mapping[str, Any], generation: int, now: str) -> dict[str, Any]:
    status = "Unknown" if finding.status is None else str(finding.status)
    kept = before.get("lastTransitionTime") if before.get("status") == status else None
    return {
        "type": finding.type.value,
        "status": status,
        "reason": clipped(finding.reason, WORD_BYTES),
        "message": clipped(finding.message, MESSAGE_BYTES),
        "observedGeneration": generation,
        "lastTransitionTime": kept or now,
    }
