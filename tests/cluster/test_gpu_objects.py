"""Objects on GPUs from the spec to verified workers: who gets which devices, who waits, what stays."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.objects import NOT_BUILT, condition, generation, llm, plan_map, uid, wait_for
from cluster.operator_process import OperatorProcess
from harness.cluster import Cluster
from harness.simulated_workers import SimulatedWorkers, simulated_workers
from harness.simulation import add_nodes
from harness.waiting import wait_until
from unit.gpus import clusters

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="simulated workers need root"),
]
GPU = clusters.GPU
H100, L4 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-L4"
HIGH = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "gpu-objects-high"},
    "value": 1000,
}
LARGER = {"contextLength": 4096, "concurrency": 8, "typicalTokens": 512}


class Room:
    """Nodes of one test, and objects that may use no others."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.nodes: list[str] = []
        self.others: list[dict[str, Any]] = []

    def add(self, like: str, *, gpus: int) -> str:
        """A node like one of tests/data/accelerators.yaml, with as many GPUs."""
        body = clusters.body("Node", like)
        name = f"{self.namespace[:40]}-{len(self.nodes)}"
        own = {"kubernetes.io/hostname": name, "room": self.namespace}
        labels = {**body["metadata"]["labels"], **own}
        status = {key: dict(body["status"][key]) for key in ("capacity", "allocatable")}
        if gpus:
            labels[f"{GPU}.count"] = str(gpus)
            for amounts in status.values():
                amounts[GPU] = str(gpus)
        add_nodes(self.cluster, {**body, "metadata": {"name": name, "labels": labels}, "status": status})
        self.nodes.append(name)
        return name

    def claimable(self, node: str) -> None:
        """Publish the two devices of `dra-0` for a node, and the class to claim them by."""
        found = clusters.body("ResourceSlice", "dra-0-gpu.nvidia.com-x7k2p")
        spec = {**found["spec"], "nodeName": node, "pool": {**found["spec"]["pool"], "name": node}}
        published = {**found, "metadata": {"name": f"{node}-gpu"}, "spec": spec}
        device_class = clusters.body("DeviceClass", "gpu.nvidia.com")
        self.others += [published, device_class]
        self.cluster.apply(published, device_class)

    def hold(self, node: str, *, gpus: int) -> None:
        """A pod of somebody else that has devices of a node."""
        resources = {"limits": {GPU: str(gpus)}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{node}-holder", "namespace": "default"},
            "spec": {
                "nodeName": node,
                "containers": [{"name": "x", "image": "x", "resources": resources}],
                "tolerations": [{"operator": "Exists"}],
            },
        }
        self.others.append(pod)
        self.cluster.apply(pod)

    def release(self, node: str) -> None:
        """Somebody else's pod ends."""
        self.cluster.kubectl("delete", "pod", f"{node}-holder", "--grace-period=0", "--force")

    def put(self, name: str, **fields: Any) -> None:
        """An object of the small model on a GPU of this room."""
        template = {"nodeSelector": {"room": self.namespace}, **fields.pop("template", {})}
        base = {"hardware": {"accelerator": "GPU"}, "template": template}
        self.cluster.apply(llm(name, **{**base, **fields}), namespace=self.namespace)

    def is_ready(self, *names: str) -> None:
        """Wait until objects serve by plans that their workers have verified."""
        for name in names:
            for kind in ("Planned", "CapacityVerified", "Ready"):
                wait_for(self.cluster, kind, "True", namespace=self.namespace, name=name)

    def waits(self, name: str, reason: str = "NotEnoughGpus") -> str:
        """Wait until an object is refused its plan for this reason; the message."""
        found = wait_for(self.cluster, "Planned", "False", namespace=self.namespace, name=name, reason=reason)
        return str(found["message"])

    def plan(self, name: str) -> dict[str, Any]:
        """`status.plan`."""
        body = self.cluster.get("llmdep", name, namespace=self.namespace)
        assert body is not None
        found: dict[str, Any] = body["status"]["plan"]
        return found

    def workers(self, name: str) -> list[dict[str, Any]]:
        """Its worker pods that are not leaving."""
        labels = f"tonnage.dev/deployment={name},tonnage.dev/component=worker"
        found = self.cluster.find("pods", namespace=self.namespace, labels=labels)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def bound(self, name: str) -> list[str]:
        """The nodes of its workers."""
        return [pod["spec"]["nodeName"] for pod in self.workers(name) if "nodeName" in pod["spec"]]

    def changed_from(self, name: str, before: dict[str, Any]) -> dict[str, Any]:
        """Wait for another plan."""

        def other() -> dict[str, Any] | None:
            now = self.plan(name)
            return now if now["hash"] != before["hash"] else None

        return wait_until("another plan", other)

    def end(self) -> None:
        """Remove everything that belongs to no namespace; what runs there first."""
        self.cluster.kubectl("delete", "llmdep", "--all", "-n", self.namespace)
        self.cluster.kubectl("delete", "pods", "--all", "-n", self.namespace, "--grace-period=0", "--force")
        self.cluster.remove(*self.others)
        for name in self.nodes:
            self.cluster.delete("node", name)


