"""Our KV arithmetic against vLLM 0.32.0's own code, line by line of tests/data/kv_oracle.jsonl: equal."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tonnage.engines import KV_ELEMENT_BYTES, rules_for
from tonnage.models import FAMILIES, ConfigError, ModelShape, parse_config
from tonnage.planning.memory import (
    KvLayout,
    KvSettings,
    blocks_in,
    concurrency,
    engine_tokens,
    fits_one_request,
    kv_layout,
    longest_context,
)
from unit.models.samples import DATA, published_configs

CPU_KERNEL_BLOCK = rules_for("0.32.0").kernel_block_tokens
CUDA_KERNEL_BLOCK = 16

Row = dict[str, Any]
ROWS: list[Row] = [json.loads(line) for line in (DATA / "kv_oracle.jsonl").read_text().splitlines()]
CONFIGS = published_configs()


def kv_dtype_of(row: Row) -> str:
    """The dtype stored: a family that ignores the KV dtype stores the model's own."""
    fixed = FAMILIES[row["architecture"]].fixed_kv_dtype
    name: str = row["dtype"] if row["kv_cache_dtype"] == "auto" or fixed else row["kv_cache_dtype"]
    return name


def scope_of(row: Row) -> str:
    """Why a line is or is not compared; unknown architectures are checked to be refused by name."""
    if row["architecture"] not in FAMILIES:
        return "architecture refused"
    if row["pp"] != 1 or row["dcp"] != 1:
        return "several stages"
    if kv_dtype_of(row) not in KV_ELEMENT_BYTES:
        return "packed KV dtype"
    return "compared"


def layout_of(row: Row, shape: ModelShape) -> KvLayout:
    settings = KvSettings(
        block_tokens=row["block_size"],
        element_bytes=KV_ELEMENT_BYTES[kv_dtype_of(row)],
        in_flight_tokens=row["max_in_flight_tokens"],
        kernel_block_tokens=CPU_KERNEL_BLOCK if row["platform"] == "cpu" else CUDA_KERNEL_BLOCK,
        tensor_parallel=row["tp"],
        hybrid_manager=row["hybrid_kv_manager"],
    )
    return kv_layout(shape.layers, settings=settings)


def rows_of(status: str, *, error_class: str | None = None) -> list[Row]:
    return [row for row in ROWS if row["status"] == status and row.get("error_class") == error_class]


def name_of(row: Row) -> str:
    options = ",".join(f"{key}={value}" for key, value in row["engine_args"].items())
    return f"{row['model']}-{row['platform']}-tp{row['tp']}-{options}"


@pytest.mark.parametrize("row", [row for row in rows_of("ok") if scope_of(row) == "compared"], ids=name_of)
def test_equal(row: Row) -> None:
    layout = layout_of(row, parse_config(CONFIGS[row["config"]]))
    length = row["max_model_len"]
    blocks = blocks_in(layout, kv_bytes=row["available_bytes"])
    assert layout.bytes_per_block == row["bytes_per_block"]
    assert blocks == row["num_blocks"]
    assert engine_tokens(layout, blocks=blocks, context_tokens=length) == row["tokens"]
    assert concurrency(layout, blocks=blocks, length_tokens=length) == row["concurrency"]
    assert fits_one_request(layout, kv_bytes=row["available_bytes"], context_tokens=length)


def test_how_many_lines_are_compared() -> None:
    scopes = Counter(scope_of(row) for row in rows_of("ok"))
    assert scopes["compared"] >= 215
    assert scopes["several stages"] + scopes["packed KV dtype"] <= 15
    on_cpu = Counter(scope_of(row) for row in rows_of("ok") if row["platform"] == "cpu")
    assert on_cpu["compared"] >= 50
    # The one CPU line of a known family that is left out pins a KV dtype that CPU computes wrongly.
    assert on_cpu["packed KV dtype"] == 1
    assert on_cpu["several stages"] == 0


@pytest.mark.parametrize("architecture", sorted({row["architecture"] for row in ROWS} - set(FAMILIES)))
def test_other_architectures_are_refused_by_name(architecture: str) -> None:
    for config in {row["config"] for row in ROWS if row["architecture"] == architecture}:
        with pytest.raises(ConfigError, match=architecture) as caught:
            parse_config(CONFIGS[config])
        assert caught.value.reason == "UnknownArchitecture"


@pytest.mark.parametrize(
    "row",
    [row for row in rows_of("refused", error_class="kv_cache_too_small") if scope_of(row) == "compared"],
    ids=name_of,
)
def test_too_small_is_refused_with_the_engines_own_suggestion(row: Row) -> None:
    layout = layout_of(row, parse_config(CONFIGS[row["config"]]))
    kv_bytes, length = row["available_bytes"], row["max_model_len"]
    assert not fits_one_request(layout, kv_bytes=kv_bytes, context_tokens=length)
    suggested = longest_context(layout, kv_bytes=kv_bytes, limit_tokens=length)
    assert suggested == row["estimated_max_model_len"]


def test_how_many_refusals_are_compared() -> None:
    too_small = rows_of("refused", error_class="kv_cache_too_small")
    assert sum(scope_of(row) == "compared" for row in too_small) >= 5


@pytest.mark.parametrize(
    "row",
    [
        row
        for row in rows_of("refused", error_class="len_over_derived_max")
        if row["architecture"] in FAMILIES
    ],
    ids=name_of,
)
def test_a_context_past_the_models_limit_is_known(row: Row) -> None:
    assert parse_config(CONFIGS[row["config"]]).max_context_tokens < row["engine_args"]["max_model_len"]


@pytest.mark.parametrize(
    "row",
    [r for r in rows_of("ok") if r["architecture"] in FAMILIES and "max_model_len" not in r["engine_args"]],
    ids=name_of,
)
def test_the_default_context_is_the_engines(row: Row) -> None:
    assert parse_config(CONFIGS[row["config"]]).default_context_tokens == row["max_model_len"]
