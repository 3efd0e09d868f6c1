"""Which changes of a status are worth a write, and how soon."""

from __future__ import annotations

from typing import Any

import pytest

from tonnage.rendering.quiet import News, news, say_the_same
from unit.rendering.samples import report, worker

CONDITION = {"type": "Ready", "status": "True", "reason": "Serving", "message": "1 of 1"}
STATUS: dict[str, Any] = {
    "observedGeneration": 2,
    "phase": "Ready",
    "replicas": 1,
    "kvUsedSummary": "10%",
    "conditions": [CONDITION],
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"kvUsedSummary": "20%"}, News.CACHE_USE),
        ({"replicas": 2}, News.DETAILS),
        ({"replicas": 2, "kvUsedSummary": "20%"}, News.DETAILS),
        ({"conditions": [{**CONDITION, "message": "2 of 2"}]}, News.DETAILS),
        ({"conditions": [{**CONDITION, "reason": "Other"}]}, News.CONDITIONS),
        ({"conditions": [{**CONDITION, "status": "False"}], "replicas": 0}, News.CONDITIONS),
        ({"conditions": []}, News.CONDITIONS),
        ({"phase": "Degraded"}, News.CONDITIONS),
        ({"observedGeneration": 3, "phase": "Updating"}, News.GENERATION),
    ],
)
def test_the_most_urgent_part_decides(change: dict[str, Any], expected: News | None) -> None:
    assert news(STATUS, {**STATUS, **change}) is expected


def test_a_first_status_is_told_at_once() -> None:
    assert news({}, STATUS) is News.GENERATION
    assert News.GENERATION.hold_seconds == 0


def test_more_urgent_news_waits_less() -> None:
    holds = [one.hold_seconds for one in (News.GENERATION, News.CONDITIONS, News.DETAILS, News.CACHE_USE)]
    assert holds == sorted(set(holds))


def test_workers_say_the_same_while_only_their_use_within_a_step_moves() -> None:
    shown = {"kvUsedSummary": "50%"}
    before = [worker(report(kv_usage=0.5))]
    assert say_the_same(before, [worker(report(kv_usage=0.54))], status=shown)
    assert not say_the_same(before, [worker(report(kv_usage=0.6))], status=shown)
    assert not say_the_same(before, [worker(report("Mismatch", kv_usage=0.5))], status=shown)
    assert not say_the_same(before, [worker(None)], status=shown)
    assert not say_the_same(before, [], status=shown)
