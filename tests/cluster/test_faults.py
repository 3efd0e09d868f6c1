"""Faults between a whole operator and a real API server: each object ends as in an undisturbed run.

Every fault meets the whole life of an object: create, update, scale, delete. All lives run at a time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, ClassVar, TypeVar, cast

import pytest

from cluster.between import Call
from cluster.ground import Ground, Narrow, State, difference, open_ground
from cluster.reliability import Report
from harness.cluster import Cluster
from tonnage.cluster.port import LEASE, LLM_DEPLOYMENT, ApiError, Event, Listing, Object

pytestmark = pytest.mark.cluster

T = TypeVar("T")
CHANGED: dict[str, Any] = {"workload": {"contextLength": 4096, "concurrency": 4, "typicalTokens": 1024}}
SCALED: dict[str, Any] = {**CHANGED, "replicas": 3}


class Fault(Narrow):
    """Counts what it injects; the lease is left alone unless the fault is about it."""

    title: ClassVar[str]
    watches_objects: ClassVar[bool] = True
    relist_seconds: ClassVar[float] = 600.0

    def __init__(self, ground: Ground, case: str) -> None:
        super().__init__(ground, case)
        self.injected = 0
        self._chance = random.Random(case)

    def every(self, number: int) -> bool:
        """True for one of `number` questions, at random, and then counted as injected.

        A strict period could hit the same call in each pass for ever.
        """
        hit = self._chance.random() < 1 / number
        self.injected += hit
        return hit

    def result(self) -> str:
        """What the row says beside that the state is the undisturbed one."""
        return "states as undisturbed"


class Dropped(Fault):
    """One of two events never arrives."""

    title = "events dropped"
    relist_seconds = 3.0

    async def events(self, call: Call, stream: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """Half of them."""
        async for event in stream:
            if event.type == "BOOKMARK" or not self.every(2):
                yield event


class Untold(Fault):
    """No event of the LLMDeployment ever arrives: it is only listed, as where kopf's watch is deaf."""

    title = "no event of LLMDeployments told"
    watches_objects = False
    relist_seconds = 3.0

    async def around(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        """Each list stands for what no event told."""
        self.injected += (call.verb, call.kind) == ("list", LLM_DEPLOYMENT.plural)
        return await send()

    def result(self) -> str:
        """The count is that of the lists."""
        return "states as undisturbed, by lists alone"


class Duplicated(Fault):
    """Every event arrives twice."""

    title = "events duplicated"

    async def events(self, call: Call, stream: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """Each event, and again."""
        async for event in stream:
            yield event
            self.injected += 1
            yield event


class Reordered(Fault):
    """Of two events that follow each other the second arrives first."""

    title = "events reordered"
    relist_seconds = 3.0

    async def events(self, call: Call, stream: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """Pairs, turned round; one without a follower never arrives."""
        held: Event | None = None
        async for event in stream:
            if held is None:
                held = event
                continue
            self.injected += 1
            yield event
            yield held
            held = None


class StaleLists(Fault):
    """One of two lists comes from a server that lags: it is as old as the first one."""

    title = "stale lists"
    relist_seconds = 2.0

    def __init__(self, ground: Ground, case: str) -> None:
        super().__init__(ground, case)
        self._old: dict[str, Any] = {}

    async def around(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        """Now and then an old list."""
        if call.verb != "list":
            return await send()
        answer = await send()
        old = self._old.setdefault(call.kind, answer)
        assert isinstance(old, Listing)
        assert isinstance(answer, Listing)
        stale = old.resource_version != answer.resource_version and self.every(2)
        return cast(T, old) if stale else answer


class Refused(Fault):
    """One of `each` calls of some kind fails with a status and is not done."""

    status: ClassVar[int]
    each: ClassVar[int] = 3

    def concerns(self, call: Call) -> bool:
        """May this call be refused?"""
        return call.kind != LEASE.plural and call.verb != "scrape"

    async def around(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        """Refuse or send."""
        if self.concerns(call) and self.every(self.each):
            raise ApiError(self.status, "injected")
        return await send()


class Conflict(Refused):
    """One of three writes is answered with 409."""

    title, status = "409 Conflict", 409

    def concerns(self, call: Call) -> bool:
        """Writes only."""
        return call.writes and super().concerns(call)


class Broken(Refused):
    """One of four calls is answered with 500."""

    title, status, each = "500", 500, 4


class Gone(Fault):
    """Each watch ends with 410 after its third event."""

    title = "410 Gone"

    async def events(self, call: Call, stream: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """Three events, then 410."""
        number = 0
        async for event in stream:
            yield event
            number += 1
            if number == 3:
                self.injected += 1
                raise ApiError(410, "injected: too old resource version")


class TooMany(Fault):
    """One of eight calls is answered with 429 and a wish; a call before its end is noted."""

    title = "429 with Retry-After"
    wish_seconds = 1.0

    def __init__(self, ground: Ground, case: str) -> None:
        super().__init__(ground, case)
        self.early: list[Call] = []
        self._until = 0.0

    async def around(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        """Refuse with a wish, and note who does not heed it."""
        if call.kind == LEASE.plural or call.verb == "scrape":
            return await send()
        if time.monotonic() < self._until:
            self.early.append(call)
        if self.every(8):
            self._until = time.monotonic() + self.wish_seconds
            raise ApiError(429, "injected", retry_after=self.wish_seconds)
        return await send()

    def result(self) -> str:
        """No call may have come too early, those on their way aside."""
        assert self.early == []
        return f"states as undisturbed; calls within {self.wish_seconds:g} s after a refusal: 0"


class DoneUnheard(Fault):
    """One of two writes is done, and its answer lost."""

    title = "writes that timed out after they were done"

    async def around(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        """Send, and lose the answer."""
        answer = await send()
        if call.writes and call.kind != LEASE.plural and self.every(2):
            raise ApiError(0, "injected: timeout")
        return answer


FAULTS: tuple[type[Fault], ...] = (
    Dropped,
    Untold,
    Duplicated,
    Reordered,
    StaleLists,
    Conflict,
    Broken,
    Gone,
    TooMany,
    DoneUnheard,
)


async def live(ground: Ground, name: str, expected: list[State] | None) -> list[State]:
    """The life of one object; each state is waited for, or found where there is none to expect."""
    states: list[State] = []

    async def settle(what: str) -> None:
        wanted = expected[len(states)] if expected is not None else None
        try:
            states.append(
                await ground.settled(
                    name,
                    lambda: ground.is_served(name) if wanted is None else ground.seen.state(name) == wanted,
                )
            )
        except AssertionError:
            apart = difference(wanted or {}, ground.seen.state(name))
            raise AssertionError(f"{name} after {what}: {apart}") from None

    for what, spec in (("create", {}), ("update", CHANGED), ("scale", SCALED)):
        await ground.apply(name, **spec)
        await settle(what)
    await ground.delete(name)
    await ground.settled(name, lambda: not ground.seen.left(name))
    return states


async def test_under_each_fault_an_object_lives_as_without(cluster: Cluster, report: Report) -> None:
    async with open_ground(cluster, "faults") as ground:
        whole = ground.operator(Narrow(ground, "whole"), lease="whole")
        await whole.start()
        expected = await live(ground, "whole", None)
        await whole.stop()

        async def under(fault: type[Fault]) -> None:
            name = f"f-{fault.__name__.lower()}"
            ports = fault(ground, name)
            operator = ground.operator(
                ports,
                lease=name,
                relist_seconds=fault.relist_seconds,
                watches_objects=fault.watches_objects,
            )
            await operator.start()
            try:
                await live(ground, name, expected)
            finally:
                await operator.stop()
            report.row(fault.title, injected=ports.injected, result=ports.result())

        room = asyncio.Semaphore(5)

        async def in_turn(fault: type[Fault]) -> None:
            async with room:
                await under(fault)

        async with asyncio.TaskGroup() as group:
            for fault in FAULTS:
                group.create_task(in_turn(fault))
        assert ground.refused_writes() == []


class Invalid(Fault):
    """The Service is refused with 422, always."""

    title = "422 for good"

    async def around(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        """Refuse what would write the Service."""
        if call.writes and call.kind == "services":
            self.injected += 1
            raise ApiError(422, "Service is invalid: injected")
        return await send()


async def test_what_is_refused_for_good_is_said_and_not_tried_in_a_loop(
    cluster: Cluster, report: Report
) -> None:
    async with open_ground(cluster, "refused") as ground:
        ports = Invalid(ground, "chat")
        operator = ground.operator(ports, lease="refused")
        await operator.start()
        await ground.apply("chat")

        def said() -> bool:
            found = [c for c in _conditions(ground, "chat") if c["type"] == "Degraded"]
            return any(c["reason"] == "ApplyRefused" and "injected" in c["message"] for c in found)

        await ground.settled("chat", said)
        before = ports.injected
        await asyncio.sleep(20)
        await operator.stop()
        assert ports.injected - before <= 2
        report.row(
            Invalid.title,
            injected=ports.injected,
            result=f"Degraded, ApplyRefused; tried again {ports.injected - before} times in 20 s",
        )


def _conditions(ground: Ground, name: str) -> list[Object]:
    body = ground.seen.objects[LLM_DEPLOYMENT].get(name, {})
    found: list[Object] = body.get("status", {}).get("conditions", [])
    return found


class Noted(Narrow):
    """Notes when writes were sent; its lease calls fail once it is `cut`."""

    def __init__(self, ground: Ground, case: str) -> None:
        super().__init__(ground, case)
        self.cut_at: float | None = None
        self.lost = 0
        self.written: list[float] = []

    async def around(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        """Send, unless it is about the lease of an operator that is cut from it."""
        if call.kind == LEASE.plural:
            if self.cut_at is not None:
                self.lost += 1
                raise ApiError(0, "injected: no answer")
            return await send()
        if call.writes:
            self.written.append(time.monotonic())
        return await send()


async def test_who_lost_the_lease_writes_no_more_and_the_other_takes_over(
    cluster: Cluster, report: Report
) -> None:
    async with open_ground(cluster, "leases") as ground:
        one, two = Noted(ground, "chat"), Noted(ground, "chat")
        operators = [
            ground.operator(ports, lease="shared", identity=identity)
            for ports, identity in ((one, "one"), (two, "two"))
        ]
        await operators[0].start()
        await operators[0].leads()
        await operators[1].start()
        await ground.apply("chat")
        await ground.settled("chat", lambda: ground.is_served("chat"))
        assert two.written == []
        both = len(one.written)
        one.cut_at = time.monotonic()
        # something to write all the time: what an operator may not write, it tries again
        while operators[0].restarts == 0:
            await ground.scale("chat", 1 + len(one.written) % 2)
            await asyncio.sleep(0.5)
        lost_at = time.monotonic()
        await ground.scale("chat", 3)
        await operators[1].leads()
        await ground.settled("chat", lambda: ground.is_served("chat") and len(two.written) > 0)
        for operator in operators:
            await operator.stop()
        assert [at for at in one.written if at > lost_at] == []
        assert ground.refused_writes() == []
        report.row("lease lost", injected=one.lost, result="writes after the loss: 0; the other went on")
        report.row(
            "two operators at once",
            injected=2,
            result=f"writes by the leader {both}, by the other 0 until it took over",
        )
