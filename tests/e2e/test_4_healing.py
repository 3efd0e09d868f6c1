"""What is deleted or edited by hand is mended on the real cluster; what is not ours is left alone."""

from __future__ import annotations

import time

import pytest

from cluster.objects import llm, plan_map, uid, wait_for
from e2e.engines import pods
from harness.cluster import Cluster
from harness.waiting import wait_until

pytestmark = pytest.mark.e2e
START_SECONDS = 600
# the target is 5 s (measured in tests/bench); a test waits ten times as long
HEAL_SECONDS = 50
TEMPLATE = {"resources": {"cpu": "250m"}}
OURS = "app.kubernetes.io/managed-by=tonnage"
CHILDREN = ("deployment", "service", "poddisruptionbudget", "configmap", "job", "pod")


def test_children_come_back_and_our_fields_are_reverted(cluster: Cluster, namespace: str) -> None:
    cluster.apply(llm(template=TEMPLATE), namespace=namespace)
    wait_for(cluster, "Ready", "True", namespace=namespace, seconds=START_SECONDS)
    plan = plan_map(cluster, namespace=namespace)["metadata"]["name"]
    for kind, name in (("service", "chat"), ("configmap", plan), ("deployment", "chat")):
        old = uid(cluster, kind, name, namespace=namespace)
        cluster.delete(kind, name, namespace=namespace)

        def anew(kind: str = kind, name: str = name, old: str = old) -> bool:
            return uid(cluster, kind, name, namespace=namespace) not in ("", old)

        wait_until(f"{kind} {name}", anew, seconds=HEAL_SECONDS)
    edit = {"metadata": {"annotations": {"team": "a"}}, "spec": {"replicas": 3, "minReadySeconds": 1}}
    cluster.patch("deployment", "chat", edit, namespace=namespace)

    def reverted() -> bool:
        return bool((cluster.get("deployment", "chat", namespace=namespace) or {})["spec"]["replicas"] == 1)

    wait_until("our field", reverted, seconds=HEAL_SECONDS)
    body = cluster.get("deployment", "chat", namespace=namespace) or {}
    assert body["metadata"]["annotations"]["team"] == "a"
    assert body["spec"]["minReadySeconds"] == 1


def test_deleting_removes_all_it_made(cluster: Cluster, namespace: str) -> None:
    cluster.apply(llm(template=TEMPLATE), namespace=namespace)
    wait_until("a pod", lambda: pods(cluster, "chat", namespace=namespace), seconds=120)
    cluster.delete("llmdep", "chat", namespace=namespace)

    def left() -> list[str]:
        return [
            body["metadata"]["name"]
            for kind in CHILDREN
            for body in cluster.find(kind, namespace=namespace, labels=OURS)
        ]

    wait_until("nothing to be left", lambda: not left(), seconds=300)


@pytest.mark.parametrize("pause", [0.2, 1.0, 4.0])
def test_deleting_halfway_leaves_nothing(cluster: Cluster, namespace: str, pause: float) -> None:
    # another model than before, so that an inspection runs
    model = {"uri": "pvc://models/tiny-gemma3", "servedName": f"m{pause}"}
    half = llm("half", model=model, template=TEMPLATE)
    cluster.apply(half, namespace=namespace)
    time.sleep(pause)
    cluster.delete("llmdep", "half", namespace=namespace)
    selector = f"{OURS},tonnage.dev/deployment=half"

    def left() -> list[str]:
        return [
            body["metadata"]["name"]
            for kind in CHILDREN
            for body in cluster.find(kind, namespace=namespace, labels=selector)
        ]

    wait_until("nothing to be left", lambda: not left(), seconds=300)
    time.sleep(3)
    assert left() == []