@pytest.fixture(scope="module")
def workers(cluster: Cluster) -> Iterator[SimulatedWorkers]:
    """Workers that answer."""
    cluster.apply(HIGH)
    with simulated_workers(cluster) as running:
        yield running
    cluster.remove(HIGH)


@pytest.fixture
def room(
    cluster: Cluster, operator: OperatorProcess, workers: SimulatedWorkers, namespace: str
) -> Iterator[Room]:
    """A room without nodes, in a cluster whose operator runs and whose workers answer."""
    found = Room(cluster, namespace)
    yield found
    found.end()


def test_an_object_on_gpus_is_planned_placed_and_verified(room: Room) -> None:
    """There is a smaller card too, which is not among the products that are allowed."""
    room.add("l4-0", gpus=2)
    node = room.add("h100-0", gpus=2)
    room.put("chat", hardware={"accelerator": "GPU", "products": [H100]}, replicas=2)
    room.is_ready("chat")
    plan = room.plan("chat")
    placement = plan["placement"]
    assert (placement["product"], placement["gpusPerReplica"], placement["access"]) == (H100, 1, "Resource")
    assert room.bound("chat") == [node, node]
    for pod in room.workers("chat"):
        (container,) = pod["spec"]["containers"]
        assert container["resources"]["limits"][GPU] == "1"
        given = container["args"][container["args"].index("--kv-cache-memory-bytes") + 1]
        assert int(given) == plan["kv"]["blocks"] * plan["kv"]["bytesPerBlock"]
    body = room.cluster.get("llmdep", "chat", namespace=room.namespace) or {}
    assert body["status"]["gpuSummary"] == f"1x {H100}"
    assert body["status"]["observed"]["blocks"] == plan["kv"]["blocks"]


def test_of_two_that_want_the_last_gpu_one_learns_who_has_it_and_takes_it_up_once_it_is_free(
    room: Room,
) -> None:
    node = room.add("h100-0", gpus=1)
    room.put("first")
    room.is_ready("first")
    room.put("second")
    assert f"1 by {room.namespace}/first" in room.waits("second")
    assert room.bound("second") == []
    room.cluster.delete("llmdep", "first", namespace=room.namespace)
    room.is_ready("second")
    assert room.bound("second") == [node]


def test_whoever_has_priority_is_first_whoever_asked_first(room: Room) -> None:
    node = room.add("h100-0", gpus=1)
    room.hold(node, gpus=1)
    room.put("older")
    assert "1 by other pods" in room.waits("older")
    room.put("urgent", template={"priorityClassName": HIGH["metadata"]["name"]})
    room.waits("urgent")
    room.release(node)
    room.is_ready("urgent")
    assert f"1 by {room.namespace}/urgent" in wait_until(
        "the older one to be told", lambda: (text := room.waits("older")) and "urgent" in text and text
    )
    assert (room.bound("urgent"), room.bound("older")) == ([node], [])
    room.cluster.delete("llmdep", "urgent", namespace=room.namespace)
    room.is_ready("older")


