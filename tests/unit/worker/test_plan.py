"""plan.json: what is read, and what is refused with which words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tonnage_worker.plan import Capacity, Drain, PlanError, Verification, WorkerPlan, parse_plan


def document(**changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "schema": 1,
        "hash": "1f2e3d4c5b",
        "engineVersion": "0.32.0",
        "verification": "Strict",
        "expected": {
            "blocks": 182,
            "tokens": 5824,
            "concurrency": "2.84375",
            "blockSize": 32,
            "kvDtype": "auto",
            "kvCacheMemoryBytes": 134217728,
        },
        "drain": {"endpointSeconds": 7, "shutdownTimeoutSeconds": 120},
        "plan": {"anything": ["for", "people"]},
    }
    for path, value in changes.items():
        *parents, key = path.split("__")
        target = plan
        for parent in parents:
            target = target[parent]
        if value is None:
            del target[key]
        else:
            target[key] = value
    return plan


def test_reads_what_the_operator_writes() -> None:
    assert parse_plan(json.dumps(document())) == WorkerPlan(
        hash="1f2e3d4c5b",
        engine_version="0.32.0",
        verification=Verification.STRICT,
        expected=Capacity(blocks=182, tokens=5824, concurrency=2.84375, block_size=32, kv_dtype="auto"),
        drain=Drain(endpoint_seconds=7.0, shutdown_timeout_seconds=120.0),
    )


def test_a_plan_without_drain_uses_the_defaults() -> None:
    assert parse_plan(json.dumps(document(drain=None))).drain == Drain(
        endpoint_seconds=7.0, shutdown_timeout_seconds=120.0
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, "schema is 2, this worker reads 1"),
        ({"schema": True}, "schema is True"),
        ({"schema": None}, "schema is None"),
        ({"hash": None}, "hash is missing"),
        ({"hash": ""}, "hash must be a text that is not empty"),
        ({"engineVersion": 32}, "engineVersion must be a text"),
        ({"verification": "Lax"}, "must be one of Strict, AtLeast, Report"),
        ({"expected": None}, "expected is missing"),
        ({"expected": [182]}, "expected must be an object"),
        ({"expected__blocks": None}, "expected.blocks is missing"),
        ({"expected__blocks": "182"}, "expected.blocks must be a whole number"),
        ({"expected__blocks": 0}, "expected.blocks must be a whole number of at least 1"),
        ({"expected__tokens": True}, "expected.tokens must be a whole number"),
        ({"expected__blockSize": 32.5}, "expected.blockSize must be a whole number"),
        ({"expected__concurrency": 2.84}, "expected.concurrency must be a positive number written as text"),
        ({"expected__concurrency": "many"}, "expected.concurrency must be a positive number"),
        ({"expected__concurrency": "inf"}, "expected.concurrency must be a positive number"),
        ({"expected__concurrency": "nan"}, "expected.concurrency must be a positive number"),
        ({"expected__concurrency": "-1"}, "expected.concurrency must be a positive number"),
        ({"expected__kvDtype": None}, "expected.kvDtype is missing"),
        ({"drain": 7}, "drain must be an object"),
        ({"drain__endpointSeconds": -1}, "drain.endpointSeconds must be seconds"),
        ({"drain__shutdownTimeoutSeconds": "2m"}, "drain.shutdownTimeoutSeconds must be seconds"),
    ],
)
def test_refuses_and_names_the_key(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError) as refusal:
        parse_plan(json.dumps(document(**changes)))
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "words"), [("{", "not JSON"), ("[]", "must be a JSON object"), ("", "not JSON")]
)
def test_refuses_what_is_no_object(text: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        parse_plan(text)
