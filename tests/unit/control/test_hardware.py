"""What is known of the hardware: what counts as a change, who is bound, who comes first."""

from __future__ import annotations

from typing import Any

import pytest

from tonnage.cluster.port import DEVICE_CLASS, NODE, POD, PRIORITY_CLASS
from tonnage.control.hardware import Hardware, Pods
from tonnage.control.queue import Key
from tonnage.control.store import Store
from tonnage.rendering.names import DEPLOYMENT, MANAGED_BY, MANAGER, PLAN

KEY = ("ns", "chat")


class Seen:
    def __init__(self) -> None:
        self.changes = 0
        self.touched: list[Key] = []
        self.hardware = Hardware(changed=self.change)
        self.store = Store(touched=lambda key, _first: self.touched.append(key))
        self.pods = Pods(self.store, self.hardware)

    def change(self) -> None:
        self.changes += 1


@pytest.fixture
def seen() -> Seen:
    return Seen()


def node(name: str, memory: str = "8Gi", heartbeat: str = "") -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}
    return {"metadata": {"name": name}, "status": {"allocatable": {"memory": memory}, "conditions": [ready]}}


def pod(name: str, *, on: str = "a", phase: str = "Running", plan: str = "", **meta: Any) -> dict[str, Any]:
    labels = {MANAGED_BY: MANAGER, DEPLOYMENT: KEY[1], PLAN: plan} if plan else {}
    requests = {"resources": {"requests": {"nvidia.com/gpu": "2"}}}
    return {
        "metadata": {
            "namespace": "ns",
            "name": name,
            "uid": name,
            "labels": labels,
            "resourceVersion": "1",
            **meta,
        },
        "spec": {"nodeName": on, "containers": [{"name": "x", **requests}]},
        "status": {"phase": phase},
    }


def test_a_heartbeat_of_a_node_is_no_change(seen: Seen) -> None:
    seen.hardware.put(NODE, node("a", heartbeat="1"))
    seen.hardware.put(NODE, node("a", heartbeat="2"))
    assert (seen.changes, seen.hardware.changes) == (1, 1)
    seen.hardware.put(NODE, node("a", memory="16Gi"))
    seen.hardware.replace(NODE, [node("a", memory="16Gi")], version="9")
    seen.hardware.replace(NODE, [], version="9")
    assert (seen.changes, seen.hardware.nodes) == (3, ())


@pytest.mark.parametrize("ended", [pod("p", phase="Succeeded"), pod("p", on="")])
def test_a_pod_holds_something_only_while_it_has_a_node_and_has_not_ended(
    seen: Seen, ended: dict[str, Any]
) -> None:
    seen.pods.put(POD, ended)
    assert (seen.changes, seen.hardware.records.pods) == (0, ())
    seen.pods.put(POD, pod("p"))
    # it takes room, and makes none
    assert (seen.changes, seen.hardware.changes) == (0, 1)
    assert [each.resources for each in seen.hardware.records.pods] == [{"nvidia.com/gpu": 2}]
    seen.pods.put(POD, ended)
    seen.pods.remove(POD, ended)
    assert (seen.changes, seen.hardware.changes, seen.hardware.records.pods) == (1, 2, ())


def test_pods_of_others_are_no_reason_for_a_pass_and_ours_are(seen: Seen) -> None:
    seen.pods.put(POD, pod("theirs"))
    seen.pods.remove(POD, pod("theirs"))
    assert seen.touched == []
    seen.pods.put(POD, pod("ours", plan="h1"))
    assert seen.touched == [KEY]
    assert len(seen.store.pods(KEY)) == 1
    seen.pods.put(POD, pod("ours", resourceVersion="2"))
    assert seen.store.pods(KEY) == []
    assert len(seen.hardware.records.pods) == 1


def test_a_list_of_one_namespace_says_nothing_of_the_others(seen: Seen) -> None:
    seen.pods.replace(POD, [pod("a", plan="h1"), pod("b")], version="5")
    seen.pods.replace(POD, [], namespace="other", version="6")
    assert (len(seen.hardware.records.pods), len(seen.store.pods(KEY))) == (2, 1)
    seen.pods.replace(POD, [pod("b")], namespace="ns", version="7")
    assert ([each.name for each in seen.hardware.records.pods], seen.store.pods(KEY)) == (["b"], [])


def test_pods_that_have_a_node_are_counted_by_plan(seen: Seen) -> None:
    for name, plan in (("a", "h1"), ("b", "h1"), ("c", "h2")):
        seen.pods.put(POD, pod(name, plan=plan))
    seen.pods.put(POD, pod("d", plan="h1", on=""))
    found = [seen.hardware.bound_pods(KEY, plan_hash=plan) for plan in ("h1", "h2", "h3", "")]
    assert found == [2, 1, 0, 3]
    seen.pods.remove(POD, pod("a", plan="h1"))
    assert seen.hardware.bound_pods(KEY, plan_hash="h1") == 1


def test_a_pod_has_the_priority_of_its_class_or_of_the_default_one(seen: Seen) -> None:
    assert seen.hardware.priority(None) == 0
    classes = [
        {"metadata": {"name": "high"}, "value": 100},
        {"metadata": {"name": "usual"}, "value": 7, "globalDefault": True},
    ]
    seen.hardware.replace(PRIORITY_CLASS, classes, version="1")
    assert [seen.hardware.priority(name) for name in ("high", None, "gone")] == [100, 7, 0]


def test_devices_are_taken_anew_after_a_change_and_whatever_pods_do_they_are_the_same(seen: Seen) -> None:
    seen.hardware.put(NODE, node("a"))
    first = seen.hardware.devices
    seen.pods.put(POD, pod("p"))
    assert seen.hardware.devices is first
    seen.hardware.put(DEVICE_CLASS, {"metadata": {"name": "gpu"}})
    assert seen.hardware.devices is not first


def test_a_pod_that_leaves_has_its_devices_and_is_not_one_of_those_that_are_there(seen: Seen) -> None:
    seen.pods.put(POD, pod("a", plan="h1"))
    seen.pods.put(POD, pod("a", plan="h1", deletionTimestamp="2026-01-01T00:00:00Z"))
    assert seen.hardware.bound_pods(KEY, plan_hash="h1") == seen.hardware.bound_pods(KEY) == 0
    assert [each.resources for each in seen.hardware.records.pods] == [{"nvidia.com/gpu": 2}]


def test_a_pod_that_reads_a_model_is_no_worker(seen: Seen) -> None:
    body = pod("inspect")
    body["metadata"]["labels"] = {MANAGED_BY: MANAGER, DEPLOYMENT: KEY[1]}
    seen.pods.put(POD, body)
    assert seen.hardware.bound_pods(KEY) == 0
