"""A rolling update and the eviction of each pod in turn fail no request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.objects import llm, wait_for
from e2e.engines import pods, service_url
from harness.cluster import Cluster
from harness.engine.models import SMOLLM2
from harness.load import steady
from harness.steps import say
from harness.waiting import wait_until

pytestmark = pytest.mark.e2e
START_SECONDS = 900


def two_replicas(**workload: Any) -> dict[str, Any]:
    return llm(
        replicas=2,
        workload={"contextLength": 2048, "concurrency": 8, "typicalTokens": 512, **workload},
        template={"resources": {"cpu": "250m"}},
    )


def test_a_rolling_update_and_evictions_lose_nothing(cluster: Cluster, namespace: str) -> None:
    cluster.apply(two_replicas(), namespace=namespace)
    wait_for(cluster, "Ready", "True", namespace=namespace, seconds=START_SECONDS)
    url = service_url(cluster, "chat", namespace=namespace)

    with steady(url, model=SMOLLM2) as update:
        before = {pod["metadata"]["uid"] for pod in pods(cluster, "chat", namespace=namespace)}
        cluster.apply(two_replicas(concurrency=12), namespace=namespace)
        wait_for(cluster, "Ready", "True", namespace=namespace, seconds=START_SECONDS)
        after = pods(cluster, "chat", namespace=namespace)
        assert len(after) == 2
        assert not before & {pod["metadata"]["uid"] for pod in after}
        wait_until("the old pods to be gone", lambda: _count(cluster, namespace) == 2, seconds=300)
    say(f"rolling update: {update.report}")
    assert update.report.sent > 40
    assert update.report.failures == [], str(update.report)

    with steady(url, model=SMOLLM2) as eviction:
        for pod in after:
            _evict(cluster, pod, namespace=namespace)
            gone = pod["metadata"]["name"]
            wait_until(
                "the pod to be gone",
                lambda gone=gone: cluster.get("pod", gone, namespace=namespace) is None,  # type: ignore[misc]
                seconds=300,
            )
            wait_for(cluster, "Ready", "True", namespace=namespace, seconds=START_SECONDS)
    say(f"evictions: {eviction.report}")
    assert eviction.report.sent > 40
    assert eviction.report.failures == [], str(eviction.report)


def _count(cluster: Cluster, namespace: str) -> int:
    return len(cluster.find("pods", namespace=namespace, labels="tonnage.dev/component=worker"))


def _evict(cluster: Cluster, pod: dict[str, Any], *, namespace: str) -> None:
    name = pod["metadata"]["name"]
    meta = {"name": name, "namespace": namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
