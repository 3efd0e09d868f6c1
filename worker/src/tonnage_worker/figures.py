"""The numbers in what an engine wrote before it ended, for programs: bytes and tokens. Pure.

The engine rounds to hundredths of a GiB, so bytes are right to about 5 MiB. Patterns follow the messages of
vLLM 0.32 (file named at each), those of the V0 engine where they differ, and torch's allocator
(c10/cuda/CUDACachingAllocator.cpp, torch 2.13).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

_UNITS: Final = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_AMOUNT: Final = r"(?P<number>-?\d+(?:\.\d+)?) ?(?P<unit>bytes|[KMG]iB)"
_GIB: Final = r"(?P<number>-?\d+(?:\.\d+)?)"
_COUNT: Final = r"(?P<count>\d+)"

Patterns = Sequence[tuple[str, re.Pattern[str]]]


def _compiled(**texts: Sequence[str]) -> Patterns:
    return tuple((name, re.compile(text)) for name, alternatives in texts.items() for text in alternatives)


NO_KV_MEMORY: Final = _compiled(
    # v1/core/kv_cache_utils.py _check_enough_kv_cache_memory; last the V0 engine (engine/llm_engine.py)
    contextTokens=(rf"max seq len \({_COUNT}\)",),
    neededBytes=(rf"\({_GIB} GiB KV cache is needed", rf", {_GIB} GiB KV cache is needed"),
    availableBytes=(
        rf"available KV cache memory \({_GIB} GiB\)",
        rf"Available KV cache memory: {_GIB} GiB",  # v1/worker/gpu_worker.py
        rf"memory reserved for KV Cache is {_GIB}GiB",
    ),
    longestTokens=(
        rf"estimated maximum model length is {_COUNT}",
        rf"tokens that can be stored in KV cache \({_COUNT}\)",
    ),
)
"""A KV cache of `availableBytes` does not hold one request of `contextTokens`, which takes `neededBytes`;
`longestTokens` is the context length that the engine thinks it would hold."""

NOT_FREE: Final = _compiled(
    # v1/worker/utils.py request_memory; v1/worker/cpu_worker.py; tonnage_worker.preflight
    freeBytes=(rf"memory on .*?\({_GIB}/[\d.]+ GiB\)", rf"has {_AMOUNT} free of"),
    totalBytes=(rf"memory on .*?\([\d.]+/{_GIB} GiB\)", rf"free of {_AMOUNT}"),
    neededBytes=(
        rf"memory utilization \([\d.]+, {_GIB} GiB\)",
        rf"requested memory for kv \({_GIB} GiB\)",
        rf"the plan needs {_AMOUNT}",
    ),
)
"""`freeBytes` of `totalBytes` were free at the start, `neededBytes` were wanted."""

OUT_OF_MEMORY: Final = _compiled(
    triedBytes=(rf"Tried to allocate {_AMOUNT}",),
    totalBytes=(rf"total capacity of {_AMOUNT}",),
    freeBytes=(rf"of which {_AMOUNT} is free",),
    inUseBytes=(rf"this process has {_AMOUNT} (?:memory )?in use",),
    torchBytes=(rf"{_AMOUNT} is allocated by PyTorch",),
    reservedBytes=(rf"{_AMOUNT} is reserved by PyTorch but unallocated",),
)
"""An allocation of `triedBytes` failed: the device had `freeBytes`, this process `inUseBytes`, of which torch
had handed out `torchBytes` and kept `reservedBytes`."""

_OTHERS: Final = re.compile(rf"Process \d+ has {_AMOUNT} (?:memory )?in use")


def find_figures(lines: Sequence[str], patterns: Patterns) -> Mapping[str, int]:
    """The newest value of each name; a name that no line tells is left out."""
    found: dict[str, int] = {}
    for line in reversed(lines):
        for name, pattern in patterns:
            if name not in found and (match := pattern.search(line)):
                found[name] = _value(match)
        if patterns is OUT_OF_MEMORY and "otherBytes" not in found and (others := _others(line)):
            found["otherBytes"] = others
    return {name: found[name] for name in sorted(found)}


def _value(match: re.Match[str]) -> int:
    parts = match.groupdict()
    if "count" in parts:
        return int(parts["count"])
    return round(float(parts["number"]) * _UNITS[parts.get("unit") or "GiB"])


def _others(line: str) -> int:
    """Bytes that other processes have on the device."""
    return sum(map(_value, _matches(line)))


def _matches(line: str) -> Iterable[re.Match[str]]:
    return _OTHERS.finditer(line)
