"""The worker's HTTP endpoints on its own port: /live, /ready, /metrics, /capacity."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web

from . import metrics, status
from .engine_client import EngineClient
from .exposition import read_page
from .redaction import redact


def build_app(
    read_status: Callable[[], status.Status], *, engine: EngineClient, secrets: frozenset[str]
) -> web.Application:
    """The application; `read_status` gives the worker's status at the moment of the request."""

    def answer(good: bool, reason: str) -> web.Response:
        return web.Response(status=200 if good else 503, text=redact(reason, secrets=secrets) + "\n")

    async def live(_: web.Request) -> web.Response:
        return answer(*status.liveness(read_status(), now=time.monotonic()))

    async def ready(_: web.Request) -> web.Response:
        return answer(*status.readiness(read_status(), now=time.monotonic()))

    async def metrics_page(_: web.Request) -> web.Response:
        text = metrics.page(read_status(), engine_page=await engine.page())
        return web.Response(body=text.encode(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def capacity(_: web.Request) -> web.Response:
        usage = _kv_usage(await engine.page())
        report = status.capacity_report(read_status(), kv_usage=usage)
        report["message"] = redact(report["message"], secrets=secrets)
        return web.json_response(report)

    app = web.Application()
    app.add_routes(
        [
            web.get("/live", live),
            web.get("/ready", ready),
            web.get("/metrics", metrics_page),
            web.get("/capacity", capacity),
        ]
    )
    return app


def _kv_usage(page: str | None) -> float | None:
    try:
        return None if page is None else read_page(page).kv_usage
    except ValueError:
        return None
