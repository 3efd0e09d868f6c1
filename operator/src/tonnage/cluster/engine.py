"""What a worker says of its engine: one small GET, never on a request's path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from tonnage.rendering.observations import Capacity, Pod, Report
from tonnage.rendering.settings import WORKER_PORT

TIMEOUT_SECONDS = 3.0
MAX_ANSWER_BYTES = 64 * 1024


class EngineScraper:
    """Reads worker reports over HTTP."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def report(self, pod: Pod) -> Report | None:
        """The report of a pod's worker; None if it does not answer or answers nonsense."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        try:
            async with self._session.get(f"http://{pod.address}:{WORKER_PORT}/capacity") as response:
                if response.content_length is not None and response.content_length > MAX_ANSWER_BYTES:
                    return None
                return parse_report(await response.json())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def parse_report(body: Mapping[str, Any]) -> Report | None:
    """A /capacity answer as a record; None if it is not one."""
    try:
        observed = body.get("observed")
        return Report(
            state=str(body["state"]),
            plan_hash=str(body["planHash"]),
            observed=_capacity(observed) if observed else None,
            engine_version=str(body.get("engineVersion") or ""),
            start_seconds=_number(body.get("startSeconds")),
            reason=str(body.get("reason") or ""),
            message=str(body.get("message") or "")[:512],
            kv_usage=_number(body.get("kvUsage")),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _capacity(body: Mapping[str, Any]) -> Capacity:
    return Capacity(
        blocks=int(body["blocks"] or 0),
        tokens=int(body["tokens"] or 0),
        concurrency=str(body["concurrency"] or ""),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
