"""The plan this worker must keep: `plan.json`, written by the operator and mounted read-only.

Only what the worker acts on is read; further keys (the full plan, for people) are ignored, so that an
operator may add to them without breaking running workers. `schema` guards the meaning of the keys read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SCHEMA = 1
_MISSING = object()


class PlanError(Exception):
    """The plan cannot be used; the message names the key, what is wrong with it, and what is expected."""


class Verification(StrEnum):
    """What becomes of an engine whose capacity differs from the plan (see `capacity.compare`)."""

    STRICT = "Strict"
    AT_LEAST = "AtLeast"
    REPORT = "Report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """KV capacity of one engine.

    `blocks` counts KV blocks of `block_size` tokens, `tokens` is the engine's own figure for what fits (for
    models with several cache groups it is not blocks x block size), `concurrency` is requests of the full
    context length, `kv_dtype` the engine's name of the cache's element type. None: not reported.
    """

    blocks: int | None
    tokens: int | None
    concurrency: float | None
    block_size: int | None
    kv_dtype: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """How long a drain may take, in seconds.

    `endpoint_seconds`: until clients have stopped opening connections and idle ones are closed.
    `shutdown_timeout_seconds`: for running requests to finish after that.
    """

    endpoint_seconds: float = 7.0
    shutdown_timeout_seconds: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What one rank allocates once its device is open, in bytes and on the safe side.

    `overheads` are activations, graphs and bursts; `device` is the total of the device that the plan counts
    on, None on a CPU.
    """

    weights: int
    kv: int
    overheads: int
    device: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """What `plan.json` asks of this worker. `memory` None: the operator that wrote it does not tell."""

    hash: str
    engine_version: str
    verification: Verification
    expected: Capacity
    drain: Drain
    memory: Memory | None = None


def parse_plan(text: str) -> WorkerPlan:
    """Read a plan from JSON text; raises PlanError."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise PlanError(f"the plan is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise PlanError(f"the plan must be a JSON object, found {type(document).__name__}")
    schema = document.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise PlanError(
            f"schema is {schema!r}, this worker reads {SCHEMA}: "
            "operator and worker image do not belong together"
        )
    return WorkerPlan(
        hash=_text(document, "hash"),
        engine_version=_text(document, "engineVersion"),
        verification=_verification(document),
        expected=_expected(_object(document, "expected")),
        drain=_drain(document),
        memory=_memory(document),
    )


def _verification(document: Mapping[str, Any]) -> Verification:
    value = _text(document, "verification")
    try:
        return Verification(value)
    except ValueError:
        known = ", ".join(Verification)
        raise PlanError(f"verification is {value!r}, must be one of {known}") from None


def _expected(values: Mapping[str, Any]) -> Capacity:
    where = "expected."
    return Capacity(
        blocks=_count(values, "blocks", where=where),
        tokens=_count(values, "tokens", where=where),
        concurrency=_decimal(values, "concurrency", where=where),
        block_size=_count(values, "blockSize", where=where),
        kv_dtype=_text(values, "kvDtype", where=where),
    )


def _drain(document: Mapping[str, Any]) -> Drain:
    if "drain" not in document:
        return Drain()
    values = _object(document, "drain")
    return Drain(
        endpoint_seconds=_seconds(values, "endpointSeconds", default=Drain().endpoint_seconds),
        shutdown_timeout_seconds=_seconds(
            values, "shutdownTimeoutSeconds", default=Drain().shutdown_timeout_seconds
        ),
    )


def _memory(document: Mapping[str, Any]) -> Memory | None:
    """From the part for people: what it lacks is no reason not to start."""
    try:
        told = document["plan"]["memoryBytes"]
        device = document["plan"]["placement"].get("deviceBytes")
        return Memory(
            weights=int(told["weights"]),
            kv=int(told["kv"]),
            overheads=int(told["activation"]) + int(told["graphs"]) + int(told["burstMargin"]),
            device=None if device is None else int(device),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _value(values: Mapping[str, Any], key: str, *, where: str) -> Any:
    value = values.get(key, _MISSING)
    if value is _MISSING:
        raise PlanError(f"{where}{key} is missing")
    return value


def _object(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = _value(values, key, where="")
    if not isinstance(value, dict):
        raise PlanError(f"{key} must be an object, found {value!r}")
    return value


def _text(values: Mapping[str, Any], key: str, *, where: str = "") -> str:
    value = _value(values, key, where=where)
    if not isinstance(value, str) or not value:
        raise PlanError(f"{where}{key} must be a text that is not empty, found {value!r}")
    return value


def _count(values: Mapping[str, Any], key: str, *, where: str) -> int:
    value = _value(values, key, where=where)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PlanError(f"{where}{key} must be a whole number of at least 1, found {value!r}")
    return value


def _decimal(values: Mapping[str, Any], key: str, *, where: str) -> float:
    value = _value(values, key, where=where)
    number = parse_number(value) if isinstance(value, str) else None
    if number is None or number <= 0:
        raise PlanError(
            f'{where}{key} must be a positive number written as text, such as "2.84375", found {value!r}'
        )
    return number


def _seconds(values: Mapping[str, Any], key: str, *, default: float) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 86_400:
        raise PlanError(f"drain.{key} must be seconds from 0 to a day, found {value!r}")
    return float(value)


def parse_number(text: str) -> float | None:
    """A finite number from its text; None if it is not one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None
