"""Probes and metrics over HTTP. Liveness fails when a watch is dead, not only when the process is.

kopf's own probe endpoint retries a failing check instead of answering (kopf 1.45 engines/probing.py), so the
operator serves its probes itself.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tonnage.control.metrics import Metrics

Check = Callable[[], str]
"""Returns what is wrong, or an empty string."""


async def serve_health(*, port: int, alive: Check, ready: Check, metrics: Metrics) -> web.AppRunner:
    """Start answering /healthz, /readyz and /metrics; the caller cleans the runner up."""

    def answer(check: Check) -> Callable[[web.Request], object]:
        async def handler(_request: web.Request) -> web.Response:
            wrong = check()
            return web.Response(status=503 if wrong else 200, text=(wrong or "ok") + "\n")

        return handler

    async def page(_request: web.Request) -> web.Response:
        alive()
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", answer(alive))  # type: ignore[arg-type]
    app.router.add_get("/readyz", answer(ready))  # type: ignore[arg-type]
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