def test_many_that_compete_settle_in_their_order_without_a_double_booking(room: Room) -> None:
    two, one = room.add("h100-0", gpus=2), room.add("h100-0", gpus=1)
    room.hold(two, gpus=2)
    room.hold(one, gpus=1)
    names = [f"o{number}" for number in range(6)]
    urgent = {"priorityClassName": HIGH["metadata"]["name"]}
    for name in reversed(names):
        room.put(name, template=urgent if name in names[:2] else {})
    for name in names:
        room.waits(name)
    ranked = sorted(names, key=lambda name: (name not in names[:2], created(room, name), name))
    room.release(two)
    room.is_ready(*ranked[:2])
    room.release(one)
    room.is_ready(ranked[2])
    assert sorted(node for name in ranked[:3] for node in room.bound(name)) == sorted([two, two, one])
    for gone, next_ in zip(ranked[:3], ranked[3:], strict=True):
        assert [room.bound(name) for name in ranked[ranked.index(next_) :]] == [[]] * (
            6 - ranked.index(next_)
        )
        room.cluster.delete("llmdep", gone, namespace=room.namespace)
        room.is_ready(next_)


def created(room: Room, name: str) -> str:
    body = room.cluster.get("llmdep", name, namespace=room.namespace)
    assert body is not None
    return str(body["metadata"]["creationTimestamp"])


def test_nodes_that_come_and_go_change_no_plan_and_the_annotation_does(room: Room) -> None:
    node = room.add("l4-0", gpus=1)
    room.put("chat")
    room.is_ready("chat")
    before, rolled = room.plan("chat"), generation(room.cluster, room.namespace)
    assert before["placement"]["product"] == L4
    larger = room.add("h100-0", gpus=2)
    room.cluster.kubectl("cordon", node)
    room.cluster.kubectl("label", "node", node, "nvidia.com/gpu.memory=1", "--overwrite")
    time.sleep(3)
    assert (room.plan("chat"), generation(room.cluster, room.namespace)) == (before, rolled)
    room.cluster.kubectl("annotate", "llmdep/chat", "tonnage.dev/replan=1", "-n", room.namespace)
    after = room.changed_from("chat", before)
    assert after["placement"]["product"] == H100
    room.is_ready("chat")
    wait_until("the new pod alone", lambda: room.bound("chat") == [larger])
    # once is enough, and the plan of before is gone
    rolled = generation(room.cluster, room.namespace)
    wait_until(
        "the old plan to go",
        lambda: not uid(room.cluster, "configmap", f"chat-plan-{before['hash']}", namespace=room.namespace),
    )
    assert generation(room.cluster, room.namespace) == rolled


def test_a_new_plan_without_room_beside_waits_until_there_is_some(room: Room) -> None:
    node = room.add("h100-0", gpus=1)
    room.put("chat")
    room.is_ready("chat")
    before, rolled = room.plan("chat"), generation(room.cluster, room.namespace)
    room.put("chat", workload=LARGER)
    assert "rollout.allowDowntime" in room.waits("chat", "NoRoomForSurge")
    assert condition(room.cluster, "Available", namespace=room.namespace)["status"] == "True"
    assert (room.bound("chat"), generation(room.cluster, room.namespace)) == ([node], rolled)
    beside = room.add("h100-0", gpus=1)
    room.changed_from("chat", before)
    room.is_ready("chat")
    wait_until("the new pod alone", lambda: room.bound("chat") == [beside])


def test_one_that_may_go_down_makes_room_for_its_new_plan(room: Room) -> None:
    """Three pods of one GPU each give way to one of three."""
    node = room.add("h100-0", gpus=3)
    room.put("chat", replicas=3)
    room.is_ready("chat")
    before = room.plan("chat")
    together = {"accelerator": "GPU", "parallelism": {"tensor": 3}}
    room.put("chat", replicas=1, hardware=together)
    room.waits("chat", "NoRoomForSurge")
    assert room.bound("chat") == [node] * 3
    room.put("chat", replicas=1, hardware=together, rollout={"allowDowntime": True})
    after = room.changed_from("chat", before)
    assert after["placement"]["gpusPerReplica"] == 3
    room.is_ready("chat")
    assert room.bound("chat") == [node]


