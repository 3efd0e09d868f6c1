"""What a worker says of its engine: one small GET, never on a request's path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from tonnage.rendering.observations import Capacity, DeviceMemory, Pod, Report
from tonnage.rendering.settings import WORKER_PORT

TIMEOUT_SECONDS = 3.0
MAX_ANSWER_BYTES = 64 * 1024
OK = 200


class EngineScraper:
    """Reads worker reports over HTTP."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def report(self, pod: Pod) -> Report | None:
        """The report of a pod's worker; None if it does not answer or answers nonsense."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
                # a worker is asked once in a while: as many connections as workers would be held for naught
                connector=aiohttp.TCPConnector(force_close=True),
            )
        try:
            # the pod may be anybody's: no redirect is followed, and no more is read than a report can be
            async with self._session.get(
                f"http://{pod.address}:{WORKER_PORT}/capacity", allow_redirects=False
            ) as response:
                text = await _bounded(response.content)
                return parse_report(json.loads(text)) if response.status == OK and text else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError):
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


async def _bounded(stream: aiohttp.StreamReader) -> bytes:
    """All of a short answer; nothing of a longer one."""
    text = b""
    async for chunk in stream.iter_any():
        text += chunk
        if len(text) > MAX_ANSWER_BYTES:
            return b""
    return text


def parse_report(body: object) -> Report | None:
    """A /capacity answer as a record, its texts cut to what a status holds; None if it is not one."""
    if not isinstance(body, Mapping):
        return None
    try:
        observed = body.get("observed")
        return Report(
            state=_text(body["state"], 64),
            plan_hash=_text(body["planHash"], 64),
            observed=_capacity(observed) if observed else None,
            engine_version=_text(body.get("engineVersion"), 64),
            start_seconds=_number(body.get("startSeconds"), most=1e7),
            reason=_text(body.get("reason"), 64),
            message=_text(body.get("message"), 512),
            kv_usage=_number(body.get("kvUsage"), most=1.0),
            memory=_memory(body.get("memory")),
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def _capacity(body: Mapping[str, Any]) -> Capacity:
    return Capacity(
        blocks=_count(body["blocks"]),
        tokens=_count(body["tokens"]),
        concurrency=_text(body["concurrency"], 64),
    )


def _memory(body: object) -> DeviceMemory | None:
    """What a worker tells of its device; nothing of it is needed for what else it says."""
    if not isinstance(body, Mapping):
        return None
    try:
        return DeviceMemory(
            total_bytes=_count(body["totalBytes"]),
            free_at_start_bytes=_count(body["freeAtStartBytes"]),
            free_at_ready_bytes=_count(body["freeAtReadyBytes"]),
            compiled=_flag(body["compiled"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _text(value: Any, most: int) -> str:
    return str(value or "")[:most]


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.20} is neither true nor false")
    return value


def _count(value: Any) -> int:
    count = int(value or 0)
    if not 0 <= count < 2**63:
        raise ValueError(f"{count} is no count")
    return count


def _number(value: Any, *, most: float) -> float | None:
    number = 0.0 if value is None else float(value)
    if not 0 <= number <= most:  # NaN is not
        raise ValueError(f"{number} is not between 0 and {most}")
    return None if value is None else number
