"""The reflector under faults: 410, broken watches, and what is remembered between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tonnage.cluster import reflector as module
from tonnage.cluster.port import POD, ApiError, Event, Kind, Listing, Object
from tonnage.cluster.reflector import Reflector


class Script:
    """A cluster that plays a script of listings and watches, then stays silent."""

    def __init__(self, *, lists: list[Any], watches: list[list[Any]]) -> None:
        self.lists, self.watches = lists, watches
        self.versions: list[str] = []
        self.namespaces: set[str] = set()

    async def list(self, _kind: Kind, *, namespace: str = "", selector: str = "") -> Listing:
        self.namespaces.add(namespace)
        if not self.lists:
            await asyncio.Event().wait()
        answer = self.lists.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        return Listing(*answer)

    async def watch(
        self,
        _kind: Kind,
        *,
        resource_version: str,
        namespace: str = "",
        selector: str = "",
        seconds: float = 300.0,
    ) -> AsyncGenerator[Event]:
        self.namespaces.add(namespace)
        self.versions.append(resource_version)
        if not self.watches:
            await asyncio.Event().wait()
        for event in self.watches.pop(0):
            if isinstance(event, ApiError):
                raise event
            yield event


class Told:
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.versions: list[str] = []
        self.namespaces: set[str] = set()

    def replace(self, _kind: Kind, objects: list[Object], *, namespace: str, version: str) -> None:
        self.namespaces.add(namespace)
        self.calls.append(("replace", [o["metadata"]["name"] for o in objects]))
        self.versions.append(version)

    def put(self, _kind: Kind, body: Object) -> None:
        self.calls.append(("put", body["metadata"]["name"]))

    def remove(self, _kind: Kind, body: Object) -> None:
        self.calls.append(("remove", body["metadata"]["name"]))


def event(type_: str, name: str, version: int) -> Event:
    return Event(type_, {"metadata": {"name": name, "resourceVersion": str(version)}})


def item(name: str) -> Object:
    return {"metadata": {"name": name}}


async def play(
    script: Script,
    *,
    namespace: str = "",
    relist_seconds: float = 600.0,
    watches: bool = True,
    optional: bool = False,
    changes: list[bool] | None = None,
) -> tuple[Told, Reflector]:
    told = Told()
    reflector = Reflector(
        script,  # type: ignore[arg-type]
        POD,
        told,
        selector="",
        clock=lambda: 7.0,
        namespace=namespace,
        watches=watches,
        optional=optional,
        relist_seconds=relist_seconds,
    )
    reflector.served_changed = lambda: changes.append(reflector.served) if changes is not None else None
    task = asyncio.create_task(reflector.run())
    while (script.watches or script.lists) and not task.done():
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    if task.done():
        await task
    task.cancel()
    return told, reflector


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_BACKOFF_SECONDS", 0.0)


async def test_events_follow_the_list_and_the_next_watch_starts_where_the_last_one_ended() -> None:
    script = Script(
        lists=[([item("a")], "10")],
        watches=[[event("ADDED", "b", 11), event("BOOKMARK", "", 15)], [event("DELETED", "a", 16)]],
    )
    told, reflector = await play(script)
    assert told.calls == [("replace", ["a"]), ("put", "b"), ("remove", "a")]
    assert script.versions == ["10", "15", "16"]
    assert reflector.synced.is_set()
    assert reflector.last_contact == 7.0


async def test_410_lists_again_so_that_a_missed_deletion_is_seen() -> None:
    script = Script(lists=[([item("a")], "10"), ([], "20")], watches=[[ApiError(410, "too old")], []])
    told, _ = await play(script)
    assert told.calls == [("replace", ["a"]), ("replace", [])]
    assert script.versions[:2] == ["10", "20"]


async def test_a_broken_watch_goes_on_from_the_last_event_without_a_list() -> None:
    script = Script(
        lists=[([], "10")],
        watches=[[event("ADDED", "a", 11), ApiError(0, "connection reset")], [event("ADDED", "b", 12)]],
    )
    told, _ = await play(script)
    assert told.calls == [("replace", []), ("put", "a"), ("put", "b")]
    assert script.versions == ["10", "11", "12"]


async def test_a_list_that_fails_is_repeated() -> None:
    script = Script(
        lists=[ApiError(500, "etcd"), ApiError(429, "busy", retry_after=0.0), ([], "5")], watches=[]
    )
    told, _ = await play(script)
    assert told.calls == [("replace", [])]


async def test_an_event_out_of_order_or_told_twice_is_not_taken_and_the_first_of_them_lists_again() -> None:
    script = Script(
        lists=[([], "10"), ([item("a"), item("b")], "13")],
        watches=[[event("ADDED", "b", 12), event("ADDED", "b", 12), event("ADDED", "a", 11)], []],
    )
    told, _ = await play(script)
    assert told.calls == [("replace", []), ("put", "b"), ("replace", ["a", "b"])]
    assert script.versions[:2] == ["10", "13"]


async def test_what_no_event_told_is_seen_when_the_time_for_a_list_has_come() -> None:
    script = Script(lists=[([item("a")], "10"), ([], "12")], watches=[[], []])
    told, _ = await play(script, relist_seconds=0.0)
    assert told.calls[:2] == [("replace", ["a"]), ("replace", [])]


async def test_a_list_older_than_what_was_seen_is_asked_for_again() -> None:
    script = Script(
        lists=[([], "10"), ([item("old")], "9"), ([item("a")], "12")],
        watches=[[event("ADDED", "a", 11), ApiError(410, "too old")], []],
    )
    told, _ = await play(script)
    assert told.calls == [("replace", []), ("put", "a"), ("replace", ["a"])]


async def test_a_server_that_lags_for_a_while_is_not_believed() -> None:
    old = ([item("old")], "3")
    script = Script(
        lists=[([], "10"), *[old] * (module.OLD_LISTS - 1), ([item("a")], "12")],
        watches=[[ApiError(410, "too old")], []],
    )
    told, _ = await play(script)
    assert told.calls == [("replace", []), ("replace", ["a"])]
    assert told.versions == ["10", "12"]


async def test_older_lists_again_and_again_are_a_restored_server_and_believed() -> None:
    old = ([item("restored")], "3")
    script = Script(lists=[([], "10"), *[old] * module.OLD_LISTS], watches=[[ApiError(410, "too old")], []])
    told, _ = await play(script)
    assert told.calls == [("replace", []), ("replace", ["restored"])]
    assert told.versions == ["10", ""]


async def test_a_kind_that_is_no_longer_served_is_not_synced_until_it_is_listed_again() -> None:
    gone = ApiError(404, "the server could not find the requested resource")
    _, reflector = await play(Script(lists=[([], "10"), gone], watches=[[gone]]))
    assert not reflector.synced.is_set()
    _, reflector = await play(Script(lists=[([], "10"), gone, ([], "12")], watches=[[gone]]))
    assert reflector.synced.is_set()


async def test_who_waits_for_a_kind_that_a_cluster_may_be_without_is_told_when_it_is_served_and_when_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BACKOFF_SECONDS", 0.0)
    gone = ApiError(404, "the server could not find the requested resource")
    changes: list[bool] = []
    script = Script(lists=[gone, gone, ([item("a")], "10"), gone], watches=[[gone]])
    told, reflector = await play(script, optional=True, changes=changes)
    assert changes == [True, False]
    assert (reflector.synced.is_set(), reflector.served) == (True, False)
    assert told.calls[-1] == ("replace", [])


async def test_410_at_once_after_each_list_waits_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def slept(seconds: float, sleep: Any = asyncio.sleep) -> None:
        if seconds:
            pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(module, "FIRST_BACKOFF_SECONDS", 0.5)
    monkeypatch.setattr(module.asyncio, "sleep", slept)
    gone = [ApiError(410, "too old")]
    await play(Script(lists=[([], str(v)) for v in range(10, 20)], watches=[gone] * 10))
    assert len(pauses) >= 9
    assert pauses[0] < 0.7
    assert pauses[5] > 10
    assert max(pauses) <= module.MAX_BACKOFF_SECONDS * 1.2


async def test_a_missing_right_is_no_answer_yet_but_a_settled_question() -> None:
    script = Script(lists=[ApiError(403, "no"), ApiError(403, "no")], watches=[])
    told, reflector = await play(script)
    assert (reflector.settled.is_set(), reflector.synced.is_set()) == (True, False)
    assert reflector.refused == "no"
    assert told.calls == []


async def test_a_right_that_is_granted_later_is_used() -> None:
    script = Script(
        lists=[ApiError(403, "no"), ([item("a")], "5")],
        watches=[[ApiError(403, "gone")], [event("BOOKMARK", "", 5)]],
    )
    told, reflector = await play(script)
    assert told.calls == [("replace", ["a"])]
    assert reflector.refused == ""
    assert reflector.synced.is_set()


async def test_one_namespace_is_asked_for_and_told_of() -> None:
    script = Script(lists=[([item("a")], "5")], watches=[])
    told, reflector = await play(script, namespace="team-a")
    assert script.namespaces == {"team-a"}
    assert told.namespaces == {"team-a"}
    assert reflector.name == "pods in team-a"


async def test_what_somebody_else_watches_is_only_listed_again_and_again() -> None:
    script = Script(lists=[([item("a")], "5"), ([], "9")], watches=[])
    told, _ = await play(script, relist_seconds=0.0, watches=False)
    assert told.calls == [("replace", ["a"]), ("replace", [])]
    assert script.versions == []
