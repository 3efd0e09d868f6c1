"""Reads what the worker needs from an engine's Prometheus page (text format 0.0.4). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from .plan import Capacity, parse_number

_CAPACITY = "vllm:cache_config_info"
_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")  # the second: its name in older engines
_RUNNING = ("vllm:num_requests_running", "vllm:num_requests_waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePage:
    """The facts of one metrics page.

    `capacities`: engine index -> KV capacity. `kv_usage`: share of KV blocks in use, 0..1, of the fullest
    engine. `requests`: running and waiting ones of all engines. None: the page does not tell.
    """

    capacities: Mapping[str, Capacity]
    kv_usage: float | None
    requests: int | None


def read_page(text: str) -> EnginePage:
    """Read a page; raises ValueError where a line that is needed cannot be parsed."""
    samples = list(_samples(text))
    usage = [value for name, _, value in samples if name in _USAGE]
    requests = [value for name, _, value in samples if name in _RUNNING]
    return EnginePage(
        capacities={
            labels.get("engine", str(index)): _capacity(labels)
            for index, labels in enumerate(labels for name, labels, _ in samples if name == _CAPACITY)
        },
        kv_usage=max(usage, default=None),
        requests=int(sum(requests)) if requests else None,
    )


def _samples(text: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """The samples of the series used here; other lines (hundreds of histogram buckets) are not parsed."""
    wanted = (_CAPACITY, *_USAGE, *_RUNNING)
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def _capacity(labels: Mapping[str, str]) -> Capacity:
    """Figures from the labels; vLLM writes Python's `str()` of each field, so unset ones read "None"."""
    concurrency = labels.get("kv_cache_max_concurrency")
    return Capacity(
        blocks=_count(labels.get("num_gpu_blocks")),
        tokens=_count(labels.get("kv_cache_size_tokens")),
        concurrency=None if concurrency is None else parse_number(concurrency),
        block_size=_count(labels.get("block_size")),
        kv_dtype=labels.get("cache_dtype"),
    )


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
