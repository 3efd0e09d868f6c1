"""What a plan's workers lacked: only figures of device memory count, and the worst of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tonnage.planning.plan import Plan
from tonnage.rendering.findings import parse_exit_message
from tonnage.rendering.observations import Pod, Termination
from tonnage.rendering.setback import SLACK_BYTES, find_setback, given_up, not_replanned
from unit.planning.gpu.samples import GIB, plan, pool
from unit.rendering.samples import pod

GPU_PLAN = plan(pool("H100-80GB"), context_length=8192)
OUT = {"reason": "OutOfMemory", "message": "CUDA out of memory", "exitCode": 1}
LACKED = {**OUT, "figures": {"triedBytes": 4 * GIB, "freeBytes": 3 * GIB}}


def ended(message: object, *, name: str = "chat-0", plan_hash: str = "p1", **fields: Any) -> Pod:
    text = message if isinstance(message, str) else json.dumps(message)
    exit_ = Termination(exit_code=1, reason="Error", message=text)
    return replace(pod(), name=name, labels={"tonnage.dev/plan": plan_hash}, last_exit=exit_, **fields)


def found(*pods: Pod, of: Plan = GPU_PLAN) -> Any:
    return find_setback(pods, plan=of, plan_hash="p1")


def test_what_was_missing_and_some_is_kept_free_in_steps() -> None:
    setback = found(ended(LACKED))
    assert (setback.pod, setback.reason, setback.missing_bytes) == ("chat-0", "OutOfMemory", GIB)
    assert setback.withheld_bytes == GIB + SLACK_BYTES
    little = replace(setback, missing_bytes=1)
    assert little.withheld_bytes == SLACK_BYTES + 2**28


def test_a_preflight_tells_the_same_by_other_names() -> None:
    told = {**OUT, "reason": "InsufficientMemory", "figures": {"neededBytes": 9 * GIB, "freeBytes": 7 * GIB}}
    assert found(ended(told)).missing_bytes == 2 * GIB


def test_the_worst_counts() -> None:
    worse = {**OUT, "figures": {"triedBytes": 9 * GIB, "freeBytes": GIB}}
    assert found(ended(LACKED), ended(worse, name="chat-1"), ended(LACKED, name="chat-2")).pod == "chat-1"


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no JSON",
        "[]",
        {"reason": "OutOfMemory", "message": "the kernel killed it"},
        {**LACKED, "reason": "NoKvMemory"},
        {**LACKED, "figures": None},
        {**LACKED, "figures": {"triedBytes": "much", "freeBytes": 1}},
        {**LACKED, "figures": {"triedBytes": 1 * GIB, "freeBytes": 3 * GIB}},
        {**LACKED, "figures": {"triedBytes": 2**60, "freeBytes": 0}},
        {**LACKED, "figures": {"triedBytes": float("inf"), "freeBytes": 0}},
        "[" * 100_000,
    ],
)
def test_what_tells_no_sane_figures_is_none(message: object) -> None:
    assert found(ended(message)) is None


def test_a_message_of_nothing_but_brackets_is_none_of_a_worker() -> None:
    assert parse_exit_message("[" * 100_000) is None


def test_pods_of_other_plans_and_plans_on_cpu_nodes_have_none() -> None:
    assert found(ended(LACKED, plan_hash="p0")) is None
    assert found(replace(pod(), labels={"tonnage.dev/plan": "p1"})) is None
    assert found(ended(LACKED), of=replace(GPU_PLAN, gpu=None)) is None


def test_words_say_what_was_missing_and_what_to_do() -> None:
    setback = found(ended(LACKED))
    text = given_up(setback, withheld_bytes=2 * GIB, plan=GPU_PLAN)
    assert "1.00 GiB were missing, in a plan that keeps 2.00 GiB free already" in text
    assert f"workload.concurrency below {GPU_PLAN.concurrency}" in text
    assert "tonnage.dev/replan" in text
    assert "1.50 GiB more free: no room" in not_replanned(setback, why="no room")
