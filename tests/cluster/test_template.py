"""What the template becomes on a real control plane: restricted pods, where they were asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.objects import generation, llm, wait_for
from cluster.operator_process import ACCOUNT, OperatorProcess, operator_process
from harness.cluster import Cluster
from harness.models_volume import make_claim
from harness.simulation import add_node, remove_node
from harness.waiting import wait_until
from unit.rendering.test_template import WHOLE

pytestmark = pytest.mark.cluster
OTHER_PORT = 18540
CLASSES: list[dict[str, Any]] = [
    {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "high"},
        "value": 1000,
    },
    {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "nvidia"},
        "handler": "nvidia",
    },
]


@pytest.fixture(scope="module")
def places(cluster: Cluster) -> Iterator[None]:
    """Nodes of two zones, and of a third that the template does not allow."""
    cluster.apply(*CLASSES)
    for zone in ("a", "b", "c"):
        labels = {"zone": zone, "disk": "ssd", "placed": "yes"}
        add_node(cluster, f"zone-{zone}", cpu="4k", memory="256Gi", labels=labels)
    yield
    for zone in ("a", "b", "c"):
        remove_node(cluster, f"zone-{zone}")


def placed(**changes: Any) -> dict[str, Any]:
    """The whole template, for the default scheduler."""
    template = {**WHOLE, "nodeSelector": {"placed": "yes"}, **changes}
    return {name: value for name, value in template.items() if name != "schedulerName"}


def make_neighbours(cluster: Cluster, namespace: str) -> None:
    """What the template names: a ServiceAccount and a claim."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "worker"}}
    cluster.apply(account, namespace=namespace)
    make_claim(cluster, Path("/models"), namespace=namespace, name="adapters")


def pods(cluster: Cluster, namespace: str, count: int) -> list[dict[str, Any]]:
    """The worker pods, as soon as that many have a node."""

    def found() -> list[dict[str, Any]]:
        workers = cluster.find("pods", namespace=namespace, labels="tonnage.dev/component=worker")
        bound = [pod for pod in workers if pod["spec"].get("nodeName")]
        return bound if len(bound) == count else []

    return wait_until(f"{count} pods", found, seconds=60)


def test_the_whole_template_becomes_restricted_pods_in_their_places(
    cluster: Cluster, operator: OperatorProcess, namespace: str, places: None
) -> None:
    make_neighbours(cluster, namespace)
    cluster.apply(llm(template=placed(), replicas=2), namespace=namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    found = pods(cluster, namespace, 2)
    assert {pod["spec"]["nodeName"] for pod in found} == {"zone-a", "zone-b"}
    for pod in found:
        spec = pod["spec"]
        assert spec["serviceAccountName"] == "worker"
        assert spec["automountServiceAccountToken"] is False
        assert spec["runtimeClassName"] == "nvidia"
        assert spec["priority"] == 1000
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds == {"persistentVolumeClaim", "configMap", "emptyDir", "secret"}
        assert [container["name"] for container in spec["containers"]] == ["engine"]
        assert pod["metadata"]["namespace"] == namespace


def test_the_whole_template_is_applied_once_also_after_a_restart(
    cluster: Cluster, operator: OperatorProcess, namespace: str, places: None
) -> None:
    make_neighbours(cluster, namespace)
    cluster.apply(llm(template=placed()), namespace=namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    before = generation(cluster, namespace)
    time.sleep(3)
    position = cluster.audit.position()
    operator.stop()
    with operator_process(cluster, port=OTHER_PORT, identity="second"):
        time.sleep(8)
        mine = [w for w in cluster.audit.writes(after=position, user=ACCOUNT) if w.namespace == namespace]
    assert mine == []
    assert generation(cluster, namespace) == before


def test_a_place_that_no_node_has_is_said_before_a_pod_exists(
    cluster: Cluster, namespace: str, places: None
) -> None:
    nowhere = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z"]}]},
                {"matchExpressions": [{"key": "zone", "operator": "Gt", "values": ["7"]}]},
            ]
        }
    }
    with operator_process(cluster, port=OTHER_PORT, identity="third"):
        cluster.apply(llm(template={"affinity": {"nodeAffinity": nowhere}}), namespace=namespace)
        found = wait_for(cluster, "Planned", "False", namespace=namespace, reason="NoUsableNode")
    assert "required node affinity zone In z or zone Gt 7 does not match" in found["message"]
    assert cluster.get("deployment", "chat", namespace=namespace) is None


def test_a_service_account_of_another_namespace_is_out_of_reach(
    cluster: Cluster, namespace: str, places: None
) -> None:
    """A name is looked for in the object's own namespace: one that exists only elsewhere starts nothing."""
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "elsewhere"}}, namespace="default"
    )
    with operator_process(cluster, port=OTHER_PORT, identity="fourth"):
        cluster.apply(llm(template={"serviceAccountName": "elsewhere"}), namespace=namespace)
        found = wait_for(cluster, "Degraded", "True", namespace=namespace, reason="FailedCreate")
    assert "elsewhere" in found["message"]
    assert cluster.find("pods", namespace=namespace, labels="tonnage.dev/component=worker") == []
