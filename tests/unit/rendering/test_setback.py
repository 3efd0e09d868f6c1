"""What a plan's workers lacked: only figures of device memory count, and the worst of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tonnage.planning.plan import Plan, Rejection
from tonnage.rendering.decision import Decision
from tonnage.rendering.findings import parse_exit_message
from tonnage.rendering.observations import Pod, Termination
from tonnage.rendering.plan import Kept
from tonnage.rendering.setback import SLACK_BYTES, find_setback, given_up, unexplained
from tonnage_worker.exits import explain, render
from unit.planning.gpu.samples import GIB, plan, pool
from unit.planning.starts import DATA
from unit.rendering.samples import KEPT, pod

ROWS = [json.loads(line) for line in (DATA / "gpu_rows.jsonl").read_text().splitlines()]
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


def kept(of: Plan = GPU_PLAN, *, withheld: int = 0) -> Kept:
    return replace(KEPT, plan=of, inputs=f"x+{withheld}" if withheld else "x")


def test_words_say_what_was_missing_and_which_plan_would_do() -> None:
    setback = found(ended(LACKED))
    other = replace(GPU_PLAN, gpus_per_replica=2, blocks=77)
    outcome = Decision(kept=kept(other, withheld=7), plan_hash="p2", made=True)
    text = given_up(setback, kept=kept(withheld=2 * GIB), outcome=outcome)
    assert "1.00 GiB were missing, in a plan that keeps 2.00 GiB free already" in text
    assert f"2x {GPU_PLAN.product} can hold the same work with 3.50 GiB of each kept free, in 77 KV" in text
    assert "tonnage.dev/replan" in text


def test_where_there_is_none_words_say_what_would_fit() -> None:
    why = Rejection(reason="NotEnoughMemory", message="it would fit with workload.concurrency <= 12")
    text = given_up(found(ended(LACKED)), kept=kept(), outcome=why)
    assert "With 1.50 GiB of each device kept free there is no plan: it would fit with workload" in text
    assert "already" not in text


def test_what_no_estimate_explains_names_the_bytes_of_others() -> None:
    much = {**OUT, "reason": "InsufficientMemory"}
    figures = {"neededBytes": 70 * GIB, "freeBytes": 30 * GIB, "totalBytes": 79 * GIB}
    setback = found(ended({**much, "figures": figures}))
    others = (49 * GIB - GPU_PLAN.memory.context - GPU_PLAN.memory.non_torch) / GIB
    assert f"others have {others:.2f} GiB of it, end them" in unexplained(setback, kept=kept())
    del figures["totalBytes"]
    assert "another process" in unexplained(found(ended({**much, "figures": figures})), kept=kept())
    shared = {"triedBytes": 12 * GIB, "freeBytes": GIB, "otherBytes": 11 * GIB}
    setback = found(ended({**OUT, "figures": shared}))
    assert "others have 11.00 GiB of it" in unexplained(setback, kept=kept())


def test_what_is_kept_free_already_counts_too() -> None:
    setback = found(ended(LACKED))
    assert unexplained(setback, kept=kept()) == ""
    assert unexplained(setback, kept=kept(withheld=8 * GIB)) == ""
    assert "in a plan that keeps 9.00 GiB free already" in unexplained(setback, kept=kept(withheld=9 * GIB))


def test_what_a_preflight_on_a_card_told_is_read() -> None:
    """Qwen3-8B on an H200 of its own: what the worker itself has by then is nobody else's."""
    told = next(each for each in ROWS if each["id"] == "qwen3-8b-preflight")["exit"]
    setback = found(ended(told))
    assert round(setback.missing_bytes / GIB, 2) == 4.36
    assert setback.others_bytes == 0


@pytest.mark.parametrize(
    ("row", "missing_mib"), [("qwen3-8b-oom-at-start", 307), ("qwen3-8b-oom-in-burst", 68)]
)
def test_what_engines_wrote_is_read(row: str, missing_mib: int) -> None:
    """Qwen3-8B on an H200 with too many bytes for its KV cache: from the engine's last lines to what is
    missing."""
    written = next(each for each in ROWS if each["id"] == row)["exit"]["message"]
    told = render(explain(returncode=1, tail=[written]))
    setback = found(ended(told))
    assert setback.missing_bytes // 2**20 == missing_mib
    assert setback.others_bytes == 0
    assert setback.message.startswith("torch.OutOfMemoryError: CUDA out of memory")
