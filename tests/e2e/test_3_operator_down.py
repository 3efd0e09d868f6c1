"""Serving does not need the operator."""

from __future__ import annotations

import pytest

from cluster.objects import llm, wait_for
from e2e.engines import ask_from_a_pod, chat, is_ready, pods, serve_page, service_url
from harness import chart
from harness.cluster import Cluster
from harness.engine.models import SMOLLM2
from harness.waiting import wait_until

pytestmark = pytest.mark.e2e
START_SECONDS = 600


def test_a_killed_worker_comes_back_and_serves(cluster: Cluster, namespace: str) -> None:
    cluster.apply(llm(template={"resources": {"cpu": "250m"}}), namespace=namespace)
    wait_for(cluster, "Ready", "True", namespace=namespace, seconds=START_SECONDS)
    (pod,) = pods(cluster, "chat", namespace=namespace)
    chart.scale_operator(cluster, 0)
    try:
        name = pod["metadata"]["name"]
        cluster.kubectl("delete", "pod", name, "-n", namespace, "--grace-period=0", "--force")

        def back() -> bool:
            now = pods(cluster, "chat", namespace=namespace)
            return bool(now and is_ready(now[0]) and now[0]["metadata"]["uid"] != pod["metadata"]["uid"])

        wait_until("a new worker", back, seconds=START_SECONDS)
        (new,) = pods(cluster, "chat", namespace=namespace)
        assert '"state": "Verified"' in serve_page(new, "/capacity")
        assert SMOLLM2 in ask_from_a_pod(cluster, "chat", namespace=namespace)
        answer = chat(service_url(cluster, "chat", namespace=namespace), model=SMOLLM2)
        assert "Paris" in answer["choices"][0]["message"]["content"]
    finally:
        chart.scale_operator(cluster, 1)
    wait_for(cluster, "Ready", "True", namespace=namespace)
