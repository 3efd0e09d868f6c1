"""A steady load of chat completions, strict about what counts as success.

A cut stream can look like success: vLLM may answer 200 and even send `[DONE]`. So a request has succeeded
only if its finish reason and its usage are those of a complete answer of exactly the tokens asked for.
"""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

_PROMPT = "Write one sentence about the sea."
_TIMEOUT_SECONDS = 120.0
_KEEP_ALIVE_SECONDS = 4.0
"""Less than the engine's 5 s: else a connection that it closes just now counts as a lost request."""


@dataclass(frozen=True)
class Failure:
    """One request that did not get its complete answer."""

    number: int
    streaming: bool
    began_seconds: float
    lasted_seconds: float
    detail: str


@dataclass
class Report:
    """What became of the requests; times count from the start of the load."""

    sent: int = 0
    succeeded: int = 0
    failures: list[Failure] = field(default_factory=list)
    latencies_seconds: list[float] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Requests that neither succeeded nor failed: the load itself broke off."""
        return self.sent - self.succeeded - len(self.failures)

    def __str__(self) -> str:
        lines = [f"{self.sent} requests, {self.succeeded} succeeded, {len(self.failures)} failed"]
        return "\n".join(lines + [f"  {failure}" for failure in self.failures])


class IncompleteAnswerError(Exception):
    """The server answered, but not with what was asked for."""


@dataclass
class Load:
    """Sends `rate` requests a second over keep-alive connections, every second one streaming."""

    url: str
    model: str
    rate: float = 2.0
    tokens: int = 16
    report: Report = field(default_factory=Report)
    _stopping: threading.Event = field(default_factory=threading.Event)

    async def _run(self) -> None:
        begun = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS)
        client = aiohttp.ClientSession(timeout=timeout, connector=connector)
        async with client as session, asyncio.TaskGroup() as group:
            while not self._stopping.is_set():
                group.create_task(self._request(session, self.report.sent, begun))
                self.report.sent += 1
                due = begun + self.report.sent / self.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _request(self, session: aiohttp.ClientSession, number: int, load_begun: float) -> None:
        streaming = bool(number % 2)
        begun = time.monotonic()
        try:
            await (self._stream if streaming else self._whole)(session)
        except Exception as error:  # whatever it was, this request did not succeed
            detail = f"{type(error).__name__}: {error}"
            lasted = time.monotonic() - begun
            self.report.failures.append(Failure(number, streaming, begun - load_begun, lasted, detail))
        else:
            self.report.succeeded += 1
            self.report.latencies_seconds.append(time.monotonic() - begun)

    def _body(self, **more: Any) -> dict[str, Any]:
        message = {"role": "user", "content": _PROMPT}
        # ignore_eos makes the length exact, so a shorter answer is a cut one
        exact = {"max_tokens": self.tokens, "ignore_eos": True, "temperature": 0}
        return {"model": self.model, "messages": [message], **exact, **more}

    async def _whole(self, session: aiohttp.ClientSession) -> None:
        async with session.post(f"{self.url}/v1/chat/completions", json=self._body()) as response:
            await _require_ok(response)
            answer = await response.json()
        self._require_complete(answer["choices"][0].get("finish_reason"), answer.get("usage"))

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        body = self._body(stream=True, stream_options={"include_usage": True})
        finish_reason, usage, done = None, None, False
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            await _require_ok(response)
            async for line in response.content:
                data = line.decode().removeprefix("data:").strip()
                if data == "[DONE]":
                    done = True
                elif data:
                    chunk = json.loads(data)
                    if "error" in chunk:
                        raise IncompleteAnswerError(f"error inside the stream: {chunk['error']}")
                    usage = chunk.get("usage") or usage
                    for choice in chunk.get("choices", []):
                        finish_reason = choice.get("finish_reason") or finish_reason
        if not done:
            raise IncompleteAnswerError("the stream ended without [DONE]")
        self._require_complete(finish_reason, usage)

    def _require_complete(self, finish_reason: str | None, usage: dict[str, Any] | None) -> None:
        if finish_reason != "length" or not usage or usage.get("completion_tokens") != self.tokens:
            raise IncompleteAnswerError(
                f"finish_reason {finish_reason!r}, usage {usage}, asked for {self.tokens} tokens"
            )


async def _require_ok(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise IncompleteAnswerError(f"HTTP {response.status}: {(await response.text())[:500]}")


@contextmanager
def steady(url: str, *, model: str, rate: float = 2.0, tokens: int = 16) -> Iterator[Load]:
    """Keep a load running while this is open; afterwards `report` holds the outcome of every request."""
    load = Load(url=url.rstrip("/"), model=model, rate=rate, tokens=tokens)
    with ThreadPoolExecutor(max_workers=1) as executor:
        running = executor.submit(lambda: asyncio.run(load._run()))
        try:
            yield load
        finally:
            load._stopping.set()
            running.result()
    assert load.report.lost == 0, f"the load broke off: {load.report}"
