"""The store: what watches tell, who is touched by it, and what a re-list means."""

from __future__ import annotations

from typing import Any

import pytest

from tonnage.cluster.port import DEPLOYMENT, LLM_DEPLOYMENT, POD
from tonnage.control.queue import Key
from tonnage.control.store import Store

KEY = ("default", "chat")


class Seen:
    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.pressing: list[bool] = []
        self.store = Store(touched=self.touch)

    def touch(self, key: Key, first: bool) -> None:
        self.keys.append(key)
        self.pressing.append(first)


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


def test_of_two_objects_with_one_name_the_younger_is_kept(seen: Seen) -> None:
    seen.store.put(DEPLOYMENT, child(9, uid="u2"))
    seen.store.put(DEPLOYMENT, child(3, uid="u1"))
    seen.store.remove(DEPLOYMENT, child(5, uid="u1"))
    stored = seen.store.child(KEY, DEPLOYMENT, "chat")
    assert stored is not None
    assert stored["metadata"]["uid"] == "u2"


def test_the_list_of_a_restored_server_is_taken_whatever_its_versions(seen: Seen) -> None:
    """A restored API server counts from an earlier version."""
    seen.store.put(DEPLOYMENT, child(9))
    seen.store.remove(DEPLOYMENT, child(12, name="other"))
    seen.store.replace(DEPLOYMENT, [child(3, spec="restored"), child(4, name="other")], version="")
    stored = seen.store.child(KEY, DEPLOYMENT, "chat")
    assert stored is not None
    assert stored["spec"] == "restored"
    assert seen.store.child(KEY, DEPLOYMENT, "other") is not None


def test_the_answer_to_a_write_does_not_bring_back_what_was_deleted_meanwhile(seen: Seen) -> None:
    seen.store.put(DEPLOYMENT, child(5))
    seen.store.remove(DEPLOYMENT, child(6))
    seen.store.absorb(DEPLOYMENT, child(5))
    assert seen.store.child(KEY, DEPLOYMENT, "chat") is None
    seen.store.absorb(DEPLOYMENT, child(7, uid="u2"))
    assert seen.store.child(KEY, DEPLOYMENT, "chat") is not None


def test_a_child_whose_label_was_edited_is_missed_by_its_owner(seen: Seen) -> None:
    seen.store.put(DEPLOYMENT, child(5))
    edited = child(6)
    edited["metadata"]["labels"] = {"tonnage.dev/deployment": "other"}
    seen.store.put(DEPLOYMENT, edited)
    assert seen.store.child(KEY, DEPLOYMENT, "chat") is None
    assert seen.store.child(("default", "other"), DEPLOYMENT, "chat") is not None
    assert seen.keys == [KEY, KEY, ("default", "other")]


def test_an_edit_that_overtakes_the_answer_to_a_status_write_is_kept(seen: Seen) -> None:
    seen.store.put(LLM_DEPLOYMENT, child(5, spec="old"))
    seen.store.put(LLM_DEPLOYMENT, child(7, spec="edited"))
    seen.store.absorb_object(child(6, spec="old"))
    assert seen.store.objects[KEY]["spec"] == "edited"


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0)])
def test_an_object_deleted_and_made_anew_stays_in_any_order_of_events(
    seen: Seen, order: tuple[int, ...]
) -> None:
    events = (
        lambda: seen.store.put(LLM_DEPLOYMENT, child(5, uid="u1")),
        lambda: seen.store.remove(LLM_DEPLOYMENT, child(6, uid="u1")),
        lambda: seen.store.put(LLM_DEPLOYMENT, child(7, uid="u2")),
    )
    for number in order:
        events[number]()
    assert seen.store.objects[KEY]["metadata"]["uid"] == "u2"


def test_an_object_that_was_not_found_is_dropped_and_a_younger_one_is_not(seen: Seen) -> None:
    seen.store.put(LLM_DEPLOYMENT, child(5, uid="u2"))
    seen.store.drop_object(KEY, uid="u1")
    assert KEY in seen.store.objects
    seen.store.drop_object(KEY, uid="u2")
    assert KEY not in seen.store.objects


