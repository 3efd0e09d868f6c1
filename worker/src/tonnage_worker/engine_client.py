"""The worker's questions to the engine's HTTP server, each with a short timeout and never an exception."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import aiohttp

from .connections import WORKER_ADDRESS

HEALTH_TIMEOUT_SECONDS = 5.0
PAGE_TIMEOUT_SECONDS = 2.0
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError, ValueError)


class Health(StrEnum):
    """An answer to /health; SLOW is no answer in time, which a busy engine may give."""

    GOOD = "good"
    REFUSED = "refused"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class EngineClient:
    """Speaks to the engine on this pod's own loopback."""

    session: aiohttp.ClientSession
    port: int

    async def health(self) -> Health:
        """Ask /health once."""
        try:
            async with self.session.get(
                self._url("/health"), timeout=_timeout(HEALTH_TIMEOUT_SECONDS)
            ) as answer:
                return Health.GOOD if answer.status == 200 else Health.REFUSED
        except TimeoutError:
            return Health.SLOW
        except _FAILURES:
            return Health.REFUSED

    async def page(self) -> str | None:
        """The engine's metrics page; None if it does not come in time."""
        headers = {"Accept": "text/plain; version=0.0.4"}
        try:
            async with self.session.get(
                self._url("/metrics"), headers=headers, timeout=_timeout(PAGE_TIMEOUT_SECONDS)
            ) as answer:
                return await answer.text() if answer.status == 200 else None
        except _FAILURES:
            return None

    async def version(self) -> str | None:
        """The running engine's version; None if it does not tell."""
        try:
            async with self.session.get(
                self._url("/version"), timeout=_timeout(PAGE_TIMEOUT_SECONDS)
            ) as answer:
                body = await answer.json() if answer.status == 200 else {}
        except _FAILURES:
            return None
        version = body.get("version") if isinstance(body, dict) else None
        return version if isinstance(version, str) else None

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


def open_session() -> aiohttp.ClientSession:
    """A session whose connections are told from clients' by their address and never stay open."""
    connector = aiohttp.TCPConnector(local_addr=(WORKER_ADDRESS, 0), force_close=True, limit=8)
    return aiohttp.ClientSession(connector=connector)


def open_peer_session() -> aiohttp.ClientSession:
    """A session to other pods."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    """Is there anybody at `url`, whatever is said there?"""
    try:
        async with session.get(url, timeout=_timeout(PAGE_TIMEOUT_SECONDS)):
            return True
    except _FAILURES:
        return False


def _timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)
