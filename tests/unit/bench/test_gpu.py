"""The rows of `make bench-gpu`, without a GPU: what would be started, and what becomes of what comes back."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import RECORDED, LackingError, look, main, table
from bench.gpu_fixtures import fixture
from bench.gpu_rows import ROWS, Row
from bench.gpu_run import _take
from bench.gpu_specs import Bench, build_spec, write_specs
from tonnage_worker.plan import parse_plan

GIB = 2**30
SAME = ("--max-model-len", "--max-num-seqs", "--max-num-batched-tokens", "--kv-cache-dtype", "--block-size")


def spec_of(row: Row) -> dict[str, Any]:
    return build_spec(row, bench=Bench(card=row.card, devices=row.devices))


def option(spec: dict[str, Any], name: str) -> str | None:
    return dict(pairwise(spec["arguments"])).get(name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_can_be_started(row: Row) -> None:
    spec = spec_of(row)
    plan = parse_plan(json.dumps(spec["plan"]))
    assert (plan.memory is None) == (not row.preflight)
    assert spec["config_json"]["architectures"]
    longest = max(burst["prompt_tokens"] + burst["output_tokens"] for burst in spec["bursts"])
    assert longest <= int(option(spec, "--max-model-len") or 0)
    assert (option(spec, "--kv-cache-memory-bytes") is None) == (row.kind == "control")
    if row.kind == "control":
        assert option(spec, "--gpu-memory-utilization") == row.share


@pytest.mark.parametrize("model", ["8b", "32b", "70b-fp8", "30b-a3b"])
def test_what_is_compared_differs_in_nothing_but_the_bytes(model: str) -> None:
    control, pinned = (
        spec_of(next(row for row in ROWS if row.id == f"fill-{model}-{kind}"))
        for kind in ("control", "pinned")
    )
    assert [option(control, name) for name in SAME] == [option(pinned, name) for name in SAME]
    assert _others(control) == _others(pinned)
    assert pinned["bursts"][-1]["requests"] == 256
    assert pinned["bursts"][-1]["prompt_tokens"] == 4096 - 32


def _others(spec: dict[str, Any]) -> list[tuple[str, str]]:
    """All pairs of words but those that say how much memory is taken, and what stands before and after."""
    return sorted(
        pair
        for pair in pairwise([*spec["arguments"], ""])
        if pair[0].startswith("--") and "memory" not in pair[0]
    )


def test_a_row_that_does_not_fit_makes_place_for_one_that_does() -> None:
    pending = [{"id": "a", "needs_s": 90}, {"id": "b", "needs_s": 30}]
    assert (_take(pending, seconds=50) or {})["id"] == "b"
    assert _take(pending, seconds=50) is None
    assert [spec["id"] for spec in pending] == ["a"]


def told(name: str, *, tokens: int, survived: bool = True) -> dict[str, Any]:
    """What `gpu_run` writes of a row, cut to what is read of it."""
    spec = spec_of(next(row for row in ROWS if row.id == name))
    burst = {**spec["bursts"][-1], "completed": 256, "failed": 0, "seconds": 9.5, "peak_used": 137 * GIB}
    burst |= {
        "most": {"running": 200.0, "kv_usage": 0.98765},
        "engine": {"free": 2 * GIB, "alloc_retries": 1},
    }
    return {
        **{key: spec[key] for key in ("id", "kind", "config", "patch", "arguments")},
        "survived": survived,
        "start": {"ready_s": 50.0},
        "exit": {"reason": "Interrupted"},
        "log": ["INFO [backends.py:393] Compiling a graph for compile range (1, 8192) takes 8.13 s"],
        "bursts": [burst],
        "engine": {
            "vllm": "0.26.0",
            "num_gpu_blocks": tokens // 16,
            "block_size": 16,
            "kv_cache_size_tokens": tokens,
            "max_concurrency": tokens / 4096,
            "max_model_len": 4096,
            "v2_runner": True,
            "architectures": ["Qwen3ForCausalLM"],
            "kv_tensor_bytes": tokens * 1024,
            "sched": {"max_num_seqs": 256, "max_num_batched_tokens": 8192},
            "cache": {
                "util": 0.92,
                "prefix": True,
                "kv_cache_memory_bytes": None if spec["kind"] == "control" else 7,
            },
            "compile": {"sizes": 51, "seconds": 29.3},
            "snap": {"warmup": {"free": 3 * GIB}},
            "mem": {
                "available_kv": tokens * 1024,
                "param_bytes": 5,
                "weights": 6,
                "total": 140 * GIB,
                "free_at_start": 139 * GIB,
                "profile_peak": 11,
                "peak_activation": 12 if spec["kind"] == "control" else None,
            },
        },
    }


def test_figures_of_a_row() -> None:
    control, pinned = (fixture(told(f"fill-8b-{kind}", tokens=800_000)) for kind in ("control", "pinned"))
    assert (control["memory"]["activation"], pinned["memory"]["activation"]) == (12, 11)
    assert control["memory"]["cold"]
    loaded = told("fill-8b-control", tokens=800_000) | {"log": ["Directly load the compiled graph(s)"]}
    assert not fixture(loaded)["memory"]["cold"]
    assert (control["memory"]["pinned"], pinned["memory"]["pinned"]) == (False, True)
    assert pinned["memory"]["used_at_ready"] == 137 * GIB
    assert pinned["memory"]["used_after_burst"] == 138 * GIB
    assert pinned["engine"]["max_num_seqs"] == 256
    assert pinned["bursts"][0]["kv_usage"] == 0.9877
    assert "exit" not in pinned


def test_a_row_that_failed_keeps_its_reason() -> None:
    row = told("fill-8b-pinned", tokens=1, survived=False)
    row["engine"] = {}
    found = fixture(row)
    assert (found["ok"], found["exit"]) == (False, {"reason": "Interrupted"})
    assert "memory" not in found


def test_the_table() -> None:
    rows = {
        "fill-8b-control": 790_000,
        "fill-8b-pinned": 856_000,
        "fill-8b-plan": 848_000,
        "fill-8b-control-warm": 800_000,
        "fill-32b-control": 1,
    }
    lines = table([fixture(told(name, tokens=tokens)) for name, tokens in rows.items()])
    assert len(lines) == 3
    burst = "256 of 256 × 4,064 tokens; 137.00 of 140.00 GiB"
    assert lines[2].startswith(f"| Qwen3-8B | 790,000 | 800,000 | 856,000 | +7.0% | {burst} | ")
    assert f"848,000 (+6.0%); {burst.replace('of 256', 'of 512')}" in lines[2]


RECORDED_ROWS = [json.loads(line) for line in RECORDED.read_text().splitlines()]
FILLED = {row["id"]: row for row in RECORDED_ROWS if row["id"].startswith("fill-")}


def test_the_readme_has_the_table_of_the_recorded_rows() -> None:
    readme = (RECORDED.parents[2] / "README.md").read_text()
    assert "\n".join(table(RECORDED_ROWS)) in readme


@pytest.mark.parametrize(
    ("model", "least"), [("8b", 0.05), ("32b", 0.08), ("70b-fp8", 0.08), ("30b-a3b", 0.08)]
)
def test_a_plan_holds_more_than_a_share_and_survives(model: str, least: float) -> None:
    pinned = FILLED[f"fill-{model}-pinned"]
    controls = [FILLED[f"fill-{model}-{name}"] for name in ("control", "control-warm")]
    before = max(row["kv_cache_size_tokens"] for row in controls)
    assert pinned["kv_cache_size_tokens"] >= (1 + least) * before
    assert pinned["ok"]
    long = pinned["bursts"][-1]
    assert (long["prompt_tokens"], long["completed"], long["failed"]) == (4064, 256, 0)
    assert long["allocation_retries"] == 0


@pytest.mark.parametrize("name", sorted(name for name in FILLED if "control" not in name))
def test_plans_of_today_promise_no_more_than_the_card_had_left(name: str) -> None:
    row = FILLED[name]
    planned = int(
        option(spec_of(next(row for row in ROWS if row.id == name)), "--kv-cache-memory-bytes") or 0
    )
    left = row["total_bytes"] - max(burst["peak_used"] for burst in row["bursts"])
    assert planned <= row["memory"]["kv"] + left


def test_without_a_gpu_it_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LackingError, match="no GPU that torch can use: ModuleNotFoundError"):
        look(sys.executable)
    with pytest.raises(LackingError, match="cannot be run"):
        look("/nowhere/python")
    assert main(["--python", sys.executable]) == 2
    assert "ENGINE_PYTHON=" in capsys.readouterr().err


def test_rows_are_made_for_the_engine_and_the_card_that_are_there(tmp_path: Path) -> None:
    host = tmp_path / "python"
    host.write_text(
        "#!/bin/sh\n"
        "case $3 in *count*) echo 2;; *torch*) echo NVIDIA H100 80GB HBM3;; *vllm*) echo 0.32.0;; esac\n"
    )
    host.chmod(0o755)
    bench = look(str(host))
    assert (bench.version, bench.pool.product) == ("0.32.0", "H100-80GB")
    file = tmp_path / "specs.json"
    assert write_specs(file, bench=bench) > 0
    specs = {spec["id"]: spec for spec in json.loads(file.read_text())}
    assert "fill-8b-pinned" in specs
    assert "tp2-70b-fp8-pinned" in specs
    assert "mixtral-8x7b-s64-t2048" not in specs
    assert {spec["plan"]["engineVersion"] for spec in specs.values()} == {"0.32.0"}
