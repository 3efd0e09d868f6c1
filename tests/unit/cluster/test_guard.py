"""What every call passes: no write without the lease, and quiet where the server asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tonnage.cluster import guard as module
from tonnage.cluster.guard import GuardedCluster
from tonnage.cluster.port import DEPLOYMENT, POD, ApiError, Event, Kind, Listing, Object

BODY: Object = {"metadata": {"namespace": "default", "name": "chat"}}


class Now:
    """Time that only sleeping moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Server:
    """Notes when it was called; refuses the first calls as it is told to."""

    def __init__(self, now: Now, *errors: ApiError) -> None:
        self.now, self.errors, self.calls = now, list(errors), []  # type: ignore[var-annotated]

    def _called(self) -> None:
        self.calls.append(self.now())
        if self.errors:
            raise self.errors.pop(0)

    async def list(self, _kind: Kind, **_: Any) -> Listing:
        self._called()
        return Listing([], "1")

    async def watch(self, _kind: Kind, **_: Any) -> AsyncGenerator[Event]:
        self._called()
        yield Event("BOOKMARK", {"metadata": {"resourceVersion": "1"}})

    async def apply(self, _kind: Kind, body: Object, *, force: bool = True) -> Object:
        self._called()
        return body


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    clock = Now()
    monkeypatch.setattr(module.asyncio, "sleep", clock.sleep)
    return clock


def guarded(server: Server, *, may_write: bool = True) -> GuardedCluster:
    return GuardedCluster(server, may_write=lambda: may_write, clock=server.now)  # type: ignore[arg-type]


async def test_without_the_lease_reads_pass_and_no_write_is_sent(now: Now) -> None:
    server = Server(now)
    cluster = guarded(server, may_write=False)
    await cluster.list(POD)
    with pytest.raises(ApiError, match="does not hold the leader lease"):
        await cluster.apply(DEPLOYMENT, BODY)
    assert server.calls == [100.0]


@pytest.mark.parametrize("status", [429, 503])
async def test_after_a_wish_of_the_server_no_call_of_any_kind_comes_earlier(now: Now, status: int) -> None:
    server = Server(now, ApiError(status, "too many", retry_after=7.0))
    cluster = guarded(server)
    with pytest.raises(ApiError):
        await cluster.apply(DEPLOYMENT, BODY)
    await cluster.list(POD)
    assert [event.type async for event in cluster.watch(POD, resource_version="1")] == ["BOOKMARK"]
    assert server.calls[0] == 100.0
    assert 107.0 <= server.calls[1] <= 108.0


async def test_a_watch_that_was_refused_quiets_the_others_too(now: Now) -> None:
    server = Server(now, ApiError(429, "too many", retry_after=3.0))
    cluster = guarded(server)
    with pytest.raises(ApiError):
        await anext(cluster.watch(POD, resource_version="1"))
    await cluster.list(POD)
    assert server.calls[1] >= 103.0


async def test_the_longest_wish_counts_and_an_absurd_one_is_cut(now: Now) -> None:
    server = Server(
        now, *(ApiError(429, "too many", retry_after=seconds) for seconds in (5.0, 1e6)), ApiError(500, "no")
    )
    cluster = guarded(server)
    refused = await asyncio.gather(*(cluster.list(POD) for _ in range(2)), return_exceptions=True)
    assert [type(error) for error in refused] == [ApiError, ApiError]
    with pytest.raises(ApiError):
        await cluster.list(POD)
    await cluster.list(POD)
    assert server.calls[3] - server.calls[0] <= 2 * module.MOST_QUIET_SECONDS


async def test_a_write_that_waited_is_not_sent_if_the_lease_ended_meanwhile(now: Now) -> None:
    server = Server(now, ApiError(429, "too many", retry_after=20.0))
    cluster = GuardedCluster(server, may_write=lambda: now() < 110.0, clock=now)  # type: ignore[arg-type]
    with pytest.raises(ApiError):
        await cluster.list(POD)
    with pytest.raises(ApiError, match="does not hold the leader lease"):
        await cluster.apply(DEPLOYMENT, BODY)
    assert len(server.calls) == 1
