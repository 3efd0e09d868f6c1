"""The operator stops at its n-th call, for every n of start, create, update and scale.

Deleting makes the operator call nothing: owner references do it. So an object is deleted while the operator
is stopped at each call of its creation.

Each stop happens before the call is sent, and that of a write also after the server did it, before the
operator knows (a read that is not answered and one that is not sent leave the same behind).
Nothing of the stopped operator reaches the server any more. A fresh one, which remembers nothing, then has to
come to the very state that an undisturbed run comes to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import pytest

from cluster.between import Call
from cluster.ground import Ground, Narrow, Operator, State, difference, open_ground
from cluster.reliability import Report
from harness.audit import Write
from harness.cluster import Cluster
from tonnage.cluster.port import LEASE, ApiError

pytestmark = pytest.mark.cluster

T = TypeVar("T")
CALLS = {"delete": "create, then delete"}
PHASES = ("start", "create", "update", "scale", "delete")
CHANGED: dict[str, Any] = {"workload": {"contextLength": 4096, "concurrency": 4, "typicalTokens": 1024}}
AT_ONCE = 6
# the write that the operator was stopped at and those on their way beside it: three children are written at
# once, and the audit log holds a request that its client left (504)
REPEATED_WRITES = 3
REPEATED_STATUS = 5


class Stopping(Narrow):
    """Counts its calls once `armed`, the lease's aside, and is dead from the n-th on."""

    def __init__(self, ground: Ground, case: str, *, at: int = 0, done: bool = False) -> None:
        super().__init__(ground, case)
        self._at, self._done = at, done
        self.armed, self.buried = False, False
        self.calls: list[Call] = []
        self.stopped = asyncio.Event()

    async def around(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        """Send a call, unless this operator is dead or dies of it."""
        if self.stopped.is_set():
            await self._never()
        if not self.armed or call.kind == LEASE.plural:
            return await send()
        self.calls.append(call)
        if len(self.calls) != self._at:
            return await send()
        self.stopped.set()
        if self._done:
            await send()
        await self._never()

    async def _never(self) -> NoReturn:
        while not self.buried:
            await asyncio.Event().wait()
        raise ApiError(0, "this operator is dead")


@dataclass(frozen=True)
class Undisturbed:
    """What happens when nothing does: the calls of a phase, the state after it, and all writes up to it."""

    calls: list[Call]
    state: State
    writes: int
    status: int


async def run_phase(
    ground: Ground, phase: str, name: str, *, at: int = 0, done: bool = False
) -> tuple[Stopping, Operator]:
    """Bring a case to where the phase begins, and begin it; the operator may be dead when this returns."""
    ports = Stopping(ground, name, at=at, done=done)
    operator = ground.operator(ports, lease=name)
    if phase == "start":
        before = ground.operator(Narrow(ground, name), lease=name)
        await before.start()
        await ground.apply(name)
        await ground.settled(name, lambda: ground.is_served(name))
        await before.stop()
        ports.armed = True
        await operator.start()
        return ports, operator
    await operator.start()
    await operator.leads()
    if phase in ("update", "scale"):
        await ground.apply(name)
        await ground.settled(name, lambda: ground.is_served(name))
    ports.armed = True
    if phase == "scale":
        await ground.scale(name, 3)
    else:
        await ground.apply(name, **(CHANGED if phase == "update" else {}))
    return ports, operator


async def undisturbed(ground: Ground, phase: str) -> Undisturbed:
    """The phase with an operator that goes on."""
    name = f"{phase}-000-whole"
    ports, operator = await run_phase(ground, phase, name)
    await operator.leads()
    state = await ground.settled(name, lambda: ground.is_served(name))
    calls = list(ports.calls)
    if phase == "delete":
        await ground.delete(name)
        state = await ground.settled(name, lambda: not ground.seen.left(name))
    await operator.stop()
    writes, status = split(ground.writes(name))
    return Undisturbed(calls=calls, state=state, writes=writes, status=status)


def split(written: list[Write]) -> tuple[int, int]:
    """How many writes were of children, and how many of the status."""
    status = sum(write.subresource == "status" for write in written)
    return len(written) - status, status


async def stopped_case(ground: Ground, phase: str, wanted: Undisturbed, *, at: int, done: bool) -> bool:
    """The phase with an operator that stops at a call, then a fresh one; False if it never stopped."""
    name = f"{phase}-{at:03}-{'after' if done else 'begin'}"
    ports, operator = await run_phase(ground, phase, name, at=at, done=done)

    def as_wanted() -> bool:
        gone = phase != "delete" or not ground.seen.left(name)
        return gone and ground.seen.state(name) == wanted.state

    async def goes_on() -> None:
        await operator.leads()
        await ground.settled(name, lambda: ground.is_served(name))

    whole = asyncio.create_task(goes_on())
    stopped = asyncio.create_task(ports.stopped.wait())
    await asyncio.wait({whole, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in (whole, stopped):
        task.cancel()
    await asyncio.gather(whole, stopped, return_exceptions=True)
    ports.buried = True
    await operator.stop()
    if phase == "delete":
        await ground.delete(name)
    fresh = ground.operator(Narrow(ground, name), lease=name)
    await fresh.start()
    try:
        await fresh.leads()
        await ground.settled(name, as_wanted)
    except AssertionError:
        raise AssertionError(
            f"{name}, stopped at {ports.calls[-1:]}: {difference(wanted.state, ground.seen.state(name))}"
        ) from None
    finally:
        await fresh.stop()
    return ports.stopped.is_set()


@pytest.mark.parametrize("phase", PHASES)
async def test_a_fresh_operator_ends_what_a_stopped_one_began(
    cluster: Cluster, report: Report, phase: str
) -> None:
    async with open_ground(cluster, f"stop-{phase}") as ground:
        wanted = await undisturbed(ground, phase)
        room = asyncio.Semaphore(AT_ONCE)

        async def one(at: int, done: bool) -> bool:
            async with room:
                return await stopped_case(ground, phase, wanted, at=at, done=done)

        cases = [
            (at, done)
            for at, call in enumerate(wanted.calls, start=1)
            for done in ((False, True) if call.writes else (False,))
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(at, done)) for at, done in cases]
        stopped = [task.result() for task in tasks]
        written = ground.writes_by_case()
        counts = {case: split(writes) for case, writes in written.items()}
        most, told = (
            max(writes for writes, _ in counts.values()),
            max(status for _, status in counts.values()),
        )
        too_many = {
            case: [f"{write.what} {write.code}" for write in written[case]]
            for case, (writes, _) in counts.items()
            if writes > wanted.writes + REPEATED_WRITES
        }
        assert sum(stopped) >= len(cases) * 0.8, f"{sum(stopped)} of {len(cases)} cases stopped"
        assert ground.refused_writes() == []
        assert too_many == {}
        assert told <= wanted.status + REPEATED_STATUS
        report.row(
            f"stop at every call of {CALLS.get(phase, phase)}",
            injected=sum(stopped),
            result=f"{len(wanted.calls)} calls, writes also when done: states as undisturbed; "
            f"writes of children at most {most}, undisturbed {wanted.writes}; "
            f"of status {told}, undisturbed {wanted.status}",
        )
