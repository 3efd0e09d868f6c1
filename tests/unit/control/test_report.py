"""When a status is written: at once, soon, or at most once a minute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tonnage.api.v1alpha1 import Spec
from tonnage.cluster.port import LLM_DEPLOYMENT, Kind, Object
from tonnage.control.hardware import Hardware
from tonnage.control.steps import report as step
from tonnage.control.store import Store
from tonnage.control.world import Clock, Pass, World
from tonnage.rendering.names import Owner
from unit.rendering.samples import SETTINGS

KEY = ("default", "chat")
OWNER = Owner(namespace="default", name="chat", uid="u1")
READY = {"type": "Ready", "status": "True", "reason": "Serving", "message": ""}
STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "phase": "Ready",
    "replicas": 1,
    "kvUsedSummary": "0%",
    "conditions": [READY],
}
NOT_READY = {"phase": "Updating", "conditions": [{**READY, "status": "False"}]}


@dataclass
class Desk:
    """The step with a status that the test sets and a clock set by hand."""

    monkeypatch: pytest.MonkeyPatch
    status: dict[str, Any] = field(default_factory=lambda: dict(STATUS))
    written: list[float] = field(default_factory=list)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.store = Store(touched=lambda _key, _first: None)
        self.world = World(
            cluster=self,  # type: ignore[arg-type]
            scraper=None,  # type: ignore[arg-type]
            store=self.store,
            hardware=Hardware(changed=lambda: None),
            settings=SETTINGS,
            clock=Clock(monotonic=lambda: self.now, now=lambda: "2026-01-01T00:00:00Z"),
        )
        self.monkeypatch.setattr(step, "compute_status", lambda *_, **__: dict(self.status))
        self._store(None)

    def _store(self, status: object) -> None:
        meta = {"namespace": "default", "name": "chat", "uid": "u1"}
        version = str(len(self.written) + 1)
        body = {"kind": LLM_DEPLOYMENT.kind, "metadata": {**meta, "resourceVersion": version}}
        self.store.put(LLM_DEPLOYMENT, {**body, **({"status": status} if status else {})})

    async def apply_status(self, _kind: Kind, body: Object) -> Object:
        self.written.append(self.now)
        self._store(body["status"])
        return self.store.objects[KEY]

    async def look(self, *, unanswered: bool = False, **change: Any) -> Pass:
        """One pass, in which the status is as it was but for `change`."""
        self.status.update(change)
        memory = self.world.memory(KEY, uid="u1")
        p = Pass(key=KEY, body=self.store.objects[KEY], owner=OWNER, memory=memory, unanswered=unanswered)
        await step.report_status(p, self.world)
        return p

    async def until_written(self, **change: Any) -> float:
        """Pass after pass, as they ask for it; the seconds until the status was written."""
        begun, count = self.now, len(self.written)
        while True:
            p = await self.look(**change)
            if len(self.written) > count:
                assert p.requeue == []
                return self.now - begun
            self.now += min(p.requeue)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


async def test_a_new_generation_is_told_at_once(desk: Desk) -> None:
    assert await desk.until_written() == 0
    assert await desk.until_written(observedGeneration=2) == 0


async def test_while_specs_wait_nothing_is_told_but_not_for_ever(desk: Desk) -> None:
    desk.world.pressed = lambda: True
    assert await desk.until_written() == pytest.approx(step.MOST_PRESSED_SECONDS, abs=step.PRESSED_SECONDS)
    desk.world.pressed = lambda: False
    assert await desk.until_written(observedGeneration=2) == 0


async def test_what_is_as_before_is_not_written(desk: Desk) -> None:
    await desk.look()
    assert (await desk.look()).requeue == []
    assert len(desk.written) == 1


@pytest.mark.parametrize(
    ("change", "seconds"), [(NOT_READY, 1), ({"replicas": 2}, 5), ({"kvUsedSummary": "50%"}, 60)]
)
async def test_what_can_wait_waits(desk: Desk, change: dict[str, Any], seconds: float) -> None:
    await desk.look()
    assert await desk.until_written(**change) == seconds


async def test_the_steps_of_a_transition_are_one_write(desk: Desk) -> None:
    await desk.look()
    await desk.look(replicas=2)
    desk.now += 0.5
    await desk.look(**NOT_READY)
    desk.now += 0.5
    assert await desk.until_written(phase="Degraded") == 0.5
    assert len(desk.written) == 2
    assert (await desk.look()).requeue == []


async def test_a_change_that_went_back_is_not_written(desk: Desk) -> None:
    await desk.look()
    await desk.look(**NOT_READY)
    desk.now += 0.5
    assert (await desk.look(phase="Ready", conditions=[READY])).requeue == []
    desk.now += 60
    assert await desk.until_written(**NOT_READY) == 1


async def test_the_use_of_the_cache_is_told_once_a_minute_whatever_else_is(desk: Desk) -> None:
    await desk.look()
    for number in range(300):
        desk.now += 1
        await desk.look(kvUsedSummary=f"{number % 10 * 10}%")
    gaps = [later - earlier for earlier, later in zip(desk.written, desk.written[1:], strict=False)]
    assert len(gaps) >= 4
    assert min(gaps) >= 60


async def test_a_first_answer_that_is_awaited_is_waited_for_but_not_by_a_new_generation(desk: Desk) -> None:
    await desk.look()
    desk.now += 100
    await desk.look(**NOT_READY, unanswered=True)
    desk.now += 10
    p = await desk.look(unanswered=True)
    assert p.requeue == [1.0]
    assert len(desk.written) == 1
    await desk.look(unanswered=True, observedGeneration=2)
    assert len(desk.written) == 2


@pytest.mark.parametrize(
    ("spec", "deployed", "wanted"),
    [
        ({"replicas": 0}, 2, 2),
        ({"replicas": 3}, None, 3),
        (None, 2, 2),
        (None, None, 0),
    ],
)
async def test_what_serves_is_not_judged_by_the_replicas_of_a_refused_spec(
    monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any] | None, deployed: int | None, wanted: int
) -> None:
    desk, seen = Desk(monkeypatch), []
    monkeypatch.setattr(step, "compute_status", lambda snapshot, **_: seen.append(snapshot.wanted) or {})
    monkeypatch.setattr(
        step, "workload_in_force", lambda *_: None if deployed is None else deployment(deployed)
    )
    p = Pass(key=KEY, body=desk.store.objects[KEY], owner=OWNER, memory=desk.world.memory(KEY, uid="u1"))
    p.spec = None if spec is None else Spec.model_validate({"model": {"uri": "pvc://models/m"}, **spec})
    await step.report_status(p, desk.world)
    assert seen == [wanted]


def deployment(replicas: int) -> Object:
    template = {"metadata": {"labels": {}}}
    return {"spec": {"replicas": replicas, "template": template}}
