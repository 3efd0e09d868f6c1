"""The store: what watches tell, who is touched by it, and what a re-list means."""

from __future__ import annotations

from typing import Any

import pytest

from tonnage.cluster.port import DEPLOYMENT, NODE, POD
from tonnage.control.queue import Key
from tonnage.control.store import Store

KEY = ("default", "chat")


class Seen:
    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.nodes = 0
        self.store = Store(touched=self.keys.append, nodes_changed=self.node)

    def node(self) -> None:
        self.nodes += 1


@pytest.fixture
def seen() -> Seen:
    return Seen()


def child(version: int = 1, *, name: str = "chat", uid: str = "u1", **fields: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "default",
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {"tonnage.dev/deployment": "chat"},
            "managedFields": [{"manager": "x"}],
        },
        **fields,
    }


def node(name: str, memory: str = "8Gi", heartbeat: str = "") -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}
    return {"metadata": {"name": name}, "status": {"allocatable": {"memory": memory}, "conditions": [ready]}}


def test_a_change_touches_its_owner_and_managed_fields_are_dropped(seen: Seen) -> None:
    seen.store.put(DEPLOYMENT, child())
    assert seen.keys == [KEY]
    stored = seen.store.child(KEY, DEPLOYMENT, "chat")
    assert stored is not None
    assert "managedFields" not in stored["metadata"]


def test_an_event_older_than_what_is_known_is_ignored(seen: Seen) -> None:
    seen.store.absorb(DEPLOYMENT, child(5, spec="new"))
    seen.store.put(DEPLOYMENT, child(4, spec="old"))
    seen.store.put(DEPLOYMENT, child(5, spec="new"))
    stored = seen.store.child(KEY, DEPLOYMENT, "chat")
    assert stored is not None
    assert (stored["spec"], seen.keys) == ("new", [])


def test_an_object_made_anew_under_the_same_name_is_taken_whatever_its_version(seen: Seen) -> None:
    seen.store.absorb(DEPLOYMENT, child(9))
    seen.store.put(DEPLOYMENT, child(3, uid="u2"))
    stored = seen.store.child(KEY, DEPLOYMENT, "chat")
    assert stored is not None
    assert stored["metadata"]["uid"] == "u2"


def test_a_list_shows_deletions_that_no_event_told(seen: Seen) -> None:
    seen.store.put(DEPLOYMENT, child())
    seen.store.put(POD, child(name="chat-1"))
    seen.store.replace(DEPLOYMENT, [])
    assert seen.store.child(KEY, DEPLOYMENT, "chat") is None
    assert [pod.name for pod in seen.store.pods(KEY)] == ["chat-1"]
    seen.store.replace(POD, [])
    assert seen.store.pods(KEY) == []
    assert seen.keys == [KEY] * 4


def test_a_heartbeat_of_a_node_is_no_change(seen: Seen) -> None:
    seen.store.put(NODE, node("a", heartbeat="1"))
    seen.store.put(NODE, node("a", heartbeat="2"))
    assert seen.nodes == 1
    seen.store.put(NODE, node("a", memory="16Gi"))
    seen.store.replace(NODE, [])
    assert (seen.nodes, seen.store.nodes) == (3, {})
