"""An engine that holds less than planned never serves, and what served before goes on through the attempt."""

from __future__ import annotations

import time

import pytest

from cluster.objects import condition, llm, wait_for
from e2e.engines import is_ready, pods, serve_page, service_url
from harness.cluster import Cluster
from harness.engine.models import SMOLLM2
from harness.load import steady
from harness.waiting import wait_until

pytestmark = pytest.mark.e2e
START_SECONDS = 600
TEMPLATE = {"resources": {"cpu": "250m"}}
# read by the test image's launcher, which appends it to the engine's arguments
FEWER_BLOCKS = {"env": [{"name": "TEST_ENGINE_ARGS", "value": "--num-gpu-blocks-override 19"}]}


def test_fewer_blocks_than_planned_never_become_ready(cluster: Cluster, namespace: str) -> None:
    cluster.apply(llm(template=TEMPLATE), namespace=namespace)
    wait_for(cluster, "Ready", "True", namespace=namespace, seconds=START_SECONDS)
    planned = (cluster.get("llmdep", "chat", namespace=namespace) or {})["status"]["plan"]["kv"]["blocks"]
    old = {pod["metadata"]["uid"] for pod in pods(cluster, "chat", namespace=namespace)}

    with steady(service_url(cluster, "chat", namespace=namespace), model=SMOLLM2) as load:
        cluster.apply(llm(template=TEMPLATE, engine=FEWER_BLOCKS), namespace=namespace)
        found = wait_for(
            cluster,
            "CapacityVerified",
            "False",
            namespace=namespace,
            reason="CapacityMismatch",
            seconds=START_SECONDS,
        )
        assert "19" in found["message"]
        assert str(planned) in found["message"]
        time.sleep(15)
        now = pods(cluster, "chat", namespace=namespace)
        ready = {pod["metadata"]["uid"] for pod in now if is_ready(pod)}
        assert ready == old
        refused = [pod for pod in now if pod["metadata"]["uid"] not in old]
        assert [pod["status"]["containerStatuses"][0]["restartCount"] for pod in refused] == [0]
        assert condition(cluster, "Degraded", namespace=namespace)["reason"] == "CapacityMismatch"
        assert condition(cluster, "Available", namespace=namespace)["status"] == "True"
        assert condition(cluster, "Ready", namespace=namespace)["status"] == "False"
        cluster.apply(llm(template=TEMPLATE, engine={"env": []}), namespace=namespace)
        wait_for(cluster, "Ready", "True", namespace=namespace, seconds=START_SECONDS)
    assert load.report.sent > 20
    assert load.report.failures == [], str(load.report)


def test_a_restarted_container_is_verified_again(cluster: Cluster, namespace: str) -> None:
    cluster.apply(llm(template=TEMPLATE), namespace=namespace)
    wait_for(cluster, "Ready", "True", namespace=namespace, seconds=START_SECONDS)
    (pod,) = pods(cluster, "chat", namespace=namespace)
    name = pod["metadata"]["name"]
    script = (
        "import os,signal;"
        "[os.kill(int(p),signal.SIGKILL) for p in os.listdir('/proc') if p.isdigit() and int(p)>1 "
        "and int(p)!=os.getpid() and b'api_server' in open(f'/proc/{p}/cmdline','rb').read()]"
    )
    cluster.kubectl("exec", name, "-n", namespace, "--", "python3", "-c", script, check=False)

    def restarted() -> bool:
        body = cluster.get("pod", name, namespace=namespace) or {}
        return bool(body["status"]["containerStatuses"][0]["restartCount"] == 1 and not is_ready(body))

    wait_until("a restart that is not ready yet", restarted, seconds=120)
    wait_until(
        "the container to be ready again",
        lambda: is_ready(cluster.get("pod", name, namespace=namespace) or {"status": {}}),
        seconds=START_SECONDS,
    )
    (pod,) = pods(cluster, "chat", namespace=namespace)
    assert '"state": "Verified"' in serve_page(pod, "/capacity")
    exit_message = pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["message"]
    assert "reason" in exit_message
    wait_for(cluster, "CapacityVerified", "True", namespace=namespace)
