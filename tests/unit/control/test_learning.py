"""What is learned, kept: written rarely, once each, by whoever leads; and plans in force stay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.api.v1alpha1 import Spec
from tonnage.cluster.port import CONFIG_MAP, ApiError, Kind, Object
from tonnage.control import learning
from tonnage.control.hardware import Hardware
from tonnage.control.learning import LearnedMap, Learning
from tonnage.control.steps.learn import learn_from_workers
from tonnage.control.store import Store
from tonnage.control.world import Clock, Known, Pass, World
from tonnage.models import ResolvedModel
from tonnage.planning.residuals import FORMAT, NOTHING_LEARNED, Residuals, dump, read
from tonnage.planning.term import GIB, MIB, Term
from tonnage.rendering.findings import Worker
from tonnage.rendering.lessons import Lesson
from tonnage.rendering.names import PLAN, Owner
from unit.planning.gpu.samples import LLAMA_8B
from unit.planning.test_residuals import KEY
from unit.rendering.samples import HASH, KEPT, SETTINGS, pod, report, spec
from unit.rendering.test_lessons import ON_ONE, law, memory

TRUSTED = ("registry.example/worker",)
IMAGE = "registry.example/worker:1"
LAW = Term(60 * GIB, 70 * GIB, 80 * GIB, "a law")
NOW = 1_767_225_600
"""2026-01-01T00:00:00Z."""


def a_lesson(residual_mib: int = 10) -> Lesson:
    return Lesson(key=KEY, measured_bytes=LAW.likely + residual_mib * MIB, law=LAW)


@dataclass
class Server:
    """One ConfigMap; `refuses` are the verbs that it answers with 403."""

    data: dict[str, str] | None = None
    refuses: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    async def get(self, kind: Kind, *, namespace: str, name: str) -> Object | None:
        self._ask("get", kind, namespace, name)
        return None if self.data is None else {"metadata": {}, "data": dict(self.data)}

    async def apply(self, kind: Kind, body: Object, *, force: bool = True) -> Object:
        self._ask("apply", kind, body["metadata"]["namespace"], body["metadata"]["name"])
        self.data = dict(body["data"])
        return body

    def _ask(self, verb: str, *place: object) -> None:
        assert place == (CONFIG_MAP, "system", "learned")
        self.asked.append(verb)
        if verb in self.refuses:
            raise ApiError(403, f"may not {verb}")

    def kept(self) -> Residuals:
        found, problems = read(self.data or {})
        assert problems == ()
        return found


@dataclass
class School:
    """A process that learns."""

    server: Server = field(default_factory=Server)

    def __post_init__(self) -> None:
        self.changes = 0
        self.learning = Learning(trusted=TRUSTED, changed=self._changed)
        self.map = LearnedMap(
            self.server,  # type: ignore[arg-type]
            self.learning,
            namespace="system",
            name="learned",
            watched=(),
        )

    def _changed(self) -> None:
        self.changes += 1

    def teach(self, *starts: tuple[int, int]) -> None:
        for second, residual in starts:
            self.learning.teach(a_lesson(residual), started_at=second)

    async def until(self, probe: Callable[[], bool]) -> None:
        """Keep the map until something is true."""
        keeping = asyncio.create_task(self.map.keep())
        async with asyncio.timeout(5):
            while not probe():
                await asyncio.sleep(0.005)
        keeping.cancel()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "WRITE_SECONDS", 0.02)
    monkeypatch.setattr(learning, "READ_SECONDS", 0.2)


async def test_starts_that_come_together_are_one_write_and_nothing_is_written_at_rest() -> None:
    school = School()
    assert await school.map.load()
    keeping = asyncio.create_task(school.map.keep())
    school.teach((1, 10), (2, 20))
    await asyncio.sleep(0)
    school.teach((3, 30))
    async with asyncio.timeout(5):
        while len(school.server.asked) < 6:
            await asyncio.sleep(0.01)
    keeping.cancel()
    assert school.server.asked.count("apply") == 1
    assert school.server.kept() == school.learning.known
    assert [second for second, _ in school.server.kept().learned[KEY.entry].starts] == [1, 2, 3]


async def test_what_was_kept_is_read_by_the_next_process_which_is_not_taught_it_again() -> None:
    first = School()
    first.teach((1, 10), (2, 20))
    await first.until(lambda: first.server.data is not None)
    second = School(first.server)
    await second.map.load()
    assert (second.learning.known, second.changes) == (first.learning.known, 1)
    second.teach((2, 20), (1, 10))
    assert second.changes == 1
    assert not second.learning.news.is_set()


async def test_a_process_that_could_not_read_at_first_adds_to_what_is_kept() -> None:
    school = School(Server(data=dump(_known((1, 10)))))
    school.server.refuses = {"get"}
    assert not await school.map.load()
    school.teach((1, 10), (2, 20))
    school.server.refuses = set()
    await school.until(lambda: school.server.asked.count("apply") == 1)
    assert school.server.kept() == _known((1, 10), (2, 20))


async def test_one_that_is_deleted_is_forgotten_and_what_comes_afterwards_is_not() -> None:
    school = School()
    school.teach((1, 10), (2, 20))
    await school.until(lambda: school.server.data is not None)
    school.server.data = None
    await school.until(lambda: school.learning.known == NOTHING_LEARNED)
    assert school.server.data is None
    school.teach((3, 30))
    await school.until(lambda: school.server.data is not None)
    assert school.server.kept() == _known((3, 30))


async def test_missing_rights_are_said_once_and_learning_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    school = School(Server(refuses={"apply"}))
    with caplog.at_level(logging.WARNING):
        school.teach((1, 10))
        await school.until(lambda: school.server.asked.count("apply") >= 2)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "system/learned" in line
    assert "may not apply" in line
    assert "the chart's Role" in line
    assert school.learning.known == _known((1, 10))
    school.server.refuses = set()
    await school.until(lambda: school.server.data is not None)
    assert school.server.kept() == _known((1, 10))


async def test_what_cannot_be_read_is_said_and_written_anew_by_the_next_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    school = School(Server(data={"format": FORMAT, "a": "nonsense", **_entry((1, 10))}))
    with caplog.at_level(logging.WARNING):
        assert await school.map.load()
    assert "a: 'nonsense'" in caplog.text
    assert school.server.asked == ["get"]
    school.teach((2, 20))
    await school.until(lambda: school.server.asked.count("apply") == 1)
    assert school.server.kept() == _known((1, 10), (2, 20))


@given(
    starts=st.lists(st.tuples(st.integers(0, 30), st.integers(-200, 200)), max_size=20),
    restarts=st.lists(st.integers(0, 20), max_size=4),
    again=st.data(),
)
def test_processes_in_a_row_keep_what_one_alone_would(
    starts: list[tuple[int, int]], restarts: list[int], again: st.DataObject
) -> None:
    """Each hears of some starts, some of them for the second time, and ends once it has written."""
    server = Server()

    async def passed() -> None:
        heard = 0
        for upto in [*sorted(restarts), len(starts)]:
            school = School(server)
            await school.map.load()
            before = again.draw(st.permutations(starts[:heard]))
            school.teach(*before, *starts[heard:upto])
            heard = max(heard, upto)
            await school.map._write()
            assert server.kept() == school.learning.known

    asyncio.run(passed())
    assert server.kept() == _known(*starts)


def _known(*starts: tuple[int, int]) -> Residuals:
    school = School()
    school.teach(*starts)
    return school.learning.known


def _entry(*starts: tuple[int, int]) -> dict[str, str]:
    return {name: text for name, text in dump(_known(*starts)).items() if name == KEY.entry}


# In a pass


class Passed:
    """A pass that looks at workers of a plan in force."""

    def __init__(self, *, fields: dict[str, Any] | None = None, trusted: tuple[str, ...] = TRUSTED) -> None:
        self.world = World(
            cluster=None,  # type: ignore[arg-type]
            scraper=None,  # type: ignore[arg-type]
            store=Store(touched=lambda _key, _first: None),
            hardware=Hardware(changed=lambda: None),
            settings=SETTINGS,
            learning=Learning(trusted=trusted),
            clock=Clock(monotonic=lambda: 0.0, now=lambda: "2026-01-01T00:00:00Z"),
        )
        found: Spec = spec(**(fields or {}))
        self.p = Pass(
            key=("default", "chat"),
            body={"metadata": {}},
            owner=Owner(namespace="default", name="chat", uid="u1"),
            memory=self.world.memory(("default", "chat"), uid="u1"),
            spec=found,
            known=Known(model=ResolvedModel(profile=LLAMA_8B, revision="abcdef0"), refreshed=""),
            kept=replace(KEPT, plan=ON_ONE),
            plan_hash=HASH,
        )

    def look(self, *workers: Worker) -> Residuals:
        self.p.workers = list(workers)
        assert asyncio.run(learn_from_workers(self.p, self.world))
        return self.world.learning.known


def one(name: str = "chat-1", *, beside: int | None = None, **fields: Any) -> Worker:
    held = law(ON_ONE) + 100 * MIB if beside is None else beside
    known: dict[str, Any] = {"image": IMAGE, "started_at": NOW - 100, **fields}
    return Worker(pod=pod(name, **known), report=report(memory=memory(ON_ONE, held)))


def test_workers_of_the_plan_in_force_teach_once_each() -> None:
    passed = Passed()
    known = passed.look(one(), one("chat-2", started_at=NOW - 90))
    (found,) = known.learned.values()
    assert found.starts == ((NOW - 100, 100), (NOW - 90, 100))
    assert passed.look(one(), one("chat-2", started_at=NOW - 90)) is known
    # another container of the same pod is another start
    restarted = one(container_id="c2", started_at=NOW - 5)
    (found,) = passed.look(restarted).learned.values()
    assert len(found.starts) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"image": "elsewhere/worker:1"},
        {"image": ""},
        {"image": "sha256:0123"},
        {"started_at": NOW + 61},
        {"started_at": 0},
        {"plan_hash": "another"},
        {"beside": 0},
    ],
    ids=str,
)
def test_whoever_is_not_believed_teaches_nothing(fields: dict[str, Any]) -> None:
    assert Passed().look(one(**fields)) == NOTHING_LEARNED


def test_a_clock_that_is_a_little_ahead_is_believed() -> None:
    assert Passed().look(one(started_at=NOW + 59)).learned


def test_engines_with_arguments_of_the_users_teach_nothing() -> None:
    own = {"engine": {"extraArgs": ["--enable-lora"]}}
    assert Passed(fields=own).look(one()) == NOTHING_LEARNED


def test_nothing_is_learned_where_nobody_is_trusted() -> None:
    assert Passed(trusted=()).look(one()) == NOTHING_LEARNED


def test_without_a_plan_in_force_nothing_is_learned() -> None:
    passed = Passed()
    passed.p.kept = None
    assert passed.look(one()) == NOTHING_LEARNED


def test_a_worker_that_is_not_verified_yet_teaches_later() -> None:
    passed, ready = Passed(), one()
    assert ready.report is not None
    assert passed.look(replace(ready, report=replace(ready.report, state="Starting"))) == NOTHING_LEARNED
    assert passed.look(replace(ready, report=replace(ready.report, memory=None))) == NOTHING_LEARNED
    assert passed.look(ready).learned
    assert ready.pod.labels[PLAN] == HASH


async def test_a_write_whose_answer_was_lost_is_not_made_again_once_the_map_is_deleted() -> None:
    school = School()
    school.teach((1, 10))
    school.server.data = dump(school.learning.known)
    await school.until(lambda: not school.learning.unwritten)
    assert "apply" not in school.server.asked
    school.server.data = None
    assert await school.map.load()
    assert school.learning.known == NOTHING_LEARNED
