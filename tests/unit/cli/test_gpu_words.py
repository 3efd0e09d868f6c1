"""Plans on GPUs in words: `tonnage plan` before, `tonnage explain` while they run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tonnage.cli.explain_text import lines_of as explained
from tonnage.cli.outcome import PLANNED, Outcome
from tonnage.cli.plan_text import lines_of as planned
from tonnage.cli.style import Style
from tonnage.gpus.inventory import Sharing
from tonnage.planning.plan import GpuPlan
from tonnage.rendering.decision import Decision
from tonnage.rendering.plan import build_plan_status
from unit.cli.plan_files import around
from unit.cli.test_explain import state
from unit.rendering.samples import A_SLICE, CLAIMED, EAGER, HASH, KEPT, ON_FOUR, on_gpus, spec

GRAPHS = "CUDA graphs FULL_AND_PIECEWISE of 4 sizes up to 8; 0.913 of each GPU must be free at the start"
IN_TURNS = dataclasses.replace(ON_FOUR, devices_per_pod=1, sharing=Sharing.TIME_SLICING, clients=4)
SAID = [
    (ON_FOUR, "4 x H100-80GB of 79.19 GiB (nvidia.com/gpu), tensor parallel 4"),
    (CLAIMED, "2 x H100-80GB of 79.19 GiB (device class gpu.nvidia.com), tensor parallel 2"),
    (A_SLICE, "1 x H100-80GB, a MIG instance of 19.62 GiB (nvidia.com/mig-1g.20gb)"),
    (IN_TURNS, "1 x H100-80GB, in turns with others, of 79.19 GiB (nvidia.com/gpu)"),
    (
        EAGER,
        "8 x H100-80GB of 79.19 GiB (nvidia.com/gpu), tensor parallel 4, pipeline parallel 2, over 2 nodes",
    ),
]


def explain(gpu: GpuPlan, **changes: Any) -> str:
    plan = build_plan_status(on_gpus(gpu, **changes).plan, plan_hash=HASH)
    lines = explained(state({"observedGeneration": 1, "plan": plan}), Style())
    return " ".join(" ".join(lines).split())


def plan(kept: Any) -> str:
    answer = Outcome(
        name="chat",
        namespace="default",
        where="chat.yaml",
        outcome=PLANNED,
        spec=spec(),
        decision=Decision(kept=kept, plan_hash=HASH, made=True),
    )
    return " ".join(" ".join(planned(answer, around(), Style())).split())


@pytest.mark.parametrize(("gpu", "said"), SAID)
def test_where_it_runs_is_said_alike_before_and_after(gpu: GpuPlan, said: str) -> None:
    for told in (explain(gpu), plan(on_gpus(gpu))):
        assert f"runs on {said} starts as" in told


def test_how_the_engine_is_started() -> None:
    said = f"starts as weights as shipped; attention by FLASH_ATTN; {GRAPHS}"
    assert said in explain(ON_FOUR)
    assert said in plan(on_gpus())


def test_what_is_quantized_is_said() -> None:
    told = explain(EAGER, kv_dtype="fp8")
    assert "weights quantized at the start: fp8_per_tensor; KV scales 1.0; attention by" in told
    assert "; no CUDA graphs; 0.913 of each GPU" in told
    own = explain(dataclasses.replace(ON_FOUR, kv_scales="checkpoint"))
    assert "KV scales of the checkpoint" in own


def test_main_memory_is_told_apart_from_that_of_a_gpu() -> None:
    told = plan(on_gpus())
    assert "each pod requests 25.00 GiB of main memory, /dev/shm of 5.00 GiB in it" in told
    memory = told[told.index("memory of one rank") :]
    assert "/dev/shm" not in memory


def test_a_plan_on_cpu_nodes_says_nothing_of_gpus() -> None:
    told = plan(KEPT)
    assert "starts as" not in told
    assert "each pod" not in told
    assert "/dev/shm" in told[told.index("memory of one replica") :]


def test_a_status_of_another_version_leaves_words_out() -> None:
    body = {"placement": {"product": "X", "gpusPerReplica": 2}, "engine": {}}
    told = " ".join(" ".join(explained(state({"observedGeneration": 1, "plan": body}), Style())).split())
    assert "runs on 2 x X" in told
    assert "starts as" not in told
