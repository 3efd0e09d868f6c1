"""Reading workers' reports: over real HTTP, from pods that may be anybody's."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tonnage.cluster import engine
from tonnage.cluster.engine import MAX_ANSWER_BYTES, EngineScraper, parse_report
from tonnage.rendering.observations import DeviceMemory, Report
from unit.rendering.samples import pod

REPORT: dict[str, Any] = {
    "state": "Verified",
    "planHash": "0123456789",
    "observed": {"blocks": 182, "tokens": 5824, "concurrency": "2.84375"},
    "engineVersion": "0.32.0",
    "startSeconds": 12.5,
    "reason": "",
    "message": "",
    "kvUsage": 0.25,
}


async def scraped(monkeypatch: pytest.MonkeyPatch, handler: Any) -> Report | None:
    """What the scraper makes of one HTTP server's answer."""
    app = web.Application()
    app.router.add_get("/capacity", handler)
    app.router.add_get("/elsewhere", _report)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    monkeypatch.setattr(engine, "WORKER_PORT", runner.addresses[0][1])
    scraper = EngineScraper()
    try:
        return await scraper.report(pod(ip="127.0.0.1"))
    finally:
        await scraper.close()
        await runner.cleanup()


async def _report(_request: web.Request) -> web.Response:
    return web.json_response(REPORT)


async def _redirect(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/elsewhere")


async def _error(_request: web.Request) -> web.Response:
    return web.json_response(REPORT, status=500)


async def _nonsense(_request: web.Request) -> web.Response:
    return web.Response(text="[" * 30_000)


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        for _ in range(64 * MAX_ANSWER_BYTES // 1024):
            await response.write(b" " * 1024)
    except (ConnectionError, aiohttp.ClientError):
        pass
    return response


async def test_a_report_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await scraped(monkeypatch, _report)
    assert found is not None
    assert (found.state, found.observed and found.observed.blocks, found.kv_usage) == ("Verified", 182, 0.25)


@pytest.mark.parametrize("handler", [_redirect, _error, _nonsense, _endless])
async def test_anything_else_is_no_report(monkeypatch: pytest.MonkeyPatch, handler: Any) -> None:
    async with asyncio.timeout(10):
        assert await scraped(monkeypatch, handler) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"kvUsage": float("nan")},
        {"startSeconds": float("inf")},
        {"kvUsage": 1e300},
        {"kvUsage": -0.1},
        {"observed": {"blocks": -1, "tokens": 1, "concurrency": "1"}},
        {"observed": {"blocks": 2**63, "tokens": 1, "concurrency": "1"}},
        {"observed": {"blocks": float("inf"), "tokens": 1, "concurrency": "1"}},
        {"observed": [1]},
        {"state": None, "planHash": None, "observed": {}, "kvUsage": "much"},
    ],
)
def test_figures_that_are_none_make_no_report(changes: dict[str, Any]) -> None:
    assert parse_report({**REPORT, **changes}) is None


def test_texts_are_cut_to_what_a_status_holds() -> None:
    long = "x" * 5000
    found = parse_report({**REPORT, "engineVersion": long, "reason": long, "message": long})
    assert found is not None
    assert (len(found.engine_version), len(found.reason), len(found.message)) == (64, 64, 512)
    assert parse_report([1]) is None


MEMORY = {"totalBytes": 80, "freeAtStartBytes": 79, "freeAtReadyBytes": 2, "compiled": True}


def test_what_a_worker_tells_of_its_device_is_read() -> None:
    found = parse_report({**REPORT, "memory": MEMORY})
    assert found is not None
    assert found.memory == DeviceMemory(
        total_bytes=80, free_at_start_bytes=79, free_at_ready_bytes=2, compiled=True
    )


@pytest.mark.parametrize(
    "memory",
    [
        None,
        [],
        "much",
        {},
        {**MEMORY, "totalBytes": -1},
        {**MEMORY, "totalBytes": 2**63},
        {**MEMORY, "freeAtStartBytes": "9" * 5000},
        {**MEMORY, "freeAtReadyBytes": float("inf")},
        {**MEMORY, "freeAtReadyBytes": [1]},
        {**MEMORY, "compiled": None},
        {**MEMORY, "compiled": "long"},
    ],
    ids=lambda memory: str(memory)[:60],
)
def test_nonsense_of_a_device_costs_nothing_of_the_rest(memory: object) -> None:
    found = parse_report({**REPORT, "memory": memory})
    assert found == parse_report(REPORT)
    assert found is not None
    assert found.memory is None
