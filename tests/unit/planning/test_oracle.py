"""Our figures against vLLM's own: 0.32.0's sizing code line by line of tests/data/kv_oracle.jsonl, and 0.26.0
on a real H200 and H100 (tests/data/gpu_rows.jsonl). Equal, or refused for the same reason."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from typing import Any

import pytest

from tonnage.models import FAMILIES, ConfigError, ModelShape, parse_config
from tonnage.planning.fit import Device, EngineOptions, Fit, fit
from unit.models.samples import DATA, published_configs, published_quantization
from unit.planning.oracle_rows import device_of, options_of

Row = dict[str, Any]
ROWS: list[Row] = [json.loads(line) for line in (DATA / "kv_oracle.jsonl").read_text().splitlines()]
GPU_ROWS: list[Row] = [json.loads(line) for line in (DATA / "gpu_rows.jsonl").read_text().splitlines()]
GIB = 2**30

COMPARED_REFUSALS = {
    "kv_cache_too_small",
    "len_over_derived_max",
    "tp_not_divisible",
    "unaligned_pages",
    "pp_unsupported",
}
"""Other refusals are artefacts of where the rows were made: missing kernels, packages or model code."""


@cache
def shape_of(config: str) -> ModelShape:
    return parse_config(published_configs()[config], hf_quant_config=published_quantization(config))


def answer(row: Row) -> Fit:
    return fit(
        shape_of(row["config"]),
        device=device_of(row),
        options=options_of(row),
        kv_bytes=row["available_bytes"],
        engine_version="0.32.0",
    )


def supported(row: Row) -> bool:
    return row.get("architecture") in FAMILIES


def rows_of(status: str) -> list[Row]:
    return [row for row in ROWS if row["status"] == status]


def name_of(row: Row) -> str:
    options = ",".join(f"{key}={value}" for key, value in row["engine_args"].items())
    return f"{row['model']}-{row['platform']}-tp{row['tp']}-pp{row['pp']}-{options}"


@pytest.mark.parametrize("row", [row for row in rows_of("ok") if supported(row)], ids=name_of)
def test_equal(row: Row) -> None:
    found = answer(row)
    assert found.fits, found.message
    assert found.bytes_per_block == row.get("bytes_per_block")
    assert found.num_blocks == row["num_blocks"]
    assert found.kv_tokens == row.get("tokens")
    assert found.max_concurrency == row.get("concurrency")
    assert found.block_tokens == row["block_size"]
    assert found.context_tokens == row["max_model_len"]


def test_at_least_95_percent_are_supported() -> None:
    ok = Counter(supported(row) for row in rows_of("ok"))
    assert ok[True] >= 0.95 * ok.total()


@pytest.mark.parametrize(
    "row",
    [row for row in rows_of("ok") if supported(row) and "weight_bytes_per_rank" in row],
    ids=name_of,
)
def test_weight_bytes_are_equal(row: Row) -> None:
    found = answer(row)
    if found.weights_bytes_by_stage is None:
        pytest.skip(f"the checkpoint format of {row['model']} is not known")
    assert found.weights_bytes_by_stage[0] == row["weight_bytes_per_rank"]


def test_the_formats_of_most_checkpoints_are_known() -> None:
    unknown = {
        row["model"] for row in rows_of("ok") if supported(row) and answer(row).weights_bytes_by_stage is None
    }
    assert len(unknown) <= 2, unknown


@pytest.mark.parametrize(
    "row",
    [row for row in rows_of("refused") if row["error_class"] in COMPARED_REFUSALS],
    ids=name_of,
)
def test_refused_for_the_same_reason(row: Row) -> None:
    found = answer(row)
    assert not found.fits
    assert found.reason == row["error_class"]
    if "estimated_max_model_len" in row:
        assert found.estimated_max_context == row["estimated_max_model_len"]


@pytest.mark.parametrize(
    "architecture", sorted({row.get("architecture", "") for row in ROWS} - set(FAMILIES) - {""})
)
def test_other_architectures_are_refused_by_name(architecture: str) -> None:
    for config in {row["config"] for row in ROWS if row.get("architecture") == architecture}:
        with pytest.raises(ConfigError, match=architecture):
            shape_of(config)


def gpu_answer(row: Row) -> Fit:
    config = {**published_configs()[f"{row['config']}_config.json"], **(row.get("patch") or {})}
    engine = row["engine"]
    return fit(
        parse_config(config),
        device=Device(compute_capability=(9, 0), name="NVIDIA H200", memory_bytes=141 * GIB),
        options=EngineOptions(
            context_tokens=engine["max_model_len"],
            max_num_seqs=engine["max_num_seqs"],
            max_num_batched_tokens=engine["max_num_batched_tokens"],
            kv_dtype=engine.get("kv_cache_dtype", "auto"),
            prefix_caching=engine.get("enable_prefix_caching"),
        ),
        kv_bytes=row["available_bytes"],
        engine_version=row["vllm"],
    )


@pytest.mark.parametrize("row", [row for row in GPU_ROWS if row["ok"]], ids=lambda row: str(row["id"]))
def test_equal_on_a_real_gpu(row: Row) -> None:
    found = gpu_answer(row)
    assert found.fits, found.message
    assert found.num_blocks == row["num_gpu_blocks"]
    assert found.kv_tokens == row["kv_cache_size_tokens"]
    assert found.block_tokens == row["block_size"]
    assert found.context_tokens == row["max_model_len"]
    assert found.max_concurrency == row["max_concurrency"]


def test_the_real_gpu_refuses_with_the_same_suggestion() -> None:
    (row,) = [row for row in GPU_ROWS if row["id"] == "qwen3-8b-toolong"]
    found = gpu_answer(row)
    assert (found.fits, found.reason) == (False, "kv_cache_too_small")
    assert f"estimated maximum model length is {found.estimated_max_context}." in row["error"]
