"""tests/data/log_rows.csv is what harness.log_rows makes of the logs, and guesses nothing."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from typing import Any

import pytest

from harness import log_rows
from tonnage.engines import release_of
from tonnage.models import LatentAttention, SlidingWindow, parse_config

ROWS = list(csv.DictReader(io.StringIO((log_rows.DATA / "log_rows.csv").read_text())))


def test_the_table_is_what_is_made_of_the_logs(capsys: pytest.CaptureFixture[str]) -> None:
    log_rows.main()
    assert capsys.readouterr().out == (log_rows.DATA / "log_rows.csv").read_text()


def test_no_version_is_stated_that_the_source_does_not() -> None:
    lines = (log_rows.DATA / "vllm_startup_logs.jsonl").read_text().splitlines()
    stated = {row["id"]: row.get("vllm_version", "") for row in map(json.loads, lines)}
    assert {row["id"]: row["engine_version"] for row in ROWS} == stated


def test_how_many_starts_say_everything() -> None:
    complete = [
        row for row in ROWS if not row["missing"] and row["outcome"] == "ok" and row["available_kv_gib"]
    ]
    assert len(ROWS) == 179
    assert len([row for row in complete if "C001" <= row["id"] <= "C062"]) == 49
    assert [row["id"] for row in complete if not "C001" <= row["id"] <= "C062"] == [
        "C063", "C064", "C065", "C066", "C074", "C081", "C140", "C141", "C203",
    ]  # fmt: skip


def test_where_figures_are_from_is_marked() -> None:
    assert Counter(row["weights_from"] for row in ROWS if row["weights_gib"]) == {"logged": 121}
    assert {row["max_num_seqs_from"] for row in ROWS if row["max_num_seqs"]} == {"stated", "default"}
    assert {row["total_from"] for row in ROWS if row["total_gib"]} == {
        "logged",
        "card",
        "out-of-memory error",
    }


def _configs() -> dict[str, dict[str, Any]]:
    lines = (log_rows.DATA / "log_configs.jsonl").read_text().splitlines()
    return {line["name"]: line for line in map(json.loads, lines)}


def _counted_by_blocks() -> list[dict[str, str]]:
    """Starts of one stage, of engines whose tokens were blocks times their size (before 0.21)."""
    return [
        row
        for row in ROWS
        if row["config"] in _configs()
        and row["core"] == "V1"
        and row["available_kv_gib"]
        and row["kv_tokens"]
        and row["pipeline_parallel"] == "1"
        and (0, 0) < (release_of(row["engine_version"]) or (0, 0)) < (0, 21)
    ]


@pytest.mark.parametrize("row", _counted_by_blocks(), ids=lambda row: row["id"])
def test_configs_of_logged_models_store_what_was_logged(row: dict[str, str]) -> None:
    """GiB over tokens; where window layers fill no whole group, its place is paid for: 70 of 62 layers
    (C010)."""
    line = _configs()[row["config"]]
    shape = parse_config(line["config"])
    layers = sum(_state_bytes(spec, int(row["tensor_parallel"])) * count for spec, count in shape.cache_runs)
    logged = float(row["available_kv_gib"]) * 2**30 / int(row["kv_tokens"])
    windows = any(isinstance(spec, SlidingWindow) for spec, _ in shape.cache_runs)
    assert line["source"]
    assert -0.002 < logged / layers - 1 < (0.13 if windows else 0.002)


def _state_bytes(spec: Any, ranks: int) -> int:
    if isinstance(spec, LatentAttention):
        return 2 * spec.latent_size
    return 2 * max(1, spec.kv_heads // ranks) * (spec.head_size + spec.head_size_v)
