"""The lease: who may hold it, when it is taken over, and that a deadline ends before another may begin."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tonnage.cluster.port import ApiError, Kind, Object
from tonnage.control.leader import DEADLINE_SECONDS, LEASE_SECONDS, Leader
from tonnage.control.world import Clock


class Server:
    """One Lease with its resourceVersion, and what fails next: before or after the server did it."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.version = 0
        self.fails: ApiError | None = None
        self.done_all_the_same = False
        self.seconds = 0.0

    async def get(self, _kind: Kind, *, namespace: str, name: str) -> Object | None:
        return copy.deepcopy(self.lease)

    async def create(self, _kind: Kind, body: Object) -> Object:
        if self.lease is not None:
            raise ApiError(409, "exists")
        return self._store(body)

    async def replace(self, _kind: Kind, body: Object) -> Object:
        assert self.lease is not None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "modified")
        return self._store(body)

    def _store(self, body: Object) -> Object:
        failure, self.fails = self.fails, None
        if failure is None or self.done_all_the_same:
            self.version += 1
            self.lease = copy.deepcopy(body)
            self.lease["metadata"]["resourceVersion"] = str(self.version)
        if failure is not None:
            raise failure
        return copy.deepcopy(body)

    def holder(self) -> Any:
        return (self.lease or {}).get("spec", {}).get("holderIdentity")

    def candidate(self, identity: str) -> Leader:
        clock = Clock(monotonic=lambda: self.seconds, now=lambda: f"at {self.seconds}")
        return Leader(self, namespace="n", name="l", identity=identity, clock=clock)  # type: ignore[arg-type]


@pytest.fixture
def server() -> Server:
    return Server()


async def test_the_first_makes_the_lease_and_holds_until_the_deadline(server: Server) -> None:
    one = server.candidate("one")
    assert not one.holds()
    await one.acquire()
    assert (one.holds(), server.holder()) == (True, "one")
    server.seconds += DEADLINE_SECONDS - 0.1
    assert one.holds()
    server.seconds += 0.1
    assert not one.holds()


async def test_another_waits_for_the_whole_duration_since_it_saw_the_last_renewal(server: Server) -> None:
    one, two = server.candidate("one"), server.candidate("two")
    await one.acquire()
    server.seconds += 100  # how old the lease is says nothing: clocks need not agree
    assert not await two._renew()
    server.seconds += LEASE_SECONDS - 1
    assert not await two._renew()
    assert await one._renew()
    server.seconds += LEASE_SECONDS - 1
    assert not await two._renew()
    server.seconds += LEASE_SECONDS
    assert not one.holds()
    assert await two._renew()
    assert (server.holder(), two.holds()) == ("two", True)
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 2


async def test_the_same_identity_takes_its_lease_back_at_once(server: Server) -> None:
    await server.candidate("one").acquire()
    again = server.candidate("one")
    assert await again._renew()
    assert server.lease is not None
    assert server.lease["spec"]["acquireTime"] == "at 0.0"


async def test_a_released_lease_is_free_at_once(server: Server) -> None:
    one, two = server.candidate("one"), server.candidate("two")
    await one.acquire()
    await one.release()
    assert (one.holds(), server.holder()) == (False, None)
    assert await two._renew()
    await one.release()
    assert server.holder() == "two"


async def test_of_two_that_claim_at_once_one_gets_it(server: Server) -> None:
    one, two = server.candidate("one"), server.candidate("two")
    await one.acquire()
    await one.release()
    read = await two._read()
    assert await one._renew()
    two._read = lambda: _value(read)  # type: ignore[method-assign]
    assert not await two._renew()
    assert (server.holder(), two.holds()) == ("one", False)


@pytest.mark.parametrize("done", [False, True])
async def test_a_renewal_without_an_answer_counts_only_when_it_was_answered(
    server: Server, done: bool
) -> None:
    one = server.candidate("one")
    await one.acquire()
    server.seconds += 4
    server.fails, server.done_all_the_same = ApiError(0, "timeout"), done
    assert not await one._renew()
    server.seconds += DEADLINE_SECONDS - 4
    assert not one.holds()
    assert await one._renew()
    assert one.holds()


async def test_a_wish_to_be_asked_later_is_heeded(server: Server) -> None:
    one = server.candidate("one")
    await one.acquire()
    server.fails = ApiError(429, "too many", retry_after=6.0)
    assert not await one._renew()
    assert one._wish_seconds == 6.0
    assert await one._renew()
    assert one._wish_seconds == 0.0


async def _value(value: Any) -> Any:
    return value