def test_a_refused_spec_leaves_the_last_good_one_its_devices(room: Room) -> None:
    node = room.add("h100-0", gpus=1)
    room.put("chat")
    room.is_ready("chat")
    plan = plan_map(room.cluster, namespace=room.namespace)["metadata"]["name"]
    rolled = generation(room.cluster, room.namespace)
    room.put("other")
    room.waits("other")
    for fields, kind, reason in (
        ({"cache": NOT_BUILT}, "Accepted", "NotSupportedYet"),
        ({"workload": {"contextLength": 1_000_000}}, "Planned", "ContextTooLong"),
        ({"hardware": {"accelerator": "GPU", "products": [L4]}}, "Planned", "ProductNotAllowed"),
    ):
        room.put("chat", **fields)
        wait_for(room.cluster, kind, "False", namespace=room.namespace, reason=reason)
        (pod,) = room.workers("chat")
        room.cluster.delete("pod", pod["metadata"]["name"], namespace=room.namespace)
        wait_until("its pod again", lambda: room.bound("chat") == [node])
        assert room.bound("other") == []
        assert f"1 by {room.namespace}/chat" in room.waits("other")
    assert generation(room.cluster, room.namespace) == rolled
    assert room.cluster.get("configmap", plan, namespace=room.namespace) is not None
    room.put("chat")
    room.is_ready("chat")


def run_out(room: Room, *, missing: int) -> None:
    """The engine of a worker ends for want of so many bytes of its device, and is started again."""
    (pod,) = room.workers("chat")
    figures = {"triedBytes": missing + 2**30, "freeBytes": 2**30}
    message = {"reason": "OutOfMemory", "message": "CUDA out of memory", "exitCode": 1, "figures": figures}
    (engine,) = pod["status"]["containerStatuses"]
    ended = {"exitCode": 1, "reason": "Error", "message": json.dumps(message)}
    statuses = [{**engine, "restartCount": 1, "lastState": {"terminated": ended}}]
    change = {"status": {"containerStatuses": statuses}}
    room.cluster.patch("pod", pod["metadata"]["name"], change, namespace=room.namespace, subresource="status")


def test_a_worker_that_runs_out_of_memory_gets_a_plan_that_keeps_more_free_once(room: Room) -> None:
    """On the one device that there is: the pod that fails gives way."""
    node = room.add("h100-0", gpus=1)
    room.put("chat")
    room.is_ready("chat")
    before = room.plan("chat")
    run_out(room, missing=3 * 2**30)
    after = room.changed_from("chat", before)
    given_up = before["memoryBytes"]["kv"] - after["memoryBytes"]["kv"]
    assert abs(given_up - 3.5 * 2**30) < after["kv"]["bytesPerBlock"]
    wait_until("the new pod alone", lambda: room.bound("chat") == [node] and len(room.workers("chat")) == 1)
    room.is_ready("chat")
    planned = condition(room.cluster, "Planned", namespace=room.namespace)
    assert "3.50 GiB of each device are kept free" in planned["message"]
    run_out(room, missing=2**30)
    time.sleep(3)
    assert room.plan("chat") == after


def test_devices_that_are_claimed_come_by_a_template_that_goes_with_its_plan(room: Room) -> None:
    node = room.add("dra-0", gpus=0)
    room.claimable(node)
    room.put("chat")
    room.is_ready("chat")
    before = room.plan("chat")
    assert before["placement"]["access"] == "Claim"
    assert room.bound("chat") == [node]
    name = f"chat-plan-{before['hash']}"
    there = room.cluster.get("resourceclaimtemplates", name, namespace=room.namespace)
    assert there is not None
    room.cluster.delete("resourceclaimtemplates", name, namespace=room.namespace)
    wait_until(
        "the template again",
        lambda: (
            uid(room.cluster, "resourceclaimtemplates", name, namespace=room.namespace)
            not in ("", there["metadata"]["uid"])
        ),
    )
    room.put("chat", workload=LARGER)
    after = room.changed_from("chat", before)
    room.is_ready("chat")
    wait_until(
        "the old template to go",
        lambda: not uid(room.cluster, "resourceclaimtemplates", name, namespace=room.namespace),
    )
    assert uid(room.cluster, "resourceclaimtemplates", f"chat-plan-{after['hash']}", namespace=room.namespace)
    # both devices have been seen as free again, once the first pod had gone
    room.put("second")
    room.is_ready("second")
    room.put("third")
    message = room.waits("third")
    assert all(f"1 by {room.namespace}/{name}" in message for name in ("chat", "second"))
    room.cluster.delete("llmdep", "chat", namespace=room.namespace)
    room.is_ready("third")
