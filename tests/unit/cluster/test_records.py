"""Objects as records: what is kept of them, whatever was injected, and whatever is missing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.cluster.devices import claim_record, class_record, slice_record
from tonnage.cluster.records import node_record, pod_record, pod_use
from tonnage.gpus.pods import uses_by_node
from tonnage.gpus.slices import Counter, DeviceClass, DeviceRef
from unit.gpus import clusters


def status(name: str, **state: Any) -> dict[str, Any]:
    return {"name": name, "restartCount": 1, "containerID": f"containerd://{name}", **state}


def body(*statuses: dict[str, Any]) -> dict[str, Any]:
    meta = {"namespace": "default", "name": "chat-1", "uid": "p1"}
    return {"metadata": meta, "status": {"phase": "Running", "containerStatuses": list(statuses)}}


def test_our_container_is_read_and_not_the_one_before_it() -> None:
    sidecar = status("a-proxy", state={"running": {}})
    ended = {"exitCode": 1, "reason": "Error", "message": "why"}
    ours = status(
        "engine", state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState={"terminated": ended}
    )
    record = pod_record(body(sidecar, ours))
    assert (record.running, record.waiting_reason, record.container_id) == (
        False,
        "CrashLoopBackOff",
        "containerd://engine",
    )
    assert record.last_exit is not None
    assert record.last_exit.message == "why"


def test_a_pod_without_our_container_says_nothing() -> None:
    assert pod_record(body(status("a-proxy", state={"running": {}}))).running is False


def test_since_when_our_container_runs_and_what_image() -> None:
    ours = status("engine", image="docker.io/a/b:1", state={"running": {"startedAt": "2026-01-01T00:00:10Z"}})
    record = pod_record(body(ours))
    assert (record.started_at, record.image) == (1_767_225_610, "docker.io/a/b:1")
    for time in ("soon", "", None):
        assert pod_record(body(status("engine", state={"running": {"startedAt": time}}))).started_at == 0
    assert pod_record(body(status("engine", state={"waiting": {}}))).started_at == 0


# Nodes, and what pods take of them


def container(requests: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": requests or {}}, **more}


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "a", "name": "p"}, "spec": {"containers": list(containers), **spec}}


GPU = "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("body", "taken"),
    [
        (pod(container({"cpu": "500m", "memory": "1Gi", GPU: "1"})), (500, 2**30, {GPU: 1})),
        # containers add up; limits stand for requests that are missing
        (pod(container({GPU: "2"}), {"resources": {"limits": {GPU: "1", "cpu": "1"}}}), (1000, 0, {GPU: 3})),
        # init containers run one after another, before the others
        (
            pod(container({GPU: "2"}), initContainers=[container({GPU: "4"}), container({GPU: "1"})]),
            (0, 0, {GPU: 4}),
        ),
        # a sidecar stays: with the containers, and with every init container after it
        (
            pod(container({GPU: "2"}), initContainers=[container({GPU: "1"}, restartPolicy="Always")]),
            (0, 0, {GPU: 3}),
        ),
        (
            pod(
                container({GPU: "1"}),
                initContainers=[
                    container({GPU: "2"}),
                    container({GPU: "1"}, restartPolicy="Always"),
                    container({GPU: "4"}),
                ],
            ),
            (0, 0, {GPU: 5}),
        ),
        # requests of the whole pod, and its overhead
        (
            pod(
                container({"cpu": "1", "memory": "1Gi", GPU: "1"}),
                resources={"requests": {"cpu": "4"}},
                overhead={"cpu": "250m", "memory": "1Mi"},
            ),
            (4250, 2**30 + 2**20, {GPU: 1}),
        ),
        # what is not counted, not readable or not there
        (pod(container({"ephemeral-storage": "1Gi", "hugepages-2Mi": "4Mi"})), (0, 0, {})),
        (pod(container({"cpu": "much", GPU: "x"})), (0, 0, {})),
        (pod({}), (0, 0, {})),
        ({"metadata": {"name": "p"}}, (0, 0, {})),
    ],
)
def test_what_a_pod_takes_is_counted_as_kubernetes_does(
    body: dict[str, Any], taken: tuple[int, int, dict[str, int]]
) -> None:
    use = pod_use(body)
    assert (use.cpu_millis, use.memory_bytes, use.resources) == taken


@pytest.mark.parametrize(
    ("has", "allocated", "reason", "cpu_millis"),
    [
        ({"cpu": "4"}, {"cpu": "4"}, "", 4000),  # is made smaller
        ({"cpu": "1"}, {"cpu": "1"}, "Deferred", 2000),  # waits to be made larger
        ({"cpu": "1"}, {"cpu": "3"}, "", 3000),
        ({"cpu": "1"}, {"cpu": "1"}, "Infeasible", 1000),  # never becomes larger here
        (None, None, "", 2000),  # an older kubelet tells nothing
    ],
)
@pytest.mark.parametrize("sidecar", [False, True])
def test_a_container_that_is_resized_takes_what_it_has_and_will_have(
    has: dict[str, str] | None, allocated: dict[str, str] | None, reason: str, cpu_millis: int, sidecar: bool
) -> None:
    one = container({"cpu": "2", GPU: "1"}, name="x")
    body = pod(initContainers=[{**one, "restartPolicy": "Always"}]) if sidecar else pod(one)
    status = {"name": "x", "resources": {"requests": has} if has else None, "allocatedResources": allocated}
    body["status"] = {
        "initContainerStatuses" if sidecar else "containerStatuses": [status],
        "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}] if reason else [],
    }
    use = pod_use(body)
    assert (use.cpu_millis, use.resources) == (cpu_millis, {GPU: 1})


def test_a_pod_that_is_being_deleted_holds_its_devices_until_it_is_gone() -> None:
    body = pod(container({GPU: "1"}), nodeName="n1") | {"status": {"phase": "Running"}}
    going = {**body, "metadata": {**body["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert uses_by_node([pod_use(going)]) == uses_by_node([pod_use(body)])
    ended = {**going, "status": {"phase": "Failed"}}
    assert uses_by_node([pod_use(ended)]) == {}


def test_where_a_pod_runs_and_whose_it_is() -> None:
    body = pod(
        nodeName="n1",
        priority=100,
        resourceClaims=[{"name": "x", "resourceClaimName": "mine"}, {"name": "y"}],
    )
    body["metadata"]["labels"] = {
        "app.kubernetes.io/managed-by": "tonnage",
        "tonnage.dev/deployment": "chat",
    }
    body["status"] = {
        "phase": "Running",
        "resourceClaimStatuses": [{"name": "y", "resourceClaimName": "p-y-1"}],
        "extendedResourceClaimStatus": {"resourceClaimName": "p-extended"},
    }
    use = pod_use(body)
    assert (use.node, use.phase, use.priority, use.deployment) == ("n1", "Running", 100, "chat")
    assert use.claims == ("mine", "p-extended", "p-y-1")
    del body["metadata"]["labels"]["app.kubernetes.io/managed-by"]
    assert pod_use(body).deployment == ""


def test_extended_resources_of_a_node() -> None:
    status = {
        "capacity": {"cpu": "8", "memory": "1Ti", GPU: "8", "example.com/x": "2", "hugepages-1Gi": "0"},
        "allocatable": {"cpu": "7500m", "memory": "900Gi", GPU: "7", "example.com/x": "no"},
    }
    node = node_record({"metadata": {"name": "n"}, "status": status})
    assert node.capacity == {GPU: 8, "example.com/x": 2}
    assert node.allocatable == {GPU: 7, "example.com/x": 0}
    assert (node.cpu_allocatable_millis, node.memory_allocatable_bytes) == (7500, 900 * 2**30)
    assert node_record({"metadata": {"name": "n"}}).capacity == {}


# Dynamic Resource Allocation


def test_a_slice_is_read() -> None:
    body = {
        "metadata": {"name": "s"},
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": "n",
            "pool": {"name": "n", "generation": 3, "resourceSliceCount": 2},
            "sharedCounters": [{"name": "set", "counters": {"memory": {"value": "40Gi"}}}],
            "devices": [
                {
                    "name": "gpu-0",
                    "attributes": {
                        "gpu.nvidia.com/type": {"string": "gpu"},
                        "cudaComputeCapability": {"version": "9.0.0"},
                        "index": {"int": 1},
                        "whole": {"bool": True},
                        "resource.kubernetes.io/pcieRoot": {"string": "pci0000:00"},
                        "odd": {},
                    },
                    "capacity": {"memory": {"value": "80Gi"}, "bad": {"value": "x"}, "none": None},
                    "consumesCounters": [{"counterSet": "set", "counters": {"memory": {"value": "40Gi"}}}],
                    "taints": [{"key": "xid", "effect": "NoExecute"}],
                }
            ],
        },
    }
    found = slice_record(body)
    assert (found.driver, found.pool, found.generation, found.slices_in_pool, found.node) == (
        "gpu.nvidia.com",
        "n",
        3,
        2,
        "n",
    )
    assert found.counters == (Counter("set", "memory", 40 * 2**30),)
    (device,) = found.devices
    assert device.attributes == {
        "type": "gpu",
        "cudaComputeCapability": "9.0.0",
        "index": "1",
        "whole": "true",
        "resource.kubernetes.io/pcieRoot": "pci0000:00",
        "odd": "",
    }
    assert device.capacity == {"memory": 80 * 2**30, "bad": 0, "none": 0}
    assert device.consumes == (Counter("set", "memory", 40 * 2**30),)
    assert [taint.effect for taint in device.taints] == ["NoExecute"]


def test_what_is_allocated_to_a_claim() -> None:
    result = {"driver": "gpu.nvidia.com", "pool": "n", "device": "gpu-0", "request": "r"}
    admin = {**result, "device": "gpu-1", "adminAccess": True}
    body = {
        "metadata": {"namespace": "a", "name": "c"},
        "status": {"allocation": {"devices": {"results": [result, admin]}}},
    }
    assert claim_record(body).devices == (DeviceRef("gpu.nvidia.com", "n", "gpu-0"),)
    assert claim_record({"metadata": {"namespace": "a", "name": "c"}}).devices == ()


def test_a_device_class_is_read() -> None:
    assert class_record({"metadata": {"name": "x"}, "spec": {}}) == DeviceClass(name="x")


def spoiled(value: Any, draw: st.DrawFn) -> Any:
    """The same with some parts missing or null, as their types allow, and some texts replaced."""
    if isinstance(value, dict):
        kept = {key: spoiled(part, draw) for key, part in value.items() if draw(st.integers(0, 9))}
        return kept if draw(st.integers(0, 19)) else None
    if isinstance(value, list):
        return [spoiled(part, draw) or {} for part in value] if draw(st.integers(0, 19)) else None
    if not isinstance(value, str) or draw(st.integers(0, 9)):
        return value
    return draw(st.sampled_from(["", "x", "-1", "9" * 40, "1e99999"]))


@given(data=st.data())
def test_missing_parts_never_raise(data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(clusters.bodies()))
    spec, status = (spoiled(body.get(key, {}), data.draw) for key in ("spec", "status"))
    broken = {**body, "spec": spec, "status": status}
    clusters.read([broken]).inventory()


BUSY = pod(
    container({"cpu": "1", GPU: "1"}, name="x", resizePolicy=[]),
    initContainers=[container({"memory": "1Gi"}, name="y", restartPolicy="Always"), container({GPU: "2"})],
    resources={"requests": {"cpu": "4"}},
    overhead={"cpu": "250m"},
    resourceClaims=[{"name": "x", "resourceClaimName": "mine"}],
    nodeName="n1",
) | {
    "status": {
        "phase": "Running",
        "containerStatuses": [{"name": "x", "resources": {"requests": {"cpu": "1"}}}],
        "initContainerStatuses": [{"name": "y", "allocatedResources": {"cpu": "1"}, "resources": {}}],
        "conditions": [{"type": "PodResizePending", "reason": "Infeasible"}],
        "resourceClaimStatuses": [{"name": "y", "resourceClaimName": "p-y-1"}],
        "extendedResourceClaimStatus": {"resourceClaimName": "p-extended"},
    }
}


@given(data=st.data())
def test_missing_parts_of_pods_never_raise_and_take_nothing_back(data: st.DataObject) -> None:
    spec, status = (spoiled(BUSY[key], data.draw) for key in ("spec", "status"))
    use = pod_use({**BUSY, "spec": spec, "status": status})
    assert min(use.cpu_millis, use.memory_bytes, *use.resources.values()) >= 0
