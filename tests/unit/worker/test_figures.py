"""The numbers that an engine leaves behind, from the words of real failed starts.

data/failed_starts.jsonl quotes the lines with which 23 of the failed starts of
tests/data/vllm_startup_logs.jsonl (same ids) ended, from the pages named as `source`; the sources of the
others quote none, or only a part.
"""
# ruff: noqa: E501  log lines stay in one piece

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage_worker.exits import explain, render
from tonnage_worker.figures import NO_KV_MEMORY, NOT_FREE, OUT_OF_MEMORY, find_figures
from unit.models.samples import DATA

GIB, MIB = 2**30, 2**20
ROWS = [
    json.loads(line) for line in (Path(__file__).parent / "data/failed_starts.jsonl").read_text().splitlines()
]
AMOUNTS = st.integers(min_value=0, max_value=200 * GIB)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_what_real_failed_starts_said(row: dict[str, Any]) -> None:
    exit_ = explain(returncode=1, tail=[*row["lines"], "INFO shutting down"])
    assert exit_.reason == row["reason"]
    assert dict(exit_.figures) == row["figures"]


CARD = [json.loads(line) for line in (DATA / "gpu_rows.jsonl").read_text().splitlines()]
OUT_ON_THE_CARD = [row for row in CARD if row.get("exit", {}).get("reason") == "OutOfMemory"]


@pytest.mark.parametrize("row", OUT_ON_THE_CARD, ids=lambda row: row["id"])
def test_what_was_too_much_for_a_real_card(row: dict[str, Any]) -> None:
    """An H200 of 139.80 GiB that was given too many bytes on purpose: at the start, and in the first load."""
    found = explain(returncode=1, tail=[f"(EngineCore pid=1) ERROR {row['exit']['message']}"]).figures
    assert found["totalBytes"] == round(139.80 * GIB)
    assert found["freeBytes"] < found["triedBytes"]
    assert abs(found["freeBytes"] + found["inUseBytes"] - found["totalBytes"]) <= 3 * GIB // 200
    assert found["torchBytes"] + found["reservedBytes"] <= found["inUseBytes"]


def test_both_kinds_were_seen_on_the_card() -> None:
    assert {row["id"] for row in OUT_ON_THE_CARD} == {"qwen3-8b-oom-at-start", "qwen3-8b-oom-in-burst"}


def torch_writes(amount: int) -> str:
    """c10/util/Exception format_size: the largest unit that is not above the amount, two digits."""
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if amount >= size:
            return f"{amount / size:.2f} {unit}"
    return f"{amount} bytes"


def rounded(amount: int) -> int:
    unit = next((size for size in (GIB, MIB, 1024) if amount >= size), 100)
    return unit // 200 + 1


@given(tried=AMOUNTS, total=AMOUNTS, free=AMOUNTS, used=AMOUNTS, torch=AMOUNTS, kept=AMOUNTS)
def test_the_allocators_words(tried: int, total: int, free: int, used: int, torch: int, kept: int) -> None:
    line = (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {torch_writes(tried)}. GPU 0 has a "
        f"total capacity of {torch_writes(total)} of which {torch_writes(free)} is free. Process 51 has 500.00 MiB "
        f"memory in use. Process 7 has 1.50 GiB memory in use. Including non-PyTorch memory, this process has "
        f"{torch_writes(used)} memory in use. Of the allocated memory {torch_writes(torch)} is allocated by PyTorch, "
        f"with 62.00 MiB allocated in private pools (e.g., CUDA Graphs), and {torch_writes(kept)} is reserved by "
        "PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF"
    )
    found = find_figures([line, "later words"], OUT_OF_MEMORY)
    names = ("triedBytes", "totalBytes", "freeBytes", "inUseBytes", "torchBytes", "reservedBytes")
    for name, amount in zip(names, (tried, total, free, used, torch, kept), strict=True):
        assert abs(found[name] - amount) <= rounded(amount), name
    assert found["otherBytes"] == 500 * MIB + 3 * GIB // 2


def test_what_was_caught_and_raised_anew_keeps_its_numbers() -> None:
    tail = [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 150.00 MiB. GPU 0 has a total capacity of "
        "23.52 GiB of which 146.44 MiB is free.",
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests. Please try "
        "lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine.",
    ]
    exit_ = explain(returncode=1, tail=tail)
    assert "warming up sampler" in exit_.message
    assert exit_.figures["triedBytes"] == 150 * MIB
    assert exit_.figures["freeBytes"] == round(146.44 * MIB)


def test_the_newest_of_several_counts() -> None:
    lines = [f"(EngineCore pid=1) INFO Available KV cache memory: {gib} GiB" for gib in (1.5, -2.25)]
    assert find_figures(lines, NO_KV_MEMORY) == {"availableBytes": -9 * GIB // 4}


def test_a_cpu_without_room() -> None:
    line = (
        "RuntimeError: Worker failed with error 'Available memory on node 0 (15.5/17.25 GiB) on kv cache allocation "
        "is less than requested memory for kv (838.5 GiB). Decrease --kv-cache-memory-bytes'"
    )
    expected = {"freeBytes": 31 * GIB // 2, "neededBytes": 1677 * GIB // 2, "totalBytes": 69 * GIB // 4}
    assert find_figures([line], NOT_FREE) == expected


@given(st.lists(st.text(max_size=200), max_size=20))
def test_any_text_is_read(lines: list[str]) -> None:
    for patterns in (NO_KV_MEMORY, NOT_FREE, OUT_OF_MEMORY):
        assert all(isinstance(value, int) for value in find_figures(lines, patterns).values())


def test_they_are_in_the_termination_message_and_only_where_there_are_any() -> None:
    told = json.loads(render(explain(returncode=1, tail=ROWS[0]["lines"])))
    assert told["figures"] == ROWS[0]["figures"]
    assert "figures" not in json.loads(render(explain(returncode=1, tail=["ValueError: else"])))
