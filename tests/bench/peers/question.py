"""What every estimator is asked, and how it answers or says that it cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
"""A parsed config.json."""


class UnansweredError(ValueError):
    """The estimator has no answer; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row of the oracle as a user of an estimator would put it.

    `kv_bytes` are available to the KV cache on each rank, `kv_dtype` is what the user asked for ("auto" if
    nothing), `context_tokens` the longest request.
    """

    model: str
    architecture: str
    config: Config
    hf_quant_config: Config | None
    tensor_parallel: int
    pipeline_parallel: int
    kv_dtype: str
    context_tokens: int
    kv_bytes: int

    @property
    def ranks(self) -> int:
        """GPUs that hold the model once."""
        return self.tensor_parallel * self.pipeline_parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A public estimator, its formula re-expressed here from `source`; `tokens` raises `UnansweredError`."""

    name: str
    source: str
    tokens: Callable[[Question], float]


def number(config: Config, *names: str) -> int:
    """The first of `names` that holds a positive number, else 0."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return int(value)
    return 0


def needed(config: Config, *names: str) -> int:
    """As `number`; raises `UnansweredError` where there is none."""
    value = number(config, *names)
    if not value:
        raise UnansweredError(f"config.json has no {' or '.join(names)}")
    return value


def part(config: Config, name: str) -> Config:
    """The object called `name` inside `config`, empty where there is none."""
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}


def ceil_div(dividend: int, divisor: int) -> int:
    """Division that rounds up."""
    return -(-dividend // divisor)
