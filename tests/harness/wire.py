"""A wire between an operator and the API server that a test can cut, silence, delay and falsify.

The operator talks plain HTTP to this proxy, which passes everything on over TLS with the operator's own
token. A fault sees each request before it is sent, each answer before it is given back, and each
line of a watch.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from harness.cluster import Cluster

HOP_BY_HOP = {"host", "connection", "content-length", "transfer-encoding", "content-encoding", "keep-alive"}


@dataclass(frozen=True)
class Request:
    """One request of the operator; `at` is in seconds of the monotonic clock."""

    method: str
    path: str
    watch: bool
    at: float

    @property
    def writes(self) -> bool:
        """Does it change something?"""
        return self.method != "GET"

    @property
    def lease(self) -> bool:
        """Is it about the leader's lease?"""
        return "/leases" in self.path


class ResetError(Exception):
    """The connection is cut without an answer."""


class Fault:
    """Passes everything; a test overrides what it falsifies and counts what it injected."""

    def __init__(self) -> None:
        self.injected = 0

    async def before(self, request: Request) -> web.Response | None:
        """An answer instead of the server's, or ResetError; None passes the request on."""
        return None

    async def after(self, request: Request, status: int) -> None:
        """The server has answered: raise ResetError to keep the answer from the operator."""

    async def lines(self, request: Request, line: bytes) -> list[bytes]:
        """What the operator gets for one line of a watch."""
        return [line]


class Wire:
    """The running proxy. `fault` is replaced at any time; `requests` holds everything that was asked."""

    def __init__(self, server: str, certificates: ssl.SSLContext) -> None:
        self.fault = Fault()
        self.requests: list[Request] = []
        self.port = 0
        self._server, self._certificates = server, certificates
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port of this machine."""
        connector = aiohttp.TCPConnector(limit=0, ssl=self._certificates)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close all connections."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _pass(self, incoming: web.Request) -> web.StreamResponse:
        watch = incoming.query.get("watch", "") in ("true", "1")
        request = Request(incoming.method, incoming.path, watch, time.monotonic())
        self.requests.append(request)
        try:
            refused = await self.fault.before(request)
            return refused if refused is not None else await self._forward(incoming, request)
        except ResetError:
            return _cut(incoming)
        except aiohttp.ClientError:
            return _cut(incoming)

    async def _forward(self, incoming: web.Request, request: Request) -> web.StreamResponse:
        assert self._session is not None
        headers = {k: v for k, v in incoming.headers.items() if k.lower() not in HOP_BY_HOP}
        headers["Accept-Encoding"] = "identity"
        async with self._session.request(
            incoming.method,
            f"{self._server}{incoming.raw_path}",
            headers=headers,
            data=await incoming.read() or None,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        ) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
            if request.watch and answer.status == 200:
                return await self._stream(incoming, request, answer, kept)
            body = await answer.read()
            await self.fault.after(request, answer.status)
            return web.Response(status=answer.status, headers=kept, body=body)

    async def _stream(
        self, incoming: web.Request, request: Request, answer: aiohttp.ClientResponse, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        await response.prepare(incoming)
        rest = b""
        async for chunk in answer.content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                for told in await self.fault.lines(request, line):
                    await response.write(told + b"\n")
        await response.write_eof()
        return response


def _cut(incoming: web.Request) -> web.Response:
    if incoming.transport is not None:
        incoming.transport.abort()
    return web.Response()


def event_of(line: bytes) -> tuple[str, dict[str, Any]]:
    """Type and object of a line of a watch."""
    event = json.loads(line)
    return event["type"], event["object"]


def kubeconfig_through(wire: Wire, kubeconfig: Path) -> Path:
    """A kubeconfig with the same credentials whose server is the wire."""
    config = json.loads(kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{wire.port}"}
    path = kubeconfig.with_name(f"wire-{wire.port}.kubeconfig")
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


@contextmanager
def open_wire(cluster: Cluster) -> Iterator[Wire]:
    """A wire to a cluster's API server, in a thread of its own."""
    config = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json"))
    server = config["clusters"][0]["cluster"]["server"]
    authority = cluster.state / "pki" / "ca.crt"
    wire = Wire(server, ssl.create_default_context(cafile=str(authority)))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(wire.start(), loop).result(10)
    try:
        yield wire
    finally:
        asyncio.run_coroutine_threadsafe(wire.stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
