"""Faults on the wire between an operator and the API server, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from cluster.between import Between
from cluster.ground import Ground, Workers, client_of, open_ground
from cluster.reliability import Report
from cluster.test_faults import CHANGED, live
from cluster.test_killed import killable
from harness.audit import Write
from harness.chart import NAMESPACE, RELEASE
from harness.cluster import Cluster
from harness.restart import restart_api_server
from harness.wire import Fault, Request, ResetError, Wire, kubeconfig_through, open_wire
from tonnage.cluster.kubernetes import SILENCE_SECONDS as WATCH_SILENCE_SECONDS
from tonnage.cluster.kubernetes import KubernetesCluster

pytestmark = pytest.mark.cluster
SILENCE_SECONDS = 3.0
WISH_SECONDS = 4
# requests that were sent before the refusal was heard; at the port the same is tested to the call
ON_THEIR_WAY_SECONDS = 1.5


@asynccontextmanager
async def wired(
    cluster: Cluster, ground: Ground, *, silence_seconds: float = WATCH_SILENCE_SECONDS
) -> AsyncIterator[tuple[Wire, Between]]:
    """A wire, and ports that lead through it."""
    account = cluster.account_kubeconfig(RELEASE, namespace=NAMESPACE)
    with open_wire(cluster) as wire:
        client = await client_of(kubeconfig_through(wire, account))
        try:
            port = KubernetesCluster(client, silence_seconds=silence_seconds)
            yield wire, Between(port, Workers())
        finally:
            await client.close()


class Silent(Fault):
    """Watches that were open when it began say nothing any more, and stay open."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = time.monotonic()
        self._mute: set[Request] = set()

    async def lines(self, request: Request, line: bytes) -> list[bytes]:
        """Nothing, of old watches."""
        if request.at > self._begun:
            return [line]
        self._mute.add(request)
        self.injected = len(self._mute)
        return []


async def test_a_silent_watch_is_noticed(cluster: Cluster, report: Report) -> None:
    async with (
        open_ground(cluster, "silent") as ground,
        wired(cluster, ground, silence_seconds=SILENCE_SECONDS) as (wire, ports),
    ):
        operator = ground.operator(ports, lease="silent")
        await operator.start()
        await operator.leads()
        await ground.apply("chat")
        await ground.settled("chat", lambda: ground.is_served("chat"))
        wire.fault = fault = Silent()
        await ground.apply("chat", **CHANGED)
        begun = time.monotonic()
        await ground.settled("chat", lambda: ground.is_served("chat"))
        noticed = min(r.at for r in wire.requests if r.watch and r.at > begun) - begun
        await operator.stop()
        report.row(
            "a watch that went silent",
            injected=fault.injected,
            result=f"opened again after {noticed:.1f} s (limit {SILENCE_SECONDS:g} s here), then served",
        )


class Resets(Fault):
    """Every fifth request is cut before it is sent, every seventh after it was done."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    async def before(self, request: Request) -> web.Response | None:
        """Cut, or pass."""
        self._count += not request.lease
        if not request.lease and self._count % 5 == 0:
            self.injected += 1
            raise ResetError
        return None

    async def after(self, request: Request, status: int) -> None:
        """Cut what was done."""
        if not request.lease and self._count % 7 == 0:
            self.injected += 1
            raise ResetError


async def live_under(cluster: Cluster, name: str, fault: Fault) -> list[Write]:
    """An object lives under a fault as one did without it; the operator's writes that were refused."""
    async with open_ground(cluster, name) as ground, wired(cluster, ground) as (wire, ports):
        operator = ground.operator(ports, lease=name)
        await operator.start()
        expected = await live(ground, "whole", None)
        wire.fault = fault
        await live(ground, f"under-{name}", expected)
        await operator.stop()
        return ground.refused_writes()


async def test_connections_that_are_cut_change_nothing(cluster: Cluster, report: Report) -> None:
    fault = Resets()
    assert await live_under(cluster, "resets", fault) == []
    report.row("connections reset", injected=fault.injected, result="states as undisturbed")


class Busy(Fault):
    """Every tenth request is answered with 429; requests that came in spite of the wish are noted."""

    def __init__(self) -> None:
        super().__init__()
        self._count, self._refused_at = 0, float("-inf")
        self.early: list[Request] = []
        self.passed = 0

    async def before(self, request: Request) -> web.Response | None:
        """Refuse, or pass."""
        if request.lease:
            return None
        if ON_THEIR_WAY_SECONDS < request.at - self._refused_at < WISH_SECONDS:
            self.early.append(request)
        self._count += 1
        if self._count % 10 == 0:
            self.injected += 1
            self._refused_at = request.at
            return web.json_response(
                {"kind": "Status", "code": 429, "message": "injected"},
                status=429,
                headers={"Retry-After": str(WISH_SECONDS)},
            )
        self.passed += 1
        return None


async def test_the_wish_of_a_busy_server_is_heeded(cluster: Cluster, report: Report) -> None:
    fault = Busy()
    await live_under(cluster, "busy", fault)
    report.row(
        "429 with Retry-After on the wire",
        injected=fault.injected,
        result=f"states as undisturbed; requests in the {WISH_SECONDS} s after a refusal: {len(fault.early)}",
    )
    assert fault.early == []


async def test_after_a_restart_of_the_api_server_it_goes_on(cluster: Cluster, report: Report) -> None:
    async with open_ground(cluster, "restart") as ground, killable(ground) as operator:
        await ground.apply("chat")
        await ground.settled("chat", lambda: ground.is_served("chat"))
        before = ground.seen.state("chat")["deployments"]
        keeper = asyncio.create_task(operator.keep())
        await asyncio.to_thread(restart_api_server, cluster)
        back = time.monotonic()
        assert ground.seen.state("chat")["deployments"] == before
        await ground.apply("chat", **CHANGED)
        generation = ground.generation("chat")
        await ground.until("the first pass", lambda: ground.observed_generation("chat") == generation)
        first = time.monotonic() - back
        await ground.settled("chat", lambda: ground.is_served("chat"))
        keeper.cancel()
        report.row(
            "API server restarted",
            injected=1,
            result=f"first pass {first:.1f} s after it was ready, then served",
        )