def test_a_list_shows_deletions_that_no_event_told(seen: Seen) -> None:
    seen.store.put(DEPLOYMENT, child())
    seen.store.put(POD, child(name="chat-1"))
    seen.store.replace(DEPLOYMENT, [], version="9")
    assert seen.store.child(KEY, DEPLOYMENT, "chat") is None
    assert [pod.name for pod in seen.store.pods(KEY)] == ["chat-1"]
    seen.store.replace(POD, [], version="9")
    assert seen.store.pods(KEY) == []
    assert seen.keys == [KEY] * 4


def test_a_list_of_one_namespace_says_nothing_of_another(seen: Seen) -> None:
    seen.store.put(DEPLOYMENT, child(5))
    seen.store.put(POD, child(5, name="chat-1"))
    seen.store.replace(DEPLOYMENT, [], namespace="other", version="9")
    seen.store.replace(POD, [], namespace="other", version="9")
    assert seen.store.child(KEY, DEPLOYMENT, "chat") is not None
    assert len(seen.store.pods(KEY)) == 1
    seen.store.remove(DEPLOYMENT, child(6))
    seen.store.replace(DEPLOYMENT, [], namespace="other", version="9")
    seen.store.absorb(DEPLOYMENT, child(5))
    assert seen.store.child(KEY, DEPLOYMENT, "chat") is None
    seen.store.replace(POD, [], namespace="default", version="9")
    assert seen.store.pods(KEY) == []


def test_an_edit_in_the_answer_to_our_write_asks_for_a_pass(seen: Seen) -> None:
    before, edited, later = child(5), child(7), child(8)
    for body, generation in ((before, 1), (edited, 2), (later, 2)):
        body["metadata"]["generation"] = generation
    seen.store.put(LLM_DEPLOYMENT, before)
    seen.store.absorb_object(edited)
    assert seen.keys == [KEY, KEY]
    seen.store.absorb_object(later)
    assert seen.keys == [KEY, KEY]


def test_what_a_user_did_presses_and_what_others_did_does_not(seen: Seen) -> None:
    made, told, edited = child(5), child(6, status={}), child(7)
    for body, generation in ((made, 1), (told, 1), (edited, 2)):
        body["metadata"]["generation"] = generation
        seen.pressing.clear()
        seen.store.put(LLM_DEPLOYMENT, body)
        assert any(seen.pressing) == (body is not told)
        assert seen.pressing
    seen.pressing.clear()
    seen.store.put(DEPLOYMENT, child())
    assert seen.pressing == [False]


def test_a_list_does_not_take_back_what_our_own_writes_were_answered(seen: Seen) -> None:
    seen.store.put(DEPLOYMENT, child(3, name="gone"))
    seen.store.put(DEPLOYMENT, child(3, spec="old"))
    seen.store.absorb(DEPLOYMENT, child(7, spec="written"))
    seen.store.absorb(DEPLOYMENT, child(8, name="made"))
    seen.store.replace(DEPLOYMENT, [child(3, spec="old")], version="5")
    assert {body["metadata"]["name"] for body in seen.store.children(KEY, DEPLOYMENT)} == {"chat", "made"}
    stored = seen.store.child(KEY, DEPLOYMENT, "chat")
    assert stored is not None
    assert stored["spec"] == "written"


def test_a_list_of_llm_deployments_shows_what_no_event_told(seen: Seen) -> None:
    for version, name in ((3, "chat"), (4, "gone"), (9, "written")):
        seen.store.put(LLM_DEPLOYMENT, child(version, name=name))
    seen.keys.clear()
    seen.store.replace(
        LLM_DEPLOYMENT, [child(3), child(5, name="new"), child(6, name="written")], version="7"
    )
    assert {name for _, name in seen.store.objects} == {"chat", "new", "written"}
    assert sorted(seen.keys) == [("default", "gone"), ("default", "new")]
    assert seen.store.objects["default", "written"]["metadata"]["resourceVersion"] == "9"
    seen.store.replace(LLM_DEPLOYMENT, [child(2, spec="restored")], version="")
    assert [body["spec"] for body in seen.store.objects.values()] == ["restored"]


def test_a_list_older_than_a_deletion_does_not_bring_back_what_was_deleted(seen: Seen) -> None:
    seen.store.put(LLM_DEPLOYMENT, child(3))
    seen.store.remove(LLM_DEPLOYMENT, child(6))
    seen.store.replace(LLM_DEPLOYMENT, [child(3)], version="5")
    assert seen.store.objects == {}
    seen.store.replace(LLM_DEPLOYMENT, [child(8, uid="u2")], version="9")
    assert KEY in seen.store.objects
