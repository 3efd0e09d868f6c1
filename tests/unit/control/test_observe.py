"""Asking workers: when, how often, and that a pass does not wait for one that is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tonnage.cluster.port import LLM_DEPLOYMENT, POD
from tonnage.control.hardware import Hardware
from tonnage.control.queue import Key
from tonnage.control.reconcile import reconcile
from tonnage.control.steps.observe import observe_workers
from tonnage.control.store import Store
from tonnage.control.world import Clock, Pass, Settled, World
from tonnage.rendering.names import COMPONENT, DEPLOYMENT, FOLLOWER, GROUP_OF_PODS, PLAN, WORKER, Owner
from tonnage.rendering.observations import Pod, Report
from unit.rendering.samples import SETTINGS, report

KEY = ("default", "chat")
OWNER = Owner(namespace="default", name="chat", uid="u1")


@dataclass
class Workers:
    """Workers that answer with `says` once `may_answer` is set."""

    says: Report | None = field(default_factory=report)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def report(self, _pod: Pod) -> Report | None:
        self.asked += 1
        await self.may_answer.wait()
        return self.says


@dataclass
class House:
    """A world with fake workers and a clock that is set by hand."""

    workers: Workers = field(default_factory=Workers)
    touched: list[Key] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.workers.may_answer.set()
        self.store = Store(touched=lambda key, _first: self.touched.append(key))
        self.world = World(
            cluster=None,  # type: ignore[arg-type]
            scraper=self.workers,
            store=self.store,
            hardware=Hardware(changed=lambda: None),
            settings=SETTINGS,
            clock=Clock(monotonic=lambda: self.now, now=lambda: "2026-01-01T00:00:00Z"),
        )
        self.store.put(
            LLM_DEPLOYMENT,
            {
                "apiVersion": LLM_DEPLOYMENT.api_version,
                "kind": LLM_DEPLOYMENT.kind,
                "metadata": {"namespace": KEY[0], "name": KEY[1], "uid": "u1", "resourceVersion": "1"},
            },
        )

    def add_pod(
        self,
        name: str = "chat-1",
        *,
        ready: bool = True,
        version: int = 1,
        exit_code: int | None = None,
        **own: str,
    ) -> None:
        labels = {DEPLOYMENT: KEY[1], COMPONENT: WORKER, PLAN: "h1", **own}
        meta = {"namespace": KEY[0], "name": name, "uid": name, "resourceVersion": str(version)}
        running: dict[str, Any] = {"name": "engine", "containerID": "c", "state": {"running": {}}}
        if exit_code is not None:
            running["lastState"] = {"terminated": {"exitCode": exit_code, "message": "full"}}
        status = {
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [running],
        }
        self.store.put(POD, {"metadata": {**meta, "labels": labels}, "status": status})

    async def observe(self) -> Pass:
        memory = self.world.memory(KEY, uid="u1")
        p = Pass(key=KEY, body=self.store.objects[KEY], owner=OWNER, memory=memory)
        await observe_workers(p, self.world)
        return p


@pytest.fixture
async def house() -> House:
    return House()


async def test_a_verified_worker_is_asked_once_and_again_after_a_minute_or_so(house: House) -> None:
    house.add_pod()
    p = await house.observe()
    assert p.workers[0].report == report()
    assert 45 <= p.ask_again[0] <= 75
    house.now = p.ask_again[0] - 1
    await house.observe()
    assert house.workers.asked == 1
    house.now += 2
    await house.observe()
    assert house.workers.asked == 2


GROUPED = {GROUP_OF_PODS: "chat-1a2b"}


async def test_a_follower_is_seen_and_not_asked(house: House) -> None:
    house.add_pod("chat-1a2b-0", **GROUPED)
    house.add_pod("chat-1a2b-0-1", **{**GROUPED, COMPONENT: FOLLOWER})
    p = await house.observe()
    assert house.workers.asked == 1
    assert [worker.pod.name for worker in p.workers] == ["chat-1a2b-0"]
    assert [pod.name for pod in p.followers] == ["chat-1a2b-0-1"]


async def test_what_a_pod_of_a_group_said_is_kept_when_it_is_gone_until_a_leader_of_its_plan_is_ready(
    house: House,
) -> None:
    house.add_pod("f", ready=False, exit_code=1, **{**GROUPED, COMPONENT: FOLLOWER})
    p = await house.observe()
    house.store.replace(POD, [], version="9")
    for _ in range(2):
        p = await house.observe()
        assert p.memory.ended is not None
        assert p.memory.ended.name == "f"
        house.add_pod("l", version=11, **{**GROUPED, PLAN: "h2"})
    house.add_pod("l", version=12, **GROUPED)
    assert (await house.observe()).memory.ended is None


async def test_one_that_drained_or_is_no_member_of_a_group_is_not_remembered(house: House) -> None:
    house.add_pod("drained", ready=False, exit_code=0, **GROUPED)
    house.add_pod("alone", ready=False, exit_code=1)
    assert (await house.observe()).memory.ended is None


async def test_a_worker_whose_pod_becomes_ready_is_asked_at_once(house: House) -> None:
    house.workers.says = report("Starting", observed=None)
    house.add_pod(ready=False)
    assert (await house.observe()).ask_again == [2.0]
    house.workers.says = report()
    house.add_pod(ready=True, version=2)
    p = await house.observe()
    assert house.workers.asked == 2
    assert p.workers[0].report == report()


@pytest.mark.parametrize(
    ("says", "per_second"), [(report(), 2.0), (report("Starting"), 20.0), (report("Mismatch"), 20.0)]
)
async def test_asking_costs_no_more_the_more_workers_there_are(
    house: House, says: Report, per_second: float
) -> None:
    house.workers.says = says
    for number in range(1000):
        house.add_pod(f"chat-{number}")
    p = await house.observe()
    assert sum(1 / seconds for seconds in p.ask_again) <= per_second * 1.1


async def test_a_silent_worker_keeps_no_pass_waiting_and_its_answer_brings_one(house: House) -> None:
    house.workers.may_answer.clear()
    house.add_pod()
    p = await house.observe()
    assert p.unanswered
    assert p.workers[0].report is None
    assert p.ask_again == []
    assert (await house.observe()).unanswered
    assert house.workers.asked == 1
    house.touched.clear()
    house.workers.may_answer.set()
    await asyncio.sleep(0.01)
    assert KEY in house.touched
    p = await house.observe()
    assert not p.unanswered
    assert p.workers[0].report == report()


async def test_no_answer_is_an_answer_and_the_pauses_grow(house: House) -> None:
    house.workers.says = None
    house.add_pod()
    pauses: list[float] = []
    for _ in range(10):
        p = await house.observe()
        assert not p.unanswered
        pauses += p.ask_again
        house.now += p.ask_again[0]
    assert pauses[:5] == [0.5, 1, 2, 4, 8]
    assert 45 <= pauses[-1] <= 75


async def test_an_object_that_goes_takes_its_questions_with_it(house: House) -> None:
    house.workers.may_answer.clear()
    house.add_pod()
    p = await house.observe()
    (question,) = p.memory.asking.values()
    house.world.forget(KEY)
    await asyncio.wait([question])
    assert question.cancelled()


def changes(house: House) -> Iterator[tuple[str, Any]]:
    yield "time alone", None
    yield "the use of the cache within a step", lambda: setattr(house.workers, "says", report(kv_usage=0.02))
    yield "another step", lambda: setattr(house.workers, "says", report(kv_usage=0.5))
    yield "another state", lambda: setattr(house.workers, "says", report("Mismatch"))
    yield "the store learnt something", lambda: house.store.touch(KEY)


@pytest.mark.parametrize(("number", "whole"), [(0, False), (1, False), (2, True), (3, True), (4, True)])
async def test_only_what_is_new_makes_a_whole_pass(
    house: House, monkeypatch: pytest.MonkeyPatch, number: int, whole: bool
) -> None:
    house.add_pod()
    body = {**house.store.objects[KEY], "status": {"kvUsedSummary": "0%"}}
    body["metadata"]["resourceVersion"] = "2"
    house.store.absorb_object(body)
    p = await house.observe()
    p.memory.settled = Settled(changes=house.store.changes(KEY), workers=p.workers)
    passes: list[Pass] = []

    async def change(p: Pass, _world: World) -> None:
        passes.append(p)

    async def tell(_p: Pass, _world: World) -> bool:
        return True

    monkeypatch.setattr("tonnage.control.reconcile._change", change)
    monkeypatch.setattr("tonnage.control.reconcile.LOOKING", (observe_workers, tell))
    what, happens = list(changes(house))[number]
    if happens is not None:
        happens()
    house.now += 100
    again = await reconcile(KEY, house.world)
    assert bool(passes) is whole, what
    assert again is not None
