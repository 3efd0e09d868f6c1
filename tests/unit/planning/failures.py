"""Logged starts put to our laws: which failures would have been foreseen, which successes refused.

A start is decided by the first of these that its source states enough for: its free memory, its weights, our
whole budget, what it logged itself of its memory, and the KV cache that one request needs of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from tonnage.models import ConfigError, ModelShape
from tonnage.planning.fit import Device, EngineOptions, LaidOut, lay_out
from tonnage.planning.memory import fits_one_request
from tonnage.planning.settle import RefusedError
from tonnage.planning.weights import IndivisibleError, stored_in_fp8, weight_bytes
from unit.planning.starts import GIB, logged_start, shape_named
from unit.planning.verdict import verdict

PREDICTED: Final = "predicted"
MISSED: Final = "missed"
UNDECIDABLE: Final = "undecidable"
STARTS: Final = "starts"
_LEAST_CONTEXT_GIB: Final = 0.45
"""The smallest part of a device that is neither the engine's share nor anyone's on the cards whose whole
memory is at hand: no start of the logs lived with less outside its share."""
_NOT_OF_MEMORY: Final = "not_memory_dp2_crash"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A start: `verdict` is one of the words above, `why` what it was decided by or what is missing."""

    id: str
    failed: bool
    verdict: str
    why: str


def judge(row: dict[str, str]) -> Judged:
    """What is said of a line of tests/data/log_rows.csv, whatever became of it."""
    failed = row["outcome"] == "fails"
    if row["fail_class"] == _NOT_OF_MEMORY:
        return Judged(id=row["id"], failed=failed, verdict=UNDECIDABLE, why="it did not fail for memory")
    found = next(_refusals(row), None)
    if found is not None:
        return Judged(id=row["id"], failed=failed, verdict=PREDICTED, why=found)
    if row["missing"]:
        return Judged(id=row["id"], failed=failed, verdict=UNDECIDABLE, why=row["missing"])
    word = MISSED if failed else STARTS
    return Judged(id=row["id"], failed=failed, verdict=word, why="every check of the budget passes")


def _refusals(row: dict[str, str]) -> Iterator[str]:
    yield from _free_memory(row)
    yield from _weights(row)
    yield from _nothing_outside(row)
    if not row["missing"]:
        start = logged_start(row)
        found = verdict(start.budget, start.load.laid, utilization=start.share)
        if found is not None:
            yield f"our budget: {found.message}"
    yield from _own_figures(row)
    yield from _one_request(row)


def _free_memory(row: dict[str, str]) -> Iterator[str]:
    """What fails at this check logs nothing after it: of two starts on one page the later figures are
    another's (C178)."""
    free, share = _number(row, "free_at_start_gib"), _share(row, row["total_gib"])
    later = row["available_kv_gib"] or row["kv_available_at_failure_gib"]
    if free is not None and share is not None and not later and free < share:
        yield f"free at its start: {free:.2f} GiB, its share {share:.2f}"


def _weights(row: dict[str, str]) -> Iterator[str]:
    share = _share(row, row["total_gib"] or row["stated_size_gib"]) or _number(row, "stated_size_gib")
    weights = _number(row, "weights_gib") or _weights_by_config(row)
    if share is not None and weights is not None and weights > share:
        yield f"weights: {weights:.2f} GiB, its share {share:.2f}"


def _weights_by_config(row: dict[str, str]) -> float | None:
    if not row["config"] or not row["tensor_parallel"] or row["quantization"] not in {"", "fp8"}:
        return None
    shape = _shape(row)
    try:
        found = weight_bytes(shape, dtype="bfloat16", tensor_parallel=int(row["tensor_parallel"]))
    except IndivisibleError:
        return None
    return max(found) / GIB


def _nothing_outside(row: dict[str, str]) -> Iterator[str]:
    total, share = _number(row, "total_gib"), _share(row, row["total_gib"])
    if total is not None and share is not None and total - share < _LEAST_CONTEXT_GIB:
        yield f"outside its share: {total - share:.2f} GiB, less than a CUDA context takes"


def _own_figures(row: dict[str, str]) -> Iterator[str]:
    """What it logged before it died: everything that it knew of, with the context, against the device."""
    names = (
        "total_gib",
        "free_at_start_gib",
        "consumed_gib",
        "activation_gib",
        "graphs_gib",
        "kv_in_use_gib",
    )
    total, free, *parts = (_number(row, name) for name in names)
    if total is None or free is None or any(part is None for part in parts):
        return
    used = total - free + sum(part for part in parts if part is not None)
    if used > total:
        yield f"its own figures add up to {used:.2f} of {total:.2f} GiB"


def _one_request(row: dict[str, str]) -> Iterator[str]:
    available = _number(row, "kv_available_at_failure_gib") or _number(row, "available_kv_gib")
    laid = None if available is None or available <= 0 else _laid(row)
    if laid is None or available is None:
        return
    spare = max(laid.layout.stage_bytes)
    context = laid.settled.context_tokens
    if not fits_one_request(laid.layout, kv_bytes=int(available * GIB) + spare, context_tokens=context):
        yield f"one request of {context} tokens: the {available:.2f} GiB that it logged do not hold it"


def _laid(row: dict[str, str]) -> LaidOut | None:
    if not row["config"] or not row["tensor_parallel"]:
        return None
    options = EngineOptions(
        tensor_parallel=int(row["tensor_parallel"]),
        pipeline_parallel=int(row["pipeline_parallel"] or 1),
        dtype=row["dtype"] or None,
        kv_dtype=row["kv_dtype"] or "auto",
        context_tokens=int(row["max_model_len"]) if row["max_model_len"] else None,
        max_num_seqs=int(row["max_num_seqs"] or 0) or None,
        max_num_batched_tokens=int(row["max_num_batched_tokens"] or 0) or None,
    )
    major, minor = (row["capability"] or "9.0").split(".")
    device = Device(compute_capability=(int(major), int(minor)))
    # Later versions of a model have the shape of an earlier one and a longer limit.
    shape = _shape(row)
    shape = replace(shape, max_context_tokens=max(shape.max_context_tokens, options.context_tokens or 0))
    try:
        return lay_out(shape, device=device, options=options, engine_version="0.26.0")
    except (RefusedError, ConfigError):
        return None


def _shape(row: dict[str, str]) -> ModelShape:
    shape = shape_named(row["config"])
    if row["quantization"] == "fp8" and shape.quantization is None:
        return stored_in_fp8(shape)
    return shape


def _share(row: dict[str, str], total: str) -> float | None:
    return float(row["utilization"]) * float(total) if row["utilization"] and total else None


def _number(row: dict[str, str], name: str) -> float | None:
    return float(row[name]) if row[name] else None
